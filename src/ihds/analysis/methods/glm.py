"""Generalised linear models: gaussian, binomial, poisson and gamma, with links, offset and robust variances.

Model      g(E y) = x · beta + offset; Fisher scoring, which is R's IRLS.
Down       beta (p,) and the null model's intercept; log-odds, log-rates or outcome units.
Up         the fields of Sums; for a robust variance, once, Meat; as sums over sites.
Rounds     2 for gaussian, 4 to 8 otherwise, 1 more if robust; at most params.max_rounds.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     Separation, Collinear, DidNotConverge.
Source     McCullagh & Nelder 1989, §2.5, §4.4, ch. 8; MacKinnon & White 1985 (HC0 to HC3). Checked
           against R stats::glm and sandwich (tests/vectors/glm.R, regression.R).
Status     reviewed
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import gammaln

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.families import LINKS, start, terms
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import blocks, has_settled, invert, newton_decrement, runs_away
from ihds.analysis.outcomes import own_clusters
from ihds.analysis.result import Result, wald_table
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, Collinear, DidNotConverge, OutOfRange, Separation


@dataclass(frozen=True, slots=True)
class Params:
    """The family decides the link unless one is named: identity, logit, log, and log for gamma.

    ``robust`` asks for a sandwich variance: of White's kinds, or by ``cluster()`` in the formula.
    """

    formula: str
    family: Literal["gaussian", "binomial", "poisson", "gamma"] = "gaussian"
    link: Literal["", "identity", "logit", "probit", "cloglog", "log", "inverse"] = ""
    robust: Literal["", "HC0", "HC1", "HC2", "HC3", "cluster"] = ""
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
    pearson: Annotated[float, Leaves("()", "squared Pearson residuals of a gamma model")]


@dataclass(frozen=True, slots=True)
class Meat(Contribution):
    """Sum over persons, or over clusters, of the outer product of their scores."""

    kind: ClassVar[str] = "score and information"

    meat: Annotated[Matrix, Leaves("(p, p)", "1 / covariate unit squared", bound=2**20)]
    clusters: Annotated[float, Leaves("()", "persons or clusters", bound=1)]


CONTRIBUTIONS = (Sums, Meat)


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
    pearson: float
    meat: Matrix
    clusters: int
    rounds: int
    halvings: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a numeric, binary or count outcome and a model matrix."""
    categories = [n for n, v in codebook.variables.items() if v.kind == "category"]
    formula = own_clusters(formulas.parse(params.formula, codebook.variables, categories), codebook)
    if formula.survival or len(formula.response) != 1:
        raise BadFormula(f"{params.formula!r} needs one outcome", remedy="write outcome ~ covariates")
    if not formula.terms and not formula.intercept:
        raise BadFormula(f"{params.formula!r} has no term", remedy="add a covariate or the intercept")
    if formula.strata or (formula.cluster and params.robust != "cluster"):
        raise BadFormula("glm takes no strata(), and cluster() only with robust='cluster'", remedy="leave it out")
    if params.robust == "cluster" and not formula.cluster:
        raise BadFormula("robust is 'cluster' but no cluster is named", remedy="add + cluster(patient) to the formula")
    if params.link and params.link not in LINKS[params.family]:
        raise BadFormula(
            f"{params.family} has no link {params.link!r}", remedy=f"use {' or '.join(LINKS[params.family])}"
        )
    kinds = {"gaussian": "number", "binomial": "binary", "poisson": "count", "gamma": "positive"}
    outcome: Any = kinds[params.family]
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
        pearson=0.0,
        meat=np.zeros((0, 0)),
        clusters=0,
        rounds=0,
        halvings=0,
    )


def _link(params: Params) -> str:
    return params.link or LINKS[params.family][0]


#: The null model gives a log-likelihood only, which a step of this gain changes by half of it.
_NULL_GAIN = 1e-11


