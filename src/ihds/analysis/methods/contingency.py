"""Tables of two categories: chi-squared, Fisher's exact test, odds ratio, Cochran-Mantel-Haenszel over strata.

Model      counts of rows by two categories, within strata if the formula names any.
Down       nothing but the agreed levels.
Up         Cells: rows, persons and sites per cell and stratum.
Rounds     1.
Reveals    the table and its tests, if every cell that is not empty holds min_cell persons of several sites; else
           the table without tests, small cells hidden, and with them as many others as all its margins would need to
           be known for: those of one dimension less, whoever tells them.
Errors     BadFormula, BadLevel, ConstantColumn.
Source     Fisher 1934; Mantel & Haenszel 1959; Robins, Breslow & Greenland 1986. Checked against R
           chisq.test, fisher.test and mantelhaen.test (tests/vectors/tests.R).
Status     reviewed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import fisher_p, log_choose
from ihds.analysis.result import Result, Test, chi_square
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadLevel, ConstantColumn
from ihds.privacy import tables


@dataclass(frozen=True, slots=True)
class Params:
    """``formula`` is ``~ row + column``, with ``strata(x)`` for Cochran-Mantel-Haenszel."""

    formula: str


@dataclass(frozen=True, slots=True)
class Cells(Contribution):
    """Rows per stratum, row level and column level, and whose they are."""

    kind: ClassVar[str] = "count table"

    counts: Annotated[Vector, Leaves("(strata * rows * columns,)", "rows per cell", bound=1)]
    persons: Annotated[Vector, Leaves("(strata * rows * columns,)", "persons per cell", bound=1, counts_persons=True)]
    sites: Annotated[Vector, Leaves("(strata * rows * columns,)", "sites with persons", bound=1, per="site")]


CONTRIBUTIONS = (Cells,)

_HIDDEN = "cells are hidden, some so that others do not follow from margins; tests of the whole table would tell them"


@dataclass(frozen=True, slots=True)
class State:
    """The opened counts, once there."""

    counted: bool
    counts: Vector
    persons: Vector
    sites: Vector


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the two categories as groups."""
    formula = formulas.parse(params.formula, codebook.variables, ())
    if formula.response or len(formula.terms) != 2 or formula.offset or formula.cluster:
        raise BadFormula(f"{params.formula!r} is not ~ row + column", remedy="write for example ~ treatment + response")
    if "site" in formula.strata:
        raise BadFormula("a table within sites would show single sites", remedy="use strata() of a category")
    return Ask(formula=formula, outcome="none", covariates="groups", small_groups=True)


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    none = np.zeros(0)
    return State(False, none, none, none)


def local(params: Params, state: State, design: Design) -> Cells:
    """Count this site's rows and persons per cell."""
    cells = len(design.frame.groups)
    size = cells * max(len(design.frame.strata), 1)
    at = design.stratum * cells + design.group
    persons = np.bincount(np.unique(design.person * size + at) % size, minlength=size).astype(float)
    return Cells(np.bincount(at, minlength=size).astype(float), persons, (persons > 0).astype(float))


def aggregate(params: Params, state: State, total: Cells) -> State:
    """Keep the totals."""
    return State(True, total.counts, total.persons, total.sites)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the table, and its tests if none of it is hidden.

    Raises:
        BadLevel: no cell may be shown.
        ConstantColumn: a row or column category does not vary, in the table or within its strata.

    """
    if not state.counted:
        return None
    formula = formulas.parse(params.formula, frame.levels)  # every variable of a table is a category
    names = [formula.label(term) for term in formula.terms]
    rows, columns = ([f"{name}={level}" for level in frame.levels[name]] for name in names)
    strata = frame.strata if len(frame.strata) > 1 else ("",)
    counts = np.rint(state.counts).reshape(-1, len(rows), len(columns))
    details: dict[str, Any] = {"rows": rows, "columns": columns, "strata": list(strata)}
    hidden = _hidden(frame, state, counts)
    if hidden.any():
        if hidden.all():
            raise BadLevel(
                f"cells of the table hold fewer than {frame.min_cell} persons, and others would tell of them",
                remedy="merge categories in the codebook, or leave the strata out",
            )
        shown = np.where(hidden, np.array(None), counts.astype(np.int64).astype(object)).tolist()
        return Result(
            method="contingency",
            n=frame.rows,
            details={**details, "counts": shown, "warning": _HIDDEN, "left_out_missing": frame.left_out},
        )
    whole = counts.sum(axis=0)
    kept = np.ix_(whole.sum(axis=1) > 0, whole.sum(axis=0) > 0)
    table = whole[kept]
    if min(table.shape) < 2:
        raise ConstantColumn("a category of the table does not vary", remedy="name another variable")
    tests = [_chi_square(table)]
    details["counts"] = counts.tolist()
    if table.shape == (2, 2):
        tests += [_corrected(table), _fisher(table)]
    if len(strata) > 1:
        tests.append(_mantel_haenszel(np.array([layer[kept] for layer in counts])))
    details["left_out_missing"] = frame.left_out
    return Result(method="contingency", n=frame.rows, tests=tuple(tests), details=details)


def _hidden(frame: Frame, state: State, counts: Matrix) -> NDArray[np.bool_]:
    """Return which cells (strata, rows, columns) are hidden: small ones, and others so that none can be worked out."""
    limits, least = frame.limits, max(frame.min_cell, 1)
    persons, sites = (np.rint(v).reshape(counts.shape) for v in (state.persons, state.sites))
    first = tables.primary(persons, least, hide_empty=limits.hide_empty, hide_full=limits.hide_full)
    first |= (sites > 0) & (sites < frame.min_sites)
    shape = [n for n in counts.shape if n > 1] or [1]
    empty_shown = not (limits.hide_empty or limits.hide_full)
    return tables.hidden_cells(counts, first, tables.margins(shape), least, empty_shown=empty_shown)


def _expected(table: Matrix) -> Matrix:
    expected: Matrix = table.sum(axis=1)[:, None] * table.sum(axis=0)[None, :] / table.sum()
    return expected


def _chi_square(table: Matrix) -> Test:
    expected = _expected(table)
    df = (table.shape[0] - 1) * (table.shape[1] - 1)
    return chi_square("chi-squared", float(((table - expected) ** 2 / expected).sum()), df, [])


def _corrected(table: Matrix) -> Test:
    """Return Yates' correction, never more than the difference itself (as R)."""
    expected = _expected(table)
    off = np.abs(table - expected)
    statistic = float(((off - min(0.5, float(off.min()))) ** 2 / expected).sum())
    return chi_square("chi-squared, Yates' correction", statistic, 1, [])


