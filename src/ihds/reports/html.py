"""The report of a survival study: curves, forest plot, tables and provenance in one HTML file."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ihds.analysis.result import Result
from ihds.analysis.summary import is_effect, number, ratio_name
from ihds.cohorts.cohort import Cohort, Study


def write_report(
    path: Path,
    model: Result,
    curves: Result,
    test: Result,
    proofs: list[dict[str, Any]],
    difference: float | None = None,
) -> None:
    """Write the report; pictures are SVG inside the page, nothing is fetched from elsewhere."""
    environment = Environment(
        loader=PackageLoader("ihds.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number
    page = environment.get_template("study.html").render(
        model=model,
        curves=curves,
        test=test,
        proofs=proofs,
        difference=difference,
        forest=_svg(model),
        survival=_svg(curves),
        provenance=model.provenance,
    )
    path.write_text(page, encoding="utf-8")


def write_study(path: Path, cohort: Cohort, study: Study, results: list[Result], proofs: list[dict[str, Any]]) -> None:
    """Write the report of a cohort's study: a question, and per step a picture, a table and how to read it."""
    environment = Environment(
        loader=PackageLoader("ihds.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    steps = [
        {
            "heading": step.heading,
            "reading": step.reading,
            "method": step.method,
            "picture": _svg(result),
            "sentences": sentences(result),
            "text": result.summary().split("\n\nstudy urn")[0],
            "params": ", ".join(f"{k} = {v}" for k, v in step.params.items()),
            "rounds": result.rounds,
            "bytes": sum(part["bytes"] for part in result.provenance.get("left_each_site", [])),
        }
        for step, result in zip(study.steps, results, strict=True)
    ]
    page = environment.get_template("cohort.html").render(
        cohort=cohort, study=study, steps=steps, proofs=proofs, provenance=results[0].provenance
    )
    path.write_text(page, encoding="utf-8")


def sentences(result: Result) -> list[str]:
    """Return what the coefficients say, one sentence each, where ratios are reported."""
    name = ratio_name(result)
    found = []
    for c in result.coefficients if name else ():
        if not is_effect(c):
            continue
        low, middle, high = (math.exp(min(v, 50)) for v in (c.lower, c.estimate, c.upper))
        clear = "" if (c.lower > 0) == (c.upper > 0) else "; the data are compatible with no difference"
        found.append(f"{c.term}: {name} {middle:.2f} (95 % {low:.2f} to {high:.2f}){clear}.")
    return found


def _svg(result: Result) -> str:
    buffer = io.StringIO()
    result.plot().savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