def _starting(params: Params, state: State) -> bool:
    return state.rounds == 0 and params.family != "gaussian"


def _at_rest(state: State, frame: Frame) -> bool:
    """Return whether model and null model have settled."""
    return state.settled and (state.null_gain <= _NULL_GAIN or not frame.intercept)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return score, information and log-likelihood at the present coefficients, or the robust variance's sums."""
    if params.robust and _at_rest(state, design.frame):
        return _meat(params, state, design)
    of_block = _start if _starting(params, state) else _newton
    parts = [of_block(params, state, design, rows) for rows in blocks(len(design.y))]
    return Sums(*(sum(getattr(part, name) for part in parts) for name in Sums.__slots__))


def _unit(params: Params, design: Design) -> float:
    return design.frame.outcome_scale if params.family in ("poisson", "gamma") else 1.0


def _offset(params: Params, design: Design, rows: slice) -> Vector:
    return design.offset[rows] / (design.frame.outcome_scale if params.family == "gaussian" else 1.0)


def _meat(params: Params, state: State, design: Design) -> Meat:
    """Return the sum of outer products of scores, each divided by what its leverage leaves (HC2, HC3)."""
    p = len(state.beta)
    clusters = int(design.cluster.max()) + 1 if len(design.cluster) else 0
    by_cluster = np.zeros((clusters if params.robust == "cluster" else 0, p))
    total = np.zeros((p, p))
    power = {"HC2": 0.5, "HC3": 1.0}.get(params.robust, 0.0)
    for rows in blocks(len(design.y)):
        x = design.x[rows]
        pull, weight, _ = terms(
            params.family,
            _link(params),
            x @ state.beta + _offset(params, design, rows),
            design.y[rows],
            _unit(params, design),
        )
        if power:
            leverage = weight * np.einsum("ij,jk,ik->i", x, state.covariance, x)
            pull = pull / np.maximum(1 - leverage, 1e-8) ** power
        scores = x * pull[:, None]
        if params.robust == "cluster":
            np.add.at(by_cluster, design.cluster[rows], scores)
        else:
            total += scores.T @ scores
    held = float(np.count_nonzero(np.bincount(design.cluster))) if params.robust == "cluster" else float(len(design.y))
    return Meat(by_cluster.T @ by_cluster if params.robust == "cluster" else total, held)


def _start(params: Params, _state: State, design: Design, rows: slice) -> Sums:
    """Return the weighted least squares of R's first iteration."""
    x, y = design.x[rows], design.y[rows]
    eta, pull, weight = start(params.family, _link(params), y, _unit(params, design))
    working = weight * (eta - design.offset[rows]) + pull
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
        pearson=0.0,
    )


