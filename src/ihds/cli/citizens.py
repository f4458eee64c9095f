"""Commands for people's choices: at the counter of the registry, and with a receipt's code."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any

from ihds.catalogue.citizens import LANGUAGES
from ihds.cli.words import OUT, command, open_space, show, show_rows
from ihds.errors import BadInput
from ihds.governance.opt_out import SCOPES


def citizen_commands(sub: Any) -> None:
    """Declare ``ihds citizen``."""
    texts = {
        "opt-out": "record at the counter that a person says no to secondary use; print the receipt",
        "withdraw": "record at the counter that a person takes the no back; print the receipt",
    }
    for word, text in texts.items():
        made = command(sub, word, f"{text} (on the registry)", _EXAMPLES[word], _record)
        _about(made)
        made.add_argument(
            "--scope", default="all", choices=[s.id for s in SCOPES], help="what it reaches (default all)"
        )
        made.add_argument("--declared-at", default="", help="when the person chose, if before now, with time zone")
        made.add_argument("--officer", default="", help="who records it")
        made.add_argument("--language", default="en", choices=LANGUAGES, help="of the receipt (default en)")
        made.set_defaults(word=word)
    status = command(
        sub, "status", "show a person's choices, now or as of a time (on the registry)", _EXAMPLES["status"], _status
    )
    _about(status)
    status.add_argument("--code", default="", help="a receipt's code, instead of the identifier")
    status.add_argument("--valid", default="", help="what held at this time (default: now)")
    status.add_argument("--known", default="", help="as it was known at this time (default: now)")


_EXAMPLES = {
    "opt-out": "ihds citizen opt-out --country LU --language fr --node access-body\n  (asks for the identifier)",
    "withdraw": "ihds citizen withdraw --country LU --node access-body",
    "status": "ihds citizen status --code 7ZK3M-… --valid 2029-04-01T00:00:00+02:00 --node access-body",
}


def _about(made: Any) -> None:
    made.add_argument("--country", default="", help="whose national identifier it is (default: the node's)")
    made.add_argument("--id-file", type=Path, help="file with the identifier (default: ask, or standard input)")


def _identifier(given: Any) -> str:
    """Return the national identifier; it is never an argument, where others of this machine could read it."""
    if given.id_file:
        try:
            return str(given.id_file.read_text(encoding="utf-8")).strip()
        except OSError as error:
            raise BadInput(f"{given.id_file} cannot be read: {error}", remedy="check the path") from error
    if sys.stdin.isatty():
        return getpass.getpass("national identifier: ")
    return sys.stdin.readline().strip()


def _record(given: Any) -> None:
    answer = open_space(given).call(
        "citizen.opt_out" if given.word == "opt-out" else "citizen.reverse",
        id=_identifier(given),
        country=given.country,
        scope=given.scope,
        declared_at=given.declared_at,
        by=given.officer,
        language=given.language,
    )
    show(given, answer, answer["receipt"])


def _status(given: Any) -> None:
    who = {"code": given.code} if given.code else {"id": _identifier(given)}
    answer = open_space(given).call(
        "citizen.status", **who, country=given.country, valid=given.valid, known=given.known
    )
    if given.json:
        show(given, answer, "")
        return
    said = ", ".join(f"{scope}: {choice}" for scope, choice in answer["choices"].items())
    OUT.print(said or "no choice is recorded", markup=False)
    show_rows(given, answer["history"], ("version", "scope", "choice", "holds_from", "recorded_at", "source"))
