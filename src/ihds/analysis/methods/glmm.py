"""Generalised linear mixed models: binary or count outcomes with a random intercept per patient.

Model      g(E y) = x · beta + theta u, u ~ N(0, 1) per patient; the integral over u by Laplace's
           method or adaptive Gauss–Hermite quadrature. Patients lie within one site.
Down       beta (p,) and theta.
Up         score, information and log-likelihood, as sums over sites.
Rounds     about 17; each site differentiates its own log-likelihood numerically.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     Separation, Collinear, DidNotConverge, OutOfRange, BadFormula.
Source     Breslow & Clayton 1993; Pinheiro & Bates 1995. Checked against R lme4::glmer
           (tests/vectors/mixed.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.special import expit, gammaln, logsumexp

from ihds.analysis import formula as formulas
from ihds.analysis import likelihood
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Vector
from ihds.analysis.outcomes import categories, own_clusters, split_bars
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput

#: Steps of the numerical derivatives, both of fourth order: score and information.
_STEP, _WIDE = 2e-3, 1e-2
_INNER = 60
#: How far theta may move at once, and where it is near enough to 0 to go there.
_REACH, _NEAR = 0.5, 1e-3
#: The squared length of a step, in standard errors, that rounding leaves in numerical derivatives.
_STILL = 1e-12


@dataclass(frozen=True, slots=True)
class Params:
    """The formula is lme4's: ``y ~ time + sex + (1 | patient)``; ``nodes`` 1 is Laplace's method."""

    formula: str
    family: Literal["binomial", "poisson"] = "binomial"
    nodes: int = 1
    max_rounds: int = 80


CONTRIBUTIONS = (Likelihood,)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state, the last parameter being theta, and the unit the sums travel in."""

    fit: Fit
    unit: float


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a binary or count outcome, a model matrix and the patient of each row."""
    fixed, inner, _, group = split_bars(params.formula)
    if inner != "1":
        raise BadFormula(f"glmm takes a random intercept, not {inner!r}", remedy="write (1 | patient)")
    if not 1 <= params.nodes <= 25:
        raise BadInput(f"nodes is {params.nodes}", remedy="use 1 (Laplace) to 25")
    formula = formulas.parse(f"{fixed} + cluster({group})", codebook.variables, categories(codebook))
    formula = own_clusters(formula, codebook)
    if formula.survival or len(formula.response) != 1 or not formula.intercept:
        raise BadFormula(f"{params.formula!r} needs one outcome and the intercept", remedy="write y ~ x + (1 | id)")
    if formula.strata:
        raise BadFormula("glmm takes no strata()", remedy="leave it out")
    outcome: Any = "binary" if params.family == "binomial" else "count"
    return Ask(formula=formula, outcome=outcome, covariates="matrix", extra=1)


def begin(params: Params, frame: Frame) -> State:
    """Start at beta = 0 and theta = 1."""
    p = len(frame.columns)
    at = np.append(np.zeros(p), 1.0)
    if params.family == "poisson":
        at[0] = np.log(frame.outcome_scale)
    fit = likelihood.begin((*frame.columns, "theta"), at, np.isin(np.arange(p + 1), [0, p]))
    counted = params.family == "poisson"  # sums of large counts travel in their unit
    return State(fit, max(frame.outcome_scale, 1.0) if counted else 1.0)


class _Patients:
    """One site's rows by patient, with the modes found so far: a start for the next search."""

    def __init__(self, params: Params, design: Design) -> None:
        order = np.argsort(design.cluster, kind="stable")
        self.first = np.flatnonzero(np.diff(design.cluster[order], prepend=-1)) if len(order) else order
        self.x, self.offset = design.x[order], design.offset[order]
        self.y = (design.y * (design.frame.outcome_scale if params.family == "poisson" else 1.0))[order]
        self.size = np.diff(self.first, append=len(order))
        self.modes = np.zeros(len(self.first))
        self.binary = params.family == "binomial"
        self.constant = 0.0 if self.binary else float(-gammaln(self.y + 1).sum())
        nodes, weights = np.polynomial.hermite.hermgauss(params.nodes)
        self.nodes, self.log_weights = nodes, np.log(weights) + nodes**2

    def sums(self, values: Vector) -> Vector:
        return np.add.reduceat(values, self.first) if len(values) else np.zeros(0)

    def terms(self, eta: Vector) -> tuple[Vector, Vector, Vector]:
        """Return log density, residual and weight of each row."""
        if self.binary:
            mean = expit(eta)
            return self.y * eta - np.logaddexp(0, eta), self.y - mean, mean * expit(-eta)
        mean = np.exp(np.minimum(eta, 300))
        return self.y * eta - mean, self.y - mean, mean

    def log_likelihood(self, at: Vector) -> float:
        """Return the sum over patients of the log of the integral over u."""
        if not len(self.y):
            return 0.0
        theta, linear = at[-1], self.x @ at[:-1] + self.offset
        u = self.modes.copy()
        best = np.full(len(u), -np.inf)
        step = np.zeros(len(u))
        for _ in range(_INNER):
            value, residual, weight = self.terms(linear + theta * np.repeat(u, self.size))
            height = self.sums(value) - u**2 / 2
            worse = height < best - 1e-9 * np.maximum(1.0, np.abs(best))
            if worse.any():
                step = np.where(worse, step / 2, 0.0)
                u = u - step
                continue
            best = height
            curve = 1 + theta**2 * self.sums(weight)
            step = (theta * self.sums(residual) - u) / curve
            u = u + step
            if np.abs(step).max() < 1e-11:
                break
        self.modes = u
        value, _, weight = self.terms(linear + theta * np.repeat(u, self.size))
        spread = 1 / np.sqrt(1 + theta**2 * self.sums(weight))
        if len(self.nodes) == 1:
            return float((self.sums(value) - u**2 / 2 + np.log(spread)).sum()) + self.constant
        heights = []
        for node, log_weight in zip(self.nodes, self.log_weights, strict=True):
            v = u + np.sqrt(2) * spread * node
            value = self.terms(linear + theta * np.repeat(v, self.size))[0]
            heights.append(self.sums(value) - v**2 / 2 + log_weight)
        whole = logsumexp(np.array(heights), axis=0) + np.log(spread) - 0.5 * np.log(np.pi)
        return float(whole.sum()) + self.constant


