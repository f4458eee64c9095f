"""One site's rows: from its table to numbers under what was agreed. Nothing here leaves the gate."""

from __future__ import annotations

import re
from dataclasses import dataclass
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
    """Turn a site's table into numbers under agreed levels.

    Rows with an infinite term, a negative time or an empty interval are set aside and counted:
    an error here would tell the asker which site holds such a person.

    """
    formula = ask.formula
    frame = table.frame
    person_column = codebook.person if codebook.person in frame.columns else ""
    wanted = sorted(ask.formula.variables | ({person_column} if person_column else set()))
    used = frame if set(wanted) == set(frame.columns) else frame[wanted]
    missing = lacking(ask, levels, table)
    left_out = int(missing.sum())
    kept = used[~missing] if left_out else used
    kept = kept if isinstance(kept.index, pd.RangeIndex) else kept.reset_index(drop=True)
    person = pd.factorize(kept[person_column])[0] if person_column else np.arange(len(kept))
    coded = {name: level_codes(kept[name], lv) for name, lv in levels.items()}
    whole = {n: _categorical(c, levels[n]) for n, c in coded.items()}
    plain = aliased(kept, formula)
    n, names = len(kept), column_names(ask, levels)
    start, stop, event, outcome = None, np.zeros(0), np.zeros(0), np.zeros(0)
    if ask.outcome == "competing":
        *begins, stop = (formulas.evaluate(r, plain) for r in formula.response[:-1])
        start = begins[0] if begins else None
        known = levels[ask.kept_whole]
        no_event = known.index(ask.censored) if ask.censored in known else -1
        event = (coded[ask.kept_whole] != no_event).astype(np.float64)
    elif ask.outcome == "survival":
        *begins, stops, events = (formulas.evaluate(r, plain) for r in formula.response)
        start, stop, event = (begins[0] if begins else None), stops, events
    elif ask.outcome not in ("none", "category"):
        outcome = formulas.evaluate(formula.response[0], plain)
    offset = np.zeros(n)
    for expression in formula.offset:
        offset = offset + formulas.evaluate(expression, plain)
    weight = formulas.evaluate(formula.weights, plain) if formula.weights else np.zeros(0)
    matrix = np.zeros((n, len(names)))
    if ask.covariates == "table":
        matrix = kept[list(names)].to_numpy(dtype=float, copy=True) if names else matrix
    elif ask.covariates == "matrix" and n:
        alias = dict(formula.alias)
        built, matrix = formulas.matrix(formula, plain.assign(**{alias.get(k, k): v for k, v in whole.items()}))
        labels = [column_label(formula, c) for c in built]
        if labels != list(names):
            matrix = np.asfortranarray(matrix[:, [labels.index(name) for name in names]])
    person = person.astype(np.int64, copy=False)
    cluster = person
    if formula.cluster:
        named = formula.cluster in plain.columns
        cluster = pd.factorize(plain[formula.cluster] if named else formulas.evaluate(formula.cluster, plain))[0]
        cluster = cluster.astype(np.int64, copy=False)
    good = _defined(ask, matrix, outcome, offset, start, stop, event)
    for code in coded.values() if ask.complete else ():
        good &= code >= 0
    if formula.weights:
        good &= np.isfinite(weight) & (weight > 0)

    def kept_rows(values: Any) -> Any:
        return values[good] if len(values) == n and not good.all() else values

    return Rows(
        matrix=kept_rows(matrix),
        outcome=kept_rows(outcome),
        offset=kept_rows(offset),
        start=None if start is None else kept_rows(start),
        stop=kept_rows(stop),
        event=kept_rows(event),
        group=kept_rows(_combined(group_names(ask), coded, levels, n)),
        stratum=kept_rows(_combined(strata_names(ask), coded, levels, n)),
        cluster=kept_rows(cluster),
        person=kept_rows(person),
        codes={name: kept_rows(code) for name, code in coded.items()},
        left_out=left_out,
        undefined=int(n - good.sum()),
        persons=distinct(person),
        features=table.wide if len(used) == good.sum() else table.wide.of(np.flatnonzero(~missing)[good]),
        weight=kept_rows(weight),
    )


