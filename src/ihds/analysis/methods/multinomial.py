"""Multinomial regression: the odds of each level against the first.

Model      log(P(y = j) / P(y = first)) = x · beta_j.
Down       beta (levels - 1, p).
Up         score, information and log-likelihood of all coefficients, as sums over sites.
Rounds     about 5 for the null model and 5 for the whole one.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10, p counting
           the coefficients of all levels.
Errors     Separation, Collinear, DidNotConverge, ConstantColumn (one level only).
Source     Agresti 2013, §8.1. Checked against R nnet::multinom (tests/vectors/regression.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ihds.analysis import likelihood
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.numerics import blocks
from ihds.analysis.outcomes import category_formula, outcome_of, published
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook


@dataclass(frozen=True, slots=True)
class Params:
    """The first level of the codebook is the reference."""

    formula: str
    max_rounds: int = 80


CONTRIBUTIONS = (Likelihood,)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state and the outcome's name."""

    fit: Fit
    outcome: str


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a category as outcome and a model matrix."""
    formula = category_formula(params.formula, codebook)
    sets = len(published(formula, codebook)) - 1
    return Ask(formula=formula, outcome="category", covariates="matrix", sets=sets)


def begin(params: Params, frame: Frame) -> State:
    """Start at beta = 0: every level as likely as another."""
    outcome = outcome_of(params.formula, frame)
    levels, p = frame.levels[outcome][1:], len(frame.columns)
    terms = tuple(f"{level}: {term}" for level in levels for term in frame.columns)
    return State(likelihood.begin(terms, np.zeros(len(terms)), np.arange(len(terms)) % p == 0), outcome)


def local(params: Params, state: State, design: Design) -> Likelihood:
    """Return score, information and log-likelihood at the present coefficients."""
    p = design.x.shape[1]
    beta = state.fit.at.reshape(-1, p)
    sets, code = len(beta), design.codes[state.outcome]
    score, log_likelihood = np.zeros((sets, p)), 0.0
    information = np.zeros((sets, p, sets, p))
    for rows in blocks(len(code)):
        x, y = design.x[rows], code[rows]
        eta = np.column_stack([np.zeros(len(y)), x @ beta.T])
        top = eta.max(axis=1, initial=0.0)
        weight = np.exp(eta - top[:, None])
        whole = weight.sum(axis=1)
        share = weight[:, 1:] / whole[:, None]
        log_likelihood += float((eta[np.arange(len(y)), y] - top - np.log(whole)).sum())
        score += ((y[:, None] == np.arange(1, sets + 1)) - share).T @ x
        for j in range(sets):
            for m in range(j, sets):
                w = share[:, j] * ((j == m) - share[:, m])
                information[j, :, m] += (x.T * w) @ x
    for j in range(sets):
        for m in range(j):
            information[j, :, m] = information[m, :, j].T
    return Likelihood(score.ravel(), information.reshape(sets * p, sets * p), log_likelihood)


def aggregate(params: Params, state: State, total: Likelihood) -> State:
    """Take a Newton step."""
    return State(likelihood.newton(state.fit, total, "multinomial", params.max_rounds), state.outcome)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return one set of coefficients per level but the first."""
    fit = state.fit
    if fit.phase != "done":
        return None
    levels = frame.levels[state.outcome]
    coefficients, covariance = likelihood.table(fit, np.asarray(np.kron(np.eye(len(levels) - 1), frame.transform)))
    return Result(
        method="multinomial",
        n=frame.rows,
        coefficients=coefficients,
        log_likelihood={"null": fit.null_log_likelihood, "fitted": fit.log_likelihood},
        tests=likelihood.ratio_test(fit),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details={
            "outcome": state.outcome,
            "levels": list(levels),
            "reference": levels[0],
            "left_out_missing": frame.left_out,
        },
    )
