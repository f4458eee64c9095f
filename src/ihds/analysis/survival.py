"""Risk sets as sums: the counting that the curves, the tests and the Cox model share.

Bins are numbered 0..K-1; a row is at risk in ``entry < bin <= exit`` and, if ``event``, has its
event in ``exit``. Strata and groups multiply the bins: cell = stratum * K + bin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ihds.analysis import formula as formulas
from ihds.analysis.design import DEFAULT_TIME_BIN, Ask, Design, Floats, Ints
from ihds.analysis.features import resting
from ihds.analysis.method import Contribution, Leaves, Vector
from ihds.analysis.result import Curve
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula
from ihds.privacy.disclosure import merge_bins


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


def cells_of(design: Design) -> Cells:
    """Return the cells of a design by stratum; made once."""
    if "cells" not in design.cache:
        strata = max(1, len(design.frame.strata))
        design.cache["cells"] = Cells.of(
            design.exit, design.entry, design.event, design.stratum, strata, len(design.times)
        )
    cells: Cells = design.cache["cells"]
    return cells


@dataclass(frozen=True, slots=True)
class Ties:
    """What the Efron (or Breslow) treatment of ties makes of the risk-set sums, per cell.

    With a0_l = S0 - f_l D0 and f_l = l/d (0 for Breslow), l = 0..d-1: ``a`` sum 1/a0, ``b`` sum
    f/a0, ``aa`` sum 1/a0^2, ``ab`` sum f/a0^2, ``bb`` sum f^2/a0^2, ``log`` sum log a0; each times
    the mean weight of the cell's events.
    """

    a: Floats
    b: Floats
    aa: Floats
    ab: Floats
    bb: Floats
    log: Floats


def break_ties(d: Floats, s0: Floats, d0: Floats, ties: str, dw: Floats | None = None) -> Ties:
    """Return the sums over tied events of each cell; all shapes (cells,). ``dw`` is what the events weigh."""
    cells = len(d)
    filled = np.flatnonzero(d > 0.5)
    counts = np.rint(d[filled]).astype(np.int64)
    which = np.repeat(filled, counts)
    rank = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    fraction = rank / d[which] if ties == "efron" else np.zeros(len(which))
    a0 = s0[which] - fraction * d0[which]
    inverse = 1 / a0
    mean = 1.0 if dw is None or not len(dw) else dw[which] / d[which]

    def per_cell(values: Floats) -> Floats:
        return np.bincount(which, weights=values * mean, minlength=cells).astype(np.float64)

    return Ties(
        a=per_cell(inverse),
        b=per_cell(fraction * inverse),
        aa=per_cell(inverse**2),
        ab=per_cell(fraction * inverse**2),
        bb=per_cell((fraction * inverse) ** 2),
        log=per_cell(np.log(a0)),
    )


def survival_formula(text: str, codebook: Codebook) -> formulas.Formula:
    """Parse a formula that must have a Surv() response."""
    categories = [n for n, v in codebook.variables.items() if v.kind == "category"]
    formula = formulas.parse(text, codebook.variables, categories)
    if not formula.survival:
        raise BadFormula(f"{text!r} has no Surv() response", remedy="write Surv(time, status) ~ ...")
    return formula


def grid_width(chosen: float | None, formula: formulas.Formula, codebook: Codebook) -> float:
    """Return the time bin: the one asked for, the codebook's, or 30."""
    if chosen is not None:
        if chosen < 0:
            raise BadFormula(f"time_bin is {chosen:g}", remedy="give 0 or a positive width")
        return chosen
    declared = [codebook.variables[n].time_bin for n in _clock_variables(formula, codebook)]
    found = [b for b in declared if b is not None]
    return found[-1] if found else DEFAULT_TIME_BIN


def grid_end(chosen: float | None, formula: formulas.Formula, codebook: Codebook) -> float | None:
    """Return the horizon: the one asked for, or the codebook's."""
    if chosen is not None:
        return chosen
    declared = [codebook.variables[n].horizon for n in _clock_variables(formula, codebook)]
    found = [h for h in declared if h is not None]
    return found[-1] if found else None


