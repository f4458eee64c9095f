"""Cumulative incidence of competing causes, with Gray's test between groups.

Model      F_c(t) = sum S(s-) d_cs / n_s on the shared time grid, S the survival from all causes.
Down       nothing but the agreed grid, groups, strata and causes.
Up         CauseExits: per stratum, group and bin the events of each cause and those who leave.
Rounds     1.
Reveals    counts per bin, on the sum over sites only; the released curve has a point only where
           at least min_cell persons have left since the point before, and none or as many had an event;
           it ends while as many are followed, and all it says is of these points.
Errors     NoEvents, BadLevel, BadFormula.
Source     Aalen & Johansen 1978; Gray 1988. Variance and test as R cmprsk::cuminc
           (tests/vectors/competing.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from scipy.special import ndtri

from ihds.analysis.competing import cause_codes, causes_of, competing_ask
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import invert
from ihds.analysis.result import Curve, Result, Test, chi_square
from ihds.analysis.survival import Steps, at_risk
from ihds.data.codebook import Codebook
from ihds.errors import Collinear


@dataclass(frozen=True, slots=True)
class Params:
    """The formula is ``Surv(time, cause) ~ group``; ``censored`` is the level of the cause that is no event."""

    formula: str
    censored: str = "censored"
    time_bin: float | None = None
    horizon: float | None = None


@dataclass(frozen=True, slots=True)
class CauseExits(Contribution):
    """Who leaves, and from which cause, per stratum, group and bin."""

    kind: ClassVar[str] = "curve"

    events: Annotated[Vector, Leaves("(causes*groups*bins,)", "persons", bound=1, counts_persons=True)]
    leave: Annotated[Vector, Leaves("(groups*bins,)", "persons", bound=1, counts_persons=True)]


CONTRIBUTIONS = (CauseExits,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened totals, once there."""

    total: CauseExits | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a time and a cause by groups on a shared grid."""
    return competing_ask(
        params.formula, params.censored, codebook, time_bin=params.time_bin, horizon=params.horizon, groups=True
    )


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(None)


def local(params: Params, state: State, design: Design) -> CauseExits:
    """Count events of each cause and exits per stratum, group and bin."""
    frame, bins = design.frame, len(design.times)
    groups, strata = max(1, len(frame.groups)), max(1, len(frame.strata))
    size = strata * groups * bins
    cell = (design.stratum * groups + design.group) * bins + design.exit
    cause = cause_codes(params.formula, params.censored, design)
    causes = len(causes_of(params.formula, params.censored, frame))
    counted = [np.bincount(cell[cause == c], minlength=size) for c in range(causes)]
    return CauseExits(
        events=np.array(counted, dtype=np.float64).reshape(-1),
        leave=np.bincount(cell, minlength=size).astype(np.float64),
    )


def aggregate(params: Params, state: State, total: CauseExits) -> State:
    """Keep the totals."""
    return State(total)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return one curve per group and cause, and Gray's test per cause if there are groups."""
    if state.total is None:
        return None
    causes = causes_of(params.formula, params.censored, frame)
    groups, strata, bins = frame.groups or ("",), max(1, len(frame.strata)), len(frame.times)
    events = np.rint(state.total.events).reshape(len(causes), strata, len(groups), bins)
    leave = np.rint(state.total.leave).reshape(strata, len(groups), bins)
    curves = [
        _curve(f"{label or 'all'}: {cause}", frame, events[:, :, g].sum(axis=1), leave[:, g].sum(axis=0), c)
        for g, label in enumerate(groups)
        for c, cause in enumerate(causes)
    ]
    tests: tuple[Test, ...] = ()
    if len(groups) > 1:
        whole = events.sum(axis=0)
        found = (_gray(events[c], whole - events[c], leave, groups) for c in range(len(causes)))
        tests = tuple(chi_square(f"Gray: {c}", g, len(groups) - 1) for c, g in zip(causes, found, strict=True))
    return Result(
        method="cumulative_incidence",
        n=frame.rows,
        events=sum(sum(curve.events) for curve in curves),
        curves=tuple(curves),
        tests=tests,
        details={
            "curve": "cumulative incidence",
            "causes": list(causes),
            "time_bin": frame.time_bin,
            "strata": list(frame.strata) if strata > 1 else [],
            "min_exits_per_point": frame.min_cell,
            "left_out_missing": frame.left_out,
        },
    )


def _curve(label: str, frame: Frame, d: Matrix, leave: Vector, cause: int) -> Curve:
    n = at_risk(leave, np.zeros_like(leave))
    times: Vector = frame.times
    held = np.where(n > 0, n, 1.0)
    survival = np.cumprod(1 - d.sum(axis=0) / held)
    before = np.concatenate([[1.0], survival[:-1]])
    incidence = np.cumsum(before * d[cause] / held)
    se = np.sqrt(np.maximum(_variance(before, survival, d[cause], d.sum(axis=0) - d[cause], n, incidence), 0.0))
    z = float(ndtri(0.975))
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.where(incidence > 0, z * se / incidence, 0.0)
    steps = Steps.of(times, leave, np.zeros_like(leave), d, frame.min_cell)  # the same for all causes
    free, _ = steps.area(1 - incidence[steps.ends], steps.until)
    bounds = {"lower": incidence * np.exp(-half), "upper": np.minimum(incidence * np.exp(half), 1.0)}
    estimates = {"estimate": incidence, "se": se, **bounds}
    lost = steps.until - free
    return steps.curve(n, d[cause], estimates, group=label, median=None, rmst=lost, rmst_se=float("nan"))


