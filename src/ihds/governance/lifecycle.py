"""A life as a table: states, events, and one pure step between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from ihds.errors import IllegalTransition
from ihds.governance.policy import Decision, Granted, Refused

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


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """One step of a life: where it leads, who alone may take it, what must be shown first."""

    to: S
    by: str
    needs: frozenset[str] = frozenset()


Steps = Mapping[S, Mapping[E, Step[S]]]


def plain(steps: Steps[S, E]) -> Table[S, E]:
    """Return the table without roles and needs."""
    return {state: {event: step.to for event, step in row.items()} for state, row in steps.items()}


def permitted(steps: Steps[S, E], noun: str, state: S, event: E, role: str, shown: frozenset[str]) -> Decision:
    """Judge a step: whether it fits, whether this role may take it, whether all it needs is shown."""
    step = steps[state].get(event)
    if step is None:
        return Refused((f"{noun} is {state}; {event} does not fit",))
    reasons = [] if step.by == role else [f"only the {step.by} may {event} here, not the {role}"]
    reasons += [f"{event} needs: {need}" for need in sorted(step.needs - shown)]
    return Refused(tuple(reasons)) if reasons else Granted((f"{noun}: {state}, {event}, {step.to}",))
