"""Many numbers looked at one by one: genes, proteins, variants. Choosing, scaling and correcting for their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame, Ints
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.outcomes import categories
from ihds.analysis.result import Result
from ihds.analysis.rows import per_person, persons_with
from ihds.data.codebook import Codebook
from ihds.data.genotypes import place
from ihds.errors import BadFormula, BadInput, Refused

#: Features worked on at once, so that memory stays a few columns more than the data.
WIDTH = 512
#: What differs from the mean by less than this part of it is the same for everybody.
_ROUNDING = 2.0**-34
#: A value further from the centre than this many scales weighs no more, where weights are compared.
_FAR = 64.0

#: What a person's square or fourth power is at most.
MOST = _FAR**4
#: Sums of squares and of fourth powers: how many persons the spread of a feature rests on.
Weights = Annotated[Matrix, Leaves("(features, 2)", "scaled units squared, and to the fourth", bound=MOST)]


@dataclass(frozen=True, slots=True)
class Magnitudes(Contribution):
    """How many values each feature has, how many are not 0, whose they are, and the sum of the log2 of their sizes."""

    count: Annotated[Vector, Leaves("(features,)", "rows", bound=1)]
    nonzero: Annotated[Vector, Leaves("(features,)", "rows", bound=1)]
    persons: Annotated[Matrix, Leaves("(features, 2)", "persons with values, with others than 0", bound=1)]
    sites: Annotated[Vector, Leaves("(features,)", "sites with values", bound=1, per="site")]
    magnitude: Annotated[Vector, Leaves("(features,)", "sum of log2 of the absolute value", bound=2**11)]


@dataclass(frozen=True, slots=True)
class Means(Contribution):
    """The sum of each feature in units of its scale."""

    total: Annotated[Vector, Leaves("(features,)", "scaled units", bound=2**15)]


@dataclass(frozen=True, slots=True)
class Scale:
    """What all sites agreed on of each feature: values present, centre, scale (features,); public.

    The scale is first that of the values, then, once the centre is known, that of what is about it.
    """

    count: Vector
    persons: Matrix
    sites: Vector
    centre: Vector
    scale: Vector
    placed: bool
    least: int
    least_sites: int

    def few(self, weights: Matrix) -> NDArray[np.bool_]:
        """Return which features tell of few persons (features,).

        Few have a value, or one that is not 0; or too few sites measured it; or the spread rests on few.
        """
        known, carriers = self.persons.T
        hidden = (known < self.least) | (self.sites < self.least_sites) | ((carriers > 0) & (carriers < self.least))
        return np.asarray(hidden | resting(weights, self.least))


def resting(weights: Matrix, least: int) -> NDArray[np.bool_]:
    """Return which spreads (g,) rest on fewer than ``least`` persons, from ``Weights`` (g, 2).

    As in the dominance rules for magnitudes: of k equal outliers among constants the square of the sum
    of squares is k times the sum of fourth powers, or a little more.
    """
    square, fourth = weights.T
    return np.asarray((fourth > 0) & (square**2 / np.where(fourth > 0, fourth, 1.0) < least - 0.5))


def begin(frame: Frame) -> Scale:
    """Start before anything is known of the features."""
    none = np.zeros(0)
    return Scale(none, np.zeros((0, 2)), none, none, none, False, frame.min_cell, frame.min_sites)


def select(pattern: str, codebook: Codebook, others: frozenset[str]) -> tuple[str, ...]:
    """Return the numbers of a codebook that ``pattern`` names, sorted: names and patterns (``*`` for any text).

    Raises:
        BadInput: a part of it names none.

    """
    numbers = [n for n, v in codebook.variables.items() if v.kind == "number" and n not in others]
    found: set[str] = set()
    for part in (p.strip() for p in pattern.split(",")):
        named = [part] if part in numbers else [n for n in numbers if fnmatchcase(n, part)]
        if not named:
            raise BadInput(
                f"no number of the codebook matches {part!r}", remedy='write for example features = "gene_*"'
            )
        found.update(named)
    return tuple(sorted(found))


def model_of(text: str, pattern: str, codebook: Codebook, method: str) -> Ask:
    """Return what a linear model of each feature needs: covariates, no outcome.

    Raises:
        BadFormula: the formula is another.
        BadInput: the pattern names no feature.

    """
    formula = formulas.parse(text, codebook.variables, categories(codebook))
    if formula.response or not formula.intercept or not formula.terms:
        raise BadFormula(f"{text!r} is no model of the features", remedy="write ~ group + batch")
    if formula.strata or formula.cluster or formula.offset:
        raise BadFormula(f"{method} takes no strata(), cluster() or offset()", remedy="leave it out")
    names = select(pattern, codebook, formula.variables)
    return Ask(formula=formula, outcome="none", covariates="matrix", features=names)


def term_of(term: str, frame: Frame) -> int:
    """Return which column a model's question is about: the one named, or the last.

    Raises:
        BadFormula: there is none of that name.

    """
    if term and term not in frame.columns:
        raise BadFormula(f"{term!r} is no column", remedy=f"use one of: {', '.join(frame.columns)}")
    return frame.columns.index(term) if term else len(frame.columns) - 1


def refuse_few(scale: Scale, what: str) -> None:
    """Refuse features that tell of few persons or of one site, once all is known of them.

    Raises:
        Refused: some do.

    """
    few = scale.few(np.zeros((len(scale.count), 2))) if scale.placed else np.zeros(0, dtype=bool)
    if few.any():
        raise Refused(
            f"{what} tells of few persons, or of one site ({int(few.sum())} of {len(few)} columns)",
            reasons=(f"min_cell: values, others than 0, of {scale.least} persons at {scale.least_sites} sites",),
            remedy="leave it out",
        )


def scaling(scale: Scale, design: Design) -> Contribution:
    """Return this site's part of the three rounds in which features are scaled, centred and scaled again."""
    parts = [_block(scale, design, at) for at in range(0, design.features.shape[1], WIDTH)]
    joined = [np.concatenate([part[i] for part in parts]) for i in range(len(parts[0]))]
    return Magnitudes(*joined) if len(joined) > 1 else Means(*joined)


