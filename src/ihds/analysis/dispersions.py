"""The dispersion that all genes have in common: the maximum of their adjusted profile likelihood (edgeR).

The likelihood of every gene, less half the log determinant of its information (Cox & Reid 1987), is
taken at five dispersions at once; the maximum is that of the polynomial through their means. The five
then close in on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from scipy.special import betaln, xlog1py

from ihds.analysis import genewise
from ihds.analysis.design import Design, Ints
from ihds.analysis.genewise import SETTLED_FIT, Fits
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.errors import DidNotConverge

_PLACES = np.arange(-2.0, 3.0)
#: The logarithms of dispersions searched, where the search begins, and how far apart the five are.
_LEAST, _MOST, _FIRST = float(np.log(1e-4)), float(np.log(20.0)), float(np.log(0.1))
_WIDE, _NARROW = 1.0, 0.05
_TRIES = 12


@dataclass(frozen=True, slots=True)
class Profile(Contribution):
    """The mean log-likelihood of the genes at each dispersion, and each fit's expected information."""

    kind: ClassVar[str] = "gene vector"

    log_likelihood: Annotated[Vector, Leaves("(5,)", "1", bound=2**18)]
    expected: Annotated[Matrix, Leaves("(fits, p (p + 1) / 2)", "covariate unit squared x weight", bound=2**28)]


@dataclass(frozen=True, slots=True)
class Search:
    """Where the five dispersions lie (their logarithms); once found, ``spacing`` is 0."""

    centre: float = _FIRST
    spacing: float = _WIDE
    tries: int = 0

    @property
    def points(self) -> Vector:
        """The five dispersions."""
        return np.exp(self.centre + self.spacing * _PLACES)


def begin(search: Search, gene: Ints, size: Vector, columns: int, at: Matrix | None = None) -> Fits:
    """Start the fits of genes (g,), whose counts are usually of a ``size``, at each dispersion in turn."""
    five, g = len(_PLACES), len(gene)
    free = np.ones((five * g, columns), dtype=np.int64)
    fits = genewise.begin(np.tile(gene, five), np.repeat(search.points, g), np.tile(size, five), free)
    return fits if at is None else replace(fits, at=np.tile(at, (five, 1)), rounds=1)


def settled(fits: Fits) -> tuple[Ints, Matrix]:
    """Return the places of genes whose five fits have all settled, and their middle coefficients."""
    five = len(_PLACES)
    good = np.flatnonzero((fits.status.reshape(five, -1) == SETTLED_FIT).all(axis=0))
    return good, fits.at.reshape(five, -1, fits.at.shape[1])[2, good]


def _chosen(fits: Fits) -> Iterator[tuple[int, Ints]]:
    good, _ = settled(fits)
    each = len(fits.gene) // len(_PLACES)
    return ((k, good + k * each) for k in range(len(_PLACES)))


def profile(fits: Fits, design: Design, library: Vector) -> Profile:
    """Return this site's part of the five likelihoods."""
    products, found = genewise.pairs(design.x), []
    value = np.zeros(len(_PLACES))
    for k, chosen in _chosen(fits):
        expected = np.zeros((len(chosen), products.shape[1]))
        for part, which, y, mean in genewise.means(fits, chosen, design, library):
            phi = fits.dispersion[which]
            value[k] += float((_most(y, 1 / phi) - genewise.deviances(y, mean, phi) / 2).sum()) / len(chosen)
            expected[part] = (mean / (1 + phi * mean) / fits.unit[which]).T @ products
        found.append(expected)
    return Profile(value, np.concatenate(found))


def _most(y: Matrix, r: Vector) -> Matrix:
    """Return the log-likelihood of counts where each is its own mean: the most there is."""
    own = -xlog1py(y, r / np.maximum(y, 1.0)) - r * np.log1p(y / r)
    return np.asarray(own - betaln(y + 1, r) - np.log(y + r))


def closer(search: Search, fits: Fits, total: Profile) -> Search:
    """Return where to look next, or the maximum.

    Raises:
        DidNotConverge: there is none within what is searched, or no gene could be fitted.

    """
    if not total.expected.size:
        raise DidNotConverge("no gene could be fitted at all five dispersions", remedy="give a dispersion")
    columns = fits.at.shape[1]
    information = genewise.square(total.expected, columns).reshape(len(_PLACES), -1, columns, columns)
    units = fits.unit.reshape(len(_PLACES), -1)[:, settled(fits)[0]]
    adjustment = (np.linalg.slogdet(information)[1] + columns * np.log(units)).mean(axis=1) / 2
    values = total.log_likelihood - adjustment
    curve = np.polynomial.Polynomial.fit(_PLACES, values - values.max(), 4, domain=[-2, 2], window=[-2, 2])
    turns = curve.deriv().roots()
    places = np.array([-2.0, 2.0, *turns.real[(np.abs(turns.imag) < 1e-9) & (np.abs(turns.real) < 2)]])
    place = float(places[np.argmax(curve(places))])
    centre, inside = search.centre + search.spacing * place, abs(place) <= 1.5
    if not _LEAST < centre < _MOST or search.tries >= _TRIES:
        raise DidNotConverge(
            "the common dispersion is not between 0.0001 and 20", remedy="give a dispersion, or look at the counts"
        )
    if inside and search.spacing <= _NARROW:
        return Search(centre, 0.0, search.tries + 1)
    return Search(centre, _NARROW if inside else search.spacing, search.tries + 1)
