"""Correlation of numbers, and their principal components.

Model      Pearson's r over rows with all values; components of the correlation matrix.
Down       the agreed centres and scales.
Up         Products: the cross-products of the centred, scaled columns.
Rounds     1.
Reveals    p (p + 1) / 2 moments on n rows; a model so large for n that it would describe persons is refused.
Errors     BadFormula, ConstantColumn, Collinear.
Source     Pearson 1901. Checked against R cor, cor.test and prcomp (tests/vectors/tests.R).
Status     reviewed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from scipy import special

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix
from ihds.analysis.result import Result, Test
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, Collinear, ConstantColumn


@dataclass(frozen=True, slots=True)
class Params:
    """``formula`` is ``~ a + b + c``."""

    formula: str


@dataclass(frozen=True, slots=True)
class Products(Contribution):
    """Cross-products of the columns, the intercept among them."""

    kind: ClassVar[str] = "moment"

    products: Annotated[Matrix, Leaves("(p + 1, p + 1)", "scaled units squared", bound=2**16)]


CONTRIBUTIONS = (Products,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened products, once there."""

    counted: bool
    products: Matrix


STATE = State

#: Nearer to one than this, 1 - |r| is rounding: its test and the smallest component would be wrong.
_ALIKE = 1e-6


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the columns of a model without outcome."""
    categories = [name for name, v in codebook.variables.items() if v.kind == "category"]
    formula = formulas.parse(params.formula, codebook.variables, categories)
    if not formula.intercept:
        raise BadFormula("a correlation is about the means: - 1 has no meaning here", remedy="leave it out")
    if formula.response or len(formula.terms) < 2 or formula.offset or formula.strata or formula.cluster:
        raise BadFormula(f"{params.formula!r} is not ~ a + b", remedy="name two numbers or more, with +")
    return Ask(formula=formula, outcome="none", covariates="matrix")


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(False, np.zeros((0, 0)))


def local(params: Params, state: State, design: Design) -> Products:
    """Return this site's cross-products."""
    return Products(design.x.T @ design.x)


def aggregate(params: Params, state: State, total: Products) -> State:
    """Keep the totals."""
    return State(True, total.products)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the correlations, a test of each, and the components.

    Raises:
        ConstantColumn: a column does not vary, or there are two rows.
        Collinear: two columns are the same but for their scale.

    """
    if not state.counted:
        return None
    n, names, sums = float(frame.rows), frame.columns[1:], state.products[0, 1:]
    if n < 3:
        raise ConstantColumn("two rows have no correlation", remedy="use more rows")
    covariance = (state.products[1:, 1:] - np.outer(sums, sums) / n) / (n - 1)
    sd = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    flat = [name for name, s in zip(names, sd, strict=True) if not s > 1e-10]
    if flat:
        raise ConstantColumn(f"{flat[0]} does not vary", remedy="leave it out")
    r = covariance / np.outer(sd, sd)
    alike = np.argwhere(np.triu(np.abs(r), 1) > 1 - _ALIKE)
    if len(alike):
        one, two = (names[i] for i in alike[0])
        raise Collinear(f"{one} and {two} are the same but for their scale", remedy="leave one of them out")
    values, vectors = np.linalg.eigh(r)
    order = np.argsort(values)[::-1]
    loadings = vectors[:, order] * np.sign(vectors[np.abs(vectors[:, order]).argmax(axis=0), order])
    tests = [_test(names[i], names[j], float(r[i, j]), n) for i in range(len(names)) for j in range(i + 1, len(names))]
    details: dict[str, Any] = {
        "variables": list(names),
        "correlation": r.tolist(),
        "sd": (sd * frame.scale[1:]).tolist(),
        "components": {"sd": np.sqrt(np.maximum(values[order], 0.0)).tolist(), "loadings": loadings.tolist()},
        "left_out_missing": frame.left_out,
    }
    return Result(method="correlation", n=frame.rows, tests=tuple(tests), details=details)


def _test(one: str, two: str, r: float, n: float) -> Test:
    """Return Pearson's test of no correlation with Fisher's 95 % interval."""
    df = n - 2
    statistic = float(r * np.sqrt(df / (1 - r**2)))
    p = float(2 * special.stdtr(df, -abs(statistic)))
    details: dict[str, Any] = {"r": r}
    if n > 3:
        half = float(special.ndtri(0.975)) / np.sqrt(n - 3)
        details |= {"lower": float(np.tanh(np.arctanh(r) - half)), "upper": float(np.tanh(np.arctanh(r) + half))}
    return Test(f"{one} with {two}", statistic, df, p, (details,))
