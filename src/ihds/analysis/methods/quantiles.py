"""Quantiles by secure counts: medians, quartiles, centiles, over all sites or per group.

Model      type 7 of Hyndman & Fan: between the two order statistics around (n - 1) q + 1, each found by
           counting how many values lie below 63 thresholds at once.
Down       the thresholds.
Up         Sizes once, then Below, then Between, as sums over sites.
Rounds     2 and about 6: each narrows every interval 64 times, down to the resolution.
Reveals    an order statistic is a person's value: none is shown with fewer than min_cell persons
           beyond it on either side or between it and the next, and none finer than the resolution;
           no extrema. Nothing of a variable that one site alone measured.
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
from ihds.analysis.outcomes import COARSE, shown_groups, shown_rows, table_formula
from ihds.analysis.result import Result
from ihds.analysis.rows import distinct
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput

_WAYS = 64
#: More quantiles at once than this would be the values themselves.
_MOST = 25
#: Quantiles within so many default steps are told to be coarse: some far value widened the steps.
_COARSE = 32
#: The finest steps, against the spread of the values and against their size: numbers carry no more.
_FINEST, _DIGITS = 2.0**-30, 2.0**-48


@dataclass(frozen=True, slots=True)
class Params:
    """``resolution`` is the step values are recorded in, 0 takes a thousandth of each spread.

    Where a far value makes that too wide for the others, the result says ``coarse``.
    """

    formula: str
    by: str = ""
    probs: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    resolution: float = 0.0


@dataclass(frozen=True, slots=True)
class Sizes(Contribution):
    """How many values there are per variable and group, of how many persons, at how many sites."""

    kind: ClassVar[str] = "count table"

    count: Annotated[Matrix, Leaves("(variables, groups)", "rows", bound=1)]
    persons: Annotated[Matrix, Leaves("(variables, groups)", "persons", bound=1, counts_persons=True)]
    sites: Annotated[Matrix, Leaves("(variables, groups)", "sites with values", bound=1, per="site")]


@dataclass(frozen=True, slots=True)
class Below(Contribution):
    """How many values lie below each threshold, per order statistic searched for."""

    kind: ClassVar[str] = "count table"

    count: Annotated[Matrix, Leaves("(searches, 63)", "persons", bound=1, counts_persons=True)]


@dataclass(frozen=True, slots=True)
class Between(Contribution):
    """How many persons have a value from each quantile on, up to it, and from it to each higher one."""

    kind: ClassVar[str] = "count table"

    persons: Annotated[Any, Leaves("(cells, probs, probs)", "persons", bound=1, counts_persons=True)]
    ends: Annotated[Any, Leaves("(cells, 2, probs)", "persons", bound=1, counts_persons=True)]


CONTRIBUTIONS = (Sizes, Below, Between)


@dataclass(frozen=True, slots=True)
class State:
    """The searches: for each the variable, group and rank, and the steps ``low < value <= high``."""

    sizes: Sizes | None
    which: Ints
    rank: Vector
    step: Vector
    centre: Vector
    scale: Vector
    low: Ints
    high: Ints
    rows: int
    between: Between | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for each number by itself, and for the group."""
    formula = table_formula(params.formula, params.by, codebook)
    if not params.probs or any(not 0 < p < 1 for p in params.probs):
        raise BadInput(f"probs are {params.probs}", remedy="give numbers between 0 and 1, extrema are never shown")
    if len(params.probs) > _MOST or list(params.probs) != sorted(set(params.probs)):
        raise BadInput(
            f"probs are {len(params.probs)}, or not in order", remedy=f"give at most {_MOST}, each larger than the last"
        )
    if params.resolution < 0:
        raise BadInput(f"resolution is {params.resolution:g}", remedy="give 0 or a positive step")
    if any(codebook.variable(n).kind == "category" for n in formula.variables - {params.by}):
        raise BadFormula("quantiles are of numbers", remedy="name numbers in the formula, and the group in by")
    if not formula.variables - {params.by}:
        raise BadFormula(f"{params.formula!r} names no number", remedy="write for example ~ age")
    return Ask(formula=formula, outcome="none", covariates="table", by=params.by)


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is counted; steps are whole multiples of the resolution.

    Raises:
        BadInput: the resolution is finer than the values' own digits.

    """
    none = np.zeros(0, dtype=np.int64)
    step = np.where(params.resolution > 0, params.resolution, frame.scale * 2.0**-10)
    step = np.asarray(step, dtype=np.float64)
    fine = step < np.maximum(frame.scale * _FINEST, np.abs(frame.centre) * _DIGITS)
    if params.resolution > 0 and fine.any():
        name = frame.columns[int(np.flatnonzero(fine)[0])]
        raise BadInput(
            f"a resolution of {params.resolution:g} is finer than {name!r} is", remedy="give the step it is recorded in"
        )
    return State(None, none, np.zeros(0), step, frame.centre, frame.scale, none, none, frame.rows, None)


def _groups(params: Params, frame: Frame) -> tuple[str, ...]:
    return frame.levels[params.by] if params.by else ("",)


def _values(params: Params, design: Design, variable: int, group: int) -> tuple[Vector, Ints]:
    """Return a variable's sorted values in a group, in their own units, and whose they are; made once."""
    key = f"values {variable} {group}"
    if key not in design.cache:
        frame = design.frame
        column = design.x[:, variable] * frame.scale[variable] + frame.centre[variable]
        used = np.isfinite(column)
        if params.by:
            used &= design.codes[params.by] == group
        order = np.argsort(column[used], kind="stable")
        design.cache[key] = (column[used][order], design.person[used][order])
    found: tuple[Vector, Ints] = design.cache[key]
    return found


