"""Histograms: how values are spread, over all sites or per group.

Model      counts of values in [edge_j, edge_j+1) of public edges; the last bin holds its upper edge.
Down       the edges.
Up         Bins: persons per variable, group and bin; somebody with several rows counts once in a bin.
Rounds     1.
Reveals    counts per bin, on the sum over sites only; bins of fewer than min_cell persons are hidden,
           with others so that none follows from the total, or from the bins of all groups. The ends are
           open: no extrema.
           Nothing of a variable that one site alone measured.
Errors     BadFormula, BadInput.
Source     Pearson 1895. Checked against R hist (tests/vectors/ranks.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Vector
from ihds.analysis.outcomes import COARSE, shown_groups, shown_rows, table_formula
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput
from ihds.privacy import tables


@dataclass(frozen=True, slots=True)
class Params:
    """``breaks`` are the edges; empty takes 13 round ones about the mean. What lies beyond joins the end bins.

    Where a far value makes those too wide for the others, the result says ``coarse``.
    """

    formula: str
    by: str = ""
    breaks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Bins(Contribution):
    """Persons per variable, group and bin, and the sites that have any."""

    kind: ClassVar[str] = "count table"

    counts: Annotated[Any, Leaves("(variables, groups, bins)", "persons", bound=1, counts_persons=True)]
    sites: Annotated[Any, Leaves("(variables, groups, bins)", "sites with persons", bound=1, per="site")]


CONTRIBUTIONS = (Bins,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened counts, once there."""

    counts: Any
    sites: Any


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for each number by itself, and for the group."""
    formula = table_formula(params.formula, params.by, codebook)
    if any(codebook.variable(n).kind == "category" for n in formula.variables - {params.by}):
        raise BadFormula("histograms are of numbers", remedy="name numbers in the formula, and the group in by")
    if params.breaks and (len(params.breaks) < 3 or (np.diff(params.breaks) <= 0).any()):
        raise BadInput(f"breaks are {params.breaks}", remedy="give at least three numbers that rise")
    if not formula.variables - {params.by}:
        raise BadFormula(f"{params.formula!r} names no number", remedy="write for example ~ age")
    return Ask(formula=formula, outcome="none", covariates="table", by=params.by)


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(np.zeros((0, 0, 0)), np.zeros((0, 0, 0)))


def _edges(params: Params, frame: Frame, variable: int) -> Vector:
    """Return the edges: those given, or 13 about the agreed centre in round halves of the agreed scale."""
    if params.breaks:
        return np.asarray(params.breaks, dtype=np.float64)
    step = 10.0 ** np.floor(np.log10(frame.scale[variable] / 2))
    step *= next(m for m in (1, 2, 5, 10) if m * step >= frame.scale[variable] / 2)
    return np.asarray((np.rint(frame.centre[variable] / step) + np.arange(-6, 7)) * step)


def local(params: Params, state: State, design: Design) -> Bins:
    """Count the values."""
    frame = design.frame
    groups = len(frame.levels[params.by]) if params.by else 1
    counts = []
    for v in range(design.x.shape[1]):
        edges = _edges(params, frame, v)
        column = design.x[:, v] * frame.scale[v] + frame.centre[v]
        used = np.isfinite(column)
        group = design.codes[params.by] if params.by else np.zeros(len(column), dtype=np.int64)
        used &= group >= 0
        least = edges - 1e-12 * (edges[-1] - edges[0])  # a value at an edge may have lost its last bit
        at = np.clip(np.searchsorted(least, column[used], side="right") - 1, 0, len(edges) - 2)
        size = groups * (len(edges) - 1)
        once = np.unique(design.person[used] * size + group[used] * (len(edges) - 1) + at) % size
        counts.append(np.bincount(once, minlength=size).reshape(groups, -1))
    found: Any = np.array(counts, dtype=np.float64)
    return Bins(found, (found > 0).astype(np.float64))


def aggregate(params: Params, state: State, total: Bins) -> State:
    """Keep the totals."""
    return State(np.rint(total.counts), np.rint(total.sites))


def _hidden(frame: Frame, counts: Any, sites: Any, told: Any) -> Any:
    """Return which bins (groups, bins) are hidden: groups not told, and what few persons or one site hold."""
    limits, least = frame.limits, max(frame.min_cell, 1)
    first = tables.primary(counts, least, hide_empty=limits.hide_empty, hide_full=limits.hide_full)
    first |= ((sites > 0) & (sites < frame.min_sites)) | ~told[:, None]
    shape = [n for n in counts.shape if n > 1] or [1]
    empty_shown = not (limits.hide_empty or limits.hide_full)
    hidden = tables.hidden_cells(counts, first, tables.margins(shape), least, empty_shown=empty_shown)
    nothing = hidden.any(axis=1) & (hidden | (counts == 0)).all(axis=1)  # no bin with persons is shown: nor is an empty
    return hidden | nothing[:, None]


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the counts, small ones hidden."""
    if not state.counts.size:
        return None
    groups, shown = frame.levels[params.by] if params.by else ("",), shown_groups(params.by, frame)
    found = []
    for v in range(len(frame.columns)):
        hidden = _hidden(frame, state.counts[v], state.sites[v], np.array(shown))
        for g, group in enumerate(groups):
            counts, told = state.counts[v, g], shown[g]
            two = np.sort(counts)[-2:].sum()
            found.append(
                {
                    "variable": frame.columns[v],
                    "group": group,
                    "edges": [float(e) for e in _edges(params, frame, v)],
                    "counts": [None if h else int(c) for h, c in zip(hidden[g], counts, strict=True)],
                    "coarse": bool(told and not params.breaks and two > 0.98 * counts.sum()),
                }
            )
    details: dict[str, Any] = {"histograms": found}
    if any(f["coarse"] for f in found):
        details["warning"] = COARSE
    return Result(method="histogram", n=shown_rows(params.by, frame), details=details)
