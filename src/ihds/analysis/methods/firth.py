"""Firth's logistic regression: finite and less biased where outcomes are rare or separated.

Model      logit P(y = 1) = x · beta, maximising log-likelihood + half the log determinant of the
           information (Jeffreys' prior).
Down       beta (p,), then the inverse information (p, p).
Up         Information, then Score, in turns, as sums over sites.
Rounds     two a step, about 20 in all; more under separation.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     Collinear, DidNotConverge.
Source     Firth 1993; Heinze & Schemper 2002. Checked against a fit in R
           (tests/vectors/regression.R). Intervals are Wald's; profile intervals are not offered.
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np

from ihds.analysis import jeffreys, likelihood
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.jeffreys import Penalised
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.outcomes import plain_formula
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook


@dataclass(frozen=True, slots=True)
class Params:
    """The outcome is coded 0 and 1."""

    formula: str
    max_rounds: int = 200


@dataclass(frozen=True, slots=True)
class Information(Contribution):
    """What decides each person's leverage."""

    kind: ClassVar[str] = "score and information"

    information: Annotated[Matrix, Leaves("(p, p)", "1 / covariate unit squared")]
    log_likelihood: Annotated[float, Leaves("()", "1")]


@dataclass(frozen=True, slots=True)
class Score(Contribution):
    """The modified score."""

    kind: ClassVar[str] = "score and information"

    score: Annotated[Vector, Leaves("(p,)", "1 / covariate unit")]


CONTRIBUTIONS = (Information, Score)
State = Penalised
STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a binary outcome and a model matrix with intercept."""
    formula = plain_formula(params.formula, codebook, "firth")
    return Ask(formula=formula, outcome="binary", covariates="matrix")


def begin(params: Params, frame: Frame) -> State:
    """Start at beta = 0."""
    p = len(frame.columns)
    return jeffreys.begin(likelihood.begin(frame.columns, np.zeros(p), np.arange(p) == 0))


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the information, or the score with each person's leverage under it."""
    if state.informed:
        return Score(jeffreys.score(design.x, design.y, state.fit.at, state.inverse))
    return Information(*jeffreys.information(design.x, design.y, state.fit.at))


def aggregate(params: Params, state: State, total: Any) -> State:
    """Keep the information; with the score that follows take a step."""
    if isinstance(total, Information):
        return jeffreys.take_information(state, total.information, total.log_likelihood)
    return jeffreys.take_score(state, total.score, "firth", params.max_rounds // 2)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the coefficients once the steps have settled."""
    fit = state.fit
    if fit.phase != "done":
        return None
    units = float(np.log(frame.scale).sum())  # the determinant is that of the variables' own units
    null, fitted = fit.null_log_likelihood + units, fit.log_likelihood + units
    coefficients, covariance = likelihood.table(fit, frame.transform)
    return Result(
        method="firth",
        n=frame.rows,
        coefficients=coefficients,
        log_likelihood={"null": null, "fitted": fitted},
        tests=likelihood.ratio_test(replace(fit, log_likelihood=fitted, null_log_likelihood=null)),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details={"family": "binomial", "penalty": "Jeffreys", "left_out_missing": frame.left_out},
    )