def _thresholds(state: State) -> Ints:
    """Return the 63 inner steps of every search, as whole numbers (searches, 63)."""
    part = np.arange(1, _WAYS)
    return state.low[:, None] + (state.high - state.low)[:, None] * part // _WAYS


def _settled(state: State) -> bool:
    return not bool(np.any(state.high - state.low > 1))


def local(params: Params, state: State, design: Design) -> Contribution:
    """Count values, then those below the thresholds, which lie half a step off what is recorded, then persons."""
    groups = len(_groups(params, design.frame))
    cells = [(v, g) for v in range(design.x.shape[1]) for g in range(groups)]
    if state.sizes is None:
        held = [_values(params, design, v, g) for v, g in cells]
        count = np.array([len(values) for values, _ in held], dtype=np.float64).reshape(-1, groups)
        persons = np.array([distinct(p) for _, p in held], dtype=np.float64).reshape(-1, groups)
        return Sizes(count, persons, (count > 0).astype(np.float64))
    if _settled(state):
        parts = [_between(params, state, design, at, v, g) for at, (v, g) in enumerate(cells)]
        return Between(np.array([p for p, _ in parts]), np.array([e for _, e in parts]))
    counts = np.zeros((len(state.which), _WAYS - 1))
    for search, steps in enumerate(_thresholds(state)):
        variable, group = divmod(int(state.which[search]), groups)
        values, _ = _values(params, design, variable, group)
        counts[search] = np.searchsorted(values, (steps + 0.5) * state.step[variable])
    return Below(counts)


