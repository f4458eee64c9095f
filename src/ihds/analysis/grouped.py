"""Numbers and categories by group: moments and counts that sites send, and the rows of a table made of their sums.

The groups are the levels of a category, or clusters that were found. A level with fewer than min_cell
persons in some group, or held by one site alone, is hidden in all groups, with the next smallest if it is
alone; a number that few persons or one site measured in some group, or whose spread there rests on few, is hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from scipy.special import chdtrc, fdtrc

from ihds.analysis.design import Design, Frame, Ints
from ihds.analysis.features import MOST, outweighed, resting, weights
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.rows import persons_with
from ihds.privacy.tables import exposed, margins, primary


@dataclass(frozen=True, slots=True)
class GroupSums(Contribution):
    """Moments of each number and counts of each level, per group."""

    persons: Annotated[Vector, Leaves("(groups,)", "persons", bound=1, counts_persons=True)]
    count: Annotated[Matrix, Leaves("(numbers, groups)", "rows", bound=1)]
    measured: Annotated[Matrix, Leaves("(numbers, groups)", "persons with a value", bound=1, counts_persons=True)]
    sites: Annotated[Matrix, Leaves("(numbers, groups)", "sites with values", bound=1, per="site")]
    total: Annotated[Matrix, Leaves("(numbers, groups)", "scaled units", bound=2**15)]
    square: Annotated[Matrix, Leaves("(numbers, groups)", "scaled units squared", bound=2**30)]
    levels: Annotated[Matrix, Leaves("(levels, groups)", "persons", bound=1, counts_persons=True)]
    level_sites: Annotated[Matrix, Leaves("(levels, groups)", "sites", bound=1, per="site")]


@dataclass(frozen=True, slots=True)
class GroupSpreads(Contribution):
    """How many persons the spread of each number rests on, per group, about the group's mean."""

    spread: Annotated[Any, Leaves("(numbers, groups, 2)", "scaled units squared, and to the fourth", bound=MOST)]


def sums(design: Design, group: Ints, groups: int, by: str) -> GroupSums:
    """Return the moments and counts of a site's rows per group (n,); ``by`` is the category that makes the groups."""
    member = (group[:, None] == np.arange(groups)).astype(np.float64)
    present = np.isfinite(design.x)
    z = np.where(present, design.x, 0.0)
    others = [(name, known) for name, known in design.frame.levels.items() if name != by]
    held = [design.codes[name] == i for name, known in others for i in range(len(known))]
    flags = np.column_stack([np.ones(len(group), dtype=bool), *held])
    counts = np.column_stack([persons_with(flags[group == g], design.person[group == g]) for g in range(groups)])
    measured = np.column_stack([persons_with(present[group == g], design.person[group == g]) for g in range(groups)])
    return GroupSums(
        persons=counts[0],
        count=present.T.astype(np.float64) @ member,
        measured=measured,
        sites=(measured > 0).astype(np.float64),
        total=z.T @ member,
        square=(z * z).T @ member,
        levels=counts[1:],
        level_sites=(counts[1:] > 0).astype(np.float64),
    )


def spreads(design: Design, group: Ints, total: GroupSums) -> GroupSpreads:
    """Return how many persons of a site the spread of each number rests on, about its mean in each group."""
    mean = total.total / np.maximum(total.count, 1.0)  # (numbers, groups)
    found = [weights(design.x[group == g] - mean[:, g], design.person[group == g]) for g in range(mean.shape[1])]
    return GroupSpreads(np.stack(found, axis=1))


def table(frame: Frame, total: GroupSums, spread: Any, shown: Ints, by: str) -> list[dict[str, Any]]:
    """Return one row per number and per category, for the groups that are shown, by name."""
    least = max(frame.min_cell, 1)
    rows = [_number(frame, total, spread, j, shown, least) for j in range(len(frame.columns))]
    at = 0
    for name, levels in frame.levels.items():
        if name != by:
            counts = np.rint(total.levels[at : at + len(levels)])[:, shown]
            sites = np.rint(total.level_sites[at : at + len(levels)])[:, shown]
            alone = np.array(frame.counts[name])
            few = (alone > 0) & (alone < least) | np.any((sites > 0) & (sites < frame.min_sites), axis=1)
            rows.append(_category(name, levels, counts, few, frame))
            at += len(levels)
    return sorted(rows, key=lambda r: r["variable"])


