"""One site's rows: from its table to numbers under what was agreed. Nothing here leaves the gate."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ihds.analysis import formula as formulas
from ihds.analysis.design import (
    Ask,
    Design,
    Floats,
    Frame,
    Ints,
    aliased,
    bins,
    column_label,
    column_names,
    event_flags,
    group_names,
    strata_names,
)
from ihds.data.codebook import Codebook
from ihds.data.wide import Table, Wide

#: Rows that a method works on at once, where its sums allow it.
PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Rows:
    """One site's complete rows before centring.

    ``persons`` counts those of the complete rows, the set-aside ones included: a formula must not
    be able to choose who is counted.
    """

    matrix: Floats
    outcome: Floats
    offset: Floats
    start: Floats | None
    stop: Floats
    event: Floats
    group: Ints
    stratum: Ints
    cluster: Ints
    person: Ints
    codes: dict[str, Ints]
    left_out: int
    undefined: int
    persons: int
    features: Wide
    weight: Floats

    def __len__(self) -> int:
        return len(self.person)


def read_rows(ask: Ask, codebook: Codebook, levels: dict[str, tuple[str, ...]], table: Table) -> Rows:
    """Turn a site's table into numbers under agreed levels, block by block of its rows.

    Rows with an infinite term, a negative time or an empty interval are set aside and counted:
    an error here would tell the asker which site holds such a person.

    """
    formula, height = ask.formula, len(table)
    known = frozenset(table.columns)
    person_column = codebook.person if codebook.person in known else ""
    person = numbered(table, person_column)
    named = formula.label(formula.cluster)
    apart = named in known and named != person_column  # clusters by another column than persons
    cluster = numbered(table, named) if apart else person
    without = needed(ask, levels)
    missing, good = np.zeros(height, dtype=bool), np.zeros(height, dtype=bool)
    for name in without - known:
        missing |= absent(table, name)
    gathered = _Gathered(height)
    for rows, block in table.blocks(tuple(sorted((formula.variables | without) & known))):
        for name in without & known:
            missing[rows] |= np.asarray(block[name].isna())
        lacks = missing[rows]
        kept = block[~lacks].reset_index(drop=True) if lacks.any() else block
        read, usable = _read(ask, levels, kept)
        places = rows.start + np.flatnonzero(~lacks)
        good[places] = usable
        read["person"] = person[places]
        if apart:
            read["cluster"] = cluster[places]
        elif formula.cluster and named not in known:
            read["cluster"] = formulas.evaluate(formula.cluster, aliased(kept, formula))
        gathered.add(read, usable)
    held = gathered.held()
    if formula.cluster and named not in known:  # computed numbers
        held["cluster"] = pd.factorize(held["cluster"])[0].astype(np.int64, copy=False)
    n, complete = int(good.sum()), height - int(missing.sum())
    nothing, alike = np.zeros(0), np.broadcast_to(np.int64(0), n)
    return Rows(
        matrix=held["matrix"],
        outcome=held.get("outcome", nothing),
        offset=held.get("offset", np.broadcast_to(0.0, n)),
        start=held.get("start"),
        stop=held.get("stop", nothing),
        event=held.get("event", nothing),
        group=_combined(group_names(ask), held, levels) if group_names(ask) else alike,
        stratum=_combined(strata_names(ask), held, levels) if strata_names(ask) else alike,
        cluster=held.get("cluster", held["person"]),
        person=held["person"],
        codes={name: held[_code(name)] for name in levels},
        left_out=height - complete,
        undefined=complete - n,
        persons=distinct(person[~missing]),
        features=table.wide if n == height else table.wide.of(np.flatnonzero(good)),
        weight=held.get("weight", nothing),
    )


def numbered(table: Table, name: str) -> Ints:
    """Return a number (n,) for each of a column's values; without a column each row has its own."""
    if name not in table.columns:
        return np.arange(len(table))
    return np.asarray(pd.factorize(table.column(name))[0], dtype=np.int64)


def pieces(person: Ints, size: int) -> list[slice]:
    """Return ranges of about ``size`` neighbouring rows in which every person, or cluster, is whole.

    One range if the rows of one do not all stand together, or are of nobody.
    """
    begins = np.append(0, np.flatnonzero(np.diff(person)) + 1)
    if len(person) <= size or person.min() < 0 or len(begins) != distinct(person):
        return [slice(0, len(person))]
    wanted = np.searchsorted(begins, np.arange(size, len(person), size))
    ends = np.append(np.unique(begins[wanted[wanted < len(begins)]]), len(person))
    return [slice(int(a), int(b)) for a, b in zip(np.append(0, ends[:-1]), ends, strict=True)]


def _code(name: str) -> str:
    return f"level of {name}"