def _between(params: Params, state: State, design: Design, at: int, variable: int, group: int) -> tuple[Matrix, Matrix]:
    """Return a cell's persons between each pair of quantiles (k, k), and up to and from each (2, k)."""
    values, person = _values(params, design, variable, group)
    k, step = len(params.probs), state.step[variable]
    part = slice(2 * at * k, 2 * (at + 1) * k, 2)
    lower = np.searchsorted(values, (state.low[part] + 0.5) * step)  # the first value that is the order statistic
    above = np.searchsorted(values, (state.high[part] + 0.5) * step)
    upper = np.searchsorted(values, (state.low[part.start + 1 : part.stop : 2] + 0.5) * step)
    between = [[float(distinct(person[i:j])) if i < j else 0.0 for j in lower] for i in lower]
    ends = [[float(distinct(person[:j])) for j in above], [float(distinct(person[j:])) for j in upper]]
    return np.array(between), np.array(ends)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Set the searches up, narrow each to one of its 64 parts, or keep the last counts."""
    if isinstance(total, Sizes):
        return _searches(params, state, Sizes(np.rint(total.count), np.rint(total.persons), np.rint(total.sites)))
    if isinstance(total, Between):
        return replace(state, between=Between(np.rint(total.persons), np.rint(total.ends)))
    steps = np.column_stack([state.low, _thresholds(state), state.high])
    part = np.sum(total.count < state.rank[:, None] - 0.5, axis=1)  # thresholds that lie below the value
    at = np.arange(len(part))
    return replace(state, low=steps[at, part], high=steps[at, part + 1])


def _place(n: float, p: float) -> tuple[float, float]:
    """Return the rank below a quantile, counted from 0, and how far it lies towards the next."""
    place = (n - 1) * p
    below = float(np.floor(place + 1e-9))
    return below, max(place - below, 0.0)


def _searches(params: Params, state: State, sizes: Sizes) -> State:
    """Return a search for both order statistics around every quantile."""
    which, rank = [], []
    for at, n in enumerate(sizes.count.ravel()):
        for p in params.probs:
            below, share = _place(n, p)
            which += [at, at]
            rank += [below + 1, min(below + 1 + (share > 0), n)]
    place = np.array(which, dtype=np.int64)
    variable = place // sizes.count.shape[1]
    reach = 2 * state.scale[variable] * np.sqrt(state.rows) + state.step[variable]  # nobody is further off
    middle, wide = np.rint(state.centre[variable] / state.step[variable]), np.ceil(reach / state.step[variable])
    low, high = (middle - wide).astype(np.int64), (middle + wide).astype(np.int64)
    return replace(state, sizes=sizes, which=place, rank=np.array(rank), low=low, high=high)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the quantiles that enough persons hide; the others are None."""
    if state.sizes is None or state.between is None:
        return None
    groups, shown = _groups(params, frame), shown_groups(params.by, frame)
    found = []
    for at, n in enumerate(state.sizes.count.ravel()):
        variable, group = divmod(at, len(groups))
        alone = state.sizes.sites[variable, group] < frame.min_sites
        hidden = bool(alone or state.sizes.persons[variable, group] < frame.min_cell or not shown[group])
        values: list[float | None] = [None] * len(params.probs)
        held = () if hidden or n == 0 else _enough(frame.min_cell, state.between, at, state, len(params.probs))
        for j in held:
            low, high = state.high[2 * (at * len(params.probs) + j) :][:2] * state.step[variable]
            values[j] = float(low + _place(n, params.probs[j])[1] * (high - low))
        seen = [v for v in values if v is not None]
        near = len(seen) > 1 and seen[-1] - seen[0] < _COARSE * state.step[variable]
        found.append(
            {
                "variable": frame.columns[variable],
                "group": groups[group],
                "n": None if hidden else int(n),
                "values": values,
                "coarse": bool(near and not params.resolution),
            }
        )
    return Result(
        method="quantiles",
        n=shown_rows(params.by, frame),
        details={
            "probs": list(params.probs),
            "quantiles": found,
            "resolution": [float(s) for s in state.step],
            **({"warning": COARSE} if any(f["coarse"] for f in found) else {}),
        },
    )


def _enough(least: int, between: Between, at: int, state: State, probs: int) -> list[int]:
    """Return the quantiles of a cell with enough persons beyond them, and between them and the last one shown."""
    shown: list[int] = []
    for j in range(probs):
        if bool(np.any(between.ends[at, :, j] < least + (least > 0))):
            continue
        first = 2 * at * probs
        same = shown and bool(np.all(state.high[first + 2 * j :][:2] == state.high[first + 2 * shown[-1] :][:2]))
        if not shown or same or between.persons[at, shown[-1], j] >= least:
            shown.append(j)
    return shown