def _clock_variables(formula: formulas.Formula, codebook: Codebook) -> list[str]:
    names = [formula.label(r) for r in formula.response[:-1]]
    return [n for n in names if n in codebook.variables]


def groups_ask(formula: Any, time_bin: float | None, horizon: float | None, codebook: Codebook) -> Ask:
    """Return the ask shared by the curve and the log-rank test.

    Raises:
        BadFormula: a group is not a plain category, or the site is a stratum.

    """
    if formula.offset or formula.cluster:
        raise BadFormula("curves and tests take no offset() or cluster()", remedy="leave it out")
    formula = replace(formula, terms=tuple(re.sub(r"^C\((\w+)\)$", r"\1", t) for t in formula.terms))
    for term in formula.terms:
        name = formula.label(term)
        if name not in codebook.variables:
            raise BadFormula(f"{name!r} is not a category", remedy="name one or more categories, or 1")
    if "site" in formula.strata:
        raise BadFormula("strata(site) would show single sites", remedy="leave it out")
    return Ask(
        formula=formula,
        outcome="survival",
        covariates="groups",
        clock="grid",
        time_bin=grid_width(time_bin, formula, codebook),
        horizon=grid_end(horizon, formula, codebook),
    )


@dataclass(frozen=True, slots=True)
class Exits(Contribution):
    """Who leaves and enters the risk set, per group and bin."""

    kind: ClassVar[str] = "curve"

    events: Annotated[Vector, Leaves("(groups*bins,)", "persons", bound=1, counts_persons=True)]
    leave: Annotated[Vector, Leaves("(groups*bins,)", "persons", bound=1, counts_persons=True)]
    enter: Annotated[Vector, Leaves("(groups*bins,)", "persons", bound=1)]


@dataclass(frozen=True, slots=True)
class Counted:
    """The opened totals, once there."""

    counted: bool
    events: Vector
    leave: Vector
    enter: Vector


def count_cells(design: Design, code: Any, groups: int) -> tuple[Vector, Vector, Vector]:
    """Return events, exits and late entries per (code, bin), each (groups * bins,)."""
    bins = len(design.times)
    size = max(1, groups) * bins
    seen = design.exit > design.entry
    late = seen & (design.entry >= 0)
    leave = np.bincount((code * bins + design.exit)[seen], minlength=size)
    enter = np.bincount((code * bins + design.entry)[late], minlength=size)
    events = np.bincount((code * bins + design.exit)[seen & design.event], minlength=size)
    return events.astype(float), leave.astype(float), enter.astype(float)