def _newton(params: Params, state: State, design: Design, rows: slice) -> Sums:
    """Return the sums of one Newton step, for the model and for its null model."""
    x, y, unit = design.x[rows], design.y[rows], _unit(params, design)
    offset = _offset(params, design, rows)
    pull, weight, log_likelihood = terms(params.family, _link(params), x @ state.beta + offset, y, unit)
    null_eta = np.full(len(y), state.null_beta if design.frame.intercept else 0.0) + offset
    if not offset.any():  # one value for everybody
        null_eta = null_eta[:1]
    null_pull, null_weight, null_log_likelihood = terms(params.family, _link(params), null_eta, y, unit)
    saturated, constant, pearson = np.zeros(1), np.zeros(1), 0.0
    if params.family == "gamma":
        saturated = -np.log(y * unit) - 1
        relative = pull if _link(params) == "log" else pull * (x @ state.beta + offset)
        pearson = float(relative @ relative)
    if params.family == "poisson":
        positive = np.where(y > 0, y, 1.0)
        saturated = np.where(y > 0, y * np.log(positive * unit) - y, 0.0)
        constant = -gammaln(y * unit + 1)
    return Sums(
        n=float(len(y)),
        score=x.T @ pull,
        information=(x.T * weight) @ x,
        log_likelihood=float(log_likelihood.sum()),
        null_score=float(np.broadcast_to(null_pull, y.shape).sum()),
        null_information=float(np.broadcast_to(null_weight, y.shape).sum()),
        null_log_likelihood=float(null_log_likelihood.sum()),
        saturated=float(saturated.sum()),
        constant=float(constant.sum()),
        pearson=pearson,
    )


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a Newton step for the model and for its null model, or keep the robust variance's sums."""
    rounds = state.rounds + 1
    if isinstance(total, Meat):
        return replace(state, meat=total.meat, clusters=round(total.clusters), rounds=rounds)
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
        pearson=total.pearson,
        meat=state.meat,
        clusters=state.clusters,
        rounds=rounds,
        halvings=0,
    )


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the table once model and null model have settled."""
    if not _at_rest(state, frame) or (params.robust and not len(state.meat)):
        return None
    n, p, unit = frame.rows, len(frame.columns), frame.outcome_scale
    if n <= p and params.family in ("gaussian", "gamma"):
        raise DidNotConverge(f"{n} rows leave no residual for {p} parameters", remedy="use fewer terms")
    beta, covariance = frame.original(state.beta, state.covariance)
    fitted, null = state.log_likelihood, state.null_log_likelihood
    robust = _sandwich(params, frame, state) if params.robust else None
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
        robust = None if robust is None else robust * unit**2
        fitted, null = (-n / 2 * (np.log(2 * np.pi * d / n) + 1) for d in (deviance, null_deviance))
    elif params.family == "gamma":
        residual_df = float(n - p)
        dispersion = state.pearson / residual_df
        if dispersion < 1e-12:
            raise OutOfRange(
                "the outcome varies by less than a millionth of its size: a gamma model sees nothing of it",
                remedy="use family = gaussian, or subtract what all outcomes share",
            )
        covariance = covariance * dispersion
        deviance, null_deviance = (2 * (state.saturated - v) for v in (fitted, null))
        log_y = -(state.saturated + n)
        fitted, null = (_gamma_likelihood(n, n / d, v, log_y) for d, v in ((deviance, fitted), (null_deviance, null)))
    elif params.family == "poisson":
        covariance = covariance / unit
        deviance, null_deviance = (2 * unit * (state.saturated - v) for v in (fitted, null))
        fitted, null = (unit * v + state.constant for v in (fitted, null))
    else:
        deviance, null_deviance = -2 * fitted, -2 * null
    return Result(
        method="glm",
        n=n,
        coefficients=wald_table(frame.columns, beta, covariance, robust, None if params.robust else residual_df),
        log_likelihood={"null": float(null), "fitted": float(fitted)},
        covariance=tuple(tuple(map(float, row)) for row in (covariance if robust is None else robust)),
        details={
            "family": params.family,
            "link": _link(params),
            **({"robust": params.robust, "clusters": state.clusters} if params.robust else {}),
            "deviance": float(deviance),
            "null_deviance": float(null_deviance),
            "dispersion": float(dispersion),
            "residual_df": n - p,
            "left_out_missing": frame.left_out,
        },
    )


def _sandwich(params: Params, frame: Frame, state: State) -> Matrix:
    """Return the robust covariance in the variables' own units, up to the outcome's."""
    n, p = frame.rows, len(frame.columns)
    middle = state.covariance @ state.meat @ state.covariance
    if params.robust == "HC1":
        middle = middle * n / (n - p)
    return np.asarray(frame.transform @ middle @ frame.transform.T)


def _gamma_likelihood(n: int, shape: float, value: float, log_y: float) -> float:
    """Return the gamma log-likelihood at a shape; ``value`` is the sum of -log(mean) - y / mean (R's logLik)."""
    return float(n * (shape * np.log(shape) - gammaln(shape)) + shape * value + (shape - 1) * log_y)
