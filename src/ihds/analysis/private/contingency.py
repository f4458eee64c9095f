"""Tables of two categories with noise: chi-squared and odds ratio whose errors count the noise.

Model      counts of rows by two categories.
Down       nothing: levels are published.
Up         Cells: rows per cell.
Rounds     1.
Reveals    the cells with noise; none is hidden, and one below zero is told as it was drawn.
Errors     BadFormula.
Source     the test is by simulation of tables and of noise under independence: Gaboardi et al. 2016 (MCIndep).
           Checked by simulation (tests/analysis/test_private.py).
Status     experimental
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, ClassVar

import numpy as np
from scipy.special import ndtr

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Matrix, Vector
from ihds.analysis.methods import contingency
from ihds.analysis.noisy import Moved, bounded
from ihds.analysis.result import Result, Test
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula
from ihds.privacy.rules import NOISY

Params = contingency.Params
_Z = 1.959963984540054
_DRAWS = 4999


@dataclass(frozen=True, slots=True)
class Cells(Contribution):
    """Rows per row level and column level."""

    kind: ClassVar[str] = NOISY

    counts: Annotated[Vector, bounded("(rows * columns,)", "rows per cell")]


CONTRIBUTIONS = (Cells,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened, noisy counts, once there."""

    total: Cells | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the two categories as groups.

    Raises:
        BadFormula: it is no table, or one within strata.

    """
    found = contingency.ask(params, codebook)
    if found.formula.strata:
        raise BadFormula("a noisy table takes no strata()", remedy="leave it out")
    return found


def rounds(params: Params) -> tuple[Fraction, ...]:
    """All of rho goes into the only round."""
    return (Fraction(1),)


def moved(params: Params, ask: Ask, frame: Frame) -> dict[str, Moved]:
    """Say that a row is in one cell."""
    return {"counts": Moved(len(frame.groups), Fraction(1))}


def least(params: Params, frame: Frame, noise: Mapping[str, float]) -> float:
    """Noise alone must stay below the size of an average cell."""
    return _Z * noise["counts"] * len(frame.groups)


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(None)


def local(params: Params, state: State, design: Design) -> Cells:
    """Count this site's rows per cell."""
    return Cells(np.bincount(design.group, minlength=len(design.frame.groups)).astype(float))


def aggregate(params: Params, state: State, total: Cells) -> State:
    """Keep the totals."""
    return State(total)


def finish(params: Params, frame: Frame, state: State, noise: Mapping[str, float]) -> Result | None:
    """Return the table and its tests, the noise counted in their errors."""
    if state.total is None:
        return None
    formula = formulas.parse(params.formula, frame.levels)
    names = [formula.label(term) for term in formula.terms]
    rows, columns = ([f"{name}={level}" for level in frame.levels[name]] for name in names)
    table = state.total.counts.reshape(len(rows), len(columns))
    tests = [_independence(table, noise["counts"])]
    if table.shape == (2, 2):
        tests.append(_odds_ratio(table, noise["counts"]))
    details: dict[str, Any] = {
        "rows": rows,
        "columns": columns,
        "strata": [""],
        "counts": [np.rint(table).tolist()],
        "noise_se": noise["counts"],
    }
    return Result(method="contingency", n=max(round(float(table.sum())), 0), tests=tuple(tests), details=details)


def _statistic(tables: Matrix, sd: float) -> Vector:
    """Return chi-squared of tables (k, r, c) against independence, with the noise in the variance of each cell."""
    rows, columns = np.maximum(tables.sum(axis=2), 1.0), np.maximum(tables.sum(axis=1), 1.0)
    expected = rows[:, :, None] * columns[:, None, :] / rows.sum(axis=1)[:, None, None]
    return np.asarray(((tables - expected) ** 2 / (expected + sd**2)).sum(axis=(1, 2)))


def _independence(table: Matrix, sd: float) -> Test:
    """Test by drawing tables and noise as they would be if the categories were independent."""
    n = max(round(float(table.sum())), 1)
    rows, columns = np.maximum(table.sum(axis=1), 1.0), np.maximum(table.sum(axis=0), 1.0)
    p = np.outer(rows / rows.sum(), columns / columns.sum())
    rng = np.random.default_rng(1)  # draws for a p value, not for privacy: the same result gives the same p
    drawn = rng.multinomial(n, p.ravel(), _DRAWS) + rng.normal(0.0, sd, (_DRAWS, table.size))
    seen = float(_statistic(table[None], sd)[0])
    larger = int(np.sum(_statistic(drawn.reshape(-1, *table.shape), sd) >= seen))
    df = (table.shape[0] - 1) * (table.shape[1] - 1)
    return Test("chi-squared, noise counted", seen, float(df), (larger + 1) / (_DRAWS + 1))


def _odds_ratio(table: Matrix, sd: float) -> Test:
    """Return the odds ratio with an interval; none where noise leaves a cell that is not clearly above zero."""
    if float(table.min()) <= _Z * sd:
        return Test("odds ratio", np.nan, 1.0, np.nan, ({"note": "noise hides a cell"},))
    log_ratio = float(np.log(table[0, 0] * table[1, 1] / (table[0, 1] * table[1, 0])))
    se = float(np.sqrt((1 / table + sd**2 / table**2).sum()))
    interval = {"lower": float(np.exp(log_ratio - _Z * se)), "upper": float(np.exp(log_ratio + _Z * se))}
    return Test("odds ratio", float(np.exp(log_ratio)), 1.0, float(2 * ndtr(-abs(log_ratio) / se)), (interval,))
