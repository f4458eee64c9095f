"""From a formula and one site's rows to numbers: what a method asks for, and what it is given.

``Frame`` is the public description all sites agreed on (columns, levels, centres, time grid);
``Design`` is one site's rows in that frame and never leaves the gate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ihds.analysis import formula as formulas
from ihds.analysis.formula import Formula
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadLevel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Days of the default grid for pooled risk sets: the measured price is 0.025 standard errors.
DEFAULT_TIME_BIN = 30.0
INTERCEPT = "(Intercept)"
#: Bins are counted up to here; the agreement refuses grids that long.
MAX_BINS = 1 << 24


@dataclass(frozen=True, slots=True)
class Ask:
    """What a method needs of the rows.

    ``covariates``: "matrix" for a model matrix, "groups" for one group code per row, "table" for
    each variable by itself. ``clock``: "grid" for shared time bins, "own" for each site's times.
    ``censored`` is the level of a competing outcome that is no event. A model has ``sets``
    coefficients per column and ``extra`` parameters besides. ``features`` are numbers, often many,
    that a method looks at one by one; a row may lack some of them. With ``gaps`` a row may also
    lack numbers among the covariates, NaN in the matrix.
    """

    formula: Formula
    outcome: Literal["none", "survival", "competing", "number", "positive", "binary", "count", "category"]
    covariates: Literal["matrix", "groups", "table"]
    clock: Literal["none", "grid", "own"] = "none"
    time_bin: float = 0.0
    horizon: float | None = None
    censored: str = ""
    sets: int = 1
    extra: int = 0
    features: tuple[str, ...] = ()
    gaps: bool = False

    @property
    def timed(self) -> bool:
        """Whether the outcome is a time, with an event or one of several."""
        return self.outcome in ("survival", "competing")

    @property
    def kept_whole(self) -> str:
        """The variable whose levels are the outcome, or none."""
        return self.formula.label(self.formula.response[-1]) if self.outcome in ("category", "competing") else ""

    @property
    def variables(self) -> frozenset[str]:
        """Every variable the method reads."""
        return self.formula.variables | frozenset(self.features)

    @property
    def complete(self) -> bool:
        """Whether a row with any missing value is left out (R's ``na.omit``)."""
        return self.covariates != "table"


@dataclass(frozen=True, slots=True)
class Frame:
    """What all sites agreed on before the method began; public.

    Shapes: ``columns``, ``centre``, ``scale`` (p,); ``times`` (K,), the upper edge of each bin.
    ``two_coded`` says that events are coded 1/2 as R's ``Surv`` allows.
    """

    columns: tuple[str, ...]
    centre: Floats
    scale: Floats
    rows: int
    left_out: int
    sites: int
    levels: dict[str, tuple[str, ...]]
    counts: dict[str, tuple[float, ...]]
    groups: tuple[str, ...]
    strata: tuple[str, ...]
    two_coded: bool
    outcome_centre: float
    outcome_scale: float
    offset_centre: float
    times: Floats
    time_bin: float
    min_cell: int
    features: tuple[str, ...] = ()

    @property
    def intercept(self) -> bool:
        """Whether the first column is the intercept."""
        return self.columns[:1] == (INTERCEPT,)

    @property
    def transform(self) -> Floats:
        """The matrix (p, p) that takes coefficients of centred, scaled columns to the variables' own units."""
        transform = np.diag(1 / self.scale)
        if self.intercept:
            transform[0] = -self.centre / self.scale
            transform[0, 0] = 1.0
        return transform

    def original(self, beta: Floats, covariance: Floats) -> tuple[Floats, Floats]:
        """Take coefficients from centred, scaled columns back to the variables' own units."""
        transform = self.transform
        return transform @ beta, transform @ covariance @ transform.T


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
    features: Floats

    def __len__(self) -> int:
        return len(self.person)


@dataclass(frozen=True, slots=True)
class Design:
    """One site's rows in the agreed frame.

    Shapes: ``x`` (n, p) centred and scaled, column by column in memory; ``y``, ``offset`` (n,);
    ``entry`` and ``exit`` are bins, a row being at risk in ``entry < bin <= exit``; ``times`` are
    the bins' upper edges; ``start`` (empty if all start at 0) and ``stop`` are the times themselves;
    ``features`` (n, g) as they are, NaN where missing.
    ``cache`` is for a method's own reuse between rounds.
    """

    frame: Frame
    x: Floats
    y: Floats
    offset: Floats
    entry: Ints
    exit: Ints
    event: NDArray[np.bool_]
    times: Floats
    group: Ints
    stratum: Ints
    cluster: Ints
    codes: dict[str, Ints]
    start: Floats
    stop: Floats
    features: Floats
    cache: dict[str, Any] = field(default_factory=dict)


def table_levels(ask: Ask, codebook: Codebook) -> dict[str, tuple[str, ...]]:
    """Return the published levels of every variable the formula uses as a category.

    Raises:
        BadLevel: such a variable has no published levels.
        BadFormula: free text or an identifier is used as a variable.

    """
    wanted = set(ask.formula.categorical)
    if ask.covariates == "groups":
        wanted |= {ask.formula.label(t) for t in ask.formula.terms}
    if ask.kept_whole:
        if codebook.variables.get(ask.kept_whole) is None:
            raise BadFormula(
                f"{ask.kept_whole!r} is not a category", remedy="name one category of the codebook as the outcome"
            )
        wanted.add(ask.kept_whole)
    if ask.covariates == "table":
        wanted |= {n for n in ask.formula.variables if codebook.variable(n).kind == "category"}
    allowed_identifiers = {ask.formula.label(ask.formula.cluster)}
    for name in sorted(ask.formula.variables):
        variable = codebook.variable(name)
        if variable.kind in ("text", "identifier") and name not in allowed_identifiers:
            raise BadFormula(
                f"variable {name!r} is {variable.kind} and cannot stand in {ask.formula.text!r}",
                remedy="use a number or a category; an identifier only in cluster()",
            )
    found = {}
    for name in sorted(wanted):
        levels = codebook.variable(name).levels
        if not levels:
            raise BadLevel(
                f"variable {name!r} is used as a category but no levels are published for it",
                remedy="declare its levels in the codebook, or use it as a number",
            )
        found[name] = levels
    return found


def column_names(ask: Ask, levels: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the model matrix's columns, from the formula and the levels alone."""
    if ask.covariates == "groups":
        return ()
    if ask.covariates == "table":
        numbers = sorted(ask.formula.variables - set(levels))
        return tuple(numbers)
    size = max([2, *(len(v) for v in levels.values())])
    template = {
        name: pd.Categorical([lv[i % len(lv)] for i in range(size)], categories=list(lv))
        if (lv := levels.get(name))
        else np.linspace(1.0, 2.0, size)
        for name in ask.formula.variables
    }
    frame = _aliased(pd.DataFrame(template, index=range(size)), ask.formula)
    built, _ = formulas.matrix(ask.formula, frame)
    names = [_column_label(ask.formula, c) for c in built]
    return tuple(n for n in names if not ask.timed or n != INTERCEPT)


def _column_label(formula: Formula, column: str) -> str:
    return INTERCEPT if column == "Intercept" else formula.label(column)


def combinations(names: list[str], levels: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the labels of all combinations of levels, ``a=1, b=2``; one empty label for none."""
    parts = [[f"{n}={lv}" for lv in levels[n]] for n in names]
    return tuple(", ".join(combination) for combination in product(*parts))


def strata_names(ask: Ask) -> list[str]:
    """Return the variables of ``strata()`` other than the site."""
    names = [ask.formula.label(e) for e in ask.formula.strata if e != "site"]
    for name in names:
        if name not in ask.formula.variables:
            raise BadFormula(f"strata({name}) is not a column", remedy="stratify by a category, or by site")
    return names


def group_names(ask: Ask) -> list[str]:
    """Return the variables that form the groups of a curve or a log-rank test."""
    return [ask.formula.label(t) for t in ask.formula.terms] if ask.covariates == "groups" else []


def _aliased(frame: pd.DataFrame, formula: Formula) -> pd.DataFrame:
    return frame.rename(columns=dict(formula.alias)) if formula.alias else frame


def read_rows(ask: Ask, codebook: Codebook, levels: dict[str, tuple[str, ...]], table: pd.DataFrame) -> Rows:
    """Turn a site's table into numbers under agreed levels.

    Rows with an infinite term, a negative time or an empty interval are set aside and counted:
    an error here would tell the asker which site holds such a person.

    """
    formula = ask.formula
    person_column = codebook.person if codebook.person in table.columns else ""
    wanted = sorted(ask.variables | ({person_column} if person_column else set()))
    used = table if set(wanted) == set(table.columns) else table[wanted]
    missing = np.zeros(len(used), dtype=bool)
    for name in _needed(ask, levels) if ask.complete else ():
        missing |= used[name].isna().to_numpy()
    left_out = int(missing.sum())
    kept = used[~missing] if left_out else used
    kept = kept if isinstance(kept.index, pd.RangeIndex) else kept.reset_index(drop=True)
    person = pd.factorize(kept[person_column])[0] if person_column else np.arange(len(kept))
    coded = {name: _codes(kept[name], lv) for name, lv in levels.items()}
    whole = {n: _categorical(c, levels[n]) for n, c in coded.items()}
    plain = _aliased(kept, formula)
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
    matrix = np.zeros((n, len(names)))
    if ask.covariates == "table":
        matrix = kept[list(names)].to_numpy(dtype=float, copy=True) if names else matrix
    elif ask.covariates == "matrix" and n:
        alias = dict(formula.alias)
        built, matrix = formulas.matrix(formula, plain.assign(**{alias.get(k, k): v for k, v in whole.items()}))
        labels = [_column_label(formula, c) for c in built]
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
        features=kept_rows(kept[list(ask.features)].to_numpy(dtype=np.float64)) if ask.features else np.zeros((n, 0)),
    )


def _needed(ask: Ask, levels: dict[str, tuple[str, ...]]) -> frozenset[str]:
    """Return the variables without which a row is left out."""
    if not ask.gaps:
        return ask.formula.variables
    alias = dict(ask.formula.alias)
    left = " ".join((*ask.formula.response, *ask.formula.offset))
    named = {n for n in ask.formula.variables if re.search(rf"(?<!\w){re.escape(alias.get(n, n))}(?!\w)", left)}
    return frozenset(named | set(levels))


def distinct(codes: Ints) -> int:
    """Return how many different codes there are; codes are small whole numbers."""
    return int(np.count_nonzero(np.bincount(codes[codes >= 0]))) if len(codes) else 0


def _categorical(codes: Ints, levels: tuple[str, ...]) -> pd.Categorical:
    names = np.array([*levels, None], dtype=object)  # code -1 is the last: missing
    return pd.Categorical(names[codes], categories=list(levels))


def _codes(column: pd.Series, levels: tuple[str, ...]) -> Ints:
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


def bins(times: Floats, width: float) -> Ints:
    """Return the bin of each time on a grid of ``width``: bin k holds ((k-1) width, k width]."""
    return np.minimum(np.ceil(np.round(times / width, 9)), MAX_BINS).astype(np.int64)


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


def event_flags(event: Floats, two_coded: bool) -> NDArray[np.bool_]:
    """Return whether each row ends in an event, under the agreed coding."""
    return np.asarray(event == (2.0 if two_coded else 1.0))


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
        codes=rows.codes,
        start=np.zeros(0) if rows.start is None else rows.start,
        stop=rows.stop,
        features=rows.features,
    )