#: A part of all weights that is made by adding and taking away.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a curve that may be shown, by the bins they start and end at (k,), and their times.

    Everything a curve says, its median and mean too, is of these steps: the rest may tell of few.
    """

    starts: Ints
    ends: Ints
    times: Vector

    @classmethod
    def of(
        cls, times: Vector, leave: Vector, enter: Vector, events: Any, min_cell: int, followed: Vector | None = None
    ) -> Steps:
        """Choose the steps; who leaves one row and enters the next is not counted as an exit.

        Of several curves, ``leave`` and ``enter`` being (curves, bins), the steps that all may have;
        ``followed`` (groups, bins) are then persons at risk in some curves only.
        """
        exits = np.maximum(leave - enter, 0.0) if min_cell > 1 else leave
        risk = at_risk(leave, enter)
        if leave.ndim == 2:
            exits = exits.min(axis=0) if min_cell > 1 else exits.max(axis=0)
            risk = risk.min(axis=0)
        for group in followed if followed is not None else ():  # a step's end shows those who are left
            risk = np.where(group > 0, np.minimum(risk, group), risk)
        ends = merge_bins(exits, events, risk, min_cell).astype(np.int64)
        first = np.flatnonzero(risk > 0)[:1].astype(np.int64)  # with late entries nobody may be at risk at first
        starts = np.concatenate([first, ends[:-1] + 1]) if len(ends) else ends
        return cls(starts, ends, times[ends])

    def worth(self, times: Vector, weights: Any, least: int, leaving: int = 1) -> Steps:
        """Return these steps joined until what their rows weigh is worth ``least`` persons of one weight, or nothing.

        ``weights`` (kinds, bins, 2) are sums of weights and of their squares, the first kinds of those ``leaving``;
        those whom a step leaves must be worth as many.
        """
        grown = np.concatenate([np.zeros((len(weights), 1, 2)), np.cumsum(weights, axis=1)], axis=1)

        def enough(start: int, end: int, kinds: int | None = None) -> bool:
            within = grown[:kinds, end] - grown[:kinds, start]
            within = np.where(within > _ROUNDING * grown[:kinds, -1], within, 0.0)
            return not bool(resting(within[within.all(axis=1)], least).any())

        edges = [int(end) + 1 for end in self.ends if enough(int(end) + 1, -1, leaving)]
        kept: list[int] = []
        for edge in edges:
            if enough(kept[-1] if kept else 0, edge):
                kept.append(edge)
        joined = list(kept)
        while joined and joined[-1] < edges[-1]:  # a tail that weighs little is joined to the steps before it
            joined.pop()
            if enough(joined[-1] if joined else 0, edges[-1]):
                kept = [*joined, edges[-1]]
                break
        ends = np.array(kept, dtype=np.int64) - 1
        return Steps(np.concatenate([self.starts[:1], ends[:-1] + 1]) if len(ends) else ends, ends, times[ends])

    @property
    def until(self) -> float:
        """Where the curve ends."""
        return float(self.times[-1]) if len(self.ends) else 0.0

    def sums(self, values: Vector) -> Vector:
        """Return sums over the bins of each step (k,)."""
        whole = np.concatenate([[0.0], np.cumsum(values)])
        return np.asarray(whole[self.ends + 1] - whole[self.starts])

    def area(self, heights: Vector, end: float) -> tuple[float, Vector]:
        """Return the area to ``end`` under steps that begin at 1, and the area beyond each step (k,)."""
        if not len(self.ends):
            return float("nan"), np.zeros(0)
        edges = np.minimum(np.concatenate([[0.0], self.times, [max(end, 0.0)]]), end)
        areas = np.diff(edges) * np.concatenate([[1.0], heights])
        return float(areas.sum()), np.asarray(areas.sum() - np.cumsum(areas)[:-1])

    def curve(self, risk: Vector, events: Vector, estimates: dict[str, Vector], **rest: Any) -> Curve:
        """Return a curve of these steps; ``estimates`` (bins,) and those at risk are named as in ``Curve``."""
        shown: dict[str, Any] = {name: tuple(map(float, v[self.ends])) for name, v in estimates.items()}
        tau = self.until if len(self.ends) else float("nan")
        return Curve(
            time=tuple(map(float, self.times)),
            at_risk=tuple(int(risk[a]) for a in self.starts),
            events=tuple(int(v) for v in np.rint(self.sums(events))),
            **{"tau": tau, **shown, **rest},
        )


def at_risk(leave: Vector, enter: Vector) -> Vector:
    """Return those at risk per bin along the last axis: exits at or after, less entries."""
    left = np.cumsum(leave[..., ::-1], axis=-1)[..., ::-1]
    entered = np.cumsum(enter[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray(left - entered)


#: R's survfit takes a curve for one half within this (the square root of the machine's epsilon).
_HALF_TOLERANCE = 1.5e-8


def median_of(times: Vector, survival: Vector, falls: Any) -> float | None:
    """Return the first time the curve is at or below one half; midway over an exact flat, as R."""
    below = np.flatnonzero((survival <= 0.5 + _HALF_TOLERANCE) & falls)
    if not len(below):
        return None
    first = int(below[0])
    if abs(survival[first] - 0.5) < _HALF_TOLERANCE:
        lower = np.flatnonzero(survival < 0.5 - _HALF_TOLERANCE)
        if len(lower):
            return float((times[first] + times[lower[0]]) / 2)
    return float(times[first])
