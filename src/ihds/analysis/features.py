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
from ihds.analysis.rows import distinct, per_person, persons_with
from ihds.data.codebook import Codebook
from ihds.data.genotypes import place
from ihds.errors import BadFormula, BadInput, Refused
from ihds.privacy.disclosure import Thresholds
from ihds.privacy.dominance import dominated

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


def outweighed(persons: Vector, centre: Vector, weights: Matrix, limits: Thresholds) -> NDArray[np.bool_]:
    """Return which magnitudes (g,) few contributors may dominate; ``centre`` is their mean in units of ``weights``."""
    return dominated(persons, centre, weights[:, 0], weights[:, 1], _FAR, limits)


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
    parts = [_block(scale, design, part) for part in design.features.parts()]
    joined = [np.concatenate([part[i] for part in parts]) for i in range(len(parts[0]))]
    return Magnitudes(*joined) if len(joined) > 1 else Means(*joined)


def _block(scale: Scale, design: Design, part: slice) -> tuple[Any, ...]:
    """Return, per feature of a block, the sums of the round that ``scale`` asks for."""
    values, times = _values(design, part)
    present = np.isfinite(values)
    whole = bool(present.all())
    if len(scale.count) and not len(scale.centre):
        return (_summed(values if whole else np.where(present, values, 0.0), times) / scale.scale[part],)
    about = values - scale.centre[part] if len(scale.centre) else values
    _, exponent = np.frexp(about)  # the power of two of each size, 0 for 0
    apart = np.abs(about) > _alike(scale, part)  # at a site whose rows are all alike, only rounding is left of some
    known = apart if whole else present & apart
    counts = np.full(values.shape[1], float(len(values))) if whole else _summed(present, times)
    if whole and known.all():
        nonzero, powers = counts, exponent
    else:
        nonzero, powers = _summed(known, times), np.where(known, exponent, 0)
    magnitude = _summed(powers, times) - 0.5 * nonzero
    alone = distinct(design.person) == len(design.person)
    persons = (counts, nonzero) if alone else [persons_with(f, design.person) for f in (present, known)]
    return counts, nonzero, np.column_stack(persons), (counts > 0).astype(np.float64), magnitude


def _alike(scale: Scale, part: slice) -> Vector | float:
    """Return how far from the centre a value may lie and still be there, but for rounding."""
    if not len(scale.centre):
        return 0.0
    return np.asarray(np.maximum(np.abs(scale.centre[part]), scale.scale[part]) * _ROUNDING)


def _values(design: Design, part: slice) -> tuple[Matrix, Matrix | None]:
    """Return a block of features and None; of packed genotypes their four values, and how many rows have each."""
    if not _countable(design):
        return design.features[:, part], None
    counted = design.features.counted[part]
    return np.repeat([[0.0], [1.0], [2.0], [np.nan]], len(counted), axis=1), counted.T


def _countable(design: Design) -> bool:
    """Whether features are genotypes of two bits, with one row a person."""
    return design.features.packed and distinct(design.person) == len(design.person)


def _summed(values: NDArray[Any], times: Matrix | None) -> Vector:
    """Return the sums over rows (columns,) of values that stand so many times, or once."""
    if times is None:
        return np.asarray(values.sum(axis=0), dtype=np.float64)
    return np.asarray(np.einsum("ij,ij->j", values, times))


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
    near = np.nan_to_num(np.clip(block, -_FAR, _FAR))
    square = np.minimum(per_person(near * near, person), _FAR**2)
    return np.column_stack([square.sum(axis=0), np.einsum("ij,ij->j", square, square)])


def centred(scale: Scale, design: Design) -> Iterator[tuple[slice, Matrix]]:
    """Return the features in blocks of columns, centred and scaled, NaN where missing."""
    for part in design.features.parts():
        yield part, (design.features[:, part] - scale.centre[part]) * (1 / scale.scale[part])  # a power of two


def products(scale: Scale, design: Design, values: Matrix) -> Matrix:
    """Return sums over rows of centred, scaled features, 0 where missing, times ``values`` (n, q): (features, q)."""
    if _countable(design):  # of copies as they are: what the centre adds is taken off afterwards
        copies, absent = design.features.products(values)
        return np.asarray((copies - scale.centre[:, None] * (values.sum(axis=0) - absent)) / scale.scale[:, None])
    found = np.zeros((design.features.shape[1], values.shape[1]))
    for part, block in centred(scale, design):
        found[part] = np.nan_to_num(block).T @ values
    return found


def squares(scale: Scale, design: Design, weight: Vector | None = None) -> tuple[Vector, Matrix]:
    """Return sums over rows of squares of centred, scaled features times ``weight`` (features,), and ``Weights``."""
    if _countable(design):
        return _squares_of_genotypes(scale, design, weight)
    count = design.features.shape[1]
    found, spread = np.zeros(count), np.zeros((count, 2))
    for part, block in centred(scale, design):
        g = np.nan_to_num(block)
        found[part] = np.einsum("ij,ij->j", g, g) if weight is None else weight @ (g * g)
        spread[part] = weights(g, design.person)
    return found, spread


def _squares_of_genotypes(scale: Scale, design: Design, weight: Vector | None) -> tuple[Vector, Matrix]:
    counted, centre = design.features.counted[:, :3], scale.centre
    about = (np.array([[0.0], [1.0], [2.0]]) - centre) / scale.scale
    square = np.minimum(np.abs(about), _FAR) ** 2
    spread = np.column_stack([np.einsum("jv,vj->v", s, counted) for s in (square, square**2)])
    if weight is None:
        return np.einsum("jv,vj->v", about**2, counted), spread
    copies, absent = (found[:, 0] for found in design.features.products(weight[:, None]))
    found = design.features.squares(weight) - 2 * centre * copies + centre**2 * (weight.sum() - absent)
    return found / scale.scale**2, spread


def chosen(scale: Scale, design: Design, which: Ints) -> Matrix:
    """Return some features (n, chosen), centred and scaled; what is missing is at the centre."""
    return np.nan_to_num((design.features[:, which] - scale.centre[which]) / scale.scale[which])


def shown_counts(count: Vector, rows: int, least: int) -> Vector:
    """Return counts of values per feature; where few rows lack one, it is not told that any does."""
    lacking = rows - count
    return np.asarray(np.where(lacking < least, rows, count))


def table(columns: dict[str, Any], order: Iterable[int]) -> dict[str, list[Any]]:
    """Return columns (features,) in an order, as plain values; what is not a number is None."""
    kept = list(order)
    found: dict[str, list[Any]] = {}
    for name, values in columns.items():
        shown = np.asarray(values)[kept] if len(kept) else np.zeros(0)
        plain: list[Any] = shown.tolist()
        for at in np.flatnonzero(~np.isfinite(shown)) if shown.dtype.kind == "f" else ():
            plain[at] = None
        found[name] = plain
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
