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
from ihds.data.wide import Wide
from ihds.errors import BadFormula, BadLevel
from ihds.privacy.disclosure import Thresholds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Days of the default grid for pooled risk sets: the measured price is 0.025 standard errors.
DEFAULT_TIME_BIN = 30.0
INTERCEPT = "(Intercept)"
#: The outcome, where it is crossed with categories; no variable has this name.
OUTCOME = "(outcome)"
#: A table of more cells is no table one could read from a model's coefficients.
_MOST_CELLS = 256
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
    lack numbers among the covariates, NaN in the matrix. ``undivided`` rows of a site are one model
    of their own: its sums are not those of its parts. ``weighted`` rows may have ``weights()``. ``by`` is
    the category in whose levels a table looks at each variable. A row that lacks one of ``complete_for``
    is left out, whatever the method. With ``small_groups`` the method hides small groups itself.
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
    undivided: bool = False
    weighted: bool = False
    by: str = ""
    complete_for: tuple[str, ...] = ()
    small_groups: bool = False

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
        return self.formula.variables | frozenset(self.features) | frozenset(self.complete_for)

    @property
    def divisible(self) -> bool:
        """Whether a site's sums are the sums over parts of its rows, persons and clusters being whole."""
        return not self.undivided and self.clock != "own"

    @property
    def complete(self) -> bool:
        """Whether a row that lacks a variable of the formula is left out (R's ``na.omit``)."""
        return self.covariates != "table"


@dataclass(frozen=True, slots=True)
class Weighting:
    """What the rows weigh: ``total``, and of it ``events``, in units of ``scale``; as many equal persons as tell."""

    scale: float = 1.0
    total: float = 0.0
    events: float = 0.0
    effective: float = 0.0


_NO_LIMITS = Thresholds.none()


@dataclass(frozen=True, slots=True)
class Frame:
    """What all sites agreed on before the method began; public.

    Shapes: ``columns``, ``centre``, ``scale`` (p,); ``times`` (K,), the upper edge of each bin.
    ``two_coded`` says that events are coded 1/2 as R's ``Surv`` allows. ``counts`` are the persons
    of each level, and of each number those who have a value; 0.5 marks what too few sites
    hold, or what too few persons make.
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
    min_sites: int
    features: tuple[str, ...] = ()
    weighting: Weighting = Weighting()
    limits: Thresholds = _NO_LIMITS

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
class Design:
    """One site's rows in the agreed frame.

    Shapes: ``x`` (n, p) centred and scaled, column by column in memory; ``y``, ``offset`` (n,);
    ``entry`` and ``exit`` are bins, a row being at risk in ``entry < bin <= exit``; ``times`` are
    the bins' upper edges; ``start`` (empty if all start at 0) and ``stop`` are the times themselves;
    ``features`` (n, g) as they are, NaN where missing, read when indexed; ``weight`` (n,) in units of its scale, None
    where all weigh the same.
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
    person: Ints
    codes: dict[str, Ints]
    start: Floats
    stop: Floats
    features: Wide
    weight: Floats | None
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
    weights = ask.formula.label(ask.formula.weights)
    if weights and not ask.weighted:
        raise BadFormula("this method takes no weights()", remedy="leave it out, or use cox")
    if weights and (weights not in codebook.variables or codebook.variable(weights).kind != "number"):
        raise BadFormula(f"weights({weights}) is no number of the codebook", remedy="name one column of numbers")
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
    frame = aliased(pd.DataFrame(template, index=range(size)), ask.formula)
    built, _ = formulas.matrix(ask.formula, frame)
    names = [column_label(ask.formula, c) for c in built]
    return tuple(n for n in names if not ask.timed or n != INTERCEPT)


def column_label(formula: Formula, column: str) -> str:
    """Return a model matrix's column as people write it."""
    return INTERCEPT if column == "Intercept" else formula.label(column)


def combinations(names: list[str], levels: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the labels of all combinations of levels, ``a=1, b=2``; one empty label for none."""
    parts = [[f"{n}={lv}" for lv in levels[n]] for n in names]
    return tuple(", ".join(combination) for combination in product(*parts))


def crossings(ask: Ask, levels: dict[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the sets of categories that stand together in a term of a model.

    A binary outcome explained by categories alone is a table of all of them with it: that comes last.
    """
    back = {alias: name for name, alias in ask.formula.alias}
    found: list[tuple[str, ...]] = []
    everywhere: set[str] = set()
    plain = bool(ask.formula.terms)
    for term in ask.formula.terms:
        named = {back.get(word, word) for word in re.findall(r"[^\W\d]\w*", term)} & set(ask.formula.variables)
        crossed = tuple(sorted(named & set(levels)))
        plain &= named <= set(levels)
        everywhere |= set(crossed)
        if len(crossed) > 1 and crossed not in found:
            found.append(crossed)
    whole = tuple(sorted(everywhere))
    if plain and ask.outcome == "binary" and 2 * np.prod([len(levels[n]) for n in whole]) <= _MOST_CELLS:
        found.append((*whole, OUTCOME))
    return found


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


def aliased(frame: pd.DataFrame, formula: Formula) -> pd.DataFrame:
    """Return a table whose columns have the names the formula is computed with."""
    return frame.rename(columns=dict(formula.alias)) if formula.alias else frame


def bins(times: Floats, width: float) -> Ints:
    """Return the bin of each time on a grid of ``width``: bin k holds ((k-1) width, k width]."""
    return np.minimum(np.ceil(np.round(times / width, 9)), MAX_BINS).astype(np.int64)


def event_flags(event: Floats, two_coded: bool) -> NDArray[np.bool_]:
    """Return whether each row ends in an event, under the agreed coding."""
    return np.asarray(event == (2.0 if two_coded else 1.0))
