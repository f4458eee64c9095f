"""Commands of the data space's government: bodies, motions, votes, and the annual review."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ihds.cli.words import OUT, command, open_space, rows_table, show, show_json
from ihds.governance.bodies import Choice, Matter


def committee_commands(sub: Any) -> None:
    """Declare ``ihds committee``."""
    listed = command(
        sub,
        "list",
        "list bodies with their seats and mandates, motions with their votes, and approved versions",
        "ihds committee list --node lih",
        _list,
    )
    listed.add_argument("--signed", action="store_true", help="with --json: the signed acts beside them")
    propose = command(
        sub,
        "propose",
        "ask a body to decide; the motion takes effect when carried and not before",
        "ihds committee propose steering suspend did:web:ncck.example --person 'A. Example' --node lih\n"
        "  ihds committee propose technical approve-codebook codebook.toml --person 'A. Example' --node lih",
        _propose,
    )
    propose.add_argument("body")
    propose.add_argument("matter", choices=[str(m) for m in Matter])
    propose.add_argument(
        "subject",
        help="a DID; a codebook.toml, a protocol's file, or 'current' for the rules installed here; "
        "'MATTER DIGEST' of an approval; for a seat 'BODY DID SINCE UNTIL PERSON' or 'BODY DID PERSON'",
    )
    propose.add_argument("--person", required=True, help="who of this institution speaks: its seat")
    propose.add_argument("--title", default="", help="what it is about, in words")
    propose.add_argument("--days", type=int, default=14, help="for how long votes are taken (default 14)")
    vote = command(
        sub,
        "vote",
        "vote on a motion, signed with this node's key",
        "ihds committee vote urn:uuid:… yes --person 'B. Example' --node ncck",
        _vote,
    )
    vote.add_argument("motion")
    vote.add_argument("choice", choices=[str(c) for c in Choice])
    vote.add_argument("--person", required=True)
    withdraw = command(
        sub,
        "withdraw",
        "withdraw a motion this seat proposed",
        "ihds committee withdraw urn:uuid:… --person 'A. Example' --node lih",
        _withdraw,
    )
    withdraw.add_argument("motion")
    withdraw.add_argument("--person", required=True)
    review = command(
        sub,
        "review",
        "review a year from logs: node folders, and bundles of other institutions; offline",
        "ihds committee review 2026 authority access-body evidence/lih.json --out review.html",
        _review,
        node=False,
    )
    review.add_argument("year", type=int)
    review.add_argument(
        "path", nargs="+", type=Path, help="node folders, proved first, or bundles of ihds audit export"
    )
    review.add_argument("--out", type=Path, help=".md or .html (default: Markdown on the screen)")


def _list(given: Any) -> None:
    told = open_space(given).call("committee.list")
    if given.json:
        show_json(told if given.signed else _unsigned(told))
        return
    for key, body in told["bodies"].items():
        OUT.print(f"{key}: {body['title']}, quorum {body['quorum']}, majority {body['majority']}", highlight=False)
        OUT.print(f"  decides: {', '.join(body['decides'])}", highlight=False)
        rows_table(body["seats"], ("person", "member", "since", "until"))
    rows_table([_row(m) for m in told["motions"]], ("motion", "body", "matter", "subject", "state", "votes", "closes"))
    for version in told.get("approved", []):
        OUT.print(f"approved: {version}", highlight=False)


def _unsigned(told: dict[str, Any]) -> dict[str, Any]:
    motions = [
        {
            **{k: v for k, v in m.items() if k != "signed"},
            "votes": {seat: {k: v for k, v in vote.items() if k != "signed"} for seat, vote in m["votes"].items()},
        }
        for m in told["motions"]
    ]
    return {**told, "motions": motions}


def _row(record: dict[str, Any]) -> dict[str, Any]:
    motion = record["motion"]
    votes = [f"{seat.split(' ', 1)[1]} {v['choice']}" for seat, v in record["votes"].items()]
    return {
        **motion,
        "motion": motion["id"],
        "state": record["state"],
        "votes": votes,
        "closes": motion["closes_at"][:16],
    }


def _propose(given: Any) -> None:
    words = {k: getattr(given, k) for k in ("person", "body", "matter", "title", "days")}
    answer = open_space(given).call("committee.propose", subject=_subject(given), **words)
    show(given, _unsigned({"motions": [answer]})["motions"][0], _told(answer))


def _subject(given: Any) -> str:
    """Return the subject of a motion: of a version its digest."""
    if given.matter == Matter.RULES and given.subject == "current":
        from ihds.governance.jurisdiction import version

        return version()
    if given.matter == Matter.CODEBOOK and given.subject.endswith(".toml"):
        from ihds.canonical import digest
        from ihds.data.codebook import Codebook

        return digest(Codebook.read(Path(given.subject)).to_dict())
    if given.matter == Matter.PROTOCOL and Path(given.subject).is_file():
        from ihds.canonical import sha256

        return sha256(Path(given.subject).read_bytes())
    return str(given.subject)


def _vote(given: Any) -> None:
    answer = open_space(given).call("committee.vote", motion=given.motion, choice=given.choice, person=given.person)
    show(given, _unsigned({"motions": [answer]})["motions"][0], _told(answer))


def _withdraw(given: Any) -> None:
    answer = open_space(given).call("committee.withdraw", motion=given.motion, person=given.person)
    show(given, _unsigned({"motions": [answer]})["motions"][0], _told(answer))


def _review(given: Any) -> None:
    from ihds.cli.audit import entries_of
    from ihds.cli.gdpr import written
    from ihds.governance.review import review
    from ihds.reports.government import annual

    facts = review({name: entries for name, _, entries in map(entries_of, given.path)}, given.year)
    written(given, facts, annual(facts))


def _told(record: dict[str, Any]) -> str:
    row = _row(record)
    return "\n".join(filter(None, [f"{row['motion']} is {row['state']}", ", ".join(row["votes"]), record["reason"]]))
