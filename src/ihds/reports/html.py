"""The report of a survival study: curves, forest plot, tables and provenance in one HTML file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ihds.analysis.result import Result
from ihds.analysis.summary import number


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


def _svg(result: Result) -> str:
    buffer = io.StringIO()
    result.plot().savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
