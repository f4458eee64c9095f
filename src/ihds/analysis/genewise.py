"""Negative binomial models of many genes at once, dispersions given: one Newton step each, in one sum.

A fit is one gene under one model. Its likelihood is concave, so Newton's steps, halved where the
deviance rises, find the maximum. A fit that has settled is asked for no more. Where a column
separates the counts from none the maximum lies at infinity: the deviance has a limit all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlog1py

from ihds.analysis.design import Design, Ints
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import RANK_TOLERANCE, SETTLED, invert
from ihds.data.wide import WIDTH

#: What a fit has come to.
MOVING, SETTLED_FIT, ENDLESS, FAILED = 0, 1, 2, 3
#: A fit on its way to infinity ends where what is left to gain is this; it is added in advance.
_TAIL = 1e-7
_HALVINGS = 30
#: The furthest any coefficient of a scaled column moves in one step.
_REACH = 4.0
#: A coefficient that moves less than this stands still: of enormous counts fixed point tells no more.
_STILL = 1e-9
#: A sum of the steps' products, and of the deviance, is at most this for one row.
_BOUND, _MOST_DEVIANCE = 2.0**20, 2.0**20


@dataclass(frozen=True, slots=True)
class Steps(Contribution):
    """Score, information and deviance of the fits that move, in units of each gene's usual weight."""

    kind: ClassVar[str] = "gene vector"

    score: Annotated[Matrix, Leaves("(fits, p)", "covariate unit x weight", bound=_BOUND)]
    information: Annotated[Matrix, Leaves("(fits, p (p + 1) / 2)", "covariate unit squared x weight", bound=_BOUND)]
    deviance: Annotated[Vector, Leaves("(fits,)", "1", bound=_MOST_DEVIANCE)]
    beyond: Annotated[Vector, Leaves("(fits,)", "sites out of range", bound=1, per="site")]


@dataclass(frozen=True, slots=True)
class Fits:
    """Newton's state of every fit; public.

    ``gene`` is the feature, ``free`` (f, p) marks the columns that are fitted, ``unit`` the gene's usual
    weight, ``gains`` (f, 3) the last three squared lengths of steps in standard errors, ``endless`` (f, p)
    the direction that has no end, ``status`` what the fit has come to.
    """

    gene: Ints
    dispersion: Vector
    unit: Vector
    free: Ints
    at: Matrix
    step: Matrix
    gains: Matrix
    deviance: Vector
    endless: Matrix
    status: Ints
    halvings: Ints
    rounds: int

    @property
    def moving(self) -> NDArray[np.intp]:
        """The fits that the next round is about."""
        return np.flatnonzero(self.status == MOVING)


def begin(gene: Ints, dispersion: Vector, size: Vector, free: Ints) -> Fits:
    """Start fits of genes whose counts are usually of a ``size`` (f,)."""
    f, p = free.shape
    return Fits(
        gene=gene,
        dispersion=dispersion,
        unit=size / (1 + dispersion * size),
        free=free,
        at=np.zeros((f, p)),
        step=np.zeros((f, p)),
        gains=np.full((f, 3), np.inf),
        deviance=np.full(f, np.inf),
        endless=np.zeros((f, p)),
        status=np.full(f, MOVING, dtype=np.int64),
        halvings=np.zeros(f, dtype=np.int64),
        rounds=0,
    )


def pairs(x: Matrix) -> Matrix:
    """Return the products of columns (n, p (p + 1) / 2), each pair once."""
    upper = np.triu_indices(x.shape[1])
    return np.asarray(x[:, upper[0]] * x[:, upper[1]])


def square(packed: Matrix, p: int) -> Any:
    """Return symmetric matrices (g, p, p) from their pairs."""
    whole = np.zeros((len(packed), p, p))
    upper = np.triu_indices(p)
    whole[:, upper[0], upper[1]] = packed
    whole[:, upper[1], upper[0]] = packed
    return whole


