"""An officer's commands: accounts, agreements, and a case from its submission to the permit's end."""

from __future__ import annotations

import argparse
import dataclasses
import json
from datetime import date
from pathlib import Path
from typing import Any

from ihds.cli.words import OUT, command, numbers, open_space, show, show_json, show_rows
from ihds.errors import BadInput, SetupFailed
from ihds.governance.lives import AppealAction
from ihds.governance.rule import REGIMES


def acting(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Let a command be given in an officer's name."""
    parser.add_argument("--by", default="", help="who acts: an account of this access body")
    parser.add_argument("--key", type=Path, help="file with your own key (default: the node's, with --by)")
    return parser


def officer_space(given: Any) -> Any:
    """Return the node, spoken to with the officer's own key where one is given."""
    space = open_space(given)
    if getattr(given, "key", None) is None:
        return space
    try:
        return dataclasses.replace(space, key=given.key.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise SetupFailed(f"{given.key} cannot be read: {error}", remedy="ihds officer add printed the key") from error


def permit_commands(sub: Any) -> None:
    """Declare ``ihds permit``."""
    listed = command(sub, "list", "list applications and permits", "ihds permit list --stage ASSESSMENT", _list)
    for name in ("state", "stage", "kind"):
        listed.add_argument(f"--{name}", default="", help="only these (on the access body)")
    listed.add_argument("--after", default="", help="the last id of the page before")
    listed.add_argument("--limit", type=int, default=100, help="rows of a page (100)")
    shown = command(sub, "show", "show a permit or an application", "ihds permit show urn:uuid:… --node hdab", _show)
    shown.add_argument("id")
    _case_commands(sub)
    revoke = command(
        sub,
        "revoke",
        "revoke a permit (on the access body's node)",
        "ihds permit revoke urn:uuid:… --reason misuse --node hdab",
        _revoke,
    )
    revoke.add_argument("id")
    revoke.add_argument("--reason", default="")


def _case_commands(sub: Any) -> None:
    assess = command(
        sub,
        "assess",
        "give a verdict on a question, or the same on all (on the access body's node)",
        "ihds permit assess urn:uuid:… --question purpose --answer yes --because '…' --by 'A. Assessor' --node hdab\n"
        "  ihds permit assess urn:uuid:… --all yes --because 'see the protocol' --by 'A. Assessor' --node hdab",
        _assess,
    )
    assess.add_argument("id", help="application id")
    which = assess.add_mutually_exclusive_group(required=True)
    which.add_argument("--question", help="its word; without a verdict on every question nothing is granted")
    which.add_argument("--all", metavar="ANSWER", help="this answer to every question")
    assess.add_argument("--answer", help="yes, no or 'not applicable', with --question")
    assess.add_argument("--because", required=True, help="the justification, kept with the verdict")
    acting(assess)
    fees = command(
        sub,
        "fees",
        "send the notice of fees (EHDS Art. 62)",
        "ihds permit fees urn:uuid:… --by 'An Officer' --node hdab",
        _fees,
    )
    fees.add_argument("id", help="application id")
    acting(fees)
    decide = command(
        sub,
        "decide",
        "decide an application that has its verdicts (on the access body's node)",
        "ihds permit decide urn:uuid:… --grant --condition max_rounds=100 --by 'An Officer' --node hdab",
        _decide,
    )
    decide.add_argument("id", help="application id")
    choice = decide.add_mutually_exclusive_group(required=True)
    choice.add_argument("--grant", action="store_true")
    choice.add_argument("--refuse", action="store_true")
    decide.add_argument("--reason", action="append", default=[], help="of a refusal; may be repeated")
    decide.add_argument(
        "--condition", action="append", default=[], help="NAME=VALUE, for example min_cell=10 or dropouts=continue"
    )
    decide.add_argument("--environment", default="", help='DID of the environment that runs the studies, or "none"')
    acting(decide)
    step = command(
        sub,
        "step",
        "take another step of a case's life, as docs/law/lives.md has it",
        "ihds permit step urn:uuid:… ask --reason 'which ethics committee?' --by 'A. Assessor' --node hdab\n"
        "  ihds permit step urn:uuid:… answer --change 'ethics=CNER 2026/1' --node researcher",
        _step,
    )
    step.add_argument("id", help="application id")
    step.add_argument("action", help="for example ask, extend, forward, 'offer statistics', 'set conditions'")
    step.add_argument("--reason", action="append", default=[], help="told to the other side; may be repeated")
    step.add_argument("--holder", default="", help="DID of the trusted holder to forward to")
    step.add_argument("--change", action="append", default=[], help="FIELD=VALUE of an answer (on the user's node)")
    acting(step)
    replay = command(
        sub,
        "replay",
        "judge what is on file as of another day or under another regime; nothing is decided",
        "ihds permit replay urn:uuid:… --on 2029-04-03 --regime ehds --node hdab",
        _replay,
    )
    replay.add_argument("id", help="application id")
    replay.add_argument("--on", type=date.fromisoformat, required=True)
    replay.add_argument("--regime", choices=REGIMES, default="ehds", help="on what it would rest (default: ehds)")
    _later_commands(sub)


def _later_commands(sub: Any) -> None:
    clock = command(
        sub,
        "clock",
        "show the clocks of a case, or of a permit that ended",
        "ihds permit clock urn:uuid:… --node hdab",
        _clock,
    )
    clock.add_argument("id", help="application or permit id")
    late = command(
        sub,
        "overdue",
        "list what is late, or will be within some days",
        "ihds permit overdue --days 14 --node hdab",
        _overdue,
    )
    late.add_argument("--days", type=int, default=0, help="also what ends within so many days (default 0)")
    amend = command(
        sub,
        "amend",
        "ask for a change of a permit in force: persons, variables, a longer time (on the user's node)",
        "ihds permit amend urn:uuid:… --person 'B. Researcher' --node researcher",
        _amend,
    )
    amend.add_argument("id", help="permit id")
    amend.add_argument("--person", action="append", default=[], help="to be added; may be repeated")
    amend.add_argument("--variable", action="append", default=[], help="to be added; may be repeated")
    amend.add_argument("--months", type=int, default=0, help="so many months longer; once")
    appeal = command(
        sub,
        "appeal",
        "lodge an appeal against a refusal (on the user's node), or dismiss or remit it",
        "ihds permit appeal urn:uuid:… lodge --reason 'the purpose was misread' --node researcher\n"
        "  ihds permit appeal urn:uuid:… 'remit to assessment' --reason '…' --by 'The Court' --node hdab",
        _appeal,
    )
    appeal.add_argument("id", help="application id")
    appeal.add_argument("action", choices=list(AppealAction))
    appeal.add_argument("--reason", action="append", default=[], required=True)
    acting(appeal)
    exclude = command(
        sub,
        "exclude",
        "exclude an applicant from access, for up to five years (EHDS Art. 63(3))",
        "ihds permit exclude did:web:user.example --years 2 --reason misuse --by 'An Officer' --node hdab",
        _exclude,
    )
    exclude.add_argument("user", help="DID")
    exclude.add_argument("--years", type=int, required=True)
    exclude.add_argument("--reason", required=True)
    acting(exclude)

    visa = command(
        sub,
        "visa",
        "fetch GA4GH visas of a grant in force for one of its persons; they last an hour (on the user's node)",
        "ihds permit visa urn:uuid:… --person 'A. Researcher' --json --node researcher > passport.json",
        _visa,
    )
    visa.add_argument("id", help="permit id")
    visa.add_argument("--person", default="", help="whom the grant names (default: who is signed in)")


def _visa(given: Any) -> None:
    answer = open_space(given).call("permit.visa", id=given.id, person=given.person)
    head = f"visas of the {called(answer['legal_regime'])} {answer['permit']} for {answer['person']}:"
    show(given, answer, "\n".join([head, *answer["ga4gh_passport_v1"]]))


def _clock(given: Any) -> None:
    rows = open_space(given).call("permit.clock", id=given.id)
    show_rows(given, rows, ("clock", "article", "who", "what", "standing", "last", "days_left", "consequence"))


def _overdue(given: Any) -> None:
    rows = open_space(given).call("permit.overdue", days=given.days)
    show_rows(given, rows, ("about", "clock", "who", "what", "last", "days_left", "consequence"))


def _amend(given: Any) -> None:
    words = {"persons": given.person, "variables": given.variable, "months": given.months}
    answer = open_space(given).call("permit.amend", id=given.id, **words)
    show(given, answer, f"amendment {answer['application']} is {answer['state']}")


def _appeal(given: Any) -> None:
    space = officer_space(given)
    if space.config.role == "access_body":
        answer = space.call("permit.appeal", id=given.id, action=given.action, reasons=given.reason, by=given.by)
    else:
        withdraws = given.action == AppealAction.WITHDRAW
        action = f"{given.action} appeal" if withdraws else given.action
        answer = space.call("permit.act", id=given.id, action=action, reasons=given.reason)
    again = f"; it is assessed anew as {answer['again']}" if answer["again"] else ""
    show(given, answer, f"the appeal is {answer['state']}{again}")


def _exclude(given: Any) -> None:
    words = {"user": given.user, "years": given.years, "reason": given.reason, "by": given.by}
    answer = officer_space(given).call("permit.exclude", **words)
    show(given, answer, f"{answer['applicant']} is excluded until {answer['until']}")


def _list(given: Any) -> None:
    where = {name: getattr(given, name) for name in ("state", "stage", "kind", "after", "limit")}
    rows = open_space(given).call("permit.list", **where)
    show_rows(given, rows, ("application", "title", "purpose", "stage", "permit", "permit_state", "legal_regime"))


def _show(given: Any) -> None:
    show_json(open_space(given).call("permit.show", id=given.id))


def _assess(given: Any) -> None:
    if given.question and not given.answer:
        raise BadInput("a question needs its answer", remedy="--answer yes")
    words = {"question": given.question or "all", "answer": given.answer or given.all, "because": given.because}
    answer = officer_space(given).call("permit.assess", id=given.id, by=given.by, **words)
    lines = [f"{answer['answered']} verdicts on file", *(f"open: {q}" for q in answer["open"])]
    show(given, answer, "\n".join([*lines, *(f"failing: {q}" for q in answer["failing"])]))


def _fees(given: Any) -> None:
    answer = officer_space(given).call("permit.fees", id=given.id, by=given.by)
    lines = [f"{x['euros']:>8} EUR  {x['what']} ({x['article']})" for x in answer["lines"]]
    show(given, answer, "\n".join([*lines, f"{answer['total_euros']:>8} EUR  together", answer["withdraw"]]))


def _decide(given: Any) -> None:
    answer = officer_space(given).call(
        "permit.decide",
        id=given.id,
        grant=given.grant,
        reasons=given.reason,
        conditions={
            **_conditions(given.condition),
            **({"environment": given.environment} if given.environment else {}),
        },
        by=given.by,
    )
    answer.pop("credential", None)
    granted = f"{called(answer['legal_regime'])} {answer['permit']} is granted"
    show(given, answer, granted if given.grant else "the application is refused")


def called(legal_regime: str) -> str:
    """Return what a grant is called: beside the EHDS it is never a permit of it."""
    return "data permit" if legal_regime == "ehds" else "authorisation under the agreement"


def _step(given: Any) -> None:
    changes = dict(pair.partition("=")[::2] for pair in given.change)
    words = {"action": given.action, "reasons": given.reason, "by": given.by, "holder": given.holder}
    answer = officer_space(given).call("permit.act", id=given.id, changes=changes, **words)
    answer.pop("credential", None)
    show(given, answer, f"the case is {answer['stage']}")


def _replay(given: Any) -> None:
    answer = open_space(given).call("permit.replay", id=given.id, on=given.on.isoformat(), regime=given.regime)
    said = "could be granted, once assessed" if answer["eligible"] else "could not be granted"
    show(given, answer, "\n".join([f"as of {answer['on']} it {said}", *answer["reasons"]]))


def _revoke(given: Any) -> None:
    answer = open_space(given).call("permit.revoke", id=given.id, reason=given.reason)
    show(given, answer, f"{answer['permit']} is {answer['state']}")


# -- agreements ----------------------------------------------------------------------------------------


def agreement_commands(sub: Any) -> None:
    """Declare ``ihds agreement``."""
    command(sub, "list", "list agreements and who signed them", "ihds agreement list --node hdab", _agreements)
    shown = command(sub, "show", "show an agreement", "ihds agreement show urn:uuid:… --node hdab", _agreement)
    shown.add_argument("id")
    propose = command(
        sub,
        "propose",
        "put an agreement before its parties (on the access body's node)",
        "ihds agreement propose agreement.json --by 'An Officer' --node hdab",
        _propose,
    )
    propose.add_argument("file", type=Path, help="JSON: title, purposes, parties, approvals, terms, since, until")
    acting(propose)
    sign = command(
        sub,
        "sign",
        "sign an agreement with this node's key; the text is printed",
        "ihds agreement sign urn:uuid:… --node lih",
        _sign,
    )
    sign.add_argument("id")
    sign.add_argument("--body", default="", help="DID of the access body that keeps it (default: the configured one)")
    end = command(
        sub,
        "end",
        "end an agreement; nothing more is granted under it",
        "ihds agreement end urn:uuid:… --reason 'the project is over' --by 'An Officer' --node hdab",
        _end,
    )
    end.add_argument("id")
    end.add_argument("--reason", required=True)
    acting(end)


def _agreements(given: Any) -> None:
    show_rows(given, open_space(given).call("joint.list"), ("agreement", "title", "state", "unsigned", "until"))


def _agreement(given: Any) -> None:
    show_json(open_space(given).call("joint.show", id=given.id))


def _propose(given: Any) -> None:
    try:
        body = json.loads(given.file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{given.file} is no JSON agreement: {error}", remedy="docs/how-to/work-a-case.md") from error
    answer = officer_space(given).call("joint.propose", agreement=body, by=given.by)
    show(given, answer, f"agreement {answer['agreement']} waits for {len(answer['unsigned'])} signatures")


def _sign(given: Any) -> None:
    answer = open_space(given).call("joint.sign", id=given.id, body=given.body)
    if not given.json:
        OUT.print_json(data=answer["text"])
    show(given, answer, f"signed; the agreement is {answer['state']}")


def _end(given: Any) -> None:
    answer = officer_space(given).call("joint.end", id=given.id, reason=given.reason, by=given.by)
    show(given, answer, f"the agreement is {answer['state']}")


def _conditions(pairs: list[str]) -> dict[str, Any]:
    """Read conditions: numbers, and what a drop-out means."""
    words = [pair for pair in pairs if pair.startswith("dropouts=")]
    return {**numbers([p for p in pairs if p not in words]), **dict(word.split("=", 1) for word in words)}
