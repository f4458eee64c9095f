"""The word for attacks: list them, carry out one or all, and say which still succeed."""

from __future__ import annotations

from typing import Any

from ihds.cli.words import command, show_rows
from ihds.errors import BadInput

_TOLD = ("title", "attacker", "sees", "measures", "protection", "source", "peers")
_DONE = ("attack", "without_protection", "against_us", "status", "told", "clock")


def attack_command(sub: Any) -> None:
    """Declare ``ihds attack``."""
    made = command(
        sub,
        "attack",
        "list the attacks that ship with IHDS, or carry them out on invented persons",
        "ihds attack\n  ihds attack risk_sets differencing\n  ihds attack --all --json",
        _attack,
        node=False,
    )
    made.add_argument("name", nargs="*", help="the attacks to carry out (default: list all)")
    made.add_argument("--all", action="store_true", help="carry out all of them")


def _attack(given: Any) -> None:
    from ihds.attacks import attack, attacks
    from ihds.attacks.attack import carried_out

    if given.all and given.name:
        raise BadInput("name attacks, or give --all", remedy="ihds attack --all")
    if not given.all and not given.name:
        rows = [{"attack": n, **{key: getattr(one, key) for key in _TOLD}} for n, one in attacks().items()]
        show_rows(given, rows, ("attack", "title"))
        return
    chosen = list(attacks().values()) if given.all else [attack(name) for name in given.name]
    show_rows(given, [carried_out(one).to_dict() for one in chosen], _DONE)
