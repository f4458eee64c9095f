"""Comparison of a number between groups: t, Welch, one-way analysis of variance.

Model      y = mean of its group + error; equal variances for t and F, unequal for Welch's.
Down       the means and scales of the groups so far.
Up         GroupMoments: per group the rows, sum and sum of squares about the mean known so far, and what
           the spread rests on.
Rounds     2; up to 4 where a group varies much less than the others.
Reveals    mean and standard deviation of each group of at least min_cell rows whose spread rests on as
           many persons; others refuse.
Errors     BadFormula, BadLevel, ConstantColumn.
Source     Welch 1951; moments about a provisional mean: Chan, Golub & LeVeque 1983. Checked against R
           t.test and oneway.test (tests/vectors/tests.R).
Status     reviewed
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from scipy import special

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.features import MOST, resting, weights
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.result import Result, Test
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadLevel, ConstantColumn


@dataclass(frozen=True, slots=True)
class Params:
    """``formula`` is ``number ~ group``, as in R."""

    formula: str


@dataclass(frozen=True, slots=True)
class GroupMoments(Contribution):
    """Moments of the outcome per group, about the group's mean and in its scale as far as known."""

    kind: ClassVar[str] = "moment"

    rows: Annotated[Vector, Leaves("(groups,)", "rows", bound=1, counts_persons=True)]
    total: Annotated[Vector, Leaves("(groups,)", "scaled units")]
    square: Annotated[Vector, Leaves("(groups,)", "scaled units squared", bound=2**16)]
    spread: Annotated[Matrix, Leaves("(groups, 2)", "scaled units squared, and to the fourth", bound=MOST)]


CONTRIBUTIONS = (GroupMoments,)


@dataclass(frozen=True, slots=True)
class State:
    """Per group: rows, mean, scale and mean square about the mean, in the outcome's agreed scale; what it rests on."""

    passes: int
    settled: bool
    rows: Vector
    mean: Vector
    scale: Vector
    spread: Vector
    held: Matrix


STATE = State

#: A mean square below the first is measured again in a finer scale; one below the second cannot be told from none.
_COARSE, _NOISE, _PASSES = 2.0**-6, 2.0**-24, 4


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a number by groups."""
    formula = formulas.parse(params.formula, codebook.variables, ())
    if len(formula.response) != 1 or not formula.terms or formula.offset or formula.strata or formula.cluster:
        raise BadFormula(f"{params.formula!r} is not number ~ group", remedy="write for example tumour_size ~ stage")
    return Ask(formula=formula, outcome="number", covariates="groups")


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted.

    Raises:
        ConstantColumn: there is one group.

    """
    if len(frame.groups) < 2:
        raise ConstantColumn("there is only one group to compare", remedy="name another variable")
    none = np.zeros(len(frame.groups))
    return State(0, False, none, none, none + 1, none, np.zeros((len(none), 2)))


def local(params: Params, state: State, design: Design) -> GroupMoments:
    """Return this site's moments per group."""
    group, size = design.group, len(design.frame.groups)
    y = (design.y - state.mean[group]) / state.scale[group]

    def by_group(values: Vector | None = None) -> Vector:
        return np.bincount(group, values, minlength=size).astype(float)

    parts = [weights(y[group == g, None], design.person[group == g]) for g in range(size)]
    held = np.concatenate(parts)
    return GroupMoments(by_group(), by_group(y), by_group(y**2), held)


