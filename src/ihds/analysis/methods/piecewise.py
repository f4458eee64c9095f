"""Piecewise hazards: one baseline per interval of time, continuous or discrete.

Model      exponential: hazard = exp(baseline_j + x · beta) within interval j. cloglog, logit:
           P(event in interval j | at risk) = F(baseline_j + x · beta), for those seen to its end.
Down       baselines (J,) and beta (p,).
Up         Intervals once, then score, information and log-likelihood, as sums over sites; times
           themselves never leave.
Rounds     1, then about 5 for the null model and 5 for the whole one.
Reveals    events and time at risk per interval, over all sites; an interval of fewer than
           min_cell events is refused.
Errors     NoEvents (an interval without events), Refused, Separation, Collinear, DidNotConverge.
Source     Holford 1980; Prentice & Gloeckler 1978. Checked against R stats::glm on person-period
           rows (tests/vectors/regression.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ihds.analysis import likelihood
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Contribution, Leaves, Vector
from ihds.analysis.numerics import weighted_gram
from ihds.analysis.result import Result
from ihds.analysis.survival import survival_formula
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, NoEvents, Refused


@dataclass(frozen=True, slots=True)
class Params:
    """``cuts`` are the ends of the intervals (0, c1], (c1, c2], ...

    With the exponential baseline a last interval has no end; the others look no further than the
    last cut.
    """

    formula: str
    cuts: tuple[float, ...]
    baseline: Literal["exponential", "cloglog", "logit"] = "exponential"
    max_rounds: int = 80


@dataclass(frozen=True, slots=True)
class Intervals(Contribution):
    """Events and time at risk per interval; time in units of the last cut, or persons."""

    kind: ClassVar[str] = "count table"

    events: Annotated[Vector, Leaves("(J,)", "events", bound=1, counts_persons=True)]
    at_risk: Annotated[Vector, Leaves("(J,)", "time in units of the last cut, or persons")]


CONTRIBUTIONS = (Intervals, Likelihood)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state; the first J parameters are the baselines."""

    fit: Fit
    events: Vector


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for positive times (the times themselves stay at the site) and a model matrix."""
    formula = survival_formula(params.formula, codebook)
    if formula.strata or formula.cluster:
        raise BadFormula("piecewise takes no strata() or cluster()", remedy="leave it out")
    cuts = np.asarray(params.cuts)
    if not len(cuts) or cuts[0] <= 0 or (np.diff(cuts) <= 0).any():
        raise BadFormula(f"cuts are {params.cuts}", remedy="give positive times that rise, for example 365, 730")
    if len(formula.response) == 3 and params.baseline != "exponential":
        raise BadFormula("(start, stop] needs the baseline exponential", remedy="or give Surv(time, event)")
    formula = replace(formula, intercept=True)
    return Ask(formula=formula, outcome="survival", covariates="matrix", extra=len(cuts) + 1)


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known."""
    edges = _edges(params)
    names = tuple(f"({a:g}, {b:g}]" for a, b in pairwise(edges))
    q = len(names) + len(frame.columns)
    fit = likelihood.begin((*names, *frame.columns), np.zeros(q), np.arange(q) < len(names))
    return State(fit, np.zeros(0))


def _edges(params: Params) -> list[float]:
    """Return the ends of the intervals, one more than there are intervals."""
    return [0.0, *params.cuts, *([np.inf] if params.baseline == "exponential" else [])]


def _exposure(params: Params, design: Design, interval: int) -> tuple[Vector, Any]:
    """Return each row's time at risk in an interval (or 1 and 0) and whether it has its event there."""
    low, high = _edges(params)[interval : interval + 2]
    start = design.start if len(design.start) else np.zeros(len(design.stop))
    event = design.event & (design.stop > low) & (design.stop <= high)
    if params.baseline == "exponential":
        time = np.maximum(np.minimum(design.stop, high) - np.maximum(start, low), 0.0)
        return time / params.cuts[-1], event
    return (event | (design.stop >= high)).astype(np.float64), event


