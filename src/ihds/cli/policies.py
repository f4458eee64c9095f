"""Commands about policies: check one before it is offered, explain why it allows or refuses."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from ihds.audit.log import now
from ihds.cli.words import OUT, command, open_space, show, show_json
from ihds.errors import BadInput, Refused
from ihds.governance.deadlines import OPEN, Entry, Mark, deadlines, due, last_of
from ihds.governance.holidays import CALENDARS
from ihds.governance.jurisdiction import Export, evidence_terms
from ihds.governance.jurisdiction import explained as explained_export
from ihds.governance.policy import VOCABULARY, explained, validate
from ihds.governance.rule import ARTEFACTS, REGIMES


def policy_commands(sub: Any) -> None:
    """Declare ``ihds policy``."""
    explain = command(
        sub,
        "explain",
        "say in words which rule allows or refuses, and what is missing",
        "ihds policy explain bladder-lih --permit urn:uuid:… --node researcher\n"
        "  ihds policy explain --offer offer.json --fact purpose=scientific_research --fact membership=member\n"
        "  ihds policy explain --artefact AGGREGATE --from LU --to KR --regime ehds --on 2029-04-01 --evidence permit",
        _explain,
    )
    explain.add_argument("dataset", nargs="?", help="a dataset of a catalogue")
    explain.add_argument("--permit", default="", help="the permit to show (default: none)")
    explain.add_argument("--offer", type=Path, help="JSON file with an offer, instead of a dataset")
    explain.add_argument("--fact", action="append", default=[], help="TERM=VALUE, with --offer; may be repeated")
    explain.add_argument("--artefact", choices=ARTEFACTS, help="what would leave: asks the law instead of an offer")
    explain.add_argument("--from", dest="origin", default="", help="country of the data (ISO 3166-1), with --artefact")
    explain.add_argument("--to", dest="destination", default="", help="country of the recipient, with --artefact")
    explain.add_argument("--regime", default="contract", choices=REGIMES, help="on what it rests (default: contract)")
    explain.add_argument("--evidence", action="append", default=[], help="what is shown; may be repeated")
    explain.add_argument("--on", type=date.fromisoformat, help="the day to judge as of (default: today)")
    clock = command(
        sub,
        "clock",
        "say when a period of the law ends, and what running out brings",
        "ihds policy clock D4 --start 2029-11-30 --place LU",
        _clock,
        node=False,
    )
    clock.add_argument("id", choices=sorted(deadlines()), metavar="CLOCK", help="its id: docs/law/clocks.md")
    clock.add_argument("--start", type=date.fromisoformat, required=True, help="the day of the event it counts from")
    clock.add_argument("--place", default="LU", choices=CALENDARS, help="whose public holidays count (default: LU)")
    clock.add_argument("--on", type=date.fromisoformat, help="the day to look at it (default: today)")
    check = command(
        sub, "check", "check a policy before it is offered", "ihds policy check offer.json", _check, node=False
    )
    check.add_argument("file", type=Path)


def _explain(given: Any) -> int:
    if [bool(given.offer), bool(given.dataset), bool(given.artefact)].count(True) != 1:
        raise BadInput("name a dataset, or give --offer or --artefact", remedy="ihds policy explain --help")
    if given.artefact:
        return _explain_law(given)
    if given.offer:
        answer = explained(_read(given.offer), _facts(given.fact))
    else:
        answer = open_space(given).call("policy.explain", dataset=given.dataset, permit=given.permit)
    if given.json:
        show_json(answer)
    else:
        OUT.print("GRANTED" if answer["granted"] else "REFUSED", style="bold")
        for line in answer["lines"]:
            mark = "+" if line["holds"] else "-"
            known = f"  ({line['known']})" if line["known"] else ""
            OUT.print(f"{'  ' * line['depth']}{mark} {line['text']}{known}", markup=False, highlight=False)
        if not answer["granted"]:
            OUT.print("missing:", style="bold")
            for reason in answer["reasons"]:
                OUT.print(f"  {reason}", markup=False, highlight=False)
    return 0 if answer["granted"] else Refused.exit_status


def _explain_law(given: Any) -> int:
    """Say what the law of the data's origin says of an export, and what would change it."""
    if not given.origin or not given.destination:
        raise BadInput("the law must know both countries", remedy="give --from LU --to KR")
    unknown = sorted(set(given.evidence) - set(evidence_terms()))
    if unknown:
        raise BadInput(f"{unknown[0]!r} is no evidence", remedy=f"terms are: {', '.join(sorted(evidence_terms()))}")
    export = Export(given.artefact, given.origin, given.destination, given.regime, frozenset(given.evidence))
    answer = explained_export(export, given.on or now().date())
    show(given, answer, _law_in_words(answer))
    return 0 if answer["granted"] else Refused.exit_status


def _clock(given: Any) -> int:
    clock = deadlines()[given.id]
    seen = given.on or now().date()
    # what is counted back from a day, or starts later, is known before that day comes
    started = Entry(min(given.start, seen), Mark.START, about=given.start)
    found = due(clock, [started], CALENDARS[given.place], seen)
    later = None
    if clock.extension not in (None, OPEN):
        later = last_of(clock, given.start, CALENDARS[given.place], extended=True)
    answer = {
        "clock": clock.id,
        "article": clock.article,
        "who": clock.who,
        "what": clock.what,
        "means": clock.kind.value,
        "last_day": str(found.last),
        "last_day_extended": str(later) if later else None,
        "standing": found.standing.value,
        "on_expiry": clock.on_expiry.value,
    }
    text = "{article}: {who}: {what}\n{means}: {last_day}".format(**answer)
    text += f"; extended once: {later}" if later else ""
    show(given, answer, text + "\n{standing}; running out: {on_expiry}".format(**answer))
    return 0


def _law_in_words(answer: dict[str, Any]) -> str:
    lines = ["GRANTED" if answer["granted"] else "REFUSED"]
    lines[0] += " by the law of {origin}: {artefact} to {destination}, {legal_regime}, on {on}".format(**answer)
    for rule in answer["rules"]:
        until = f" to {rule['until']}" if rule["until"] else ""
        lines.append(
            f"{'+' if rule['holds'] else '-'} {rule['law']} {rule['rule']} ({rule['article']}): {rule['text']}"
        )
        lines.append(f"    needs {rule['needs']}   [since {rule['since']}{until}; {rule['certainty']}]")
    if not answer["granted"]:
        lines += ["because:", *(f"  {reason}" for reason in answer["reasons"])]
        lines.append("what would change it:" if answer["would_change"] else "no evidence would change it")
        lines += [f"  {' and '.join(names)}" for names in answer["would_change"]]
        lines += [f"  {name}: {meaning}" for name, meaning in answer["meanings"].items()]
    return "\n".join(lines)


def _facts(pairs: list[str]) -> dict[str, str | tuple[str, ...]]:
    found: dict[str, str | tuple[str, ...]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in VOCABULARY:
            raise BadInput(f"{pair!r} is no TERM=VALUE", remedy=f"terms are: {', '.join(VOCABULARY)}")
        found[name] = tuple(value.split(",")) if "," in value else value
    return found


def _check(given: Any) -> int:
    wrong = validate(_read(given.file))
    show(given, {"valid": not wrong, "problems": wrong}, "\n".join(wrong) or "this policy can be offered")
    return BadInput.exit_status if wrong else 0


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not JSON: {error}", remedy="write an ODRL offer as JSON") from error
    if not isinstance(body, dict):
        raise BadInput(f"{path} is not a JSON object", remedy="write an ODRL offer as JSON")
    return body