def means(
    fits: Fits, chosen: NDArray[np.intp], design: Design, library: Vector
) -> Iterator[tuple[slice, NDArray[np.intp], Matrix, Matrix]]:
    """Return blocks of the chosen fits: where, which, their counts and fitted means (n, block)."""
    with np.errstate(divide="ignore"):
        log_library = np.log(library)[:, None]  # a library of none: its mean is 0, as its counts are
    for start in range(0, len(chosen), WIDTH):
        part = slice(start, start + WIDTH)
        which = chosen[part]
        eta = np.clip(design.x @ fits.at[which].T + log_library, -300, 300)
        yield part, which, design.features[:, fits.gene[which]], np.exp(eta)


def steps(fits: Fits, design: Design, library: Vector) -> Steps:
    """Return this site's part of the round; the first starts at the counts themselves, as R's glm does."""
    x, moving = design.x, fits.moving
    products, f = pairs(x), len(fits.moving)
    score, information = np.zeros((f, x.shape[1])), np.zeros((f, products.shape[1]))
    deviance = np.zeros(f)
    for part, which, y, mean in means(fits, moving, design, library):
        phi = fits.dispersion[which]
        if fits.rounds == 0:
            begun = y + (y == 0) / 6
            weight = begun / (1 + phi * begun)
            pull = weight * (np.log(begun / np.maximum(library, 1.0)[:, None]) + (y - begun) / begun)
        else:
            whole = 1 + phi * mean
            pull, weight = (y - mean) / whole, mean * (1 + phi * y) / whole**2
            deviance[part] = deviances(y, mean, phi).sum(axis=0)
        unit = fits.unit[which]
        score[part], information[part] = (pull / unit).T @ x, (weight / unit).T @ products
    sums = ((score, _BOUND), (information, _BOUND), (deviance[:, None], _MOST_DEVIANCE))
    fitting = np.ones(f, dtype=bool)
    for values, bound in sums:
        fitting &= (np.abs(values) <= bound / 2 * max(design.frame.rows, 1)).all(axis=1)  # NaN is no such number
    for values, _ in sums:
        values[~fitting] = 0.0
    return Steps(score, information, deviance, (~fitting).astype(np.float64))


def deviances(y: Matrix, mean: Matrix, phi: Vector) -> Matrix:
    """Return each count's deviance, without large numbers that cancel; without dispersion it is Poisson's."""
    apart = y - mean
    rest = np.where(phi > 0, np.log1p(phi * apart / (1 + phi * mean)) / np.where(phi > 0, phi, 1.0), apart)
    return np.asarray(2 * (xlog1py(y, apart / (mean * (1 + phi * y))) - rest))


