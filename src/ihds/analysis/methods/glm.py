"""Generalised linear models: gaussian, binomial (logit) and poisson (log), with offset.

Model      g(E y) = x · beta + offset; canonical links; Newton's method equals R's IRLS.
Down       beta (p,) and the null model's intercept; log-odds, log-rates or outcome units.
Up         the fields of Sums, as sums over sites. Nothing else.
Rounds     2 for gaussian, 4 to 8 otherwise; at most params.max_rounds.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     Separation, Collinear, DidNotConverge.
Source     McCullagh & Nelder 1989, §2.5 and §4.4. Checked against R stats::glm
           (tests/vectors/glm.R).
Status     reviewed
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import gammaln

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import blocks, has_settled, invert, newton_decrement, runs_away
from ihds.analysis.result import Result, wald_table
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, Collinear, DidNotConverge, Separation


@dataclass(frozen=True, slots=True)
class Params:
    """The family decides the link: identity, logit or log."""

    formula: str
    family: Literal["gaussian", "binomial", "poisson"] = "gaussian"
    max_rounds: int = 40


@dataclass(frozen=True, slots=True)
class Sums(Contribution):
    """Score and information of the model and of its null model, in scaled units."""

    kind: ClassVar[str] = "score and information"

    n: Annotated[float, Leaves("()", "persons", bound=1, counts_persons=True)]
    score: Annotated[Vector, Leaves("(p,)", "1 / covariate unit")]
    information: Annotated[Matrix, Leaves("(p, p)", "1 / covariate unit squared")]
    log_likelihood: Annotated[float, Leaves("()", "1, up to a constant of the data")]
    null_score: Annotated[float, Leaves("()", "1")]
    null_information: Annotated[float, Leaves("()", "1")]
    null_log_likelihood: Annotated[float, Leaves("()", "1, up to a constant of the data")]
    saturated: Annotated[float, Leaves("()", "1, up to a constant of the data")]
    constant: Annotated[float, Leaves("()", "the data's part of the log-likelihood", bound=2**24)]


CONTRIBUTIONS = (Sums,)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state on centred, scaled columns."""

    terms: tuple[str, ...]
    beta: Vector
    null_beta: float
    step: Vector
    gains: tuple[float, float, float]
    settled: bool
    null_gain: float
    covariance: Matrix
    log_likelihood: float
    null_log_likelihood: float
    saturated: float
    constant: float
    rounds: int
    halvings: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a numeric, binary or count outcome and a model matrix."""
    categories = [n for n, v in codebook.variables.items() if v.kind == "category"]
    formula = formulas.parse(params.formula, codebook.variables, categories)
    if formula.survival or len(formula.response) != 1:
        raise BadFormula(f"{params.formula!r} needs one outcome", remedy="write outcome ~ covariates")
    if not formula.terms and not formula.intercept:
        raise BadFormula(f"{params.formula!r} has no term", remedy="add a covariate or the intercept")
    if formula.strata or formula.cluster:
        raise BadFormula("glm takes no strata() or cluster()", remedy="leave it out")
    outcome: Any = {"gaussian": "number", "binomial": "binary", "poisson": "count"}[params.family]
    return Ask(formula=formula, outcome=outcome, covariates="matrix")


def begin(params: Params, frame: Frame) -> State:
    """Start at beta = 0; the first round of binomial and poisson then starts at the outcome itself."""
    p = len(frame.columns)
    return State(
        terms=frame.columns,
        beta=np.zeros(p),
        null_beta=0.0,
        step=np.full(p, np.inf),
        gains=(np.inf, np.inf, np.inf),
        settled=False,
        null_gain=np.inf,
        covariance=np.zeros((p, p)),
        log_likelihood=-np.inf,
        null_log_likelihood=-np.inf,
        saturated=0.0,
        constant=0.0,
        rounds=0,
        halvings=0,
    )


def _family(params: Params, eta: Vector, y: Vector, unit: float) -> tuple[Vector, Vector, Vector]:
    """Return mean, weight and log-likelihood (up to a constant) per person; ``y`` is in ``unit``s."""
    match params.family:
        case "gaussian":
            return eta, np.ones_like(eta), -0.5 * (y - eta) ** 2
        case "binomial":
            tail = np.exp(-np.abs(eta))
            larger = 1 / (1 + tail)  # the larger of mean and 1 - mean: neither loses digits far out
            mean = np.where(eta >= 0, larger, tail * larger)
            return mean, tail * larger * larger, y * eta - np.maximum(eta, 0) + np.log(larger)
        case _:
            with np.errstate(over="ignore"):
                mean = np.exp(eta) / unit
            return mean, mean, y * eta - mean


#: The null model gives a log-likelihood only, which a step of this gain changes by half of it.
_NULL_GAIN = 1e-11


def _starting(params: Params, state: State) -> bool:
    return state.rounds == 0 and params.family != "gaussian"


def local(params: Params, state: State, design: Design) -> Sums:
    """Return score, information and log-likelihood at the present coefficients."""
    of_block = _start if _starting(params, state) else _newton
    parts = [of_block(params, state, design, rows) for rows in blocks(len(design.y))]
    return Sums(*(sum(getattr(part, name) for part in parts) for name in Sums.__slots__))


def _unit(params: Params, design: Design) -> float:
    return design.frame.outcome_scale if params.family == "poisson" else 1.0


def _start(params: Params, _state: State, design: Design, rows: slice) -> Sums:
    """Return the weighted least squares of R's first iteration, which starts at the outcome itself."""
    x, y, unit = design.x[rows], design.y[rows], _unit(params, design)
    if params.family == "poisson":
        mean = weight = y + 0.1 / unit
        eta = np.log(mean * unit)
    else:
        mean = (y + 0.5) / 2
        weight = mean * (1 - mean)
        eta = np.log(mean / (1 - mean))
    working = weight * (eta - design.offset[rows]) + (y - mean)
    return Sums(
        n=float(len(y)),
        score=x.T @ working,
        information=(x.T * weight) @ x,
        log_likelihood=0.0,
        null_score=float(working.sum()),
        null_information=float(weight.sum()),
        null_log_likelihood=0.0,
        saturated=0.0,
        constant=0.0,
    )


