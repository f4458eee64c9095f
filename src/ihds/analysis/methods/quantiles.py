"""Quantiles by secure counts: medians, quartiles, centiles, over all sites or per group.

Model      type 7 of Hyndman & Fan: between the two order statistics around (n - 1) q + 1, each found by
           counting how many values lie below 63 thresholds at once.
Down       the thresholds.
Up         Sizes once, then Below, as sums over sites.
Rounds     1 and about 6: each narrows every interval 64 times, down to the resolution.
Reveals    an order statistic is a person's value: none is shown with fewer than min_cell persons
           beyond it on either side, and none finer than the resolution; no extrema.
Errors     BadFormula, BadInput.
Source     Hyndman & Fan 1996. Checked against R quantile(type = 7) (tests/vectors/ranks.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np

from ihds.analysis.design import Ask, Design, Frame, Ints
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.outcomes import shown_groups, table_formula
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput

_WAYS = 64
#: The search begins this many scales around the centre.
_REACH = 2.0**20


@dataclass(frozen=True, slots=True)
class Params:
    """``resolution`` is the step values are recorded in, 0 takes a thousandth of each spread."""

    formula: str
    by: str = ""
    probs: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    resolution: float = 0.0


@dataclass(frozen=True, slots=True)
class Sizes(Contribution):
    """How many values there are per variable and group."""

    kind: ClassVar[str] = "count table"

    count: Annotated[Matrix, Leaves("(variables, groups)", "persons", bound=1, counts_persons=True)]


@dataclass(frozen=True, slots=True)
class Below(Contribution):
    """How many values lie below each threshold, per order statistic searched for."""

    kind: ClassVar[str] = "count table"

    count: Annotated[Matrix, Leaves("(searches, 63)", "persons", bound=1, counts_persons=True)]


CONTRIBUTIONS = (Sizes, Below)


@dataclass(frozen=True, slots=True)
class State:
    """The searches: for each the variable, group and rank, and the steps ``low < value <= high``."""

    sizes: Matrix
    which: Ints
    rank: Vector
    step: Vector
    centre: Vector
    scale: Vector
    low: Ints
    high: Ints


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for each number by itself, and for the group."""
    formula = table_formula(params.formula, params.by, codebook)
    if not params.probs or any(not 0 < p < 1 for p in params.probs):
        raise BadInput(f"probs are {params.probs}", remedy="give numbers between 0 and 1, extrema are never shown")
    if params.resolution < 0:
        raise BadInput(f"resolution is {params.resolution:g}", remedy="give 0 or a positive step")
    if any(codebook.variable(n).kind == "category" for n in formula.variables - {params.by}):
        raise BadFormula("quantiles are of numbers", remedy="name numbers in the formula, and the group in by")
    return Ask(formula=formula, outcome="none", covariates="table")


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is counted; steps are whole multiples of the resolution."""
    none = np.zeros(0, dtype=np.int64)
    step = np.where(params.resolution > 0, params.resolution, frame.scale * 2.0**-10)
    step = np.asarray(step, dtype=np.float64)
    return State(np.zeros((0, 0)), none, np.zeros(0), step, frame.centre, frame.scale, none, none)


def _groups(params: Params, frame: Frame) -> tuple[str, ...]:
    return frame.levels[params.by] if params.by else ("",)


def _values(params: Params, design: Design, variable: int, group: int) -> Vector:
    """Return a variable's sorted values in a group, in their own units; made once."""
    key = f"values {variable} {group}"
    if key not in design.cache:
        frame = design.frame
        column = design.x[:, variable] * frame.scale[variable] + frame.centre[variable]
        used = np.isfinite(column)
        if params.by:
            used &= design.codes[params.by] == group
        design.cache[key] = np.sort(column[used])
    found: Vector = design.cache[key]
    return found


def _thresholds(state: State) -> Ints:
    """Return the 63 inner steps of every search, as whole numbers (searches, 63)."""
    part = np.arange(1, _WAYS)
    return state.low[:, None] + (state.high - state.low)[:, None] * part // _WAYS


def local(params: Params, state: State, design: Design) -> Contribution:
    """Count values, then those below the thresholds, which lie half a step off what is recorded."""
    groups = len(_groups(params, design.frame))
    if not state.sizes.size:
        sizes = [[len(_values(params, design, v, g)) for g in range(groups)] for v in range(design.x.shape[1])]
        return Sizes(np.array(sizes, dtype=np.float64).reshape(-1, groups))
    counts = np.zeros((len(state.which), _WAYS - 1))
    for search, steps in enumerate(_thresholds(state)):
        variable, group = divmod(int(state.which[search]), groups)
        values = _values(params, design, variable, group)
        counts[search] = np.searchsorted(values, (steps + 0.5) * state.step[variable])
    return Below(counts)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Set the searches up, or narrow each to one of its 64 parts."""
    if isinstance(total, Sizes):
        return _searches(params, state, np.rint(total.count))
    steps = np.column_stack([state.low, _thresholds(state), state.high])
    part = np.sum(total.count < state.rank[:, None] - 0.5, axis=1)  # thresholds that lie below the value
    at = np.arange(len(part))
    return replace(state, low=steps[at, part], high=steps[at, part + 1])


def _searches(params: Params, state: State, sizes: Matrix) -> State:
    """Return a search for both order statistics around every quantile."""
    which, rank = [], []
    for at, n in enumerate(sizes.ravel()):
        for p in params.probs:
            below = np.floor((n - 1) * p + 1 + 1e-9)
            which += [at, at]
            rank += [below, min(below + 1, n)]
    place = np.array(which, dtype=np.int64)
    variable = place // sizes.shape[1]
    middle, reach = np.rint(state.centre[variable] / state.step[variable]), state.scale[variable] * _REACH
    wide = np.ceil(reach / state.step[variable])
    return replace(
        state,
        sizes=sizes,
        which=place,
        rank=np.array(rank),
        low=(middle - wide).astype(np.int64),
        high=(middle + wide).astype(np.int64),
    )


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the quantiles; one with fewer than min_cell persons beyond it is hidden: None."""
    if not state.sizes.size or bool(np.any(state.high - state.low > 1)):
        return None
    groups, shown = _groups(params, frame), shown_groups(params.by, frame)
    found = []
    for at, n in enumerate(state.sizes.ravel()):
        variable, group = divmod(at, len(groups))
        values: list[float | None] = []
        for j, p in enumerate(params.probs):
            lower = 2 * (at * len(params.probs) + j)
            place = (n - 1) * p
            beyond = min(place, n - 1 - place)
            low, high = state.high[lower : lower + 2] * state.step[variable]
            share = place - np.floor(place + 1e-9)
            values.append(float(low + max(share, 0.0) * (high - low)) if beyond >= frame.min_cell else None)
        hidden = n < frame.min_cell or not shown[group]
        found.append(
            {
                "variable": frame.columns[variable],
                "group": groups[group],
                "n": None if hidden else int(n),
                "values": [None] * len(values) if hidden else values,
            }
        )
    return Result(
        method="quantiles",
        n=frame.rows,
        details={
            "probs": list(params.probs),
            "quantiles": found,
            "resolution": [float(s) for s in state.step],
        },
    )