def moved(fits: Fits, total: Steps, columns: tuple[str, ...], max_rounds: int) -> Fits:
    """Take each fit's step.

    Raises:
        Collinear: columns determine one another.

    """
    moving, beyond = fits.moving, total.beyond > 0.5
    old, new = fits.deviance[moving], total.deviance
    known = np.isfinite(old)
    worse = beyond | (known & ~(new <= old + 1e-9 * np.maximum(1.0, np.where(known, old, 0.0))))
    fits = _halved(fits, moving[worse], known[worse])
    chosen, free = moving[~worse], fits.free[moving[~worse]].astype(np.float64)
    unit = fits.unit[chosen, None]
    information = square(total.information[~worse], len(columns))
    if fits.rounds == 0 and len(chosen):
        size = np.sqrt(np.maximum(np.einsum("fii->fi", information), 1e-300))
        invert((information / size[:, :, None] / size[:, None, :]).mean(axis=0), columns)
    step, lost = _newton(information, total.score[~worse], free)
    gain = np.abs(np.einsum("fi,fi->f", step, total.score[~worse])) * unit[:, 0]
    first, second, third = fits.gains[chosen, 1], fits.gains[chosen, 2], gain
    away = _shrinks(first, second) & _shrinks(second, third) & (third < 0.05)
    begun = fits.rounds > 0  # the first round starts from the counts: its deviance is of no model
    furthest = np.abs(step).max(axis=1, initial=0.0)
    settled = begun & ((gain <= SETTLED**2) | ((second < 1.0) & (gain <= 1e-9 * second)) | (furthest <= _STILL))
    last = fits.step[chosen]
    endless = (away & (gain <= _TAIL)) | (settled & lost)
    far = (furthest > _REACH) & begun
    step = np.where(far[:, None], step * (_REACH / np.where(far, furthest, _REACH))[:, None], step)
    status = np.where(endless, ENDLESS, np.where(settled & ~far, SETTLED_FIT, MOVING))
    left = np.where(lost & _shrinks(first, second), second / np.e, gain)  # towards infinity it is gained twice
    reached = new[~worse] - np.where(endless, 2 * left, np.where(status == SETTLED_FIT, gain, 0.0))
    start = np.full((len(chosen), 3), np.inf)
    gains = np.column_stack([first, second, third])
    return replace(
        fits,
        at=_put(fits.at, chosen, fits.at[chosen] + step),
        step=_put(fits.step, chosen, step),
        gains=_put(fits.gains, chosen, gains if begun else start),
        deviance=_put(fits.deviance, chosen, reached if begun else start[:, 0]),
        endless=_put(fits.endless, chosen, np.where(endless[:, None], np.where(lost[:, None], last, step), 0.0)),
        status=_put(
            fits.status, chosen, np.where((status == MOVING) & (fits.rounds + 1 >= max_rounds), FAILED, status)
        ),
        halvings=_put(fits.halvings, chosen, np.zeros(len(chosen), dtype=np.int64)),
        rounds=fits.rounds + 1,
    )


def _halved(fits: Fits, which: NDArray[np.intp], known: NDArray[np.bool_]) -> Fits:
    """Halve the last step of some fits; one that starts out of range, or was halved too often, has failed."""
    lost = ~known | (fits.halvings[which] >= _HALVINGS)
    step = fits.step[which] / 2
    return replace(
        fits,
        at=_put(fits.at, which, fits.at[which] - step),
        step=_put(fits.step, which, step),
        halvings=_put(fits.halvings, which, fits.halvings[which] + 1),
        status=_put(fits.status, which, np.where(lost, FAILED, MOVING)),
    )


def _put(values: Any, which: NDArray[np.intp], new: Any) -> Any:
    changed = values.copy()
    changed[which] = new
    return changed


def _shrinks(before: Vector, after: Vector) -> NDArray[np.bool_]:
    """Return where gains shrink by a constant factor (numerics.runs_away)."""
    return np.isfinite(before) & (after > 0.2 * before) & (after < 0.7 * before)


def _newton(information: Any, score: Matrix, free: Matrix) -> tuple[Matrix, NDArray[np.bool_]]:
    """Return the steps (f, p), and where information about some direction is used up."""
    values, vectors, size = spectrum(information, free)
    told = values > RANK_TOLERANCE
    along = np.einsum("fji,fj->fi", vectors, score * free / size)
    step = np.einsum("fji,fi->fj", vectors, np.where(told, along / np.where(told, values, 1.0), 0.0)) / size
    return step * free, np.asarray(~told.all(axis=1))


def spectrum(information: Any, free: Matrix) -> tuple[Matrix, Any, Matrix]:
    """Return eigenvalues and vectors of matrices scaled to correlations, and the scale; fixed columns stand alone."""
    fixed = np.einsum("fi,ij->fij", 1 - free, np.eye(free.shape[1]))
    held = information * free[:, :, None] * free[:, None, :] + fixed
    size = np.sqrt(np.maximum(np.einsum("fii->fi", held), 1e-300))
    values, vectors = np.linalg.eigh(held / size[:, :, None] / size[:, None, :])
    return values, vectors, size
