"""Negative binomial regression (NB2): counts that vary more than Poisson's.

Model      log(E y) = x · beta + offset, Var y = mu + mu² / theta; beta and log theta together.
Down       beta (p,) and log theta.
Up         the fields of Sums, as sums over sites.
Rounds     about 6 for the null model and 6 for the whole one.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     Collinear, DidNotConverge (counts vary no more than Poisson's: theta is infinite).
Source     Lawless 1987. Standard errors of beta from the expected information at theta, of theta
           from its observed one, as R MASS::glm.nb (tests/vectors/regression.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy.special import digamma, gammaln, polygamma

from ihds.analysis import formula as formulas
from ihds.analysis import likelihood
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Leaves, Matrix
from ihds.analysis.numerics import blocks, invert
from ihds.analysis.outcomes import categories
from ihds.analysis.result import Result, wald_table
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, DidNotConverge, Separation

#: Beyond this log theta the model is Poisson's to the digits of the counts.
_POISSON = 16.0
#: A log theta on its way there.
_LARGE = 4.0


@dataclass(frozen=True, slots=True)
class Params:
    """``offset(log(time))`` in the formula makes rates of counts."""

    formula: str
    max_rounds: int = 80


@dataclass(frozen=True, slots=True)
class Sums(Likelihood):
    """The likelihood's sums and the expected information of beta."""

    expected: Annotated[Matrix, Leaves("(p, p)", "1 / covariate unit squared")]


CONTRIBUTIONS = (Sums,)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state; the last parameter is log theta."""

    fit: Fit
    expected: Matrix


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for counts and a model matrix with intercept."""
    formula = formulas.parse(params.formula, codebook.variables, categories(codebook))
    if formula.survival or len(formula.response) != 1 or not formula.intercept:
        raise BadFormula(f"{params.formula!r} needs one outcome and the intercept", remedy="write count ~ covariates")
    if formula.strata or formula.cluster:
        raise BadFormula("negative_binomial takes no strata() or cluster()", remedy="leave it out")
    return Ask(formula=formula, outcome="count", covariates="matrix", extra=1)


def begin(params: Params, frame: Frame) -> State:
    """Start at a mean of about the agreed magnitude of the counts, and theta = 1."""
    p = len(frame.columns)
    at = np.zeros(p + 1)
    at[0] = np.log(frame.outcome_scale)
    null = np.isin(np.arange(p + 1), [0, p])
    return State(likelihood.begin((*frame.columns, "log(theta)"), at, null), np.zeros((p, p)))


def local(params: Params, state: State, design: Design) -> Sums:
    """Return score, observed information and log-likelihood; ``y`` is brought back to whole counts."""
    at = state.fit.at
    p = len(at) - 1
    theta = float(np.exp(np.clip(at[p], -50, 50)))
    score, information, expected = np.zeros(p + 1), np.zeros((p + 1, p + 1)), np.zeros((p, p))
    log_likelihood = 0.0
    for rows in blocks(len(design.y)):
        x, y = design.x[rows], design.y[rows] * design.frame.outcome_scale
        eta = np.clip(x @ at[:p] + design.offset[rows], -300, 300)
        mean = np.exp(eta)
        whole = mean + theta
        log_likelihood += float(
            (
                gammaln(y + theta)
                - gammaln(theta)
                - gammaln(y + 1)
                - theta * np.log1p(mean / theta)
                + y * (eta - np.log(whole))
            ).sum()
        )
        score[:p] += x.T @ (theta * (y - mean) / whole)
        by_theta = digamma(y + theta) - digamma(theta) - np.log1p(mean / theta) + (mean - y) / whole
        twice = polygamma(1, y + theta) - polygamma(1, theta) + 1 / theta - 2 / whole + (y + theta) / whole**2
        score[p] += theta * by_theta.sum()
        information[:p, :p] += (x.T * (theta * mean * (y + theta) / whole**2)) @ x
        cross = x.T @ (-theta * (y - mean) * mean / whole**2)
        information[:p, p] += cross
        information[p, :p] += cross
        information[p, p] -= (theta**2 * twice + theta * by_theta).sum()
        expected += (x.T * (theta * mean / whole)) @ x
    found = Sums(score, information, log_likelihood, expected)
    return likelihood.within(found, design.frame.rows)


def aggregate(params: Params, state: State, total: Sums) -> State:
    """Take a Newton step.

    Raises:
        DidNotConverge: theta runs to infinity.

    """
    poisson = DidNotConverge(
        "negative_binomial: the counts vary no more than Poisson's, theta is infinite",
        remedy='use glm with family = "poisson"',
    )
    try:
        fit = likelihood.newton(state.fit, total, "negative_binomial", params.max_rounds, reach=2.0)
    except Separation as error:
        if state.fit.at[-1] > _LARGE:
            raise poisson from error
        raise
    if fit.at[-1] > _POISSON:
        raise poisson
    return State(fit, total.expected)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the coefficients and theta once the steps have settled."""
    fit = state.fit
    if fit.phase != "done":
        return None
    beta, covariance = frame.original(fit.at[:-1], invert(state.expected, frame.columns))
    theta = float(np.exp(fit.at[-1]))
    return Result(
        method="negative_binomial",
        n=frame.rows,
        coefficients=wald_table(frame.columns, beta, covariance),
        log_likelihood={"null": fit.null_log_likelihood, "fitted": fit.log_likelihood},
        tests=likelihood.ratio_test(fit),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details={"theta": theta, "left_out_missing": frame.left_out},
    )
