"""Small cells of a table: worked out from its margins, or read in the total before they are hidden."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linprog

from ihds.analysis.agree import Dictionary
from ihds.attacks.attack import Attack, Outcome
from ihds.attacks.reading import texts, unpacked
from ihds.attacks.world import Space, reason, same, shared_out
from ihds.errors import IhdsError

_LEAST = 5  # cells below this are small
_ARMS, _STAGES = ("a", "b"), ("i", "ii", "iii", "iv")
_COUNTS = np.array([[3, 40, 31, 22], [38, 2, 29, 27]])


def _persons() -> pd.DataFrame:
    rows = [(a, s) for i, a in enumerate(_ARMS) for j, s in enumerate(_STAGES) for _ in range(_COUNTS[i, j])]
    order = np.random.default_rng(51).permutation(len(rows))
    return pd.DataFrame([rows[i] for i in order], columns=["arm", "stage"])


def _determined(shown: Any, rows: Any, columns: Any, refusal: str = "") -> float:
    """Return the share of small cells for which only one value is possible.

    Known are shown cells (r, c) and margins, NaN where hidden, and that a cell which a refusal names is small.
    """
    shape = _COUNTS.shape
    equations, values = [], []
    for i, j in np.ndindex(shape):
        if not np.isnan(shown[i, j]):
            equations.append(_where(shape, i, j))
            values.append(shown[i, j])
    for i, total in enumerate(rows):
        if not np.isnan(total):
            equations.append(_where(shape, i, slice(None)))
            values.append(total)
    for j, total in enumerate(columns):
        if not np.isnan(total):
            equations.append(_where(shape, slice(None), j))
            values.append(total)
    named = [f"arm={arm}, stage={stage}'" in refusal for arm in _ARMS for stage in _STAGES]
    bounds = [(1, _LEAST - 1) if one else (0, _COUNTS.sum()) for one in named]
    small = [(i, j) for i, j in np.ndindex(shape) if 0 < _COUNTS[i, j] < _LEAST]
    known = 0
    for i, j in small:
        goal = _where(shape, i, j)
        least, most = (
            float(linprog(s * goal, A_eq=equations or None, b_eq=values or None, bounds=bounds).fun or 0.0) * s
            for s in (1, -1)
        )
        known += bool(np.ceil(least - 1e-6) == np.floor(most + 1e-6))
    return known / len(small)


def _where(shape: tuple[int, ...], i: Any, j: Any) -> Any:
    flags = np.zeros(shape)
    flags[i, j] = 1.0
    return flags.ravel()


def _hidden_alone() -> Outcome:
    shown = np.where(_COUNTS < _LEAST, np.nan, _COUNTS)
    return Outcome(_determined(shown, _COUNTS.sum(axis=1), _COUNTS.sum(axis=0)))


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def _published() -> Outcome:
    """Ask for the table in every way there is, and put together what is told."""
    space = Space(shared_out(_persons(), 3))
    margins = {row["variable"]: row["counts"] for row in space.run("describe").table}
    shown, told = np.full(_COUNTS.shape, np.nan), ""
    table = space.run("table_one", formula="~ stage", by="arm").details
    for row in table["rows"]:
        for j, level in enumerate(_STAGES):
            for g, group in enumerate(table["groups"]):
                if row.get("levels", _STAGES)[j] == level and row["counts"][j] is not None:
                    shown[_ARMS.index(group), j] = _number(row["counts"][j][g])
    try:
        space.run("contingency", formula="~ arm + stage")
    except IhdsError as error:
        told = reason(error)
    rows = [_number(margins["arm"][arm]) for arm in _ARMS]
    columns = [_number(margins["stage"][stage]) for stage in _STAGES]
    return Outcome(_determined(shown, rows, columns, told), told)


#: Costs of two groups; of the second, one person makes nearly all.
_SMALL_COSTS = np.random.default_rng(52).lognormal(0.0, 0.3, 119)


def _costs() -> pd.DataFrame:
    cost = np.append(_SMALL_COSTS, 5000.0)
    frame = pd.DataFrame({"arm": ["a", "b"] * 60, "cost": cost})
    return frame.sample(frac=1, random_state=53).reset_index(drop=True)


def _within(total: float | None, count: float | None) -> Outcome:
    """Return 1 if a total, less what each of the others costs in the mean, tells the largest cost within 10 %."""
    if total is None or count is None:
        return Outcome(0.0)
    guess = total - (count - 1) * float(np.median(_SMALL_COSTS))
    return Outcome(float(abs(guess - 5000.0) <= 500.0))


def _total_in_the_clear() -> Outcome:
    part = _costs().query("arm == 'b'")["cost"]
    return _within(float(part.sum()), len(part))


def _mean_told() -> Outcome:
    space = Space(shared_out(_costs(), 3))
    row = space.run("table_one", formula="~ cost", by="arm").details["rows"][0]
    if row["mean"] is None:
        return Outcome(0.0, "mean and deviation are hidden")
    return _within(row["mean"][1] * row["n"][1], row["n"][1])


_TWO_WAY = np.array([[2, 40, 31, 30], [38, 25, 29, 27], [22, 28, 33, 26]])


def _crossed() -> pd.DataFrame:
    rows = [(f"a{i}", f"b{j}") for i, j in np.ndindex(_TWO_WAY.shape) for _ in range(_TWO_WAY[i, j])]
    order = np.random.default_rng(54).permutation(len(rows))
    return pd.DataFrame([rows[i] for i in order], columns=["arm", "stage"])


def _small_found(shown: Any) -> Outcome:
    """Return the share of small cells that margins and shown cells leave fewer choices than the threshold."""
    size = _TWO_WAY.size
    lines = [_line(axis, at) for axis in (0, 1) for at in range(_TWO_WAY.shape[1 - axis])]
    known = [*lines, *(np.eye(size)[k] for k in np.flatnonzero(~np.isnan(shown)))]
    small = np.flatnonzero((_TWO_WAY.ravel() > 0) & (_TWO_WAY.ravel() < _LEAST))
    found = 0
    for k in small:
        least, most = (
            s * float(linprog(s * np.eye(size)[k], A_eq=known, b_eq=np.array(known) @ _TWO_WAY.ravel()).fun or 0.0)
            for s in (1, -1)
        )
        found += most - least < _LEAST
    return Outcome(found / len(small))


def _line(axis: int, at: int) -> Any:
    flags = np.zeros(_TWO_WAY.shape)
    flags[(slice(None), at) if axis == 0 else (at, slice(None))] = 1.0
    return flags.ravel()


def _primary_only() -> Outcome:
    return _small_found(np.where(_TWO_WAY < _LEAST, np.nan, _TWO_WAY).ravel())


def _secondary_too() -> Outcome:
    space = Space(shared_out(_crossed(), 3))
    told = space.run("contingency", formula="~ arm + stage").details["counts"][0]
    return _small_found(np.array([_number(c) for row in told for c in row]))


def _totals(environment: bool) -> Outcome:
    """Read small cells in the total, oneself or in whatever the environment sends."""
    space = Space(shared_out(_persons(), 3), environment=environment)
    opened, received, refusals = list[Any](), list[Any](), list[str]()
    try:
        for _, _, total in space.rounds(space.study("contingency", formula="~ arm + stage")):
            opened.append(total)
    except IhdsError as error:
        refusals.append(reason(error))
    if environment:
        received = space.received("contingency", formula="~ arm + stage")
        opened += unpacked(received, Dictionary)
        refusals += texts(received)
    small = (_COUNTS > 0) & (_COUNTS < _LEAST)
    for total in opened:
        if isinstance(total, Dictionary):
            counts = np.rint(total.cell_persons[: _COUNTS.size]).reshape(_COUNTS.shape)
            return Outcome(same(counts[small], _COUNTS[small]))
    shown, rows, columns = (np.full(size, np.nan) for size in (_COUNTS.shape, len(_ARMS), len(_STAGES)))
    if received and received[-1]["result"]:
        told = received[-1]["result"]["details"]["counts"][0]
        shown = np.array([[_number(count) for count in row] for row in told])
    return Outcome(_determined(shown, rows, columns, "; ".join(refusals)), refusals[0] if refusals else "")


ATTACKS = (
    Attack(
        name="margins",
        title="Hidden cells from the margins of a table",
        attacker="a reader of the results",
        sees="describe, table_one and contingency of the same two categories",
        measures="share of small cells that are determined",
        succeeds_from=0.01,
        without="a table that hides each cell below 5, and shows its margins",
        protection="with a small cell others are hidden, or the whole table",
        source="Dobra & Fienberg 2000",
        unprotected=_hidden_alone,
        protected=_published,
    ),
    Attack(
        name="secondary_cells",
        title="A hidden cell of a table that is shown in part",
        attacker="a reader of the results",
        sees="contingency with its small cell hidden, and all margins",
        measures="share of small cells known within the threshold",
        succeeds_from=0.01,
        without="a table that hides each cell below 5, and shows its margins",
        protection="other cells are hidden until integer programming finds no narrow range",
        source="Fischetti & Salazar 2000; Hundepool et al. 2012, ch. 4",
        unprotected=_primary_only,
        protected=_secondary_too,
    ),
    Attack(
        name="dominated_total",
        title="The largest contribution from a total that it dominates",
        attacker="a reader of the results",
        sees="number and mean of a cost, by group",
        measures="1 if the largest cost is told within 10 %",
        succeeds_from=0.5,
        without="a table of means that looks at numbers of persons only",
        protection="dominance and p % rules, judged from power sums of all sites together",
        source="Hundepool et al. 2012, 4.2",
        unprotected=_total_in_the_clear,
        protected=_mean_told,
    ),
    Attack(
        name="small_cells",
        title="Small cells of the opened total",
        attacker="the user, with software of their own",
        sees="the counts of all sites together, before small ones are hidden",
        measures="share of small cells that are read",
        succeeds_from=0.01,
        without="the total of all sites, opened by the user's own node, where a permit names no environment",
        protection="the environment opens totals, and hides small cells first",
        source="Hundepool et al. 2012 (statistical disclosure control)",
        unprotected=partial(_totals, environment=False),
        protected=partial(_totals, environment=True),
    ),
)
