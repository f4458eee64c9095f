"""Parametric survival: accelerated failure times, Weibull by default.

Model      log T = x · beta + scale · W; W extreme value (weibull, exponential: scale = 1), logistic
           (loglogistic) or normal (lognormal).
Down       beta (p,) and log(scale).
Up         LogTimes once, then score, information and log-likelihood, as sums over sites; times
           themselves never leave.
Rounds     1, then about 6 for the null model and 6 for the whole one.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     Collinear, Separation (a group without events), DidNotConverge, NoEvents.
Source     Kalbfleisch & Prentice 2002, ch. 3. Checked against R survival::survreg
           (tests/vectors/regression.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from scipy.special import expit, log_ndtr

from ihds.analysis import likelihood
from ihds.analysis.design import INTERCEPT, Ask, Design, Frame
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Contribution, Leaves, Vector
from ihds.analysis.numerics import blocks
from ihds.analysis.result import Result
from ihds.analysis.survival import survival_formula
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula


@dataclass(frozen=True, slots=True)
class Params:
    """``exponential`` is ``weibull`` with its scale held at 1."""

    formula: str
    distribution: Literal["weibull", "exponential", "loglogistic", "lognormal"] = "weibull"
    max_rounds: int = 80


@dataclass(frozen=True, slots=True)
class LogTimes(Contribution):
    """Where to start: moments of the logarithms of the times."""

    rows: Annotated[float, Leaves("()", "rows", bound=1, counts_persons=True)]
    events: Annotated[float, Leaves("()", "events", bound=1)]
    total: Annotated[float, Leaves("()", "log of time", bound=2**10)]
    square: Annotated[float, Leaves("()", "log of time squared", bound=2**20)]


CONTRIBUTIONS = (LogTimes, Likelihood)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state; the last parameter is log(scale) unless the scale is held."""

    fit: Fit
    events: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for positive times (the times themselves stay at the site) and a model matrix."""
    formula = survival_formula(params.formula, codebook)
    if len(formula.response) != 2:
        raise BadFormula("parametric_survival takes Surv(time, event)", remedy="for (start, stop] use piecewise")
    if formula.strata or formula.cluster or formula.offset:
        raise BadFormula("parametric_survival takes no strata(), cluster() or offset()", remedy="leave it out")
    return Ask(formula=replace(formula, intercept=True), outcome="survival", covariates="matrix", extra=2)


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known."""
    held = params.distribution == "exponential"
    q = len(frame.columns) + (1 if held else 2)
    terms = (INTERCEPT, *frame.columns, *(() if held else ("log(scale)",)))
    null = np.isin(np.arange(q), [0] if held else [0, q - 1])
    return State(likelihood.begin(terms, np.zeros(q), null), -1)


def _slopes(distribution: str, z: Vector, event: Any) -> tuple[Vector, Vector, Vector]:
    """Return log density (events) or log survival (others) of W at z, and its two derivatives."""
    if distribution in ("weibull", "exponential"):
        rate = np.exp(np.minimum(z, 600))
        return np.where(event, z, 0.0) - rate, event - rate, -rate
    if distribution == "loglogistic":
        p, upper = expit(z), np.logaddexp(0, z)
        times = 1.0 + event
        return np.where(event, z, 0.0) - times * upper, event - times * p, -times * p * expit(-z)
    log_tail = log_ndtr(-z)
    hazard = np.exp(-0.5 * z * z - 0.5 * np.log(2 * np.pi) - log_tail)
    return (
        np.where(event, -0.5 * z * z - 0.5 * np.log(2 * np.pi), log_tail),
        np.where(event, -z, -hazard),
        np.where(event, -1.0, -hazard * (hazard - z)),
    )


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the moments of log times first, then the sums of a Newton step."""
    times = np.log(design.stop)
    if state.events < 0:
        return LogTimes(float(len(times)), float(design.event.sum()), float(times.sum()), float(times @ times))
    at, held = state.fit.at, params.distribution == "exponential"
    q = len(at)
    p = q if held else q - 1
    scale = 1.0 if held else float(np.exp(np.clip(at[p], -40, 40)))
    score, information, log_likelihood = np.zeros(q), np.zeros((q, q)), 0.0
    for rows in blocks(len(times)):
        event = design.event[rows]
        x = np.column_stack([np.ones(len(event)), design.x[rows]])
        z = np.clip((times[rows] - x @ at[:p]) / scale, -1e6, 600)
        log_f, slope, curve = _slopes(params.distribution, z, event)
        log_likelihood += float(log_f.sum() - (np.log(scale) + times[rows])[event].sum())
        score[:p] -= x.T @ slope / scale
        information[:p, :p] -= (x.T * (curve / scale**2)) @ x
        if not held:
            score[p] -= float(slope @ z + event.sum())
            cross = x.T @ (curve * z + slope) / scale
            information[:p, p] -= cross
            information[p, :p] -= cross
            information[p, p] -= float((curve * z * z + slope * z).sum())
    return likelihood.within(Likelihood(score, information, log_likelihood), design.frame.rows)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Keep the moments, to be placed where the number of rows is known; then take Newton steps."""
    if isinstance(total, LogTimes):
        at = state.fit.at.copy()
        at[0] = total.total / max(total.rows, 1.0)
        if params.distribution != "exponential":
            spread = max(total.square / max(total.rows, 1.0) - at[0] ** 2, 1e-4)
            at[-1] = 0.5 * np.log(spread)
        return State(replace(state.fit, at=at), round(total.events))
    return replace(state, fit=likelihood.newton(state.fit, total, "parametric_survival", params.max_rounds))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return coefficients and scale once the steps have settled."""
    fit = state.fit
    if fit.phase != "done":
        return None
    p = len(frame.columns) + 1
    transform = np.eye(len(fit.at))
    transform[1:p, 1:p] = np.diag(1 / frame.scale)
    transform[0, 1:p] = -frame.centre / frame.scale
    coefficients, covariance = likelihood.table(fit, transform)
    scale = 1.0 if params.distribution == "exponential" else float(np.exp(fit.at[-1]))
    return Result(
        method="parametric_survival",
        n=frame.rows,
        events=state.events,
        coefficients=coefficients,
        log_likelihood={"null": fit.null_log_likelihood, "fitted": fit.log_likelihood},
        tests=likelihood.ratio_test(fit),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details={"distribution": params.distribution, "scale": scale, "left_out_missing": frame.left_out},
    )
