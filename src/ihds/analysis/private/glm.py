"""Linear and logistic regression with noise: intervals that count it.

Model      gaussian: beta from X'X and X'y. binomial: Newton's steps from 0, a fixed number of them.
Down       of the logistic model beta; bounds are published.
Up         Products (gaussian), or score and information (binomial), of values cut to their bounds.
Rounds     1, or 5, of which the last takes half of rho.
Reveals    these sums with noise.
Errors     BadFormula, BadInput (no bounds), DidNotConverge, Collinear (noise hides a direction).
Source     noisy sufficient statistics: Wang 2018 (AdaSSP), Evans & King 2023; noisy Newton steps: Ganesh et al. 2023.
           Checked by simulation (tests/analysis/test_private.py).
Status     experimental
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar

import numpy as np
from scipy.special import expit

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Matrix, Vector
from ihds.analysis.methods import glm
from ihds.analysis.noisy import Moved, bounded, units
from ihds.analysis.result import Result, wald_table
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, Collinear, DidNotConverge
from ihds.privacy.rules import NOISY

Params = glm.Params
#: Newton's first steps find the neighbourhood; how near it ends is decided by the noise of the last.
_STEPS = (Fraction(1, 8), Fraction(1, 8), Fraction(1, 8), Fraction(1, 8), Fraction(1, 2))


#: The last step may move log-odds by so much (root of the mean square): what Newton leaves is half its square.
_SETTLED = 0.4
#: A coefficient further off is as good as infinite.
_FAR = 1e6


@dataclass(frozen=True, slots=True)
class Sums(Contribution):
    """Products of columns, the upper triangle, and of columns with the outcome, or with what the model leaves of it.

    Columns of a logistic model are weighted by twice the root of p (1 - p) in ``products``.
    """

    kind: ClassVar[str] = NOISY

    products: Annotated[Vector, bounded("(p (p + 1) / 2,)", "scaled columns, squared")]
    score: Annotated[Vector, bounded("(p,)", "scaled columns times scaled outcome")]
    square: Annotated[float, bounded("()", "scaled outcome, squared")]
    rows: Annotated[float, bounded("()", "rows")]


CONTRIBUTIONS = (Sums,)


@dataclass(frozen=True, slots=True)
class State:
    """Where Newton stands, the step that led there, the information (p, p), and the last opened sums."""

    beta: Vector
    step: Vector
    information: Matrix
    total: Sums | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the outcome and a model matrix.

    Raises:
        BadFormula: it is another model than a linear or a logistic one.

    """
    found = glm.ask(params, codebook)
    if params.family not in ("gaussian", "binomial") or params.link not in ("", "identity", "logit") or params.robust:
        raise BadFormula(
            "with noise, glm is linear or logistic", remedy="use family gaussian or binomial, and no other link"
        )
    if found.formula.cluster or not found.formula.intercept:
        raise BadFormula("with noise, glm has an intercept and no cluster()", remedy="change the formula")
    return found


def rounds(params: Params) -> tuple[Fraction, ...]:
    """One round if the model is linear, else Newton's."""
    return (Fraction(1),) if params.family == "gaussian" else _STEPS