def _read(
    ask: Ask, levels: dict[str, tuple[str, ...]], kept: pd.DataFrame
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
    """Return what a block's complete rows (n,) hold, by name, and which of them can be used."""
    formula, n, names = ask.formula, len(kept), column_names(ask, levels)
    coded = {name: level_codes(kept[name], lv) for name, lv in levels.items()}
    plain = aliased(kept, formula)
    read: dict[str, NDArray[Any]] = {_code(name): code for name, code in coded.items()}
    if ask.timed:
        *begins, read["stop"] = (formulas.evaluate(r, plain) for r in formula.response[:-1])
        if begins:
            read["start"] = begins[0]
    if ask.outcome == "competing":
        known = levels[ask.kept_whole]
        no_event = known.index(ask.censored) if ask.censored in known else -1
        read["event"] = (coded[ask.kept_whole] != no_event).astype(np.float64)
    elif ask.outcome == "survival":
        read["event"] = formulas.evaluate(formula.response[-1], plain)
    elif ask.outcome not in ("none", "category"):
        read["outcome"] = formulas.evaluate(formula.response[0], plain)
    for expression in formula.offset:
        read["offset"] = read.get("offset", np.zeros(n)) + formulas.evaluate(expression, plain)
    if formula.weights:
        read["weight"] = formulas.evaluate(formula.weights, plain)
    read["matrix"] = np.zeros((n, len(names)))
    if ask.covariates == "table" and names:
        read["matrix"] = kept[list(names)].to_numpy(dtype=float)
    elif ask.covariates == "matrix" and n:
        alias = dict(formula.alias)
        whole = {alias.get(k, k): pd.Categorical.from_codes(c, pd.Index(levels[k])) for k, c in coded.items()}
        built, matrix = formulas.matrix(formula, plain.assign(**whole))
        labels = [column_label(formula, c) for c in built]
        read["matrix"] = matrix if labels == list(names) else matrix[:, [labels.index(name) for name in names]]
    good = _defined(ask, read)
    for code in coded.values() if ask.complete else ():
        good &= code >= 0
    return read, good


class _Gathered:
    """Blocks of rows put one below the other where they will lie, so that no row is held twice."""

    def __init__(self, height: int) -> None:
        self._height = height
        self._arrays: dict[str, NDArray[Any]] = {}
        self._end = 0

    def add(self, block: dict[str, NDArray[Any]], usable: NDArray[np.bool_]) -> None:
        """Add the usable rows of a block; every block has the same names."""
        end = self._end + int(usable.sum())
        for name, values in block.items():
            if name not in self._arrays:
                self._arrays[name] = np.empty((self._height, *values.shape[1:]), dtype=values.dtype, order="F")
            self._arrays[name][self._end : end] = values if usable.all() else values[usable]
        self._end = end

    def held(self) -> dict[str, Any]:
        """Return the arrays as long as they were filled."""
        return {name: values[: self._end] for name, values in self._arrays.items()}


def lacking(ask: Ask, levels: dict[str, tuple[str, ...]], table: Table) -> NDArray[np.bool_]:
    """Return which rows (n,) are left out because a variable they need is missing."""
    missing = np.zeros(len(table), dtype=bool)
    for name in sorted(needed(ask, levels)):
        missing |= absent(table, name)
    return missing


def absent(table: Table, name: str) -> NDArray[np.bool_]:
    """Return which rows (n,) have no value of a variable, which may be one of the features."""
    if name in table.columns:
        return np.asarray(table.column(name).isna())
    return np.asarray(np.isnan(table.wide.named((name,))[:, 0]))


def needed(ask: Ask, levels: dict[str, tuple[str, ...]]) -> frozenset[str]:
    """Return the variables without which a row is left out."""
    return frozenset(ask.complete_for) | (_of_formula(ask, levels) if ask.complete else frozenset())


def _of_formula(ask: Ask, levels: dict[str, tuple[str, ...]]) -> frozenset[str]:
    if not ask.gaps:
        return ask.formula.variables
    alias = dict(ask.formula.alias)
    left = " ".join((*ask.formula.response, *ask.formula.offset, ask.formula.weights))
    named = {n for n in ask.formula.variables if re.search(rf"(?<!\w){re.escape(alias.get(n, n))}(?!\w)", left)}
    return frozenset(named | set(levels))


def distinct(codes: Ints) -> int:
    """Return how many different codes there are; codes are small whole numbers."""
    seen = np.zeros(int(codes.max(initial=0)) + 2, dtype=bool)
    seen[codes] = True  # -1, of nobody, is the last
    return int(np.count_nonzero(seen[:-1]))


def per_person(values: Floats, person: Ints) -> Floats:
    """Return sums of values (n, g) over each person's rows (persons, g)."""
    if distinct(person) == len(person):
        return values
    order = np.argsort(person, kind="stable")
    first = np.flatnonzero(np.diff(person[order], prepend=-1))
    return np.asarray(np.add.reduceat(values[order], first, axis=0))


def persons_with(flags: NDArray[np.bool_], person: Ints) -> Floats:
    """Return how many persons (g,) have a row with each flag (n, g)."""
    return np.asarray((per_person(flags.astype(np.float64), person) > 0).sum(axis=0), dtype=np.float64)


def level_codes(column: pd.Series, levels: tuple[str, ...]) -> Ints:
    """Return level codes (n,), -1 for missing or for a level that is not agreed."""
    if column.dtype.kind == "f":
        try:
            numbers = np.array([float(lv) for lv in levels])
        except ValueError:
            return np.full(len(column), -1, dtype=np.int64)
        hit = column.to_numpy()[:, None] == numbers[None, :]
        return np.where(hit.any(axis=1), hit.argmax(axis=1), -1).astype(np.int64)
    return pd.Categorical(column, categories=list(levels)).codes.astype(np.int64)


def _combined(names: list[str], held: dict[str, Ints], levels: dict[str, tuple[str, ...]]) -> Ints:
    code = np.zeros_like(held[_code(names[0])])
    for name in names:
        code = code * len(levels[name]) + held[_code(name)]
    return code


def _defined(ask: Ask, read: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Return which rows can be used (n,): finite, times in order, counts and weights not negative."""
    good = np.ones(len(read["matrix"]), dtype=bool)
    for column in read["matrix"].T:
        good &= np.isfinite(column) if ask.complete and not ask.gaps else ~np.isinf(column)
    for name in ("offset", "outcome", "weight", "start", "stop", "event"):
        if name in read:
            good &= np.isfinite(read[name])
    if ask.outcome == "count":
        good &= read["outcome"] >= 0
    if ask.outcome == "positive":
        good &= read["outcome"] > 0
    if "weight" in read:
        good &= read["weight"] > 0
    if ask.timed:
        good &= read["stop"] > 0 if ask.clock == "none" else read["stop"] >= 0
        if "start" in read:
            good &= (read["start"] >= 0) & (read["start"] < read["stop"])
    return good


def place(rows: Rows, design_times: Floats, width: float) -> tuple[Ints, Ints]:
    """Return entry and exit bins of each row; a row is at risk in ``entry < bin <= exit``.

    On a grid, a person who enters and has an event within one bin is at risk in that bin.
    """
    if width > 0:
        last = len(design_times) - 1
        exit_ = np.minimum(bins(rows.stop, width), last)  # the agreement has refused later times
        if rows.start is None:
            return np.broadcast_to(np.int64(-1), len(rows)), exit_
        entry = bins(rows.start, width)
        same = entry >= exit_
        entry = np.where(same & (rows.event > 0), exit_ - 1, np.minimum(entry, exit_))
        return entry.astype(np.int64), exit_
    exit_ = np.searchsorted(design_times, rows.stop, side="right") - 1
    entry = np.full(len(rows), -1)
    if rows.start is not None:
        entry = np.searchsorted(design_times, rows.start, side="right") - 1
    return entry.astype(np.int64), exit_.astype(np.int64)


def build(ask: Ask, frame: Frame, rows: Rows) -> Design:
    """Place a site's rows in the agreed frame; their numbers are taken over, not copied."""
    event = event_flags(rows.event, frame.two_coded)
    times, width = frame.times, frame.time_bin
    coded = Rows(**{**{f: getattr(rows, f) for f in Rows.__slots__}, "event": event.astype(float)})
    if ask.clock == "own":
        times, width = np.unique(rows.stop[event]), 0.0
    if ask.timed:
        entry, exit_ = place(coded, times, width)
    else:
        entry = exit_ = np.broadcast_to(np.int64(0), len(rows))
    x, y, offset = rows.matrix, rows.outcome, rows.offset
    x -= frame.centre
    x /= frame.scale
    y -= frame.outcome_centre
    y /= frame.outcome_scale
    if ask.formula.offset:
        offset -= frame.offset_centre
    return Design(
        frame=frame,
        x=x,
        y=y,
        offset=offset,
        entry=entry,
        exit=exit_,
        event=event,
        times=times,
        group=rows.group,
        stratum=rows.stratum,
        cluster=rows.cluster,
        person=rows.person,
        codes=rows.codes,
        start=np.zeros(0) if rows.start is None else rows.start,
        stop=rows.stop,
        features=rows.features,
        weight=rows.weight / frame.weighting.scale if ask.formula.weights else None,
    )


def divided(whole: Design) -> list[Design]:
    """Return a design in ranges of rows, as views: what a method computes on the way is as long as one of them."""
    found = pieces(whole.cluster, PIECE)
    if len(found) == 1:
        return [whole]
    return [_range(whole, rows) for rows in found]


def _range(whole: Design, rows: slice) -> Design:
    def of(values: Any) -> Any:
        return values[rows] if len(values) == len(whole.person) else values

    def again(values: Ints) -> Ints:
        return np.unique(values[rows], return_inverse=True)[1]

    person = again(whole.person)
    return replace(
        whole,
        x=of(whole.x),
        y=of(whole.y),
        offset=of(whole.offset),
        entry=of(whole.entry),
        exit=of(whole.exit),
        event=of(whole.event),
        group=of(whole.group),
        stratum=of(whole.stratum),
        cluster=person if whole.cluster is whole.person else again(whole.cluster),
        person=person,
        codes={name: of(code) for name, code in whole.codes.items()},
        start=of(whole.start),
        stop=of(whole.stop),
        features=whole.features.of(np.arange(rows.start, rows.stop)),
        weight=None if whole.weight is None else of(whole.weight),
        cache={},
    )
