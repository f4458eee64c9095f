"""The set of distinct event times of all sites, from a sum: no site shows its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.method import Contribution, Leaves, Vector


@dataclass(frozen=True, slots=True)
class TimeSet(Contribution):
    """An invertible Bloom table of event times: its sum is the table of the union.

    Each event time is added to three cells; a cell with one distinct time gives it back and lets
    it be taken from the other two (Goodrich & Mitzenmacher 2011). Exact times are only asked for
    where the permit allows ``time_bin = 0``.
    """

    kind: ClassVar[str] = "exact times"

    count: Annotated[Vector, Leaves("(cells,)", "events", bound=4)]
    high: Annotated[Vector, Leaves("(cells,)", "sum of the upper 32 bits", bound=2**32)]
    low: Annotated[Vector, Leaves("(cells,)", "sum of the lower 32 bits", bound=2**32)]
    check: Annotated[Vector, Leaves("(cells,)", "sum of 32-bit hashes", bound=2**32)]


def _hash(bits: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """Return a 32-bit mix of 64-bit words (the finaliser of SplitMix64)."""
    z = bits + np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) & np.uint64(0xFFFFFFFF)


def _cells_of(bits: NDArray[np.uint64], cells: int) -> list[NDArray[np.int64]]:
    third = cells // 3
    return [(_hash(bits, s + 1) % np.uint64(third)).astype(np.int64) + s * third for s in range(3)]


def bloom(times: Vector, cells: int) -> TimeSet:
    """Return a site's event times (n,) as a table of so many cells."""
    bits = np.ascontiguousarray(times + 0.0).view(np.uint64)
    columns = (np.ones(len(bits)), bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF), _hash(bits, 99))
    table = np.zeros((4, cells))
    for place in _cells_of(bits, cells):
        for row, values in enumerate(columns):
            table[row] += np.bincount(place, weights=values.astype(float), minlength=cells)
    return TimeSet(*table)


def peel(total: TimeSet) -> Vector | None:
    """Return the sorted distinct times, or None if the table is too small to be read."""
    table = np.stack([total.count, total.high, total.low, total.check])
    cells = table.shape[1]
    found: set[int] = set()
    while True:
        occupied = table[0] > 0
        count = np.where(occupied, table[0], 1)
        high, low = np.rint(table[1] / count), np.rint(table[2] / count)
        bits = (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
        pure = occupied & (table[1] == high * count) & (table[2] == low * count)
        pure &= table[3] == _hash(bits, 99).astype(float) * count
        fresh, first = np.unique(bits[pure], return_index=True)
        if not len(fresh):
            break
        counts = table[0][pure][first]
        columns = (
            counts,
            (fresh >> np.uint64(32)) * counts,
            (fresh & np.uint64(0xFFFFFFFF)) * counts,
            _hash(fresh, 99) * counts,
        )
        for place in _cells_of(fresh, cells):
            for row, values in enumerate(columns):
                table[row] -= np.bincount(place, weights=values.astype(float), minlength=cells)
        found |= {int(b) for b in fresh}
    if bool(np.any(table[0] != 0)):
        return None
    times = np.array(sorted(found), dtype=np.uint64).view(np.float64)
    return np.asarray(np.sort(times), dtype=np.float64)