def _block(scale: Scale, design: Design, at: int) -> tuple[Any, ...]:
    """Return, per feature of a block, the sums of the round that ``scale`` asks for."""
    values = design.features[:, at : at + WIDTH]
    part = slice(at, at + values.shape[1])
    present = np.isfinite(values)
    whole = bool(present.all())
    if len(scale.count) and not len(scale.centre):
        return ((values if whole else np.where(present, values, 0.0)).sum(axis=0) / scale.scale[part],)
    about = values - scale.centre[part] if len(scale.centre) else values
    _, exponent = np.frexp(about)  # the power of two of each size, 0 for 0
    known = about != 0 if whole else present & (about != 0)
    magnitude = np.where(known, exponent, 0).sum(axis=0) - 0.5 * known.sum(axis=0)
    persons = np.column_stack([persons_with(flags, design.person) for flags in (present, known)])
    sites = present.any(axis=0).astype(np.float64)
    return present.sum(axis=0).astype(np.float64), known.sum(axis=0).astype(np.float64), persons, sites, magnitude


def scaled(scale: Scale, total: Contribution) -> Scale:
    """Return what the total adds: scales first, then centres, then scales about them."""
    if isinstance(total, Magnitudes):
        spread = 2.0 ** np.round(total.magnitude / np.maximum(total.nonzero, 1.0))
        if len(scale.centre):
            alike = (total.nonzero == 0) | (spread < np.abs(scale.centre) * _ROUNDING)
            return replace(scale, scale=np.where(alike, scale.scale, spread), placed=True)
        counts = (np.rint(total.count), np.rint(total.persons), np.rint(total.sites))
        return Scale(*counts, np.zeros(0), spread, False, scale.least, scale.least_sites)
    assert isinstance(total, Means)
    return replace(scale, centre=total.total / np.maximum(scale.count, 1.0) * scale.scale)


def weights(block: Matrix, person: Ints) -> Matrix:
    """Return a block's part (columns, 2) of ``Weights``, a person's rows taken together; NaN counts as the centre."""
    square = per_person(np.nan_to_num(np.minimum(np.abs(block), _FAR)) ** 2, person)
    square = np.minimum(square, _FAR**2)
    return np.column_stack([square.sum(axis=0), np.einsum("ij,ij->j", square, square)])


def centred(scale: Scale, design: Design) -> Iterator[tuple[slice, Matrix]]:
    """Return the features in blocks of columns, centred and scaled, NaN where missing."""
    for at in range(0, design.features.shape[1], WIDTH):
        part = slice(at, at + WIDTH)
        yield part, (design.features[:, part] - scale.centre[part]) / scale.scale[part]


def chosen(scale: Scale, design: Design, which: Ints) -> Matrix:
    """Return some features (n, chosen), centred and scaled; what is missing is at the centre."""
    block = (design.features[:, which] - scale.centre[which]) / scale.scale[which]
    return np.where(np.isfinite(block), block, 0.0)


def shown_counts(count: Vector, rows: int, least: int) -> Vector:
    """Return counts of values per feature; where few rows lack one, it is not told that any does."""
    lacking = rows - count
    return np.asarray(np.where(lacking < least, rows, count))


def table(columns: dict[str, Any], order: Iterable[int]) -> dict[str, list[Any]]:
    """Return columns (features,) in an order, as plain values; what is not a number is None."""
    kept = list(order)
    found: dict[str, list[Any]] = {}
    for name, values in columns.items():
        plain = np.asarray(values)[kept].tolist() if len(kept) else []
        found[name] = [None if isinstance(v, float) and not np.isfinite(v) else v for v in plain]
    return found


def placed(result: Result, codebook: Codebook) -> Result:
    """Return a result whose variants have chromosome and position beside their names, where the codebook tells."""
    found: dict[str, list[Any]] = result.details.get("features", {})
    names = found.get("feature", [])
    units = {name: variable.unit for name, variable in codebook.variables.items()}
    places = [place(units.get(name, "")) for name in names]
    if not any(places):
        return result
    told = {
        "feature": names,
        "chromosome": [p[0] if p else None for p in places],
        "position": [p[1] if p else None for p in places],
    }
    return replace(result, details={**result.details, "features": {**told, **found}})


def false_discovery(p: Vector) -> Vector:
    """Return Benjamini and Hochberg's adjusted p values (1995)."""
    order = np.argsort(p)[::-1]
    factor = len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * factor))
    return adjusted