def moved(params: Params, ask: Ask, frame: Frame) -> dict[str, Moved]:
    """Say that every column and the outcome lie in [-1, 1], as do their products."""
    p = len(frame.columns)
    linear = Fraction(params.family == "gaussian")  # a logistic model does not use the square of its outcome
    return {
        "products": Moved(p * (p + 1) // 2, Fraction(p * (p + 1), 2), Fraction(2)),
        "score": Moved(p, Fraction(p), Fraction(2)),
        "square": Moved(1, linear, Fraction(1, 4)),
        "rows": Moved(1, Fraction(1), Fraction(1, 4)),
    }


def least(params: Params, frame: Frame, noise: Mapping[str, float]) -> float:
    """Noise must stay below half of the information of covariates whose sd is a tenth of their bounds' distance.

    A logistic model has p (1 - p) of that, 0.2 or so, a quarter of its products, and twice the noise in its
    first steps.
    """
    spread = 0.2**2 * (1.0 if params.family == "gaussian" else 0.2 / (0.25 * 2))
    return 2 * _floor(frame, noise) / spread


def _floor(frame: Frame, noise: Mapping[str, float]) -> float:
    """Return about the largest eigenvalue of the noise in the products: Wigner's 2 sd sqrt(p)."""
    return float(2 * noise["products"] * np.sqrt(len(frame.columns)))


def begin(params: Params, frame: Frame) -> State:
    """Start at beta = 0."""
    p = len(frame.columns)
    return State(np.zeros(p), np.zeros(p), np.zeros((p, p)), None)


def local(params: Params, state: State, design: Design) -> Sums:
    """Return the sums of this site's rows, cut to their bounds."""
    x, y = units(design.x), units(design.y)
    of_products, square = x, float(y @ y)
    if params.family == "binomial":
        fitted = expit(x @ np.nan_to_num(np.clip(state.beta, -_FAR, _FAR)))  # the user's: no infinite times zero
        y, square = units(np.clip(y, 0.0, 1.0) - fitted), 0.0
        of_products = units(x * (2 * np.sqrt(fitted * (1 - fitted)))[:, None])
    upper = np.triu_indices(x.shape[1])
    return Sums((of_products.T @ of_products)[upper], x.T @ y, square, float(len(x)))


def aggregate(params: Params, state: State, total: Sums) -> State:
    """Take a step: of a linear model the only one, of a logistic one Newton's."""
    p = len(state.beta)
    information = np.zeros((p, p))
    information[np.triu_indices(p)] = total.products
    information = information + np.triu(information, 1).T
    if params.family == "binomial":
        information = information / 4
    values, vectors = np.linalg.eigh(information)
    bent = np.maximum(values, 0.01 * max(float(values[-1]), 1.0))  # noise may have made one negative
    step = vectors @ ((vectors.T @ total.score) / bent)
    return State(state.beta + step, step, information, total)


def finish(params: Params, frame: Frame, state: State, noise: Mapping[str, float]) -> Result | None:
    """Return coefficients whose errors count the noise.

    Raises:
        Collinear: noise hides how a covariate varies.
        DidNotConverge: Newton's last step was too long for its end to be near.

    """
    if state.total is None:
        return None
    linear, beta, total = params.family == "gaussian", state.beta, state.total
    floor = _floor(frame, noise) * (1.0 if linear else 0.25)
    if float(np.linalg.eigvalsh(state.information)[0]) < floor:
        raise Collinear(
            "noise hides how the covariates vary apart from one another",
            remedy="use fewer covariates, tighter bounds, or a larger epsilon",
        )
    inverse = np.linalg.inv(state.information)
    n, unit = max(float(total.rows), len(beta) + 1.0), frame.outcome_scale
    moved_by = beta if linear else state.step  # what noise in the information is multiplied by
    sd = noise["products"] * (1.0 if linear else 0.25)
    of_products: Matrix = moved_by @ moved_by * np.eye(len(beta)) + np.outer(moved_by, moved_by) - np.diag(moved_by**2)
    by_noise: Matrix = inverse @ (noise["score"] ** 2 * np.eye(len(beta)) + sd**2 * of_products) @ inverse
    dispersion = 1.0
    if linear:
        left = total.square - 2 * beta @ total.score + beta @ state.information @ beta
        dispersion = max(float(left), noise["square"]) / (n - len(beta))
    covariance = dispersion * inverse + by_noise
    if not linear and 4 * float(state.step @ state.information @ state.step) / n > _SETTLED**2:
        raise DidNotConverge(
            "the last step was too long: noise, or separation, kept Newton from its end",
            remedy="use fewer covariates, or a larger epsilon",
        )
    shown, spread = frame.original(beta, covariance)
    _, spread_of_noise = frame.original(beta, by_noise)
    if linear:
        shown, spread, spread_of_noise = shown * unit, spread * unit**2, spread_of_noise * unit**2
        shown[0] += frame.outcome_centre
    noise_se = {c: float(np.sqrt(v)) for c, v in zip(frame.columns, np.diag(spread_of_noise), strict=True)}
    return Result(
        method="glm",
        n=round(n),
        coefficients=wald_table(frame.columns, shown, spread),
        covariance=tuple(tuple(map(float, row)) for row in spread),
        details={"family": params.family, "link": "identity" if linear else "logit", "noise_se": noise_se},
    )