def _variance(before: Vector, after: Vector, own: Vector, other: Vector, n: Vector, incidence: Vector) -> Vector:
    """Return the variance of a cumulative incidence as cmprsk::cuminc has it."""
    with np.errstate(divide="ignore", invalid="ignore"):

        def spread(d: Vector) -> Vector:
            ties = np.where(d > 1, 1 - (d - 1) / np.where(n > 1, n - 1, 1.0), 1.0)
            return np.where((d > 0) & (n > 0), before**2 * ties * d / np.where(n > 0, n, 1.0) ** 2, 0.0)

        own_spread, other_spread = spread(own), spread(other)
        last = after <= 0  # nothing can happen any more: F(t) - F(s) is 0 from there on
        over = np.where(last, 0.0, 1 / np.where(last, 1.0, after))
    # h_s = (F(t) - F(s)) / S(s): the sums over s <= t expand into powers of F(t)
    a0, a1 = own_spread + other_spread, over
    level = incidence * over
    constant = np.cumsum(own_spread * (1 + level) ** 2 + other_spread * level**2)
    linear = np.cumsum(own_spread * a1 * (1 + level) + other_spread * a1 * level)
    square = np.cumsum(a0 * a1**2)
    return np.asarray(constant - 2 * incidence * linear + incidence**2 * square)


def _gray(own: Matrix, other: Matrix, leave: Matrix, groups: tuple[str, ...]) -> float:
    """Return Gray's statistic for one cause; shapes (strata, groups, bins)."""
    size = len(groups)
    score, variance = np.zeros(size - 1), np.zeros((size - 1, size - 1))
    for stratum in range(len(own)):
        s, v = _gray_stratum(own[stratum], other[stratum], at_risk(leave[stratum], np.zeros_like(leave[stratum])))
        score += s
        variance += v
    if bool(np.any(np.diag(variance) <= 0)):
        raise Collinear("each group lies in a stratum of its own, or has no event", remedy="leave the stratum out")
    return float(score @ invert(variance, groups[1:]) @ score)


def _gray_stratum(own: Matrix, other: Matrix, risk: Matrix) -> tuple[Vector, Matrix]:
    """Walk the event times of one stratum (Gray 1988; the recursion of cmprsk's crst)."""
    size = len(own)
    km, incidence = np.ones(size), np.zeros(size)
    pooled = 0.0
    c, v = np.zeros((size, size)), np.zeros((size, size))
    v2, v3, score = np.zeros((size, size)), np.zeros(size), np.zeros(size)
    for k in np.flatnonzero((own + other).sum(axis=0)):
        r, d1, d2 = risk[:, k], own[:, k], other[:, k]
        seen = r > 0
        held = np.where(seen, r, 1.0)
        km_before, incidence_before = km, incidence
        km = np.where(seen, km * (1 - (d1 + d2) / held), km)
        incidence = incidence + np.where(seen, km_before * d1 / held, 0.0)
        w = np.where(seen & (km_before > 0), r / np.where(km_before > 0, km_before, 1.0), 0.0)
        whole = float(w.sum())
        count = float(d1.sum())
        if whole <= 0:
            continue
        a = np.diag(w) - np.outer(w, w) / whole
        if count:
            c = c + a * count / (whole * (1 - pooled))
        share = float(np.sum(w * (1 - incidence_before)))
        pooled += count / whole
        expected = count * w * (1 - incidence_before) / share if share > 0 else np.zeros(size)
        score += np.where(seen, d1 - expected, 0.0)
        for j in np.flatnonzero(seen):
            if count:
                t4 = 1 - (1 - pooled) / km[j] if km[j] > 0 else 1.0
                t5 = 1 - (count - 1) / (whole * km_before[j] - 1) if count > 1 else 1.0
                t3 = t5 * km_before[j] * count / (whole * r[j])
                along = a[:, j] - t4 * c[:, j]
                v += t3 * np.outer(along, along)
                v2[j] += t3 * t4 * along
                v3[j] += t3 * t4**2
            if d2[j] > 0 and km[j] > 0:
                t4 = (1 - pooled) / km[j]
                t5 = 1 - (d2[j] - 1) / (r[j] - 1) if d2[j] > 1 else 1.0
                t3 = t5 * km_before[j] ** 2 * d2[j] / r[j] ** 2
                along = t4 * c[:, j]
                v += t3 * np.outer(along, along)
                v2[j] -= t3 * t4 * along
                v3[j] += t3 * t4**2
    for i in range(size):
        v += v3[i] * np.outer(c[:, i], c[:, i]) + np.outer(c[:, i], v2[i]) + np.outer(v2[i], c[:, i])
    return score[1:], v[1:, 1:]