def _number(frame: Frame, total: GroupSums, spread: Any, j: int, shown: Ints, least: int) -> dict[str, Any]:
    n = np.rint(total.count[j, shown])
    row: dict[str, Any] = {"variable": frame.columns[j], "kind": "number"}
    few = (np.rint(total.measured[j, shown]) < least) | (np.rint(total.sites[j, shown]) < frame.min_sites)
    within = total.total[j, shown] / np.maximum(n, 1.0) + frame.centre[j] / frame.scale[j]
    few |= outweighed(np.rint(total.measured[j, shown]), within, spread[j, shown], frame.limits)
    few |= resting(spread[j, shown], frame.min_cell) | (frame.counts[frame.columns[j]][0] < least)
    if bool(np.any(few | (n < 2))):
        return {**row, "n": None, "mean": None, "sd": None, "p": None, "smd": None}
    mean = total.total[j, shown] / n
    variance = np.maximum(total.square[j, shown] - n * mean**2, 0.0) / (n - 1)
    return {
        **row,
        "n": [int(v) for v in n],
        "mean": [float(v) for v in frame.centre[j] + frame.scale[j] * mean],
        "sd": [float(v) for v in frame.scale[j] * np.sqrt(variance)],
        **differences(n, mean, variance),
    }


def differences(n: Vector, mean: Vector, variance: Vector) -> dict[str, float | None]:
    """Return how groups differ in a number: Welch's p value, and of two the standardised difference."""
    smd = float((mean[0] - mean[1]) / np.sqrt(variance.mean())) if len(n) == 2 and variance.any() else None
    return {"p": _welch(n, mean, variance), "smd": smd}


def _welch(n: Vector, mean: Vector, variance: Vector) -> float | None:
    """Return the p value of Welch's one-way test; None where a group does not vary."""
    if bool(np.any(variance <= 0)):
        return None
    weight, k = n / variance, len(n)
    centre = weight @ mean / weight.sum()
    spread = np.sum((1 - weight / weight.sum()) ** 2 / (n - 1)) / (k**2 - 1)
    statistic = weight @ (mean - centre) ** 2 / (k - 1) / (1 + 2 * (k - 2) * spread)
    return float(fdtrc(k - 1, 1 / (3 * spread), statistic))


def _category(name: str, levels: tuple[str, ...], counts: Matrix, alone: Any, frame: Frame) -> dict[str, Any]:
    """Return a category's counts; hidden levels are hidden in all groups, and none follows from any margin."""
    limits, least = frame.limits, max(frame.min_cell, 1)
    first = primary(counts, least, hide_empty=limits.hide_empty, hide_full=limits.hide_full)
    hidden, sums = alone | first.any(axis=1), margins(counts.shape)
    empty_shown = not (limits.hide_empty or limits.hide_full)
    held = counts.sum(axis=1)
    while hidden.any() and not hidden[held > 0].all():  # the smallest of the others, until no cell can be worked out
        whole = np.repeat(hidden[:, None], counts.shape[1], axis=1)
        if not exposed(counts, whole, sums, least, empty_shown=empty_shown).any():
            break
        hidden[min((i for i in np.flatnonzero(held) if not hidden[i]), key=lambda i: held[i])] = True
    if hidden.any() and hidden[held > 0].all():  # where nothing is shown of those who are there, nor is who is not
        hidden = np.ones(len(levels), dtype=bool)
    return {
        "variable": name,
        "kind": "category",
        "levels": list(levels),
        "counts": [None if h else [int(c) for c in row] for h, row in zip(hidden, counts, strict=True)],
        "p": None if hidden.any() else _pearson(counts),
    }


def _pearson(counts: Matrix) -> float | None:
    """Return the p value of Pearson's test over levels that occur."""
    held = counts[counts.sum(axis=1) > 0]
    if len(held) < 2 or bool(np.any(held.sum(axis=0) == 0)):
        return None
    expected = np.outer(held.sum(axis=1), held.sum(axis=0)) / held.sum()
    statistic = float(np.sum((held - expected) ** 2 / expected))
    return float(chdtrc((held.shape[0] - 1) * (held.shape[1] - 1), statistic))
