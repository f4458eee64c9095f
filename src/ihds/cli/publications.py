"""Commands after a permit: publish within 18 months, report findings, record deletion."""

from __future__ import annotations

from datetime import date
from typing import Any

from ihds.cli.permits import acting, officer_space
from ihds.cli.words import command, open_space, show, show_rows


def publication_commands(sub: Any) -> None:
    """Declare ``ihds publication``."""
    command(
        sub,
        "list",
        "list what was published and found under each permit (on the access body's node)",
        "ihds publication list --node hdab",
        _list,
    )
    report = command(
        sub,
        "report",
        "report where results stand, with a summary for lay readers (on the user's node)",
        "ihds publication report urn:uuid:… --link https://doi.org/10.1000/1 --summary '…' --node researcher",
        _report,
    )
    report.add_argument("id", help="permit id")
    report.add_argument("--link", required=True, help="https address or doi:")
    report.add_argument("--summary", required=True, help="anonymous, in plain words")
    finding = command(
        sub,
        "finding",
        "tell the access body a finding that matters to persons in the data (EHDS Art. 61(5))",
        "ihds publication finding urn:uuid:… --text 'carriers of … should be seen' --node researcher",
        _finding,
    )
    finding.add_argument("id", help="permit id")
    finding.add_argument("--text", required=True, help="what was found; no name, no record")
    extend = command(
        sub,
        "extend",
        "give a user longer to publish (on the access body's node)",
        "ihds publication extend urn:uuid:… --until 2032-01-31 --reason 'under review' --by 'An Officer' --node hdab",
        _extend,
    )
    extend.add_argument("id", help="permit id")
    extend.add_argument("--until", type=date.fromisoformat, required=True)
    extend.add_argument("--reason", required=True)
    acting(extend)
    deleted = command(
        sub,
        "deleted",
        "record that what the secure environment held for a permit was deleted (EHDS Art. 68(12))",
        "ihds publication deleted urn:uuid:… --by 'An Officer' --node hdab",
        _deleted,
    )
    deleted.add_argument("id", help="permit id")
    acting(deleted)


def _list(given: Any) -> None:
    show_rows(given, open_space(given).call("publication.list"), ("permit", "user", "reports", "findings", "links"))


def _report(given: Any) -> None:
    answer = open_space(given).call("publication.report", id=given.id, link=given.link, summary=given.summary)
    show(given, answer, f"reported; {answer['reports']} on file")


def _finding(given: Any) -> None:
    answer = open_space(given).call("publication.finding", id=given.id, text=given.text)
    show(given, answer, f"reported; {answer['findings']} on file")


def _extend(given: Any) -> None:
    words = {"until": given.until.isoformat(), "reason": given.reason, "by": given.by}
    answer = officer_space(given).call("publication.extend", id=given.id, **words)
    show(given, answer, f"results are due by {answer['until']}")


def _deleted(given: Any) -> None:
    answer = officer_space(given).call("publication.deleted", id=given.id, by=given.by)
    show(given, answer, "deletion is recorded")