def lacking(ask: Ask, levels: dict[str, tuple[str, ...]], table: Table) -> NDArray[np.bool_]:
    """Return which rows (n,) are left out because a variable they need is missing."""
    missing = np.zeros(len(table), dtype=bool)
    for name in sorted(needed(ask, levels)):
        missing |= absent(table, name)
    return missing


def absent(table: Table, name: str) -> NDArray[np.bool_]:
    """Return which rows (n,) have no value of a variable, which may be one of the features."""
    if name in table.frame.columns:
        return np.asarray(table.frame[name].isna())
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
    return int(np.count_nonzero(np.bincount(codes[codes >= 0]))) if len(codes) else 0


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


def _categorical(codes: Ints, levels: tuple[str, ...]) -> pd.Categorical:
    names = np.array([*levels, None], dtype=object)  # code -1 is the last: missing
    return pd.Categorical(names[codes], categories=list(levels))


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


def _combined(names: list[str], coded: dict[str, Ints], levels: dict[str, tuple[str, ...]], n: int) -> Ints:
    code = np.zeros(n, dtype=np.int64)
    for name in names:
        code = code * len(levels[name]) + coded[name]
    return code


def _defined(
    ask: Ask, matrix: Floats, outcome: Floats, offset: Floats, start: Floats | None, stop: Floats, event: Floats
) -> NDArray[np.bool_]:
    """Return which rows can be used (n,): finite, times in order, counts not negative."""
    good = np.isfinite(offset)
    for column in matrix.T:
        good &= np.isfinite(column) if ask.complete and not ask.gaps else ~np.isinf(column)
    if len(outcome):
        good &= np.isfinite(outcome)
        if ask.outcome == "count":
            good &= outcome >= 0
        if ask.outcome == "positive":
            good &= outcome > 0
    if ask.timed:
        good &= np.isfinite(stop) & np.isfinite(event) & (stop > 0 if ask.clock == "none" else stop >= 0)
        if start is not None:
            good &= np.isfinite(start) & (start >= 0) & (start < stop)
    return np.asarray(good)


def place(rows: Rows, design_times: Floats, width: float) -> tuple[Ints, Ints]:
    """Return entry and exit bins of each row; a row is at risk in ``entry < bin <= exit``.

    On a grid, a person who enters and has an event within one bin is at risk in that bin.
    """
    if width > 0:
        last = len(design_times) - 1
        exit_ = np.minimum(bins(rows.stop, width), last)  # the agreement has refused later times
        entry = np.full(len(rows), -1) if rows.start is None else bins(rows.start, width)
        same = entry >= exit_
        entry = np.where(same & (rows.event > 0), exit_ - 1, np.minimum(entry, exit_))
        return entry.astype(np.int64), exit_
    exit_ = np.searchsorted(design_times, rows.stop, side="right") - 1
    entry = np.full(len(rows), -1)
    if rows.start is not None:
        entry = np.searchsorted(design_times, rows.start, side="right") - 1
    return entry.astype(np.int64), exit_.astype(np.int64)


def build(ask: Ask, frame: Frame, rows: Rows) -> Design:
    """Place a site's rows in the agreed frame; their matrix is taken over, not copied."""
    event = event_flags(rows.event, frame.two_coded)
    times, width = frame.times, frame.time_bin
    coded = Rows(**{**{f: getattr(rows, f) for f in Rows.__slots__}, "event": event.astype(float)})
    if ask.clock == "own":
        times, width = np.unique(rows.stop[event]), 0.0
    if ask.timed:
        entry, exit_ = place(coded, times, width)
    else:
        entry = exit_ = np.zeros(len(rows), dtype=np.int64)
    x = rows.matrix
    x -= frame.centre
    x /= frame.scale
    return Design(
        frame=frame,
        x=x,
        y=(rows.outcome - frame.outcome_centre) / frame.outcome_scale,
        offset=rows.offset - frame.offset_centre,
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
