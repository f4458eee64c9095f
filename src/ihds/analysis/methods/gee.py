"""Generalised estimating equations: marginal models of patients seen several times.

Model      g(E y) = x · beta; the rows of a patient correlate alike (exchangeable) or are taken as
           independent; variance by the sandwich. Patients lie within one site.
Down       beta (p,), the correlation and the scale.
Up         Likelihood in turns for the model of independent rows, where the equations start; then the
           fields of Estimating, as sums over sites.
Rounds     5 to 7, and 5 to 30.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     Separation, Collinear, DidNotConverge, OutOfRange.
Source     Liang & Zeger 1986. Checked against R geepack::geeglm (tests/vectors/regression.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import expit

from ihds.analysis import formula as formulas
from ihds.analysis import likelihood
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.families import LINKS, start, terms
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import blocks, invert, weighted_gram
from ihds.analysis.outcomes import categories, own_clusters
from ihds.analysis.result import Result, wald_table
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, Collinear, DidNotConverge

#: The squared length of a step in standard errors, and the change of the correlation, at rest.
_STILL, _STILL_CORRELATION = 1e-16, 1e-9


@dataclass(frozen=True, slots=True)
class Params:
    """``cluster(patient)`` in the formula names the patient."""

    formula: str
    family: Literal["gaussian", "binomial", "poisson"] = "gaussian"
    correlation: Literal["exchangeable", "independence"] = "exchangeable"
    max_rounds: int = 200


@dataclass(frozen=True, slots=True)
class Estimating(Contribution):
    """The estimating equations and what the moment estimators of correlation and scale need."""

    kind: ClassVar[str] = "score and information"

    score: Annotated[Vector, Leaves("(p,)", "1 / covariate unit", bound=2**20)]
    information: Annotated[Matrix, Leaves("(p, p)", "1 / covariate unit squared", bound=2**20)]
    meat: Annotated[Matrix, Leaves("(p, p)", "1 / covariate unit squared", bound=2**28)]
    rows: Annotated[float, Leaves("()", "rows", bound=1, counts_persons=True)]
    square: Annotated[float, Leaves("()", "squared Pearson residuals", bound=2**20)]
    product: Annotated[float, Leaves("()", "products of Pearson residuals within patients", bound=2**26)]
    pairs: Annotated[float, Leaves("()", "pairs of rows within patients", bound=2**16)]
    clusters: Annotated[float, Leaves("()", "patients", bound=1)]


CONTRIBUTIONS = (Likelihood, Estimating)


@dataclass(frozen=True, slots=True)
class State:
    """The model of independent rows; the present coefficients and working correlation, and the last total."""

    fit: Fit
    beta: Vector
    correlation: float
    scale: float
    inverse: Matrix
    meat: Matrix
    clusters: int
    settled: bool
    rounds: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for an outcome, a model matrix and the patient of each row."""
    formula = formulas.parse(params.formula, codebook.variables, categories(codebook))
    formula = own_clusters(formula, codebook)
    if formula.survival or len(formula.response) != 1 or not formula.intercept:
        raise BadFormula(f"{params.formula!r} needs one outcome and the intercept", remedy="write y ~ time + group")
    if formula.strata or not formula.cluster:
        raise BadFormula("gee needs cluster(patient), and no strata()", remedy="add + cluster(patient)")
    outcome: Any = {"gaussian": "number", "binomial": "binary", "poisson": "count"}[params.family]
    return Ask(formula=formula, outcome=outcome, covariates="matrix")


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known, at independence."""
    p = len(frame.columns)
    fit = likelihood.begin(frame.columns, np.zeros(p))
    return State(fit, np.zeros(p), 0.0, 1.0, np.zeros((p, p)), np.zeros((p, p)), 0, False, 0)


def _independent(params: Params, state: State, design: Design) -> Likelihood:
    """Return the sums of a generalised linear model; first those of R's start at the outcome itself."""
    family, link, unit = params.family, LINKS[params.family][0], design.frame.outcome_scale
    p = len(state.fit.at)
    score, information, value = np.zeros(p), np.zeros((p, p)), 0.0
    for rows in blocks(len(design.y)):
        x, y = design.x[rows], design.y[rows]
        offset = design.offset[rows] / (unit if family == "gaussian" else 1.0)
        if state.fit.rounds == 0 and family != "gaussian":
            eta, pull, weight = start(family, link, y, unit)
            score += x.T @ (weight * (eta - offset) + pull)
        else:
            pull, weight, found = terms(family, link, x @ state.fit.at + offset, y, unit)
            score += x.T @ pull
            value += float(found.sum())
        information += weighted_gram(x, weight)
    return likelihood.within(Likelihood(score, information, value), design.frame.rows)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums of the model of independent rows, then the equations under the working correlation."""
    if state.fit.phase != "done":
        return _independent(params, state, design)
    order = np.argsort(design.cluster, kind="stable")
    first = np.flatnonzero(np.diff(design.cluster[order], prepend=-1)) if len(order) else order
    size = np.diff(first, append=len(order)).astype(np.float64)
    x, unit = design.x[order], design.frame.outcome_scale
    offset = design.offset[order] / (unit if params.family == "gaussian" else 1.0)
    eta = x @ state.beta + offset
    y = design.y[order] * (unit if params.family == "poisson" else 1.0)
    if params.family == "binomial":
        mean = expit(eta)
        root = np.sqrt(mean * expit(-eta))
    elif params.family == "poisson":
        mean = np.exp(np.minimum(eta, 300))
        root = np.sqrt(mean)
    else:
        mean, root = eta, np.ones(len(eta))
    residual = (y - mean) / np.maximum(root, 1e-150)
    # the inverse of the working correlation of m rows is (I - share J) / (1 - alpha)
    alpha = state.correlation
    share = alpha / (1 + (size - 1) * alpha)

    def per_patient(values: Any) -> Any:
        return np.add.reduceat(values, first, axis=0) if len(order) else np.zeros((0, *values.shape[1:]))

    d = x * root[:, None]
    counted = unit if params.family == "poisson" else 1.0  # sums of large counts travel in their unit
    sums, left = per_patient(d), per_patient(residual)
    each = (per_patient(d * residual[:, None]) - share[:, None] * sums * left[:, None]) / (1 - alpha)
    square = per_patient(residual**2)
    return Estimating(
        score=each.sum(axis=0) / counted,
        information=(d.T @ d - (sums.T * share) @ sums) / (1 - alpha) / counted,
        meat=each.T @ each / counted**2,
        rows=float(len(order)),
        square=float(square.sum()),
        product=float((left**2 - square).sum() / 2),
        pairs=float((size * (size - 1) / 2).sum()),
        clusters=float(len(size)),
    )


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a Newton step, or a scoring step that moves correlation and scale to their moment estimates.

    Raises:
        Separation: a coefficient runs to infinity.
        Collinear: the covariates determine the outcome.
        DidNotConverge: correlation or coefficients do not stand still.

    """
    if isinstance(total, Likelihood):
        first = state.fit.rounds == 0 and params.family != "gaussian"
        whole = replace(total, log_likelihood=-np.inf) if first else total  # the start is nobody's likelihood
        gaussian = params.family == "gaussian"
        fit = likelihood.newton(state.fit, whole, "gee", params.max_rounds, finite=gaussian)
        return replace(state, fit=fit, beta=fit.at)
    rounds = state.rounds + 1
    inverse = invert(total.information, state.fit.terms)
    step = inverse @ total.score
    scale = total.square / total.rows
    if rounds > 1 and scale < 1e-18:
        raise Collinear(
            "the covariates determine the outcome: its residuals are lost in rounding",
            remedy="look for the outcome, or a copy of it, among the covariates",
        )
    correlation = state.correlation
    if params.correlation == "exchangeable" and total.pairs > 0 and scale > 0:
        correlation = total.product / total.pairs / scale
    if not -1 < correlation < 0.9999:
        raise DidNotConverge(
            f"gee: the working correlation runs to {correlation:.3g}", remedy="use correlation = 'independence'"
        )
    change = float(abs(step @ total.score)) / max(scale, 1e-300)
    moved = abs(correlation - state.correlation)
    settled = rounds > 2 and change < _STILL and moved < _STILL_CORRELATION
    if rounds >= params.max_rounds and not settled:
        raise DidNotConverge(
            f"gee: coefficients or correlation still move after {rounds} rounds",
            remedy="use correlation = 'independence', or look for patients whose outcome never changes",
        )
    return replace(
        state,
        beta=state.beta + step,
        correlation=correlation,
        scale=scale,
        inverse=inverse,
        meat=total.meat,
        clusters=round(total.clusters),
        settled=settled,
        rounds=rounds,
    )


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the coefficients with robust standard errors once nothing moves."""
    if not state.settled:
        return None
    unit = frame.outcome_scale if params.family == "gaussian" else 1.0
    counted = frame.outcome_scale if params.family == "poisson" else 1.0
    transform = frame.transform * unit
    naive = transform @ state.inverse @ transform.T * state.scale / counted
    robust = transform @ state.inverse @ state.meat @ state.inverse @ transform.T
    beta = transform @ state.beta
    if params.family == "gaussian":
        beta[0] += frame.outcome_centre
    return Result(
        method="gee",
        n=frame.rows,
        coefficients=wald_table(frame.columns, beta, naive, robust),
        covariance=tuple(tuple(map(float, row)) for row in robust),
        details={
            "family": params.family,
            "working_correlation": params.correlation,
            "correlation": state.correlation if params.correlation == "exchangeable" else None,
            "scale": state.scale * unit**2,
            "clusters": state.clusters,
            "left_out_missing": frame.left_out,
        },
    )
