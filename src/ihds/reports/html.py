"""Reports in one HTML file: the demonstration's survival study, and a cohort's study in the order of a guideline."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ihds.analysis.result import Result
from ihds.analysis.summary import number
from ihds.cohorts.cohort import Cohort, Step, Study
from ihds.reports.checklist import CHECKLISTS, FACTS, PARTLY, Known
from ihds.reports.words import sentences, tables
from ihds.wire import pages


def page_of(template: str, **values: Any) -> str:
    """Return a page made from a template of this folder; it needs nothing from elsewhere."""
    return pages.page_of("ihds.reports", template, {"number": number}, **values)


def write_report(
    path: Path,
    model: Result,
    curves: Result,
    test: Result,
    proofs: list[dict[str, Any]],
    difference: float | None = None,
) -> None:
    """Write the report; pictures are SVG inside the page, nothing is fetched from elsewhere."""
    page = page_of(
        "study.html",
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
    """Write the report of a cohort's study in the order of its guideline; each step in words, picture and tables."""
    checklist, known = CHECKLISTS[study.checklist], Known(cohort, study, results)
    steps = [(checklist.item_of(step), _step(step, r, known)) for step, r in zip(study.steps, results, strict=True)]
    sections: list[dict[str, Any]] = []
    for item in checklist.items:
        if not sections or sections[-1]["title"] != item.section:
            sections.append({"title": item.section, "content": []})
        told = {
            "number": item.number,
            "asks": item.asks,
            "facts": FACTS[item.facts](known) if item.facts else [],
            "partly": item.facts in PARTLY,
            "steps": [step for number, step in steps if number == item.number],
        }
        sections[-1]["content"].append(told)
    page = page_of(
        "cohort.html",
        cohort=cohort,
        study=study,
        checklist=checklist,
        sections=sections,
        short=[(step["heading"], step["sentences"][1]) for _, step in steps if len(step["sentences"]) > 1],
        proofs=proofs,
        provenance=results[0].provenance,
    )
    path.write_text(page, encoding="utf-8")


def _step(step: Step, result: Result, known: Known) -> dict[str, Any]:
    return {
        "heading": step.heading,
        "reading": step.reading,
        "method": step.method,
        "picture": _svg(result),
        "sentences": sentences(result, known.book),
        "tables": tables(result, known.book),
        "text": result.summary().split("\n\nstudy urn")[0],
        "params": ", ".join(f"{k} = {v}" for k, v in step.params.items()),
        "rounds": result.rounds,
        "bytes": sum(part["bytes"] for part in result.provenance.get("left_each_site", [])),
    }


def _svg(result: Result) -> str:
    buffer = io.StringIO()
    result.plot().savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
