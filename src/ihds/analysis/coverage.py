"""Which persons a query covers: the populations that the ledger against differencing compares. Nothing here leaves.

A model's sums run over its complete rows, those of many features over all rows: one population. A
variable that a row may lack (of a table, of a model with gaps, a feature) has one of its own. What
a formula computes plays no part, so that nobody can choose by a value who is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.design import Ask
from ihds.analysis.rows import absent, lacking, level_codes, needed
from ihds.data.wide import Table
from ihds.privacy.population import Marks, Words, fingerprint, without

#: So many features have populations of their own; of more, only the rows are compared.
MOST_FEATURES = 64


@dataclass(frozen=True, slots=True)
class Population:
    """Persons whose values of ``variables`` enter sums; ``whole`` if they are the rows of a model, or of features."""

    variables: frozenset[str]
    whole: bool
    words: Words


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a study covers at a site, and the levels found among its rows."""

    populations: tuple[Population, ...]
    held: dict[str, frozenset[str]]


def coverage(ask: Ask, levels: dict[str, tuple[str, ...]], table: Table, marks: Marks) -> Coverage:
    """Return what a study covers under the published levels."""
    rows = ~lacking(ask, levels, table)
    codes = {
        name: np.concatenate([level_codes(block[name], known) for _, block in table.blocks((name,))])
        for name, known in levels.items()
    }
    if ask.complete:
        for code in codes.values():
            rows &= code >= 0
    held = {
        name: frozenset(known[i] for i in np.unique(codes[name][rows & (codes[name] >= 0)]))
        for name, known in levels.items()
    }
    whole = fingerprint(marks, rows)
    own = ask.formula.variables & needed(ask, levels) if ask.complete else frozenset()
    found = [Population(frozenset(own), True, whole)] if ask.complete or ask.features else []
    merged: dict[bytes, tuple[set[str], Words]] = {}
    for name, gone in _lacking_each(ask, frozenset(own), codes, table):
        words = without(whole, fingerprint(marks, rows & gone))
        merged.setdefault(words.tobytes(), (set(), words))[0].add(name)
    return Coverage((*found, *(Population(frozenset(v), False, w) for v, w in merged.values())), held)


def _lacking_each(
    ask: Ask, own: frozenset[str], codes: dict[str, NDArray[np.int64]], table: Table
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield each variable that a row may lack, and which rows lack it; with a group, also those in no group."""

    def gone(name: str) -> NDArray[np.bool_]:
        return codes[name] < 0 if name in codes else absent(table, name)

    several = ask.features if len(ask.features) <= MOST_FEATURES else ()
    for name in sorted((ask.formula.variables - own) | frozenset(several)):
        without_it = gone(name)
        yield name, without_it
        if ask.by:
            yield name, without_it | gone(ask.by)
