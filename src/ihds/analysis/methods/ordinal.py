"""Ordinal regression: the cumulative link model, proportional odds by default.

Model      P(y <= level j) = F(threshold_j - x · beta), F logistic, normal or complementary log-log.
Down       thresholds and beta.
Up         score, information and log-likelihood of all parameters, as sums over sites.
Rounds     about 5 for the null model and 5 for the whole one.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     Separation, Collinear, DidNotConverge, ConstantColumn (one level only).
Source     McCullagh 1980. Checked against R ordinal::clm (tests/vectors/regression.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from ihds.analysis import likelihood
from ihds.analysis.design import Ask, Design, Frame, Ints
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Matrix, Vector
from ihds.analysis.numerics import blocks
from ihds.analysis.outcomes import category_formula, outcome_of, published
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook


@dataclass(frozen=True, slots=True)
class Params:
    """The order of the levels is the codebook's."""

    formula: str
    link: Literal["logit", "probit", "cloglog"] = "logit"
    max_rounds: int = 80


CONTRIBUTIONS = (Likelihood,)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state and the outcome's levels."""

    fit: Fit
    outcome: str


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a category as outcome and a model matrix with intercept."""
    formula = category_formula(params.formula, codebook)
    extra = len(published(formula, codebook)) - 2
    return Ask(formula=formula, outcome="category", covariates="matrix", extra=extra)


def begin(params: Params, frame: Frame) -> State:
    """Start at beta = 0 and evenly spaced thresholds."""
    outcome = outcome_of(params.formula, frame)
    levels = frame.levels[outcome]
    k, p = len(levels) - 1, len(frame.columns) - 1
    even = np.arange(1, k + 1) / (k + 1)
    inverse = _QUANTILE[params.link]
    terms = (*(f"{a}|{b}" for a, b in pairwise(levels)), *frame.columns[1:])
    return State(likelihood.begin(terms, np.concatenate([inverse(even), np.zeros(p)]), np.arange(k + p) < k), outcome)


_QUANTILE: dict[str, Any] = {"logit": logit, "probit": ndtri, "cloglog": lambda q: np.log(-np.log1p(-q))}


def _density(link: str, z: Vector) -> tuple[Vector, Vector]:
    """Return density and its derivative; 0 at infinity."""
    finite = np.isfinite(z)
    z = np.where(finite, z, 0.0)
    if link == "logit":
        f = expit(z) * expit(-z)
        slope = f * (1 - 2 * expit(z))
    elif link == "probit":
        f = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        slope = -z * f
    else:
        rate = np.exp(np.minimum(z, 700))
        f = rate * np.exp(-rate)
        slope = f * (1 - rate)
    return np.where(finite, f, 0.0), np.where(finite, slope, 0.0)


def _between(link: str, upper: Vector, lower: Vector) -> Vector:
    """Return F(upper) - F(lower), from the tail that loses no digits."""
    if link == "cloglog":
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(-np.exp(lower)) * -np.expm1(np.exp(lower) - np.exp(upper)))
    f = expit if link == "logit" else ndtr
    high = lower > 0
    return np.asarray(np.where(high, f(-lower) - f(-upper), f(upper) - f(lower)))


def local(params: Params, state: State, design: Design) -> Likelihood:
    """Return score, observed information and log-likelihood at the present parameters."""
    at, code = state.fit.at, design.codes[state.outcome]
    k = len(design.frame.levels[state.outcome]) - 1
    edges = np.concatenate([[-np.inf], at[:k], [np.inf]])
    score, information, log_likelihood = np.zeros(len(at)), np.zeros((len(at), len(at))), 0.0
    for rows in blocks(len(code)):
        x, y = design.x[rows, 1:], code[rows]
        eta = x @ at[k:]
        upper, lower = edges[y + 1] - eta, edges[y] - eta
        p = _between(params.link, upper, lower)
        usable = p > 1e-290  # thresholds out of order: the likelihood says so, the step is halved
        p = np.where(usable, p, 1.0)
        log_likelihood += float(np.where(usable, np.log(p), -690.0).sum())
        f_upper, d_upper = _density(params.link, upper)
        f_lower, d_lower = _density(params.link, lower)
        f_upper, d_upper, f_lower, d_lower = (
            np.where(usable, v, 0.0) / p for v in (f_upper, d_upper, f_lower, d_lower)
        )
        at_upper, at_lower = _directions(x, y, k), _directions(x, y - 1, k)
        each = f_upper[:, None] * at_upper - f_lower[:, None] * at_lower
        score += each.sum(axis=0)
        information += each.T @ each - at_upper.T @ (d_upper[:, None] * at_upper)
        information += at_lower.T @ (d_lower[:, None] * at_lower)
    return Likelihood(score, information, log_likelihood)


def _directions(x: Matrix, threshold: Ints, k: int) -> Matrix:
    """Return the derivative of threshold - x · beta (n, k + p); none for thresholds at infinity."""
    return np.column_stack([threshold[:, None] == np.arange(k), -x])


def aggregate(params: Params, state: State, total: Likelihood) -> State:
    """Take a Newton step."""
    return State(likelihood.newton(state.fit, total, "ordinal", params.max_rounds), state.outcome)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return thresholds and coefficients once the steps have settled."""
    fit = state.fit
    if fit.phase != "done":
        return None
    k = len(frame.levels[state.outcome]) - 1
    transform = np.eye(len(fit.at))
    transform[k:, k:] = np.diag(1 / frame.scale[1:])
    transform[:k, k:] = frame.centre[1:] / frame.scale[1:]
    coefficients, covariance = likelihood.table(fit, transform)
    return Result(
        method="ordinal",
        n=frame.rows,
        coefficients=coefficients,
        log_likelihood={"null": fit.null_log_likelihood, "fitted": fit.log_likelihood},
        tests=likelihood.ratio_test(fit),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details={
            "link": params.link,
            "outcome": state.outcome,
            "levels": list(frame.levels[state.outcome]),
            "left_out_missing": frame.left_out,
        },
    )