def local(params: Params, state: State, design: Design) -> Likelihood:
    """Return this site's log-likelihood and its numerical derivatives."""
    if "patients" not in design.cache:
        design.cache["patients"] = _Patients(params, design)
    patients: _Patients = design.cache["patients"]
    at, q = state.fit.at, len(state.fit.at)
    error = np.sqrt(np.maximum(np.diag(state.fit.covariance), 0.0))
    width = np.where(error > 0, np.clip(error / (2 * _WIDE), 1e-4, 1.0), 1.0)  # shorter where all is sharp
    along = np.diag(width)
    here = patients.log_likelihood(at)

    def moved(step: Vector) -> float:
        return patients.log_likelihood(at + step)

    score, information = np.zeros(q), np.zeros((q, q))
    for j in range(q):
        low2, low, high, high2 = (moved(s * _STEP * along[j]) for s in (-2, -1, 1, 2))
        score[j] = (low2 - 8 * low + 8 * high - high2) / (12 * _STEP)
        low2, low, high, high2 = (moved(s * _WIDE * along[j]) for s in (-2, -1, 1, 2))
        information[j, j] = (low2 - 16 * low + 30 * here - 16 * high + high2) / (12 * _WIDE**2)
        for m in range(j):
            near, far = (
                sum(a * b * moved(h * (a * along[j] + b * along[m])) for a in (-1, 1) for b in (-1, 1)) / (4 * h**2)
                for h in (_WIDE, 2 * _WIDE)
            )
            information[j, m] = information[m, j] = (far - 4 * near) / 3
    score, information = score / width, information / np.outer(width, width)
    unit = state.unit
    return likelihood.within(Likelihood(score / unit, information / unit, here / unit), design.frame.rows)


def aggregate(params: Params, state: State, total: Likelihood) -> State:
    """Take a Newton step."""
    value = total.log_likelihood * state.unit
    whole = Likelihood(total.score * state.unit, total.information * state.unit, value, out=total.out)
    theta = abs(float(state.fit.at[-1]))
    far = min(_REACH, 0.75 * theta) if theta > _NEAR else _REACH  # a step past 0 would be one to -theta, the same
    reach = np.append(np.full(len(total.score) - 1, 2.0), far)
    return replace(state, fit=likelihood.newton(state.fit, whole, "glmm", params.max_rounds, reach=reach, still=_STILL))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the coefficients and the random intercept's standard deviation."""
    fit = state.fit
    if fit.phase != "done":
        return None
    p = len(frame.columns)
    transform = np.eye(p + 1)
    transform[:p, :p] = frame.transform
    coefficients, covariance = likelihood.table(fit, transform)
    return Result(
        method="glmm",
        n=frame.rows,
        coefficients=coefficients[:p],
        log_likelihood={"null": fit.null_log_likelihood, "fitted": fit.log_likelihood},
        tests=likelihood.ratio_test(fit),
        covariance=tuple(tuple(map(float, row)) for row in covariance[:p, :p]),
        details={
            "family": params.family,
            "nodes": params.nodes,
            "random": [{"term": "(Intercept)", "sd": abs(float(fit.at[-1])), "correlation": []}],
            "left_out_missing": frame.left_out,
        },
    )
