"""Risk sets as sums: the counting both the curves and the Cox model rest on.

Bins are numbered 0..K-1; a row is at risk in ``entry < bin <= exit`` and, if ``event``, has its
event in ``exit``. Strata and groups multiply the bins: cell = stratum * K + bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.design import Design, Floats, Ints


@dataclass(frozen=True, slots=True)
class Cells:
    """Where each row of a design enters and leaves, with rows sorted so that sums are fast.

    ``first`` (cells+1,) are the offsets of each cell's rows in exit order.
    """

    strata: int
    bins: int
    order: Ints
    first: Ints
    late: Ints
    late_order: Ints
    late_first: Ints
    event_order: Ints
    event_first: Ints
    exit: Ints
    entry: Ints
    event: NDArray[np.bool_]

    @classmethod
    def of(cls, exit_: Ints, entry: Ints, event: NDArray[np.bool_], code: Ints, strata: int, bins: int) -> Cells:
        """Sort the rows; those never at risk (exit <= entry) are left out."""
        seen = np.flatnonzero(exit_ > entry)
        cell = code * bins + exit_
        order = seen[np.argsort(cell[seen], kind="stable")]
        late = seen[entry[seen] >= 0]
        late_cell = code * bins + entry
        late_order = late[np.argsort(late_cell[late], kind="stable")]
        events = order[event[order]]
        edges = np.arange(strata * bins + 1)
        return cls(
            strata=strata,
            bins=bins,
            order=order,
            first=np.searchsorted(cell[order], edges),
            late=late,
            late_order=late_order,
            late_first=np.searchsorted(late_cell[late_order], edges),
            event_order=events,
            event_first=np.searchsorted(cell[events], edges),
            exit=cell,
            entry=late_cell,
            event=event,
        )

    def at_risk(self, values: Floats) -> Floats:
        """Return, per cell, the sum of row values (n, ...) over the rows at risk."""
        leaving = segment_sums(values, self.order, self.first)
        if len(self.late_order):
            leaving = leaving - segment_sums(values, self.late_order, self.late_first)
        shaped = leaving.reshape(self.strata, self.bins, *values.shape[1:])
        return np.ascontiguousarray(np.cumsum(shaped[:, ::-1], axis=1)[:, ::-1]).reshape(leaving.shape)

    def at_event(self, values: Floats) -> Floats:
        """Return, per cell, the sum of row values over the rows with an event there."""
        return segment_sums(values, self.event_order, self.event_first)

    def over_risk(self, per_cell: Floats) -> Floats:
        """Return, per row, the sum of a per-cell quantity over the cells where the row is at risk."""
        shaped = per_cell.reshape(self.strata, self.bins, *per_cell.shape[1:])
        total = np.cumsum(shaped, axis=1).reshape(per_cell.shape)
        result = np.zeros((len(self.exit), *per_cell.shape[1:]))
        result[self.order] = total[self.exit[self.order]]
        result[self.late] -= total[self.entry[self.late]]
        return result


def segment_sums(values: Floats, order: Ints, first: Ints) -> Floats:
    """Return the sums of ``values[order]`` between consecutive offsets."""
    cells = len(first) - 1
    result = np.zeros((cells, *values.shape[1:]))
    filled = np.flatnonzero(np.diff(first) > 0)
    if len(filled):
        result[filled] = np.add.reduceat(values[order], first[filled], axis=0)
    return result


def cells_of(design: Design, by_group: bool = False) -> Cells:
    """Return the cells of a design by stratum, or by stratum and group; made once."""
    key = "cells-by-group" if by_group else "cells"
    if key not in design.cache:
        strata = max(1, len(design.frame.strata))
        code = design.stratum
        if by_group:
            groups = max(1, len(design.frame.groups))
            code, strata = code * groups + design.group, strata * groups
        design.cache[key] = Cells.of(design.exit, design.entry, design.event, code, strata, len(design.times))
    cells: Cells = design.cache[key]
    return cells


@dataclass(frozen=True, slots=True)
class Ties:
    """What the Efron (or Breslow) treatment of ties makes of the risk-set sums, per cell.

    With a0_l = S0 - f_l D0 and f_l = l/d (0 for Breslow), l = 0..d-1: ``a`` sum 1/a0, ``b`` sum
    f/a0, ``aa`` sum 1/a0^2, ``ab`` sum f/a0^2, ``bb`` sum f^2/a0^2, ``log`` sum log a0.
    """

    a: Floats
    b: Floats
    aa: Floats
    ab: Floats
    bb: Floats
    log: Floats


def break_ties(d: Floats, s0: Floats, d0: Floats, ties: str) -> Ties:
    """Return the sums over tied events of each cell; all shapes (cells,)."""
    cells = len(d)
    filled = np.flatnonzero(d > 0.5)
    counts = np.rint(d[filled]).astype(np.int64)
    which = np.repeat(filled, counts)
    rank = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    fraction = rank / d[which] if ties == "efron" else np.zeros(len(which))
    a0 = s0[which] - fraction * d0[which]
    inverse = 1 / a0

    def per_cell(values: Floats) -> Floats:
        return np.bincount(which, weights=values, minlength=cells).astype(np.float64)

    return Ties(
        a=per_cell(inverse),
        b=per_cell(fraction * inverse),
        aa=per_cell(inverse**2),
        ab=per_cell(fraction * inverse**2),
        bb=per_cell((fraction * inverse) ** 2),
        log=per_cell(np.log(a0)),
    )


def cumulative(values: Floats) -> Floats:
    """Return the running sum along the last axis."""
    return np.cumsum(values, axis=-1)


def optional(value: float) -> Any:
    """Return None for a number that does not exist."""
    return float(value) if np.isfinite(value) else None
