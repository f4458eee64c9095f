"""The words for cohorts: see their variables and studies, make simulated tables, run a study over real nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ihds.cli.words import command, show, show_rows
from ihds.cohorts.cohort import cohort, names
from ihds.errors import BadInput


def cohort_commands(sub: Any) -> None:
    """Declare ``ihds cohort``."""
    command(sub, "list", "the cohorts and their studies", "ihds cohort list", _list, node=False)
    shown = command(sub, "show", "a cohort's variables", "ihds cohort show parkinsons --language ko", _show, node=False)
    shown.add_argument("cohort")
    shown.add_argument("--language", default="en", choices=("en", "de", "fr", "ko"))
    made = command(
        sub,
        "simulate",
        "write the tables of simulated sites, with their codebooks",
        "ihds cohort simulate bladder_cancer --out tables",
        _simulate,
        node=False,
    )
    made.add_argument("cohort")
    made.add_argument("--out", type=Path, required=True, help="folder to write to")
    made.add_argument("--sites", type=int, default=3)
    run = command(
        sub,
        "run",
        "run a study over seven real nodes with simulated persons, and write a report",
        "ihds cohort run bladder_cancer recurrence_by_risk_group --report recurrence.html",
        _run,
        node=False,
    )
    run.add_argument("cohort")
    run.add_argument("study")
    run.add_argument("--report", type=Path, help="the report's file (default: COHORT-STUDY.html)")


def _list(given: Any) -> None:
    rows = [
        {"cohort": name, "study": study.name, "table": study.table, "question": study.question}
        for name in names()
        for study in cohort(name).studies.values()
    ]
    show_rows(given, rows, ("cohort", "study", "table", "question"))


def _show(given: Any) -> None:
    rows = [
        {
            "table": table,
            "variable": v.name,
            "kind": v.kind,
            "unit": v.unit,
            "label": v.label_in(given.language),
            "levels": ", ".join(v.levels),
            "concept": v.concept,
        }
        for table, book in cohort(given.cohort).codebooks.items()
        for v in book.variables.values()
    ]
    show_rows(given, rows, ("table", "variable", "kind", "unit", "label", "levels", "concept"))


def _simulate(given: Any) -> None:
    if not 1 <= given.sites <= 100:
        raise BadInput(f"sites is {given.sites}", remedy="give 1 to 100")
    chosen = cohort(given.cohort)
    given.out.mkdir(parents=True, exist_ok=True)
    written = []
    for table, book in chosen.codebooks.items():
        book.write(given.out / f"{table}.toml")
        written.append(str(given.out / f"{table}.toml"))
    for number in range(given.sites):
        for table, frame in chosen.site(number).items():
            path = given.out / f"{table}-{number + 1}.csv"
            frame.to_csv(path, index=False)
            written.append(str(path))
    show(given, {"written": written}, "\n".join(written))


def _run(given: Any) -> None:
    from rich.console import Console

    from ihds.demo import Say
    from ihds.showcase import run_study

    chosen = cohort(given.cohort)
    study = chosen.study(given.study)
    report = given.report or Path(f"{chosen.name}-{study.name}.html")
    say = Say(Console(soft_wrap=True, highlight=False, quiet=given.json))
    results = run_study(chosen, study, report, say)
    show(given, {"report": str(report), "results": [r.to_dict() for r in results]}, f"written: {report}")
