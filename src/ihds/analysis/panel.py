"""Penalised fits of several penalties side by side, and the others' fit as one site can make it of the totals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from scipy.special import expit, logit, xlogy

from ihds.analysis import partial
from ihds.analysis.design import Design
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.penalised import descend
from ihds.analysis.survival import cells_of
from ihds.errors import BadMessage

Family = Literal["cox", "binomial", "gaussian"]
LOSSES = {"cox": "mean partial deviance per event", "binomial": "mean deviance", "gaussian": "mean squared error"}

#: A fit stands still when no standardised coefficient moves more than this.
_STILL = 1e-8


@dataclass(frozen=True, slots=True)
class Model:
    """A family, and how its penalty is shared between absolute values (``alpha``) and squares.

    ``unit`` is the outcome's own unit in the scaled one.
    """

    family: Family
    alpha: float
    unit: float


@dataclass(frozen=True, slots=True)
class Columns(Contribution):
    """Rows, sums and sums of squares of the columns, the outcome's sum, and the sites that can rank somebody."""

    rows: Annotated[float, Leaves("()", "rows", bound=1, counts_persons=True)]
    total: Annotated[Vector, Leaves("(p,)", "scaled units", bound=2**15)]
    square: Annotated[Vector, Leaves("(p,)", "scaled units squared", bound=2**30)]
    outcome: Annotated[float, Leaves("()", "scaled outcome")]
    sites: Annotated[float, Leaves("()", "sites with a pair to rank", bound=1, per="site")]

    @classmethod
    def of(cls, design: Design, *, able: bool) -> Self:
        """Return a site's own."""
        x = design.x
        return cls(float(len(x)), x.sum(axis=0), (x * x).sum(axis=0), float(design.y.sum()), float(able))

    def without(self, own: Columns) -> Columns:
        """Return those of all other sites."""
        rows, outcome = self.rows - own.rows, self.outcome - own.outcome
        return Columns(rows, self.total - own.total, self.square - own.square, outcome, self.sites - own.sites)

    @property
    def spread(self) -> Vector:
        """Return the columns' standard deviations (divisor n); 0 for the intercept and constants."""
        square = self.square / self.rows
        variance = square - (self.total / self.rows) ** 2
        return np.asarray(np.sqrt(np.where(variance > 1e-12 * square, variance, 0.0)))


@dataclass(frozen=True, slots=True)
class Path:
    """Fits of all sites, one per penalty, on their way; ``moving`` (fits,) is 1 for those that still do."""

    lambdas: Vector
    beta: Matrix
    step: Matrix
    objective: Vector
    moving: Vector

    @classmethod
    def of(cls, lambdas: Vector, null: Vector) -> Self:
        """Return the fits at the model without covariates."""
        fits = len(lambdas)
        beta = np.tile(null, (fits, 1))
        return cls(lambdas, beta, np.zeros_like(beta), np.full(fits, np.inf), np.ones(fits))


def sums(model: Model, design: Design, beta: Vector) -> tuple[float, Vector, Matrix]:
    """Return log-likelihood, score and information of this site's rows, in its own risk sets."""
    x, y = design.x, design.y
    eta = x @ beta + design.offset
    if model.family == "cox":
        risk = np.exp(eta)
        found = partial.risk_sums(design, x, eta, risk)
        value, score, outer, tied = partial.likelihood(found, "breslow")
        return value, score, partial.second_moment(cells_of(design), x, risk, tied.a, tied.b) - outer
    if model.family == "binomial":
        mean = expit(eta)
        weight = mean * expit(-eta)
        return float(y @ eta - np.logaddexp(0, eta).sum()), x.T @ (y - mean), (x.T * weight) @ x
    return float(-(y - eta) @ (y - eta) / 2), x.T @ (y - eta), x.T @ x


def loss(model: Model, design: Design, beta: Vector) -> float:
    """Return the partial deviance of a Cox model, the deviance, or the sum of squares of this site's rows."""
    if model.family == "binomial":
        share = np.clip(expit(design.x @ beta), 1e-5, 1 - 1e-5)
        return -2 * float((xlogy(design.y, share) + xlogy(1 - design.y, 1 - share)).sum())
    value = -2 * sums(model, design, beta)[0]
    if model.family == "gaussian":
        return value
    d = np.diff(cells_of(design).event_first).astype(float)
    return value - 2 * float(xlogy(d, d).sum())


