"""Fine–Gray regression: the hazard of the subdistribution of one competing cause.

Model      hazard of F_cause = baseline(t) exp(x · beta) on the shared time grid; who had another
           cause stays at risk with the weight G(t-) / G(own time-), G the survival of censoring.
Down       G and beta; for the variance the cells' means and the censoring martingale's weights.
Up         Leaving once, then RiskSums and Curvature in turns, then Meat, as sums over sites.
Rounds     1 + 2 a step + 1: about 13.
Reveals    counts per bin, on the sum over sites only; p = n would determine rows: disclosure refuses
           p > n / 3 and n - p < 10.
Errors     NoEvents, Separation, Collinear, DidNotConverge, BadFormula.
Source     Fine & Gray 1999. Breslow ties and variance as R cmprsk::crr
           (tests/vectors/competing.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ihds.analysis import likelihood
from ihds.analysis.competing import cause_codes, causes_of, competing_ask
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import weighted_gram
from ihds.analysis.result import Result, chi_square, wald_table
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, NoEvents


@dataclass(frozen=True, slots=True)
class Params:
    """``cause`` is the level of the cause whose incidence is modelled."""

    formula: str
    cause: str
    censored: str = "censored"
    time_bin: float | None = None
    horizon: float | None = None
    max_rounds: int = 80


@dataclass(frozen=True, slots=True)
class Leaving(Contribution):
    """Who leaves each bin, and who of them is censored."""

    kind: ClassVar[str] = "curve"

    leave: Annotated[Vector, Leaves("(bins,)", "persons", bound=1, counts_persons=True)]
    censored: Annotated[Vector, Leaves("(bins,)", "persons", bound=1)]
    events: Annotated[Vector, Leaves("(bins,)", "events of the cause", bound=1)]


@dataclass(frozen=True, slots=True)
class RiskSums(Contribution):
    """Relative hazards of those at risk per bin, and of those who had another cause, over G."""

    kind: ClassVar[str] = "curve"

    s0: Annotated[Vector, Leaves("(bins,)", "relative hazard")]
    s1: Annotated[Matrix, Leaves("(bins, p)", "relative hazard x covariate")]
    other0: Annotated[Vector, Leaves("(bins,)", "relative hazard of other causes / G", bound=2**20)]
    other1: Annotated[Matrix, Leaves("(bins, p)", "relative hazard x covariate of other causes / G", bound=2**20)]
    events_x: Annotated[Vector, Leaves("(p,)", "covariate sums of events")]


@dataclass(frozen=True, slots=True)
class Curvature(Contribution):
    """The second-moment part of the information; S2(t) itself never leaves a site."""

    kind: ClassVar[str] = "score and information"

    h: Annotated[Matrix, Leaves("(p, p)", "covariate squared", bound=2**16)]


@dataclass(frozen=True, slots=True)
class Meat(Contribution):
    """Sum over persons of the outer product of their influence on the score."""

    kind: ClassVar[str] = "score and information"

    meat: Annotated[Matrix, Leaves("(p, p)", "covariate squared", bound=2**20)]


CONTRIBUTIONS = (Leaving, RiskSums, Curvature, Meat)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state and, per bin, what the sites need next."""

    phase: Literal["leaving", "sums", "curvature", "meat", "done"]
    fit: Fit
    before: Vector
    d: Vector
    leave: Vector
    censored: Vector
    hazard: Vector
    mean: Matrix
    pull: Matrix
    score: Vector
    outer: Matrix
    meat: Matrix
    null_log_likelihood: float


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a time, a cause and a model matrix on a shared grid."""
    asked = competing_ask(
        params.formula, params.censored, codebook, time_bin=params.time_bin, horizon=params.horizon, groups=False
    )
    levels = codebook.variable(asked.kept_whole).levels
    if params.cause not in levels or params.cause == params.censored:
        raise BadFormula(f"{params.cause!r} is no cause", remedy=f"set cause to one of: {', '.join(levels)}")
    if asked.formula.strata or not asked.formula.terms:
        raise BadFormula("fine_gray takes covariates and no strata()", remedy="or use cumulative_incidence")
    return asked


def begin(params: Params, frame: Frame) -> State:
    """Start at beta = 0.

    Raises:
        NoEvents: nobody had the cause.

    """
    if params.cause not in causes_of(params.formula, params.censored, frame):
        raise NoEvents(f"nobody had the cause {params.cause!r}", remedy="check the cause")
    p = len(frame.columns)
    flat, none = np.zeros(0), np.zeros((0, p))
    return State(
        phase="leaving",
        fit=likelihood.begin(frame.columns, np.zeros(p)),
        before=flat,
        d=flat,
        leave=flat,
        censored=flat,
        hazard=flat,
        mean=none,
        pull=none,
        score=np.zeros(p),
        outer=np.zeros((p, p)),
        meat=np.zeros((0, 0)),
        null_log_likelihood=-np.inf,
    )


def _kinds(params: Params, design: Design) -> tuple[Any, Any]:
    """Return who had the cause, and who another one (n,)."""
    causes = causes_of(params.formula, params.censored, design.frame)
    cause = cause_codes(params.formula, params.censored, design)
    own = cause == causes.index(params.cause)
    return own, (cause >= 0) & ~own


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    bins, at = len(design.times), design.exit
    own, other = _kinds(params, design)
    if state.phase == "leaving":
        return Leaving(*(np.bincount(at[w], minlength=bins).astype(float) for w in (at >= 0, ~own & ~other, own)))
    x = design.x
    risk = np.exp(np.minimum(x @ state.fit.at, 300))
    weight = np.where(other, risk / state.before[at], 0.0)
    if state.phase == "sums":
        return RiskSums(
            s0=_from_the_end(_per_bin(at, risk[:, None], bins))[:, 0],
            s1=_from_the_end(_per_bin(at, risk[:, None] * x, bins)),
            other0=_per_bin(at, weight[:, None], bins)[:, 0],
            other1=_per_bin(at, weight[:, None] * x, bins),
            events_x=x[own].sum(axis=0),
        )
    upto, after = np.cumsum(state.hazard), _after(state.before * state.hazard)
    if state.phase == "curvature":
        return Curvature(weighted_gram(x, risk * upto[at] + weight * after[at]))
    weighted = state.hazard[:, None] * state.mean
    influence = -risk[:, None] * (x * upto[at, None] - np.cumsum(weighted, axis=0)[at])
    influence -= weight[:, None] * (x * after[at, None] - _after(state.before[:, None] * weighted)[at])
    influence[own] += x[own] - state.mean[at[own]]
    held = np.maximum(_from_the_end(state.leave[:, None]), 1.0)
    drift = np.cumsum(state.pull * (state.censored[:, None] / held**2), axis=0)
    influence -= drift[at]
    gone = ~own & ~other
    influence[gone] += (state.pull / held)[at[gone]]
    return Meat(influence.T @ influence)


def _per_bin(at: Any, values: Matrix, bins: int) -> Matrix:
    total = np.zeros((bins, values.shape[1]))
    np.add.at(total, at, values)
    return total


def _from_the_end(values: Matrix) -> Matrix:
    return np.asarray(np.cumsum(values[::-1], axis=0)[::-1])


def _after(values: Any) -> Any:
    """Return, per bin, the sum over later bins."""
    return np.cumsum(values[::-1], axis=0)[::-1] - values


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on."""
    match total:
        case Leaving():
            at_risk = _from_the_end(total.leave[:, None])[:, 0]
            steps = 1 - total.censored / np.maximum(at_risk, 1.0)
            before = np.concatenate([[1.0], np.cumprod(steps)[:-1]])
            return replace(
                state, phase="sums", before=before, d=total.events, leave=total.leave, censored=total.censored
            )
        case RiskSums():
            return _summed(state, total)
        case Curvature():
            log_likelihood = float(state.fit.log_likelihood)
            fit = replace(state.fit, log_likelihood=-np.inf)
            whole = Likelihood(state.score, total.h - state.outer, log_likelihood)
            fit = likelihood.newton(fit, whole, "fine_gray", params.max_rounds // 2)
            return replace(state, fit=fit, phase="meat" if fit.phase == "done" else "sums")
    return replace(state, phase="done", meat=total.meat)


def _summed(state: State, total: RiskSums) -> State:
    """Return the state with score, means and hazards at the present coefficients."""
    earlier0 = np.concatenate([[0.0], np.cumsum(total.other0)[:-1]])
    earlier1 = np.concatenate([np.zeros((1, total.other1.shape[1])), np.cumsum(total.other1, axis=0)[:-1]])
    s0 = total.s0 + state.before * earlier0
    s1 = total.s1 + state.before[:, None] * earlier1
    held = np.where(s0 > 0, s0, 1.0)
    hazard, mean = np.where(s0 > 0, state.d / held, 0.0), s1 / held[:, None]
    log_likelihood = float(total.events_x @ state.fit.at - np.sum(state.d * np.log(held)))
    # q(u): what censoring at u takes from those who had another cause before u (Fine & Gray 1999)
    late, late_mean = (_from_the_end((state.before * hazard)[:, None] * m) for m in (np.ones((len(held), 1)), mean))
    return replace(
        state,
        phase="curvature",
        fit=replace(state.fit, log_likelihood=log_likelihood),
        hazard=hazard,
        mean=mean,
        pull=late * earlier1 - late_mean * earlier0[:, None],
        score=total.events_x - state.d @ mean,
        outer=(mean.T * state.d) @ mean,
        null_log_likelihood=log_likelihood if not np.isfinite(state.null_log_likelihood) else state.null_log_likelihood,
    )


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the coefficients with their sandwich variance."""
    if state.phase != "done":
        return None
    middle = state.fit.covariance @ state.meat @ state.fit.covariance
    beta, robust = frame.original(state.fit.at, middle)
    naive = frame.original(state.fit.at, state.fit.covariance)[1]
    fitted = state.fit.log_likelihood
    return Result(
        method="fine_gray",
        n=frame.rows,
        events=round(float(state.d.sum())),
        coefficients=wald_table(frame.columns, beta, naive, robust),
        log_likelihood={"null": state.null_log_likelihood, "fitted": fitted},
        tests=(chi_square("pseudo likelihood ratio", 2 * (fitted - state.null_log_likelihood), len(beta)),),
        covariance=tuple(tuple(map(float, row)) for row in robust),
        details={
            "cause": params.cause,
            "risk_sets": f"time bins of {frame.time_bin:g}" if frame.time_bin else "exact times",
            "left_out_missing": frame.left_out,
        },
    )
