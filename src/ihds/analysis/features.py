"""Many numbers looked at one by one: genes, proteins, variants. Choosing, scaling and correcting for their number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.design import Design
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.data.codebook import Codebook
from ihds.errors import BadInput, Refused

#: Features worked on at once, so that memory stays a few columns more than the data.
WIDTH = 512


@dataclass(frozen=True, slots=True)
class Magnitudes(Contribution):
    """How many values each feature has, how many are not 0, and the sum of the log2 of their sizes."""

    count: Annotated[Vector, Leaves("(features,)", "rows", bound=1, counts_persons=True)]
    nonzero: Annotated[Vector, Leaves("(features,)", "rows", bound=1)]
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
    centre: Vector
    scale: Vector
    placed: bool
    nonzero: Vector

    def few(self, least: int) -> NDArray[np.bool_]:
        """Return which features tell of fewer than ``least`` persons: those who differ from 0, or those who are 0."""
        zero = self.count - self.nonzero
        return np.asarray(((self.nonzero > 0) & (self.nonzero < least)) | ((zero > 0) & (zero < least)))


NOTHING = Scale(np.zeros(0), np.zeros(0), np.zeros(0), False, np.zeros(0))


def select(pattern: str, codebook: Codebook, others: frozenset[str]) -> tuple[str, ...]:
    """Return the numbers of a codebook whose names match ``pattern`` (``*`` for any text), sorted.

    Raises:
        BadInput: there is none.

    """
    found = sorted(
        name
        for name, variable in codebook.variables.items()
        if variable.kind == "number" and name not in others and any(fnmatchcase(name, p) for p in pattern.split(","))
    )
    if not found:
        raise BadInput(f"no number of the codebook matches {pattern!r}", remedy='write for example features = "gene_*"')
    return tuple(found)


def scaling(scale: Scale, design: Design) -> Contribution:
    """Return this site's part of the three rounds in which features are scaled, centred and scaled again."""
    parts = [_block(scale, design.features[:, at : at + WIDTH], at) for at in range(0, design.features.shape[1], WIDTH)]
    joined = [np.concatenate([part[i] for part in parts]) for i in range(len(parts[0]))]
    return Magnitudes(*joined) if len(joined) == 3 else Means(*joined)


def _block(scale: Scale, values: Matrix, at: int) -> tuple[Vector, ...]:
    """Return, per feature of a block, the sums of the round that ``scale`` asks for."""
    part = slice(at, at + values.shape[1])
    present = np.isfinite(values)
    whole = bool(present.all())
    if len(scale.count) and not len(scale.centre):
        return ((values if whole else np.where(present, values, 0.0)).sum(axis=0) / scale.scale[part],)
    about = values - scale.centre[part] if len(scale.centre) else values
    _, exponent = np.frexp(about)  # the power of two of each size, 0 for 0
    known = about != 0 if whole else present & (about != 0)
    magnitude = np.where(known, exponent, 0).sum(axis=0) - 0.5 * known.sum(axis=0)
    return present.sum(axis=0).astype(np.float64), known.sum(axis=0).astype(np.float64), magnitude.astype(np.float64)


def scaled(scale: Scale, total: Contribution, least: int) -> Scale:
    """Return what the total adds: scales first, then centres.

    Raises:
        Refused: some feature has values of fewer than ``least`` persons.

    """
    if isinstance(total, Magnitudes):
        spread = 2.0 ** np.round(total.magnitude / np.maximum(total.nonzero, 1.0))
        if len(scale.centre):
            known = total.nonzero > 0
            return replace(scale, scale=np.where(known, spread, scale.scale), placed=True)
        if bool(np.any(total.count < max(least, 1))):
            raise Refused(
                f"{int(np.sum(total.count < max(least, 1)))} features have too few values",
                reasons=(f"min_cell: each feature needs values of {max(least, 1)} persons",),
                remedy="name fewer features",
            )
        return Scale(total.count, np.zeros(0), spread, False, total.nonzero)
    assert isinstance(total, Means)
    return replace(scale, centre=total.total / scale.count * scale.scale)


def centred(scale: Scale, design: Design) -> Iterator[tuple[slice, Matrix]]:
    """Return the features in blocks of columns, centred and scaled, NaN where missing."""
    for at in range(0, design.features.shape[1], WIDTH):
        part = slice(at, at + WIDTH)
        yield part, (design.features[:, part] - scale.centre[part]) / scale.scale[part]


def shown_counts(count: Vector, rows: int, least: int) -> Vector:
    """Return counts of values per feature; where few rows lack one, it is not told that any does."""
    lacking = rows - count
    return np.asarray(np.where(lacking < least, rows, count))


def false_discovery(p: Vector) -> Vector:
    """Return Benjamini and Hochberg's adjusted p values (1995)."""
    order = np.argsort(p)[::-1]
    factor = len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * factor))
    return adjusted
