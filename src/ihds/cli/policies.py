"""Commands about policies: check one before it is offered, explain why it allows or refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ihds.cli.words import OUT, command, open_space, show, show_json
from ihds.errors import BadInput, Refused
from ihds.governance.policy import VOCABULARY, explained, validate


def policy_commands(sub: Any) -> None:
    """Declare ``ihds policy``."""
    explain = command(
        sub,
        "explain",
        "say in words which rule allows or refuses, and what is missing",
        "ihds policy explain bladder-lih --permit urn:uuid:… --node researcher\n"
        "  ihds policy explain --offer offer.json --fact purpose=scientific_research --fact membership=member",
        _explain,
    )
    explain.add_argument("dataset", nargs="?", help="a dataset of a catalogue")
    explain.add_argument("--permit", default="", help="the permit to show (default: none)")
    explain.add_argument("--offer", type=Path, help="JSON file with an offer, instead of a dataset")
    explain.add_argument("--fact", action="append", default=[], help="TERM=VALUE, with --offer; may be repeated")
    check = command(
        sub, "check", "check a policy before it is offered", "ihds policy check offer.json", _check, node=False
    )
    check.add_argument("file", type=Path)


def _explain(given: Any) -> int:
    if bool(given.offer) == bool(given.dataset):
        raise BadInput("name a dataset, or give --offer", remedy="ihds policy explain --help")
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