def local(params: Params, state: State, design: Design) -> Contribution:
    """Count the intervals first, then give the sums of a Newton step."""
    intervals = len(_edges(params)) - 1
    if not len(state.events):
        counted = [_exposure(params, design, j) for j in range(intervals)]
        return Intervals(np.array([float(e.sum()) for _, e in counted]), np.array([float(t.sum()) for t, _ in counted]))
    at = state.fit.at
    q, p = len(at), design.x.shape[1]
    score, information, log_likelihood = np.zeros(q), np.zeros((q, q)), 0.0
    linear = design.x @ at[intervals:] + design.offset
    for j in range(intervals):
        exposure, event = _exposure(params, design, j)
        seen = np.flatnonzero(exposure > 0)
        x, d, time = design.x[seen], event[seen].astype(np.float64), exposure[seen]
        value, slope, weight = _terms(params.baseline, np.clip(at[j] + linear[seen], -700, 600), d, time)
        if params.baseline == "exponential":
            log_likelihood -= float(d.sum()) * np.log(params.cuts[-1])
        log_likelihood += float(value.sum())
        score[j] += slope.sum()
        score[intervals:] += x.T @ slope
        information[j, j] += weight.sum()
        information[j, intervals:] += x.T @ weight
        information[intervals:, j] = information[j, intervals:]
        if p:
            information[intervals:, intervals:] += weighted_gram(x, weight)
    return Likelihood(score, information, log_likelihood)


def _terms(baseline: str, eta: Vector, d: Vector, time: Vector) -> tuple[Vector, Vector, Vector]:
    """Return each row's log-likelihood, its slope in the linear predictor, and its information."""
    if baseline == "exponential":
        rate = np.exp(eta) * time
        return d * eta - rate, d - rate, rate
    if baseline == "logit":
        tail = np.exp(-np.abs(eta))
        larger = 1 / (1 + tail)
        mean = np.where(eta >= 0, larger, tail * larger)
        return d * eta - np.maximum(eta, 0) + np.log(larger), d - mean, tail * larger**2
    rate = np.exp(np.minimum(eta, 600))
    lost = -np.expm1(-rate)
    ratio = np.where(rate > 0, rate / np.where(lost > 0, lost, 1.0), 1.0) * np.exp(-rate)  # rate / (exp(rate) - 1)
    value = np.where(d > 0, np.log(np.maximum(lost, 1e-300)), -rate)
    return value, np.where(d > 0, ratio, -rate), rate * ratio  # the expected curvature, as R's glm


def aggregate(params: Params, state: State, total: Any) -> State:
    """Check the intervals and start at their crude hazards; then take Newton steps."""
    if isinstance(total, Intervals):
        at = state.fit.at.copy()
        share = total.events / np.maximum(total.at_risk, 1e-300)
        crude = np.log(np.maximum(share, 1e-12))
        at[: len(crude)] = crude if params.baseline == "exponential" else np.minimum(crude, 0.5)
        return State(replace(state.fit, at=at), total.events)
    return replace(state, fit=likelihood.newton(state.fit, total, "piecewise", params.max_rounds))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return baselines and coefficients once the steps have settled.

    Raises:
        NoEvents: an interval has no event, so its baseline is minus infinity.
        Refused: an interval has fewer events than may be shown.

    """
    fit = state.fit
    if len(state.events):
        _check(fit.terms, state.events, frame.min_cell)
    if fit.phase != "done":
        return None
    intervals = len(state.events)
    transform = np.eye(len(fit.at))
    transform[intervals:, intervals:] = np.diag(1 / frame.scale)
    transform[:intervals, intervals:] = -frame.centre / frame.scale
    shift = np.zeros(len(fit.at))
    shift[:intervals] = -frame.offset_centre
    if params.baseline == "exponential":
        shift[:intervals] -= np.log(params.cuts[-1])
    coefficients, covariance = likelihood.table(fit, transform, shift)
    return Result(
        method="piecewise",
        n=frame.rows,
        events=round(float(state.events.sum())),
        coefficients=coefficients,
        log_likelihood={"null": fit.null_log_likelihood, "fitted": fit.log_likelihood},
        tests=likelihood.ratio_test(fit),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details={
            "baseline": params.baseline,
            "events_per_interval": [round(float(e)) for e in state.events],
            "left_out_missing": frame.left_out,
        },
    )


def _check(names: tuple[str, ...], events: Vector, min_cell: int) -> None:
    for name, count in zip(names, events, strict=False):
        if round(count) == 0:
            raise NoEvents(f"the interval {name} has no event", remedy="join it with a neighbour: leave a cut out")
        if count < min_cell:
            raise Refused(
                f"the interval {name} has fewer than {min_cell} events",
                reasons=(f"min_cell: an interval's baseline shows its events, at least {min_cell}",),
                remedy="join it with a neighbour: leave a cut out",
            )
