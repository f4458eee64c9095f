"""Concordance of a score with an outcome, pair by pair, within one site's rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ihds.analysis.method import Matrix, Vector

#: Pairs looked at at once.
_AT_ONCE = 1 << 22


def has_pair(stop: Vector, event: Any) -> bool:
    """Return whether somebody is known to end after one with an event."""
    if not event.any():
        return False
    first = stop[event].min()
    return bool(((stop > first) | ((stop == first) & ~event)).any())


def pairs_of(stop: Vector, event: Any, score: Vector) -> Matrix:
    """Return per row the pairs (n, 2) it is in: those ordered as the score says, ties one half, and all.

    A pair is one who has an event and another who is known to end later; the score should be the
    higher for the first (Harrell). Each pair stands at both its members.
    """
    found = np.zeros((len(stop), 2))
    events = np.flatnonzero(event)
    size = max(1, _AT_ONCE // max(len(stop), 1))
    for start in range(0, len(events), size):
        at = events[start : start + size]
        later = (stop > stop[at, None]) | ((stop == stop[at, None]) & ~event)
        won = later * ((score < score[at, None]) + 0.5 * (score == score[at, None]))
        found += np.column_stack([won.sum(axis=0), later.sum(axis=0)])
        found[at] += np.column_stack([won.sum(axis=1), later.sum(axis=1)])
    return found