def aggregate(params: Params, state: State, total: GroupMoments) -> State:
    """Move each group's centre to its mean; ask again where the scale was too coarse to keep the digits."""
    rows = np.rint(total.rows)
    shift = total.total / np.maximum(rows, 1)
    spread = np.maximum(total.square / np.maximum(rows, 1) - shift**2, 0.0)
    noise = _NOISE * np.maximum(1.0, shift**2)
    passes = state.passes + 1
    settled = passes > 1 and (passes == _PASSES or not np.any((spread < _COARSE) & (rows > 1)))
    return State(
        passes,
        settled,
        rows,
        state.mean + state.scale * shift,
        state.scale * 2.0 ** np.round(np.log2(np.maximum(spread, noise)) / 2),
        np.where(spread < noise, 0.0, spread) * state.scale**2,
        total.spread,
    )


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return means per group and the tests.

    Raises:
        BadLevel: a group holds too few rows.
        ConstantColumn: no group's values vary.

    """
    if not state.settled:
        return None
    n = state.rows
    used = n > 0
    small = [label for label, rows in zip(frame.groups, n, strict=True) if 0 < rows < max(frame.min_cell, 2)]
    small += [label for label, few in zip(frame.groups, resting(state.held, frame.min_cell) & used, strict=True) if few]
    if small or used.sum() < 2:
        what = f"group {small[0]!r} holds or varies by too few rows" if small else "fewer than two groups hold rows"
        raise BadLevel(what, remedy="merge categories in the codebook")
    n, mean, inside = n[used], state.mean[used], (state.rows * state.spread)[used]
    labels = [label for label, u in zip(frame.groups, used, strict=True) if u]
    if not np.any(inside > 0):
        raise ConstantColumn("the outcome does not vary within any group", remedy="choose another outcome")
    scale, centre = frame.outcome_scale, frame.outcome_centre
    rows = [
        {"group": label, "n": int(k), "mean": float(centre + scale * m), "sd": float(scale * np.sqrt(s / (k - 1)))}
        for label, k, m, s in zip(labels, n, mean, inside, strict=True)
    ]
    tests = [_equal(n, mean, inside)]
    if np.all(inside > 0):  # Welch's weights are the inverse variances
        tests.append(_welch(n, mean, inside))
    if len(n) == 2:
        tests = [*_two(n, mean * scale, inside * scale**2), *tests]
    return Result(
        method="anova",
        n=frame.rows,
        tests=tuple(tests),
        details={"groups": rows, "left_out_missing": frame.left_out},
    )


def _equal(n: Vector, mean: Vector, inside: Vector) -> Test:
    """Return the F test of equal means under equal variances."""
    whole, between, within = float(n.sum()), len(n) - 1, float(n.sum()) - len(n)
    grand = float((n * mean).sum()) / whole
    statistic = float((n * (mean - grand) ** 2).sum()) / between / (float(inside.sum()) / within)
    p = float(special.fdtrc(between, within, statistic))
    return Test("one-way analysis of variance", statistic, float(between), p, ({"df2": within},))


def _welch(n: Vector, mean: Vector, inside: Vector) -> Test:
    """Return Welch's test of equal means under unequal variances."""
    w = n * (n - 1) / inside
    weight, k = float(w.sum()), len(n)
    middle = float((w * mean).sum()) / weight
    lack = float((((1 - w / weight) ** 2) / (n - 1)).sum()) / (k**2 - 1)
    statistic = float((w * (mean - middle) ** 2).sum()) / ((k - 1) * (1 + 2 * (k - 2) * lack))
    df2 = 1 / (3 * lack)
    p = float(special.fdtrc(k - 1, df2, statistic))
    return Test("Welch's analysis of variance", statistic, float(k - 1), p, ({"df2": df2},))


def _two(n: Vector, mean: Vector, inside: Vector) -> list[Test]:
    """Return the two t tests of a difference, first group less second, each with its 95 % interval."""
    difference = float(mean[0] - mean[1])
    variance = inside / (n - 1)
    pooled_df = float(n.sum() - 2)
    pooled = float(np.sqrt(inside.sum() / pooled_df * (1 / n).sum()))
    parts = variance / n
    unequal = float(np.sqrt(parts.sum()))
    unequal_df = float(parts.sum() ** 2 / (parts**2 / (n - 1)).sum())
    return [
        _t("t test, equal variances", difference, pooled, pooled_df),
        _t("t test, unequal variances (Welch)", difference, unequal, unequal_df),
    ]


def _t(name: str, difference: float, se: float, df: float) -> Test:
    statistic = difference / se
    p = float(2 * special.stdtr(df, -abs(statistic)))
    half = float(special.stdtrit(df, 0.975)) * se
    details: dict[str, Any] = {"difference": difference, "se": se}
    return Test(name, statistic, df, p, ({**details, "lower": difference - half, "upper": difference + half},))
