"""A life as a table: states, events, and one pure step between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from ihds.errors import IllegalTransition

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)

Table = Mapping[S, Mapping[E, S]]


def advance(table: Table[S, E], noun: str, state: S, event: E) -> S:
    """Return the state after an event.

    Raises:
        IllegalTransition: the table has no such step; what would be legal is named.

    """
    following = table[state]
    if event not in following:
        legal = ", ".join(sorted(following)) or "nothing: it has ended"
        raise IllegalTransition(f"{noun} is {state}; {event} does not fit", remedy=f"possible now: {legal}")
    return following[event]


def mermaid(table: Table[S, E], start: S) -> str:
    """Return the state diagram of a table, for the docs."""
    lines = ["stateDiagram-v2", f"    [*] --> {start}"]
    for state, following in table.items():
        lines += [f"    {state} --> {target}: {event}" for event, target in following.items()]
        if not following:
            lines.append(f"    {state} --> [*]")
    return "\n".join(lines)
