"""Commands for the data protection officer: drafts from what a node knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ihds.cli.words import command, open_space, show
from ihds.errors import BadInput


def gdpr_commands(sub: Any) -> None:
    """Declare ``ihds gdpr``."""
    records = command(
        sub,
        "records",
        "draft this node's records of processing activities (GDPR Art. 30)",
        "ihds gdpr records --out records.html --node lih",
        _records,
    )
    dpia = command(
        sub,
        "dpia",
        "draft a data protection impact assessment (GDPR Art. 35); the attacks are carried out for it",
        "ihds gdpr dpia --out dpia.md --node lih",
        _dpia,
    )
    for parser in (records, dpia):
        parser.add_argument("--out", type=Path, help=".md or .html (default: Markdown on the screen)")


def _records(given: Any) -> None:
    from ihds.reports.gdpr import records

    facts = open_space(given).call("gdpr.facts")
    written(given, facts, records(facts))


def _dpia(given: Any) -> None:
    from ihds.attacks import attacks
    from ihds.attacks.attack import carried_out
    from ihds.reports.gdpr import dpia

    facts = open_space(given).call("gdpr.facts")
    verdicts = [carried_out(attack) for attack in attacks().values()]
    written(given, {**facts, "attacks": [v.to_dict() for v in verdicts]}, dpia(facts, verdicts))


def written(given: Any, facts: dict[str, Any], document: Any) -> None:
    """Write a document where --out says, or print it; with --json print its facts."""
    if given.out:
        if not given.out.parent.is_dir():
            raise BadInput(f"there is no folder {given.out.parent}", remedy="make it first")
        document.write(given.out)
    show(given, facts, f"{given.out} is written" if given.out else document.markdown())
