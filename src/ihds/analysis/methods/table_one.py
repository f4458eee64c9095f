"""Table one: who is in the study, by group, as papers print it.

Model      numbers as mean and standard deviation per group with Welch's test, categories as counts
           with Pearson's chi-squared test; standardised mean differences between two groups.
Down       nothing but what was agreed, then the groups' means.
Up         GroupSums: moments of numbers and counts of levels per group; then GroupSpreads.
Rounds     1, and 1 for numbers.
Reveals    a level with fewer than min_cell persons in some group, or held by one site alone, is
           hidden in all groups, with the next smallest if it is alone: neither follows from totals. A
           number that few persons or one site measured in some group, or whose spread there rests on few,
           is hidden.
Errors     BadFormula, ConstantColumn (one group only).
Source     Welch 1951; Austin 2009 (standardised differences). Checked against R
           (tests/vectors/ranks.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ihds.analysis import grouped
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.grouped import GroupSpreads, GroupSums
from ihds.analysis.method import Contribution
from ihds.analysis.outcomes import shown_groups, table_formula
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, ConstantColumn


@dataclass(frozen=True, slots=True)
class Params:
    """``by`` names the category whose levels are the columns."""

    formula: str
    by: str


CONTRIBUTIONS = (GroupSums, GroupSpreads)


@dataclass(frozen=True, slots=True)
class State:
    """The opened totals, once there, then the spreads."""

    total: GroupSums | None
    spread: Any


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for each variable by itself and for the group."""
    if not params.by:
        raise BadFormula("table_one needs a group", remedy="set by to a category, for example by = arm")
    return Ask(
        formula=table_formula(params.formula, params.by, codebook), outcome="none", covariates="table", by=params.by
    )


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    return State(None, np.zeros((0, 0, 2)))


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the moments and counts of this site's rows, per group."""
    group = design.codes[params.by]
    if state.total is not None:
        return grouped.spreads(design, group, state.total)
    return grouped.sums(design, group, len(design.frame.levels[params.by]), params.by)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Keep the totals, then the spreads."""
    return replace(state, spread=total.spread) if isinstance(total, GroupSpreads) else replace(state, total=total)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return one row per number and per level.

    Raises:
        ConstantColumn: everybody is in one group.

    """
    if state.total is None or (len(frame.columns) and not len(state.spread)):
        return None
    least = max(frame.min_cell, 1)
    persons = np.rint(state.total.persons)
    shown = np.flatnonzero(shown_groups(params.by, frame) & (persons >= least))
    if len(shown) < 2:
        raise ConstantColumn(
            "fewer than two groups can be shown: a small one hides another",
            remedy="merge small groups, or name another",
        )
    groups = [frame.levels[params.by][g] for g in shown]
    return Result(
        method="table_one",
        n=int(persons[shown].sum()),  # the rows of all would tell how many are in hidden groups
        details={
            "by": params.by,
            "groups": groups,
            "persons": [int(persons[g]) for g in shown],
            "rows": grouped.table(frame, state.total, state.spread, shown, params.by),
        },
    )
