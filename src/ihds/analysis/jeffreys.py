"""Firth's penalty, half the log determinant of the information (Jeffreys' prior): one model's sums and steps.

A step takes two rounds: the information at the present coefficients, then the score, for each person's
leverage in it needs the inverse of all sites' information.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from ihds.analysis import likelihood
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Matrix, Vector
from ihds.analysis.numerics import blocks, invert, weighted_gram
from ihds.errors import Collinear


@dataclass(frozen=True, slots=True)
class Penalised:
    """Newton's state and, while a score is awaited, the information it belongs to."""

    fit: Fit
    inverse: Matrix
    information: Matrix
    value: float

    @property
    def informed(self) -> bool:
        """Whether the information is known and the score awaited."""
        return bool(len(self.inverse))


def begin(fit: Fit) -> Penalised:
    """Start a fit, or go on with it once a step is taken."""
    none = np.zeros((0, 0))
    return Penalised(fit, none, none, 0.0)


def information(x: Matrix, y: Vector, at: Vector) -> tuple[Matrix, float]:
    """Return the information (q, q) and the log-likelihood of rows at coefficients (q,)."""
    found, value = np.zeros((len(at), len(at))), 0.0
    for rows in blocks(len(y)):
        eta = x[rows] @ at
        found += weighted_gram(x[rows], expit(eta) * expit(-eta))
        value += float((y[rows] * eta - np.logaddexp(0, eta)).sum())
    return found, value


def score(x: Matrix, y: Vector, at: Vector, inverse: Matrix) -> Vector:
    """Return the modified score (q,) of rows, each with its leverage under the inverse information."""
    found = np.zeros(len(at))
    for rows in blocks(len(y)):
        part = x[rows]
        eta = part @ at
        mean = expit(eta)
        leverage = mean * expit(-eta) * ((part @ inverse) * part).sum(axis=1)
        found += part.T @ (y[rows] - mean + leverage * (0.5 - mean))
    return found


def take_information(state: Penalised, total: Matrix, log_likelihood: float) -> Penalised:
    """Keep the information of all sites, its inverse and the penalised likelihood.

    Where it is singular after a step, the step went too far: the penalty is then infinite.

    Raises:
        Collinear: it is singular where the search starts.

    """
    try:
        inverse = invert(total, state.fit.terms)
    except Collinear:
        if not np.isfinite(state.fit.log_likelihood):
            raise
        return replace(state, inverse=np.zeros_like(total), information=total, value=-np.inf)
    value = log_likelihood + 0.5 * float(np.linalg.slogdet(total)[1])
    return replace(state, inverse=inverse, information=total, value=value)


def take_score(state: Penalised, total: Vector, name: str, max_steps: int, reach: float | Vector = np.inf) -> Penalised:
    """Take the step that a score asks for.

    Prior and leverages are the whole model's also while some coefficients are held at 0: the null model is
    the whole one with these held, else the test would depend on the covariates' units.
    """
    whole = Likelihood(total, state.information, state.value)
    return begin(likelihood.newton(state.fit, whole, name, max_steps, finite=True, reach=reach))