def null(model: Model, part: Columns) -> Vector:
    """Return the coefficients of the model without covariates."""
    beta = np.zeros(len(part.total))
    mean = part.outcome / part.rows
    if model.family == "binomial":
        beta[0] = logit(np.clip(mean, 1e-12, 1 - 1e-12))
    elif model.family == "gaussian":
        beta[0] = mean
    return beta


def penalties(model: Model, part: Columns, score: Vector, steps: int) -> Vector:
    """Return penalties from the smallest that leaves no term, to a hundredth of it, by the score at no covariate."""
    spread = part.spread
    pull = np.abs(score) / np.where(spread > 0, spread, np.inf) / part.rows
    largest = float(pull.max(initial=0.0)) / max(model.alpha, 1e-3) * model.unit * (1 + 1e-9)
    return np.asarray(np.geomspace(largest, largest * 1e-2, steps))


def advance(model: Model, part: Columns, path: Path, total: Any) -> Path:
    """Take a proximal Newton step in every fit that still moves; halve those that raised their objective."""
    spread = part.spread
    beta, step, objective, moving = (v.copy() for v in (path.beta, path.step, path.objective, path.moving))
    for at, fit in enumerate(np.flatnonzero(path.moving)):
        size, penalty = np.abs(beta[fit]) * spread, float(path.lambdas[fit])
        cost = model.alpha * size.sum() / model.unit + (1 - model.alpha) * size @ size / 2
        reached = -total.log_likelihood[at] + part.rows * penalty * float(cost)
        if reached > objective[fit] + 1e-9 * max(1.0, abs(reached)):
            step[fit] /= 2
            beta[fit] -= step[fit]
            continue
        objective[fit] = reached
        new = solve(model, part, penalty, total.score[at], total.information[at], beta[fit])
        step[fit] = new - beta[fit]
        beta[fit] = new
        moving[fit] = float(np.max(np.abs(step[fit]) * np.where(spread > 0, spread, 1.0)) >= _STILL)
    return replace(path, beta=beta, step=step, objective=objective, moving=moving)


def solve(model: Model, part: Columns, penalty: float, score: Vector, information: Matrix, beta: Vector) -> Vector:
    """Return the penalised maximum of the quadratic that score and information at ``beta`` make."""
    spread = part.spread
    weight = part.rows * penalty * spread
    flat = spread <= 0
    if model.family != "cox":
        flat[0] = False  # the intercept, which is not penalised
    h, beta = np.where(np.logical_or.outer(flat, flat), 0.0, information), np.where(flat, 0.0, beta)
    pull = np.where(flat, 0.0, score + information @ beta)
    return descend(h, pull, beta, model.alpha * weight / model.unit, (1 - model.alpha) * weight * spread)


def others(
    model: Model, whole: Columns, lambdas: Vector, beta: Matrix, score: Matrix, information: Any, design: Design
) -> tuple[Matrix, Vector, float]:
    """Return the fits of all sites but this one, this site's loss under each, and under no covariates.

    ``score`` (fits, p) and ``information`` (fits, p, p) are those of all sites at ``beta``.

    Raises:
        BadMessage: they do not hold this site's own, so they are no totals.

    """
    part, found = whole.without(Columns.of(design, able=True)), []
    if part.rows < 1:
        raise BadMessage("the totals do not hold this site's rows")
    for k, penalty in enumerate(lambdas):
        _, own, curvature = sums(model, design, beta[k])
        rest, size = information[k] - curvature, np.abs(information[k]).max(initial=1e-9)
        if np.linalg.eigvalsh(rest)[0] < -1e-6 * size:
            raise BadMessage("the totals do not hold this site's sums")
        found.append(solve(model, part, float(penalty), score[k] - own, rest, beta[k]))
    losses = np.array([loss(model, design, one) for one in found])
    return np.array(found), losses, loss(model, design, null(model, part))


def veiled(value: float, least: int, digits: int = 3) -> float:
    """Return a number with few digits where thresholds are in force.

    Pairs within sites, and losses without covariates, are made of the sites' whole numbers of persons and cases: to
    the last digit they would tell these of each site. So would a concordance, as a fraction of whole pairs.
    """
    return float(f"{value:.{digits}g}") if least > 1 else value


def timed(family: Family, design: Design) -> tuple[Vector, Any]:
    """Return for each row when it ends, and whether in an event, so that who ends first has the higher score."""
    if family == "cox":
        return design.stop, design.event
    if family == "binomial":
        return 1.0 - design.y, design.y > 0.5
    return -design.y, np.ones(len(design.y), dtype=bool)
