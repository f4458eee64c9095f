"""Elastic net: ridge, lasso and between, for numbers and binary outcomes, with cross-validation.

Model      minimise loss / n + lambda (alpha |b| + (1 - alpha) b² / 2) over standardised columns; loss
           is half the squared error, or minus the log-likelihood of a logistic model. All penalties
           and all folds are fitted side by side.
Down       the coefficients of every fold and penalty.
Up         FoldProducts once; for binary outcomes Fits, then Held, as sums over sites.
Rounds     1 for numbers; about 10 for binary outcomes.
Reveals    cross-products per fold, over all sites; p = n would determine rows: disclosure refuses
           p > n / 3 and n - p < 10 in what a fold leaves.
Errors     DidNotConverge, BadInput, ConstantColumn.
Source     Friedman, Hastie & Tibshirani 2010; Lee, Sun & Saunders 2014 (proximal Newton). Checked
           against R glmnet (tests/vectors/regression.R); the penalty on numbers is the plain one
           above, glmnet divides its ridge part by the outcome's spread.
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import expit

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import blocks
from ihds.analysis.outcomes import plain_formula
from ihds.analysis.penalised import bare, descend, folds_of
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput, DidNotConverge

#: Largest change of a standardised coefficient that counts as none.
_STILL = 1e-10


@dataclass(frozen=True, slots=True)
class Params:
    """``lambdas`` empty takes ``steps`` penalties from the smallest that leaves no term, downwards.

    ``folds`` 0 fits without cross-validation; a person's rows share a fold.
    """

    formula: str
    family: Literal["gaussian", "binomial"] = "gaussian"
    alpha: float = 1.0
    lambdas: tuple[float, ...] = ()
    steps: int = 20
    folds: int = 5
    max_rounds: int = 60


@dataclass(frozen=True, slots=True)
class FoldProducts(Contribution):
    """Cross-products of columns and outcome per fold."""

    products: Annotated[Any, Leaves("(folds, p + 1, p + 1)", "scaled units squared")]


@dataclass(frozen=True, slots=True)
class Fits(Contribution):
    """Score, information and log-likelihood of every fit, over the rows it is trained on."""

    kind: ClassVar[str] = "score and information"

    score: Annotated[Matrix, Leaves("(fits, p)", "1 / covariate unit")]
    information: Annotated[Any, Leaves("(fits, p, p)", "1 / covariate unit squared")]
    log_likelihood: Annotated[Vector, Leaves("(fits,)", "1")]


@dataclass(frozen=True, slots=True)
class Held(Contribution):
    """Deviance of every fit over the rows it has not seen."""

    kind: ClassVar[str] = "score and information"

    deviance: Annotated[Vector, Leaves("(fits,)", "1")]


CONTRIBUTIONS = (FoldProducts, Fits, Held)


@dataclass(frozen=True, slots=True)
class State:
    """All fits: (folds + 1) x penalties, the whole data first. ``beta`` is of the scaled columns."""

    phase: Literal["products", "fits", "held", "done"]
    products: Any
    lambdas: Vector
    spread: Vector
    beta: Matrix
    step: Matrix
    objective: Vector
    open: Vector
    held: Vector
    unit: float
    rounds: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a number or a binary outcome and a model matrix with intercept."""
    formula = plain_formula(params.formula, codebook, "elastic_net")
    if not formula.terms:
        raise BadFormula(f"{params.formula!r} names no covariate", remedy="write y ~ a + b + c")
    if not 0 <= params.alpha <= 1:
        raise BadInput(f"alpha is {params.alpha:g}", remedy="give 0 (ridge) to 1 (lasso)")
    if params.folds not in (0, *range(2, 21)) or not 1 <= params.steps <= 200:
        raise BadInput(
            f"folds is {params.folds}, steps {params.steps}", remedy="give 0 or 2 to 20 folds, 1 to 200 steps"
        )
    if any(not 0 < value < 1e15 for value in params.lambdas):
        raise BadInput("a penalty is not positive, or larger than any use", remedy="give positive lambdas")
    outcome: Any = "number" if params.family == "gaussian" else "binary"
    return Ask(formula=formula, outcome=outcome, covariates="matrix", undivided=params.folds > 0)


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known."""
    p = len(frame.columns)
    flat, none = np.zeros(0), np.zeros((0, p))
    unit = frame.outcome_scale if params.family == "gaussian" else 1.0
    return State("products", np.zeros((0, p + 1, p + 1)), flat, np.ones(p), none, none, flat, flat, flat, unit, 0)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    fold, p = folds_of(params.folds, design), design.x.shape[1]
    if state.phase == "products":
        products = np.zeros((max(1, params.folds), p + 1, p + 1))
        for f in range(len(products)):
            rows = np.flatnonzero(fold == f)
            for part in blocks(len(rows)):
                a = np.column_stack([design.x[rows[part]], design.y[rows[part]]])
                products[f] += a.T @ a
        return FoldProducts(products)
    of_fit = np.arange(len(state.beta)) // len(state.lambdas)  # 0 for the whole data, then the fold left out
    if state.phase == "held":
        deviance = np.zeros(len(state.beta))
        for fit, left_out in enumerate(of_fit):
            rows = np.flatnonzero(fold == left_out - 1)
            eta, y = design.x[rows] @ state.beta[fit], design.y[rows]
            share = np.clip(expit(eta), 1e-5, 1 - 1e-5)
            deviance[fit] = -2 * float((y * np.log(share) + (1 - y) * np.log1p(-share)).sum())
        return Held(deviance)
    wanted = np.flatnonzero(state.open)
    score, information = np.zeros((len(wanted), p)), np.zeros((len(wanted), p, p))
    log_likelihood = np.zeros(len(wanted))
    for part in blocks(len(design.y)):
        x, y = design.x[part], design.y[part]
        for at, one in enumerate(wanted):
            used = (fold[part] != of_fit[one] - 1) if of_fit[one] else np.ones(len(y), dtype=bool)
            eta = x @ state.beta[one]
            mean = expit(eta)
            score[at] += x.T @ (used * (y - mean))
            information[at] += (x.T * (used * mean * expit(-eta))) @ x
            log_likelihood[at] += float(used @ (y * eta - np.logaddexp(0, eta)))
    return Fits(score, information, log_likelihood)


def _standard(products: Any) -> tuple[float, Vector]:
    """Return the rows and each column's standard deviation (divisor n); 0 for the intercept and constants."""
    n = products[0, 0]
    p = len(products) - 1
    mean = products[0, :p] / n
    square = np.diag(products)[:p] / n
    variance = square - mean**2
    return float(n), np.sqrt(np.where(variance > 1e-12 * square, variance, 0.0))