def _newton(params: Params, state: State, design: Design, rows: slice) -> Sums:
    """Return the sums of one Newton step, for the model and for its null model."""
    x, y, unit = design.x[rows], design.y[rows], _unit(params, design)
    offset = design.offset[rows] / (design.frame.outcome_scale if params.family == "gaussian" else 1.0)
    mean, weight, log_likelihood = _family(params, x @ state.beta + offset, y, unit)
    null_eta = np.full(len(y), state.null_beta if design.frame.intercept else 0.0) + offset
    if not offset.any():  # one value for everybody
        null_eta = null_eta[:1]
    null_mean, null_weight, null_log_likelihood = _family(params, null_eta, y, unit)
    saturated, constant = np.zeros(1), np.zeros(1)
    if params.family == "poisson":
        positive = np.where(y > 0, y, 1.0)
        saturated = np.where(y > 0, y * np.log(positive * unit) - y, 0.0)
        constant = -gammaln(y * unit + 1)
    return Sums(
        n=float(len(y)),
        score=x.T @ (y - mean),
        information=(x.T * weight) @ x,
        log_likelihood=float(log_likelihood.sum()),
        null_score=float((y - null_mean).sum()),
        null_information=float(np.broadcast_to(null_weight, y.shape).sum()),
        null_log_likelihood=float(null_log_likelihood.sum()),
        saturated=float(saturated.sum()),
        constant=float(constant.sum()),
    )


def aggregate(params: Params, state: State, total: Sums) -> State:
    """Take a Newton step for the model and for its null model."""
    rounds = state.rounds + 1
    known = np.isfinite(state.log_likelihood)
    slack = 1e-9 * max(1.0, abs(state.log_likelihood)) if known else 0.0
    if known and not total.log_likelihood >= state.log_likelihood - slack and state.halvings < 20:
        step = state.step / 2
        return replace(state, beta=state.beta - step, step=step, rounds=rounds, halvings=state.halvings + 1)
    covariance = invert(total.information, state.terms)
    step = covariance @ total.score
    gain = newton_decrement(step, total.score)
    gains = (*state.gains[1:], gain) if not _starting(params, state) else state.gains
    null_step = total.null_score / max(total.null_information, 1e-300)
    settled = has_settled(gain, gains[1]) and not _starting(params, state)
    if not settled:
        if params.family != "gaussian" and runs_away(gains):
            term = state.terms[int(np.argmax(np.abs(step)))]
            raise Separation(
                f"{term!r} predicts the outcome perfectly, so its coefficient is infinite",
                remedy="leave it out, merge categories, or use a penalised model",
            )
        if rounds >= params.max_rounds:
            raise DidNotConverge(
                f"glm: the last step was {np.sqrt(gain):.1e} standard errors after {rounds} rounds",
                remedy="look for a rare category, or raise max_rounds",
            )
    return State(
        terms=state.terms,
        beta=state.beta + step,
        null_beta=state.null_beta + null_step,
        step=step,
        gains=gains,
        settled=settled,
        null_gain=float(abs(null_step * total.null_score)),
        covariance=covariance,
        log_likelihood=-np.inf if _starting(params, state) else total.log_likelihood,
        null_log_likelihood=total.null_log_likelihood,
        saturated=total.saturated,
        constant=total.constant,
        rounds=rounds,
        halvings=0,
    )


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the table once model and null model have settled."""
    null_done = state.null_gain <= _NULL_GAIN or not frame.intercept
    if not state.settled or not null_done:
        return None
    n, p, unit = frame.rows, len(frame.columns), frame.outcome_scale
    if n <= p and params.family == "gaussian":
        raise DidNotConverge(f"{n} rows leave no residual for {p} parameters", remedy="use fewer terms")
    beta, covariance = frame.original(state.beta, state.covariance)
    fitted, null = state.log_likelihood, state.null_log_likelihood
    dispersion, residual_df = 1.0, None
    if params.family == "gaussian":
        deviance, null_deviance = -2 * fitted * unit**2, -2 * null * unit**2
        if not deviance > 1e-9 * null_deviance:
            raise Collinear(
                "the covariates determine the outcome: its residuals are lost in rounding",
                remedy="look for the outcome, or a copy of it, among the covariates",
            )
        residual_df = float(n - p)
        dispersion = deviance / residual_df
        beta = beta * unit
        if frame.intercept:
            beta[0] += frame.outcome_centre
        covariance = covariance * dispersion
        fitted, null = (-n / 2 * (np.log(2 * np.pi * d / n) + 1) for d in (deviance, null_deviance))
    elif params.family == "poisson":
        covariance = covariance / unit
        deviance, null_deviance = (2 * unit * (state.saturated - v) for v in (fitted, null))
        fitted, null = (unit * v + state.constant for v in (fitted, null))
    else:
        deviance, null_deviance = -2 * fitted, -2 * null
    return Result(
        method="glm",
        n=n,
        coefficients=wald_table(frame.columns, beta, covariance, residual_df=residual_df),
        log_likelihood={"null": float(null), "fitted": float(fitted)},
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details={
            "family": params.family,
            "deviance": float(deviance),
            "null_deviance": float(null_deviance),
            "dispersion": float(dispersion),
            "residual_df": n - p,
            "left_out_missing": frame.left_out,
        },
    )
