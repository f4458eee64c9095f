"""A cohort's study over real nodes with simulated patients: from application to a report a clinician can read."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from ihds.analysis.method import methods
from ihds.analysis.result import Result
from ihds.cohorts.cohort import Cohort, Study
from ihds.demo import Say, running, tell
from ihds.reports.html import write_study
from ihds.roles.node import verify_folder
from ihds.roles.offered import HOLDERS, Offered

_APPLICATION = {
    "purpose": "scientific_research",
    "legal_basis": "GDPR 6(1)(e), 9(2)(j)",
    "ethics": "simulated persons",
    "safeguards": "federated analysis; only sums leave the holders",
    "persons": ["Demo Researcher"],
    "period_months": 24,
}


def offers(cohort: Cohort) -> tuple[Offered, ...]:
    """Return what each holder offers: every table of the cohort, its own simulated persons."""
    sites = [cohort.site(number) for number in range(len(HOLDERS))]
    return tuple(
        Offered(
            id=f"{cohort.name.replace('_', '-')}-{table}",
            title=f"{cohort.title}: {table}",
            description=cohort.description,
            keywords=(*cohort.keywords, table),
            health_category="MRMR",
            codebook=codebook,
            part=lambda number, table=table: sites[number][table],  # type: ignore[misc]
            methods=tuple(sorted(methods())),
        )
        for table, codebook in cohort.codebooks.items()
    )


def run_study(cohort: Cohort, study: Study, report: Path, say: Say) -> list[Result]:
    """Run a study over seven real nodes and write its report; return the results of its steps.

    Raises:
        IhdsError: a step is refused or has no answer; nothing is written then.

    """
    folder = Path(tempfile.mkdtemp(prefix="ihds-cohort-"))
    try:
        say.step(f"{cohort.title}: {study.question}")
        with (
            running(folder, keep=False, offered=offers(cohort)) as nodes,
            contextlib.closing(nodes.space("researcher")) as researcher,
        ):
            name = f"{cohort.name.replace('_', '-')}-{study.table}-"
            wanted = [r for r in researcher.search(cohort.title) if name in str(r["dataset"])]
            for row in wanted:
                say.line(f"{row['dataset']}: {row['title']} ({row['country']}, about {row['persons']} persons)")
            say.step("The institutions sign their agreement; access is applied for, assessed and decided (simulated)")
            answer = researcher.apply(
                agreement=nodes.agree(),
                datasets=[r["dataset"] for r in wanted],
                title=f"{cohort.title}: {study.question}",
                intended_use=study.question,
                benefit="validation of the protocol's analyses on simulated persons",
                variables=sorted(cohort.codebooks[study.table].variables),
                methods=sorted({step.method for step in study.steps}),
                **_APPLICATION,
            )
            permit = nodes.grant(answer["application"])
            results = []
            for step in study.steps:
                say.step(f"{step.heading} ({step.method})")
                results.append(researcher.run(step.method, permit=permit, report=lambda s: tell(say, s), **step.params))
            proofs = [verify_folder(nodes.folder / name) for name in nodes.configs]
        write_study(report, cohort, study, results, proofs)
        say.step(f"The report: {report}")
        return results
    finally:
        shutil.rmtree(folder, ignore_errors=True)
