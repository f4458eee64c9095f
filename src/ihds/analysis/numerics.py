"""Small linear algebra that says which term is to blame when there is no answer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from ihds.errors import Collinear

Floats = NDArray[np.float64]

#: Newton's method has settled when the step is this small against the standard errors.
SETTLED = 1e-8


def newton_decrement(step: Floats, score: Floats) -> float:
    """Return the squared length of a step in standard errors (Boyd & Vandenberghe 2004, §9.5)."""
    return float(abs(step @ score))


def has_settled(gain: float, previous: float) -> bool:
    """Return whether the step of this gain leaves coefficients and covariance exact.

    Either the step is negligible, or convergence is quadratic and the information changes by less
    than 1e-9 over it: near the maximum the length of a step is C times the square of the one
    before, and C times its length is that relative change; C cancels to the ratio of the gains.
    """
    return gain <= SETTLED**2 or (previous < 1.0 and gain <= 1e-9 * previous)


def runs_away(gains: tuple[float, float, float]) -> bool:
    """Return whether three gains in a row shrink by a constant factor: separation (Albert & Anderson 1984).

    Near a finite maximum the gains of Newton's method shrink quadratically; towards an infinite
    one each is about 1/e of the one before.
    """
    first, second, third = gains
    if not 0 < third < 0.05 or not np.isfinite(first):
        return False
    return 0.2 < second / first < 0.7 and 0.2 < third / second < 0.7


#: Smallest eigenvalue of a correlation-scaled information matrix that counts as full rank.
RANK_TOLERANCE = 1e-10


def invert(information: Floats, terms: tuple[str, ...]) -> Floats:
    """Return the inverse of an information matrix (p, p).

    Raises:
        Collinear: it is singular; the terms that determine one another are named.

    """
    information = (information + information.T) / 2
    size = np.sqrt(np.maximum(np.diag(information), 0.0))
    empty = np.flatnonzero(~(size > 0))
    if len(empty):
        raise Collinear(f"{terms[empty[0]]!r} carries no information", remedy="leave it out of the formula")
    scaled = information / np.outer(size, size)
    values, vectors = np.linalg.eigh(scaled)
    if values[0] < RANK_TOLERANCE:
        guilty = [t for t, v in zip(terms, vectors[:, 0], strict=True) if abs(v) > 0.05]
        raise Collinear(
            f"these terms determine one another: {', '.join(guilty)}",
            remedy="leave one of them out of the formula",
        )
    return np.asarray(np.linalg.inv(scaled) / np.outer(size, size))


#: Rows worked on at once, so that a block of columns stays in the processor's cache.
BLOCK = 8192


def blocks(n: int) -> Iterator[slice]:
    """Return the blocks of ``n`` rows; one empty block if there are none."""
    return (slice(at, min(at + BLOCK, n)) for at in range(0, max(n, 1), BLOCK))


def weighted_gram(x: Floats, weight: Floats) -> Floats:
    """Return the sum over rows of weight times the outer product of ``x`` (n, p), block by block."""
    total = np.zeros((x.shape[1], x.shape[1]))
    columns = x.T
    for rows in blocks(len(x)):
        part = columns[:, rows]
        total += (part * weight[rows]) @ part.T
    return total


def log_choose(n: float, k: Floats) -> Floats:
    """Return the logarithm of the binomial coefficients (k,)."""
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def fisher_p(a: float, b: float, c: float, d: float) -> float:
    """Return the two-sided p value of Fisher's exact test of the table ((a, b), (c, d)), as R has it."""
    m, n, k = a + c, b + d, a + b  # first column, second column, first row
    support = np.arange(max(0.0, k - n), min(k, m) + 1)
    logs = log_choose(m, support) + log_choose(n, k - support)
    density = np.exp(logs - logs.max())
    density /= density.sum()
    seen = density[int(a - support[0])]
    return float(min(1.0, density[density <= seen * (1 + 1e-7)].sum()))
