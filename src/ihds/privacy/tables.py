"""Tables whose margins are known: which cells must be hidden besides the small ones, and whether it is enough.

A reader knows every shown cell, and every margin, from this result or another; cells are whole
numbers of persons. ``ranges`` finds by integer programming what each hidden cell may still be: the
hiding holds if none is narrower than ``min_cell``. ``hidden_cells`` chooses them: for each cell that
is not yet safe, the cheapest others through which persons could be moved without changing a
margin, by a linear programme (Kelly, Golden & Assad 1992; Fischetti & Salazar 2000; Hundepool et
al. 2012, ch. 4). Where that does not do, or the table is too large, all of it is hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

Cells = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: Sums that a reader knows: each a row of 0 and 1 over the cells of a table.
Sums = NDArray[np.float64]

#: Cells above which a table is hidden whole instead of searched.
MOST_CELLS = 400
#: Seconds after which a search is given up.
_IN_TIME = 2.0
#: Where every cell that is hidden is safe but for rounding.
_ALMOST = 1e-6


def margins(shape: Sequence[int]) -> Sums:
    """Return the sums over each dimension of a table, its cells in C order: all margins of one dimension less."""
    size = int(np.prod(shape))
    at = np.arange(size).reshape(shape)
    found = []
    for axis in range(len(shape)):
        for line in np.moveaxis(at, axis, -1).reshape(-1, shape[axis]):
            row = np.zeros(size)
            row[line] = 1.0
            found.append(row)
    return np.array(found)


def primary(cells: Cells, min_cell: int, *, hide_empty: bool = False, hide_full: bool = False) -> Flags:
    """Return the cells that may not be shown by themselves.

    These hold persons, but few; with ``hide_empty`` also those that hold nobody. With ``hide_full`` it is a whole
    line of the table, in any dimension, of which one cell holds everybody: the empty ones would tell of the full.
    """
    hidden = (cells > 0) & (cells < min_cell)
    if hide_empty:
        hidden |= cells == 0
    for axis in range(cells.ndim) if hide_full and cells.ndim > 1 else ():
        if cells.shape[axis] > 1:
            whole = cells.sum(axis=axis, keepdims=True)
            hidden |= np.any((cells == whole) & (whole > 0), axis=axis, keepdims=True)
    return np.asarray(hidden)


def ranges(cells: Cells, hidden: Flags, sums: Sums, least: int = 0) -> list[tuple[float, float]]:
    """Return between which whole numbers each hidden cell may lie, none being below ``least``, under known sums."""
    found = []
    for which, matrix, totals in _parts(cells.ravel(), hidden.ravel(), sums):
        for j, cell in enumerate(which):
            ends = [_extreme(matrix, totals, j, sign, least) for sign in (1.0, -1.0)]
            low, high = (None if end is None else float(end[j]) for end in ends)
            found.append((cell, (float(least) if low is None else low, np.inf if high is None else high)))
    return [pair for _, pair in sorted(found)]


def _parts(cells: Cells, hidden: Flags, sums: Sums) -> list[tuple[NDArray[np.intp], Sums, Cells]]:
    """Return the hidden cells in parts that share no sum, each with its sums and what is left of them."""
    which = np.flatnonzero(hidden)
    known = sums[:, which]
    matrix = np.unique(known[known.any(axis=1)], axis=0)
    count, label = sparse.csgraph.connected_components(sparse.csr_matrix(matrix.T @ matrix), directed=False)
    parts = []
    for c in range(count):
        own = label == c
        rows = matrix[matrix[:, own].any(axis=1)][:, own]
        parts.append((which[own], rows, rows @ cells[which[own]]))
    return parts


def _extreme(matrix: Sums, totals: Cells, j: int, sign: float, least: int) -> Cells | None:
    """Return the table of hidden cells in which cell ``j`` is smallest (``sign`` 1) or largest; None for no bound.

    It is of NaN where none was found in time: then no cell is proved safe.
    """
    goal = np.zeros(matrix.shape[1])
    goal[j] = sign
    if not len(matrix):
        return None
    done = milp(
        goal,
        constraints=LinearConstraint(matrix, totals, totals),
        integrality=np.ones(matrix.shape[1], dtype=np.int64),
        bounds=Bounds(least),
        options={"time_limit": _IN_TIME},
    )
    return np.rint(done.x) if done.status == 0 else np.full(matrix.shape[1], np.nan)


def exposed(cells: Cells, hidden: Flags, sums: Sums, min_cell: int, *, empty_shown: bool = True) -> Flags:
    """Return the hidden cells that a reader could work out, or nearly: those that lie within less than ``min_cell``.

    Somebody who knows that empty cells are shown takes hidden ones to hold persons: then too no cell
    may be left with one value.
    """
    found = np.zeros(cells.size, dtype=bool)
    if not hidden.any():
        return found.reshape(cells.shape)
    flat = cells.ravel()
    least = 1 if empty_shown and bool(np.all(cells[hidden] >= 1)) else 0
    for which, matrix, totals in _parts(flat, hidden.ravel(), sums):
        found[which] = True if len(which) > MOST_CELLS else _narrow(flat[which], matrix, totals, min_cell, least)
    if empty_shown:
        found &= flat > 0
    return found.reshape(cells.shape)


def derivable(values: Sequence[int | None], known: Sequence[tuple[Sequence[int], int]], min_cell: int) -> list[int]:
    """Return which hidden values (None) of a released table follow, or nearly, from shown ones and known sums.

    ``known`` are the cells of a sum and its total. Where no table fits them, all hidden ones count as derivable.
    """
    hidden = np.array([v is None for v in values])
    which = np.flatnonzero(hidden)
    sums = np.zeros((len(known), len(values)))
    for row, (cells, _) in zip(sums, known, strict=True):
        row[list(cells)] = 1.0
    shown = np.array([0.0 if v is None else float(v) for v in values])
    rest = np.array([float(total) for _, total in known]) - sums @ shown
    matrix = sums[:, which]
    told = matrix.any(axis=1)
    if not told.any():
        return []
    matrix, rest = matrix[told], rest[told]
    fits = milp(
        np.zeros(len(which)),
        constraints=LinearConstraint(matrix, rest, rest),
        integrality=np.ones(matrix.shape[1], dtype=np.int64),
        bounds=Bounds(0),
    )
    if fits.status != 0:
        return [int(i) for i in which]
    least = shown.copy()
    least[which] = np.rint(fits.x)
    open_ = []
    for i, (low, high) in zip(which, ranges(least, hidden, sums), strict=True):
        if not (high <= 0 or high - low >= min_cell - _ALMOST):  # so that NaN counts as derivable
            open_.append(int(i))
    return open_


def _narrow(truth: Cells, matrix: Sums, totals: Cells, min_cell: int, least: int) -> Flags:
    """Return which of some hidden cells are exposed; every table that is found tells of all cells at once."""
    low, high = truth.copy(), truth.copy()
    apart, open_ = np.zeros(len(truth), dtype=bool), np.zeros(len(truth), dtype=bool)
    for j in range(len(truth)):
        for floor in sorted({least, 0}, reverse=True):
            for sign in (-1.0, 1.0):
                if high[j] - low[j] >= min_cell and apart[j]:
                    break
                table = _extreme(matrix, totals, j, sign, floor)
                if table is None:  # no sum bounds this cell from above
                    high[j] = np.inf
                    apart[j] = True
                    continue
                low, high = np.minimum(low, table), np.maximum(high, table)
                apart |= (table != truth) & (floor == least)
        open_[j] = not (high[j] - low[j] >= min_cell and apart[j])
    return open_


def hidden_cells(cells: Cells, first: Flags, sums: Sums, min_cell: int, *, empty_shown: bool = True) -> Flags:
    """Return the cells to hide: those of ``first``, and others until none of them can be worked out from the sums.

    A cell once safe stays safe, for hiding more leaves a reader more freedom.
    """
    if not first.any():
        return first
    everything = np.ones(cells.shape, dtype=bool)
    if cells.size > MOST_CELLS:
        return everything
    hidden = first.copy()
    for _ in range(cells.size):
        open_ = np.flatnonzero(exposed(cells, hidden, sums, min_cell, empty_shown=empty_shown).ravel())
        if not len(open_):
            return hidden
        before = hidden
        for at in open_:
            more = _others(cells.ravel(), hidden.ravel(), sums, int(at), min_cell, empty_shown=empty_shown)
            if more is None:
                return everything
            hidden = hidden | more.reshape(cells.shape)
        if np.array_equal(before, hidden):
            break
    return everything


def _others(cells: Cells, hidden: Flags, sums: Sums, at: int, need: int, *, empty_shown: bool) -> Flags | None:
    """Return the cheapest cells to hide besides, so that cell ``at`` could hold ``need`` persons more; None for none.

    Persons are moved up (first half of the unknowns) or down (second) by amounts that leave every sum as it is.
    """
    size = cells.size
    fixed = empty_shown & (cells == 0) & ~hidden
    room = np.where(fixed, 0.0, np.maximum(cells - (1.0 if empty_shown else 0.0), 0.0))
    upper = np.concatenate([np.where(fixed, 0.0, float(need)), np.minimum(room, float(need))])
    lower = np.zeros(2 * size)
    lower[at] = upper[at] = float(need)
    upper[size + at] = 0.0
    cost = np.where(hidden, 0.0, 1.0 + np.log1p(cells))
    balance = np.hstack([sums, -sums])
    still = LinearConstraint(balance, 0.0, 0.0)
    done = milp(np.tile(cost, 2), constraints=still, bounds=Bounds(lower, upper))
    if done.status != 0:
        return None
    return np.asarray((done.x[:size] > _ALMOST) | (done.x[size:] > _ALMOST))


def shown(cells: Cells, hidden: Flags) -> list[int | None]:
    """Return a one-way table as it may be shown."""
    return [None if h else int(c) for c, h in zip(cells, hidden, strict=True)]