def _fisher(table: Matrix) -> Test:
    """Return Fisher's exact test with the conditional odds ratio and its 95 % interval."""
    (a, b), (c, d) = table
    m, n, k = a + c, b + d, a + b  # first column, second column, first row
    low, high = max(0.0, k - n), min(k, m)
    support = np.arange(low, high + 1)
    log_density = log_choose(m, support) + log_choose(n, k - support)

    def density(log_ratio: float) -> Vector:
        logs = log_density + support * log_ratio
        weights = np.exp(logs - logs.max())
        out: Vector = weights / weights.sum()
        return out

    p = fisher_p(a, b, c, d)

    def solve(target: Any) -> float:
        found = optimize.brentq(target, -60.0, 60.0, xtol=1e-13, rtol=1e-14)
        return float(np.exp(found))

    if a == low:
        ratio = 0.0
    elif a == high:
        ratio = float("inf")
    else:
        ratio = solve(lambda t: float((support * density(t)).sum()) - a)
    lower = 0.0 if a == low else solve(lambda t: float(density(t)[support >= a].sum()) - 0.025)
    upper = float("inf") if a == high else solve(lambda t: float(density(t)[support <= a].sum()) - 0.025)
    details = {"odds_ratio": ratio, "lower": lower, "upper": upper}
    return Test("Fisher's exact test", float("nan"), float("nan"), p, (details,))


def _mantel_haenszel(layers: Matrix) -> Test:
    """Return the test of no association within strata (as R's; a stratum of one row tells nothing).

    Raises:
        ConstantColumn: no stratum holds two levels of both categories.

    """
    layers = layers[layers.sum(axis=(1, 2)) > 1]
    off, variance = np.zeros(0), np.zeros((0, 0))
    for layer in layers:
        n, rows, columns = layer.sum(), layer.sum(axis=1), layer.sum(axis=0)
        part = (layer - np.outer(rows, columns) / n)[:-1, :-1].ravel()
        spread = np.kron(
            (np.diag(rows) - np.outer(rows, rows) / n)[:-1, :-1],
            (np.diag(columns) - np.outer(columns, columns) / n)[:-1, :-1],
        ) / (n - 1)
        off, variance = (off + part, variance + spread) if len(off) else (part, spread)
    if not len(off) or np.linalg.matrix_rank(variance) < len(off):
        raise ConstantColumn("within strata a category of the table does not vary", remedy="leave the strata out")
    if len(off) > 1:
        return chi_square("Cochran-Mantel-Haenszel", float(off @ np.linalg.solve(variance, off)), len(off), [])
    away = abs(float(off[0]))
    statistic = (away - (0.5 if away >= 0.5 else 0.0)) ** 2 / float(variance[0, 0])
    return chi_square("Cochran-Mantel-Haenszel", statistic, 1, [_common_ratio(layers)])


def _common_ratio(layers: Matrix) -> dict[str, Any]:
    """Return Mantel and Haenszel's common odds ratio with Robins, Breslow and Greenland's interval."""
    total = layers.sum(axis=(1, 2))
    same, cross = layers[:, 0, 0] * layers[:, 1, 1] / total, layers[:, 0, 1] * layers[:, 1, 0] / total
    r, s = float(same.sum()), float(cross.sum())
    told: dict[str, Any] = {"common_odds_ratio": r / s if s else float("inf")}
    if r > 0 and s > 0:
        p, q = (layers[:, 0, 0] + layers[:, 1, 1]) / total, (layers[:, 0, 1] + layers[:, 1, 0]) / total
        spread = (
            (p * same).sum() / (2 * r**2) + (p * cross + q * same).sum() / (2 * r * s) + (q * cross).sum() / (2 * s**2)
        )
        half = float(special.ndtri(0.975)) * float(np.sqrt(spread))
        told |= {"lower": float(r / s * np.exp(-half)), "upper": float(r / s * np.exp(half))}
    return told
