"""Histograms with noise: counts of values in published bins.

Model      counts of values in [edge_j, edge_j+1); the last bin holds its upper edge.
Down       nothing: edges are those given, or twelve equal parts between the published bounds.
Up         Bins: rows per variable, group and bin.
Rounds     1.
Reveals    these counts with noise; none is hidden, and one below zero is told as it was drawn.
Errors     BadFormula, BadInput.
Source     the error of a count is that of its noise. Checked by simulation (tests/analysis/test_private.py).
Status     experimental
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar

import numpy as np

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Vector
from ihds.analysis.methods import histogram
from ihds.analysis.noisy import Moved, bounded
from ihds.analysis.result import Result
from ihds.privacy.rules import NOISY

Params = histogram.Params
ask = histogram.ask
_BINS = 12
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Bins(Contribution):
    """Rows per variable, group and bin."""

    kind: ClassVar[str] = NOISY

    counts: Annotated[Any, bounded("(variables, groups, bins)", "rows")]


CONTRIBUTIONS = (Bins,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened, noisy counts, once there."""

    total: Bins | None


STATE = State


def _edges(params: Params, frame: Frame, variable: int) -> Vector:
    if params.breaks:
        return np.asarray(params.breaks, dtype=np.float64)
    return np.asarray(frame.centre[variable] + frame.scale[variable] * np.linspace(-1, 1, _BINS + 1))


def _shape(params: Params, frame: Frame) -> tuple[int, int, int]:
    groups = len(frame.levels[params.by]) if params.by else 1
    return len(frame.columns), groups, len(params.breaks) - 1 if params.breaks else _BINS


def rounds(params: Params) -> tuple[Fraction, ...]:
    """All of rho goes into the only round."""
    return (Fraction(1),)


def moved(params: Params, ask: Ask, frame: Frame) -> dict[str, Moved]:
    """Say that a row is in one bin of each variable."""
    shape = _shape(params, frame)
    return {"counts": Moved(int(np.prod(shape)), Fraction(shape[0]))}


def least(params: Params, frame: Frame, noise: Mapping[str, float]) -> float:
    """Noise alone must stay below the size of an average bin."""
    _, groups, bins = _shape(params, frame)
    return _Z * noise["counts"] * groups * bins


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(None)


def local(params: Params, state: State, design: Design) -> Bins:
    """Count the values; those beyond the ends join the end bins."""
    frame = design.frame
    shape = _shape(params, frame)
    counts = np.zeros(shape)
    group = design.codes[params.by] if params.by else np.zeros(len(design.x), dtype=np.int64)
    for v in range(shape[0]):
        edges = _edges(params, frame, v)
        column = design.x[:, v] * frame.scale[v] + frame.centre[v]
        used = ~np.isnan(column) & (group >= 0)
        at = np.clip(np.searchsorted(edges, column[used], side="right") - 1, 0, shape[2] - 1)
        counts[v] = np.bincount(group[used] * shape[2] + at, minlength=shape[1] * shape[2]).reshape(shape[1:])
    return Bins(counts)


def aggregate(params: Params, state: State, total: Bins) -> State:
    """Keep the totals."""
    return State(total)


def finish(params: Params, frame: Frame, state: State, noise: Mapping[str, float]) -> Result | None:
    """Return the counts with the error that the noise makes."""
    if state.total is None:
        return None
    counts = np.rint(state.total.counts)
    found = [
        {
            "variable": name,
            "group": group,
            "edges": [float(e) for e in _edges(params, frame, v)],
            "counts": [int(c) for c in counts[v, g]],
            "noise_se": noise["counts"],
            "coarse": False,
        }
        for v, name in enumerate(frame.columns)
        for g, group in enumerate(frame.levels[params.by] if params.by else ("",))
    ]
    n = int(max(counts.sum(axis=(1, 2)).max(), 0))
    return Result(method="histogram", n=n, details={"histograms": found})
