"""Wilcoxon's and Kruskal–Wallis's tests of whether groups differ in rank.

Model      ranks over all sites on a shared grid of values; values of one step are ties.
Down       the grid.
Up         OnGrid: values per group and step.
Rounds     1.
Reveals    counts per step, on the sum over sites only; released are the tests and mean ranks.
Errors     BadFormula, BadInput (too fine a step), ConstantColumn.
Source     Wilcoxon 1945; Kruskal & Wallis 1952, with ties. Equal to R wilcox.test(exact = FALSE) and
           kruskal.test where values are whole multiples of the step (tests/vectors/ranks.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from scipy.special import ndtr

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix
from ihds.analysis.outcomes import categories
from ihds.analysis.result import Result, Test, chi_square
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput, ConstantColumn

#: The grid reaches so many spreads to each side; what lies beyond is in the last step.
_REACH = 16.0
_MOST = 1 << 18


@dataclass(frozen=True, slots=True)
class Params:
    """``step`` is the step values are recorded in, 0 takes a 32nd of the spread."""

    formula: str
    step: float = 0.0
    continuity: bool = True


@dataclass(frozen=True, slots=True)
class OnGrid(Contribution):
    """Values per group and step of the grid."""

    kind: ClassVar[str] = "count table"

    counts: Annotated[Matrix, Leaves("(groups, steps)", "persons", bound=1, counts_persons=True)]


CONTRIBUTIONS = (OnGrid,)


@dataclass(frozen=True, slots=True)
class State:
    """The opened counts, once there."""

    counts: Matrix


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a number by groups."""
    formula = formulas.parse(params.formula, codebook.variables, categories(codebook))
    terms = [formula.label(t) for t in formula.terms]
    if formula.survival or len(formula.response) != 1 or len(terms) != 1 or terms[0] not in categories(codebook):
        raise BadFormula(f"{params.formula!r} is not a number by one category", remedy="write for example size ~ arm")
    if formula.strata or formula.cluster or formula.offset or params.step < 0:
        raise BadFormula("rank_test takes no strata(), cluster(), offset(), nor a negative step", remedy="leave it out")
    return Ask(formula=formula, outcome="number", covariates="groups")


def _grid(params: Params, frame: Frame) -> tuple[float, int, int]:
    """Return step, first step's number and how many there are."""
    step = params.step or frame.outcome_scale / 32
    first = int(np.floor((frame.outcome_centre - _REACH * frame.outcome_scale) / step))
    return step, first, int(np.ceil(2 * _REACH * frame.outcome_scale / step)) + 1


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted.

    Raises:
        BadInput: the step is too fine.
        ConstantColumn: there is one group only.

    """
    if len(frame.groups) < 2:
        raise ConstantColumn("there is only one group to compare", remedy="name another variable")
    if _grid(params, frame)[2] > _MOST:
        raise BadInput(f"a step of {params.step:g} makes too long a grid", remedy="use a wider step")
    return State(np.zeros((0, 0)))


def local(params: Params, state: State, design: Design) -> OnGrid:
    """Count the values on the grid."""
    frame = design.frame
    step, first, steps = _grid(params, frame)
    value = design.y * frame.outcome_scale + frame.outcome_centre
    at = np.clip(np.rint(value / step) - first, 0, steps - 1).astype(np.int64)
    groups = len(frame.groups)
    counts = np.bincount(design.group * steps + at, minlength=groups * steps).reshape(groups, steps)
    return OnGrid(counts.astype(np.float64))


def aggregate(params: Params, state: State, total: OnGrid) -> State:
    """Keep the totals."""
    return State(np.rint(total.counts))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the test and the groups' mean ranks.

    Raises:
        BadInput: the default grid is too coarse for these values.
        ConstantColumn: all values lie in one step.

    """
    if not state.counts.size:
        return None
    counts = state.counts
    tied, sizes, n = counts.sum(axis=0), counts.sum(axis=1), float(counts.sum())
    rank = np.cumsum(tied) - (tied - 1) / 2
    sums = counts @ rank
    ties = float(np.sum(tied**3 - tied))
    if not params.step and n > 2 and float(tied.max()) > n / 2:
        raise BadInput(
            "more than half of the values lie in one step of the default grid",
            remedy="a far value widens it: give step, the step values are recorded in",
        )
    if ties >= n**3 - n:
        raise ConstantColumn("all values lie in one step of the grid", remedy="use a finer step")
    if len(sizes) == 2:
        tests: tuple[Test, ...] = (_wilcoxon(params, sizes, sums, n, ties),)
    else:
        statistic = 12 / (n * (n + 1)) * float(np.sum(sums**2 / sizes)) - 3 * (n + 1)
        tests = (chi_square("Kruskal-Wallis", statistic / (1 - ties / (n**3 - n)), len(sizes) - 1),)
    return Result(
        method="rank_test",
        n=frame.rows,
        tests=tests,
        details={
            "groups": [
                {"group": label, "n": int(size), "mean_rank": float(total / size)}
                for label, size, total in zip(frame.groups, sizes, sums, strict=True)
            ],
            "step": _grid(params, frame)[0],
            "left_out_missing": frame.left_out,
        },
    )


def _wilcoxon(params: Params, sizes: Matrix, sums: Matrix, n: float, ties: float) -> Test:
    """Return the rank-sum test by its normal approximation, with a continuity correction if asked."""
    first, second = float(sizes[0]), float(sizes[1])
    statistic = float(sums[0]) - first * (first + 1) / 2
    off = statistic - first * second / 2
    spread = np.sqrt(first * second / 12 * (n + 1 - ties / (n * (n - 1))))
    z = (off - (np.sign(off) * 0.5 if params.continuity else 0.0)) / spread
    superior = {"probability_first_larger": statistic / (first * second)}
    return Test("Wilcoxon rank sum", statistic, float("nan"), float(2 * ndtr(-abs(z))), (superior,))