def _fit(params: Params, state: State, h: Matrix, g: Vector, start: Vector, n: float, penalty: float) -> Vector:
    """Solve one penalised least-squares problem in scaled columns; the penalty is on standardised ones.

    In the scaled outcome a penalty of absolute values is ``unit`` times smaller, one of squares the same.
    """
    weight = n * penalty * state.spread
    flat = state.spread <= 0  # constant in these rows: it could only stand for the intercept
    flat[0] = False
    h, g, start = np.where(np.logical_or.outer(flat, flat), 0.0, h), np.where(flat, 0.0, g), np.where(flat, 0.0, start)
    return descend(h, g, start, params.alpha * weight / state.unit, (1 - params.alpha) * weight * state.spread)


def _penalty(params: Params, state: State, beta: Vector, n: float, penalty: float) -> float:
    size = np.abs(beta) * state.spread
    return n * penalty * float(params.alpha * size.sum() + (1 - params.alpha) * size @ size / 2)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on.

    Raises:
        DidNotConverge: the rounds are used up.

    """
    match total:
        case FoldProducts():
            return _begun(params, replace(state, products=total.products, rounds=1))
        case Fits():
            return _stepped(params, replace(state, rounds=state.rounds + 1), total)
    return replace(state, phase="done", held=total.deviance)


def _begun(params: Params, state: State) -> State:
    """Choose the penalties; fit numbers at once, or start the binary fits at nothing but the intercept.

    Raises:
        BadInput: some fold has no row.

    """
    whole = state.products.sum(axis=0)
    if params.folds and np.any(np.rint(state.products[:, 0, 0]) == 0):
        raise BadInput(f"there are too few persons for {params.folds} folds", remedy="use fewer folds")
    n, spread = _standard(whole)
    p = len(whole) - 1
    mean = whole[0, p] / n
    if params.lambdas:
        lambdas = np.sort(np.array(params.lambdas))[::-1]
    else:
        pull = np.abs(whole[1:p, p] - whole[0, 1:p] * mean) / np.where(spread[1:] > 0, spread[1:], 1.0)
        largest = float(pull.max(initial=0.0)) / n / max(params.alpha, 1e-3) * state.unit
        largest *= 1 + 1e-9  # at the edge itself rounding would decide
        lambdas = np.geomspace(largest, largest * 1e-2, params.steps)
    fits = (params.folds + 1) * len(lambdas)
    state = replace(state, lambdas=lambdas, spread=spread, beta=np.zeros((fits, p)), step=np.zeros((fits, p)))
    if params.family == "binomial":
        beta = state.beta.copy()
        beta[:, 0] = np.log(mean / (1 - mean))
        return replace(state, phase="fits", beta=beta, objective=np.full(fits, np.inf), open=np.ones(fits))
    fitted: list[Vector] = []
    for f in range(params.folds + 1):
        used = whole - (state.products[f - 1] if f else 0.0)
        local_n, spread = _standard(used)
        here, start = replace(state, spread=spread), np.zeros(p)
        for penalty in lambdas:
            start = _fit(params, here, used[:p, :p], used[:p, p], start, local_n, float(penalty))
            fitted.append(start)
    return replace(state, phase="done", beta=np.array(fitted))


def _stepped(params: Params, state: State, total: Fits) -> State:
    """Take a proximal Newton step in every open fit; halve those that raised their objective."""
    whole = state.products.sum(axis=0)
    beta, step = state.beta.copy(), state.step.copy()
    objective, is_open = state.objective.copy(), state.open.copy()
    for at, fit in enumerate(np.flatnonzero(state.open)):
        f, penalty = divmod(int(fit), len(state.lambdas))
        n, spread = _standard(whole - (state.products[f - 1] if f else 0.0))
        here, value = replace(state, spread=spread), float(state.lambdas[penalty])
        reached = -total.log_likelihood[at] + _penalty(params, here, beta[fit], n, value)
        if reached > objective[fit] + 1e-9 * max(1.0, abs(reached)):
            step[fit] /= 2
            beta[fit] -= step[fit]
            continue
        objective[fit] = reached
        h = total.information[at]
        new = _fit(params, here, h, total.score[at] + h @ beta[fit], beta[fit], n, value)
        step[fit] = new - beta[fit]
        beta[fit] = new
        largest = float(np.max(np.abs(step[fit]) * np.where(spread > 0, spread, 1.0)))
        is_open[fit] = 0.0 if largest < _STILL else 1.0
    if is_open.any() and state.rounds >= params.max_rounds:
        raise DidNotConverge(
            f"elastic_net: {int(is_open.sum())} fits still move after {state.rounds} rounds",
            remedy="use larger penalties, or raise max_rounds",
        )
    after = "fits" if is_open.any() else "held" if params.folds else "done"
    phase: Any = after
    return replace(state, phase=phase, beta=beta, step=step, objective=objective, open=is_open)


def _scores(params: Params, state: State, unit: float) -> tuple[list[float], list[float]]:
    """Return, per penalty, the mean loss over the rows left out and its standard error over folds."""
    n = np.array([products[0, 0] for products in state.products])
    size = len(state.lambdas)
    losses = np.zeros((params.folds, size))
    for f in range(params.folds):
        for j in range(size):
            fit = (f + 1) * size + j
            if params.family == "binomial":
                losses[f, j] = state.held[fit] / n[f]
            else:
                v = np.append(-state.beta[fit], 1.0)
                losses[f, j] = v @ state.products[f] @ v / n[f] * unit**2
    mean = n @ losses / n.sum()
    spread = np.sqrt(n @ (losses - mean) ** 2 / n.sum() / (params.folds - 1))
    return [float(v) for v in mean], [float(v) for v in spread]


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the path and, with folds, the penalty that predicts best."""
    if state.phase != "done":
        return None
    gaussian = params.family == "gaussian"
    unit = state.unit
    path = state.beta[: len(state.lambdas)] @ frame.transform.T * unit
    path[:, 0] += frame.outcome_centre if gaussian else 0.0
    chosen = len(state.lambdas) - 1
    details: dict[str, Any] = {
        "family": params.family,
        "alpha": params.alpha,
        "lambda": [float(v) for v in state.lambdas],
        "path": [[float(v) for v in row] for row in path],
        "terms_left": [int(np.count_nonzero(row[1:])) for row in path],
        "left_out_missing": frame.left_out,
    }
    if params.folds:
        mean, spread = _scores(params, state, unit)
        chosen = int(np.argmin(mean))
        simplest = int(np.flatnonzero(np.array(mean) <= mean[chosen] + spread[chosen])[0])
        details |= {
            "loss": "mean squared error" if gaussian else "mean deviance",
            "loss_mean": mean,
            "loss_se": spread,
            "lambda_best": details["lambda"][chosen],
            "lambda_simplest_within_one_se": details["lambda"][simplest],
        }
    return Result(
        method="elastic_net",
        n=frame.rows,
        coefficients=bare(frame.columns, path[chosen]),
        details=details,
    )
