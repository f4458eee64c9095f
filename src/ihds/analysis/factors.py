"""Maximum likelihood of a factor model from sums: steps of EM and quasi-Newton steps, rotation, order and sign.

The model of standardised features is x = mu + W z + e with z ~ N(0, I) and a noise variance of its own per
feature. Its parameters travel as one matrix ``at`` (g, k + 2): loadings, mean, logarithm of the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.result import Test, chi_square
from ihds.errors import DidNotConverge

#: Uniquenesses go no lower, as in R's factanal: at 0 the likelihood has no maximum (Heywood 1931).
LEAST_UNIQUENESS = 0.005
_LOG_LEAST = float(np.log(LEAST_UNIQUENESS))
#: Steps of EM alone at first; steps remembered afterwards; a step that fails so often is EM's instead.
_PLAIN, _MEMORY, _TRIES = 6, 8, 2
#: EM's step this small, in loadings, ends the search: the steps before it shrank faster than any constant factor.
_STILL = 1e-9
#: A log-likelihood lower than the best by less than this part of it, and of the values, is rounding.
_ROUNDING = 1e-11

#: Standardised features in blocks of columns (n, some), NaN where missing; the slice says which columns.
Blocks = Callable[[], Iterator[tuple[slice, Matrix]]]


@dataclass(frozen=True, slots=True)
class Expected(Contribution):
    """What a step of EM needs: sums over rows of expectations given what the row has, z̃ being (1, z)."""

    kind: ClassVar[str] = "gene vector"

    moments: Annotated[Matrix, Leaves("(k + 1, k + 1)", "sum of E[z̃ z̃']", bound=2**16)]
    cross: Annotated[Matrix, Leaves("(features, k + 1)", "sum of E[x z̃']", bound=2**16)]
    square: Annotated[Vector, Leaves("(features,)", "sum of E[x²]", bound=2**16)]
    log_likelihood: Annotated[float, Leaves("()", "1", bound=2**24)]


@dataclass(frozen=True, slots=True)
class Climb:
    """Where the search stands; public. ``at`` is evaluated next, ``best`` is the best point so far.

    Shapes: ``at``, ``best``, ``gradient`` there and ``image``, EM's step from there, (g, k + 2); ``steps`` and
    ``turns`` (m, g, k + 2), the last steps and how the gradient fell over each.
    """

    at: Matrix
    best: Matrix
    gradient: Matrix
    image: Matrix
    steps: Any
    turns: Any
    log_likelihood: float
    rows: float
    failed: int
    settled: bool
    rounds: int


def begin(size: int, factors: int) -> Climb:
    """Start at small loadings drawn once and for all, half of each variance being noise."""
    drawn = np.random.default_rng(20261125).normal(scale=0.3, size=(size, factors))
    return start(drawn, np.full(size, 0.5))


def start(loadings: Matrix, noise: Vector) -> Climb:
    """Start at given loadings (g, k) and noise (g,)."""
    at = np.column_stack([loadings, np.zeros(len(loadings)), np.log(noise)])
    none = np.zeros((0, *at.shape))
    return Climb(at, at, at, at, none, none, -np.inf, 0.0, 0, False, 0)


def _parts(at: Matrix) -> tuple[Matrix, Vector, Vector]:
    """Return loadings, means and noise."""
    return at[:, :-2], at[:, -2], np.exp(at[:, -1])


# -- at the site ----------------------------------------------------------------------------------


def scores(at: Matrix, blocks: Blocks, rows: int) -> tuple[Matrix, Any, NDArray[np.bool_], float]:
    """Return the rows' expected factors (n, k), their covariances (n, k, k), who has a value, the log-likelihood."""
    w, mu, noise = _parts(at)
    k = w.shape[1]
    precision, pull = np.zeros((rows, k * k)), np.zeros((rows, k))
    known = np.zeros(rows, dtype=bool)
    value = 0.0
    for part, block in blocks():
        held = np.isfinite(block)
        own, least = w[part], noise[part]
        outer = (own[:, :, None] * own[:, None, :] / least[:, None, None]).reshape(-1, k * k)
        about = np.where(held, block - mu[part], 0.0)
        precision += outer.sum(axis=0) if held.all() else held @ outer
        pull += about @ (own / least[:, None])
        known |= held.any(axis=1)
        value += float((held @ np.log(2 * np.pi * least)).sum() + (about**2 / least).sum())
    inner = np.eye(k) + precision.reshape(rows, k, k)
    covariance = np.linalg.inv(inner)
    mean = np.einsum("nij,nj->ni", covariance, pull)
    value += float(np.linalg.slogdet(inner)[1].sum() - (pull * mean).sum())
    return mean, covariance, known, -0.5 * value


def expected(at: Matrix, blocks: Blocks, rows: int) -> Expected:
    """Return the sums over a site's rows; a value that is missing counts as what is expected of it.

    So no sum is over those alone who have a feature, and none can be subtracted from another to find the rest.
    """
    w, mu, noise = _parts(at)
    k = w.shape[1]
    mean, covariance, known, value = scores(at, blocks, rows)
    z = np.column_stack([np.ones(rows), mean]) * known[:, None]
    second = z[:, :, None] * z[:, None, :]
    second[:, 1:, 1:] += covariance * known[:, None, None]
    flat = second.reshape(rows, (k + 1) ** 2)
    cross, square = np.zeros((len(at), k + 1)), np.zeros(len(at))
    for part, block in blocks():
        held = np.isfinite(block)
        filled = np.where(held, block, 0.0)
        cross[part] = filled.T @ z
        square[part] = np.einsum("ij,ij->j", filled, filled)
        if not held.all():
            lacking = (~held & known[:, None]).astype(np.float64)
            own = np.column_stack([mu[part], w[part]])
            drawn = np.einsum("gij,gj->gi", (lacking.T @ flat).reshape(-1, k + 1, k + 1), own)
            cross[part] += drawn
            square[part] += np.einsum("gi,gi->g", own, drawn) + lacking.sum(axis=0) * noise[part]
    return Expected(second.sum(axis=0), cross, square, value)


# -- at the centre --------------------------------------------------------------------------------


def expected_of(at: Matrix, products: Matrix, rows: float) -> Expected:
    """Return the same sums over complete rows, whose means are 0, from their cross-products (g, g) alone."""
    w, _, noise = _parts(at)
    scaled = w / noise[:, None]
    inner = np.eye(w.shape[1]) + w.T @ scaled
    covariance = np.linalg.inv(inner)
    weights = scaled @ covariance  # E[z] = weights' x
    moments = np.zeros((len(inner) + 1, len(inner) + 1))
    moments[0, 0] = rows
    moments[1:, 1:] = rows * covariance + weights.T @ products @ weights
    cross = np.column_stack([np.zeros(len(at)), products @ weights])
    quadratic = float((np.diag(products) / noise).sum() - np.sum(weights * (products @ scaled)))
    log_det = float(np.log(2 * np.pi * noise).sum() + np.linalg.slogdet(inner)[1])
    return Expected(moments, cross, np.diag(products).copy(), -0.5 * (rows * log_det + quadratic))


def _stepped(total: Expected) -> Matrix:
    """Return EM's step, the factors' own mean and covariance being fitted too and taken back (PX-EM)."""
    rows = total.moments[0, 0]
    solved = np.linalg.solve(total.moments, total.cross.T).T
    noise = (total.square - np.einsum("gi,gi->g", solved, total.cross)) / rows
    centre = total.moments[0, 1:] / rows
    values, turn = np.linalg.eigh(total.moments[1:, 1:] / rows - np.outer(centre, centre))
    root = (turn * np.sqrt(np.maximum(values, 0.0))) @ turn.T  # symmetric: the factors are not turned
    mean = solved[:, 0] + solved[:, 1:] @ centre
    return np.column_stack([solved[:, 1:] @ root, mean, np.log(np.maximum(noise, LEAST_UNIQUENESS))])


def _gradient(at: Matrix, total: Expected) -> Matrix:
    """Return the log-likelihood's gradient (g, k + 2), which is that of what EM expects (Fisher's identity)."""
    w, mu, noise = _parts(at)
    own = np.column_stack([mu, w])
    rest = total.cross - own @ total.moments
    square = total.square - np.einsum("gi,gi->g", own, total.cross + rest)
    slope = rest / noise[:, None]
    return np.column_stack([slope[:, 1:], slope[:, 0], (square / noise - total.moments[0, 0]) / 2])


def advance(climb: Climb, total: Expected, most: int) -> Climb:
    """Take EM's step at first, then a quasi-Newton step in its metric; halve it where it went down.

    Raises:
        DidNotConverge: the rounds are used up.

    """
    rounds, gain = climb.rounds + 1, total.log_likelihood - climb.log_likelihood
    if rounds >= most:
        raise DidNotConverge(
            f"factor_analysis: still moving after {rounds} rounds",
            remedy="ask for fewer factors, or for more max_rounds",
        )
    slack = _ROUNDING * (abs(total.log_likelihood) + climb.at.size * total.moments[0, 0])
    if gain < -slack and climb.failed < _TRIES:  # beyond, it is EM's own step, which goes down by rounding alone
        return _back(replace(climb, rounds=rounds), gain)
    gradient, image = _gradient(climb.at, total), _stepped(total)
    found = replace(
        climb,
        best=climb.at,
        gradient=gradient,
        image=image,
        log_likelihood=total.log_likelihood,
        rows=float(np.rint(total.moments[0, 0])),
        failed=0,
        settled=bool(np.abs(image - climb.at).max() <= _STILL),
        rounds=rounds,
    )
    if found.settled:
        return found
    if rounds > 1:
        step, turn = climb.at - climb.best, climb.gradient - gradient
        if np.sum(step * turn) > 1e-14 * np.linalg.norm(step) * np.linalg.norm(turn):
            steps, turns = np.concatenate([climb.steps, step[None]]), np.concatenate([climb.turns, turn[None]])
            found = replace(found, steps=steps[-_MEMORY:], turns=turns[-_MEMORY:])
    ahead = _ahead(found) if rounds > _PLAIN else np.zeros_like(gradient)
    if np.sum(ahead * gradient) <= 0:
        return replace(found, at=image)
    return replace(found, at=climb.at + ahead)


def _back(climb: Climb, gain: float) -> Climb:
    """Go less far, to where a parabola has its top; or, having failed too often, forget and take EM's step."""
    failed = climb.failed + 1
    if failed >= _TRIES:
        none = climb.steps[:0]
        return replace(climb, at=climb.image, steps=none, turns=none, failed=failed)
    step = climb.at - climb.best
    slope = float(np.sum(climb.gradient * step))
    part = min(max(slope / (2 * (slope - gain)), 0.1), 0.5)
    return replace(climb, at=climb.best + part * step, failed=failed)


def _ahead(climb: Climb) -> Matrix:
    """Return the limited-memory BFGS step in the metric of EM; a noise at its bound that would fall stays."""
    at, gradient = climb.best, climb.gradient
    free = np.ones(at.shape)
    free[(at[:, -1] <= _LOG_LEAST) & (gradient[:, -1] <= 0), -1] = 0.0
    left, done = gradient * free, []
    for step, turn in zip(climb.steps[::-1] * free, climb.turns[::-1] * free, strict=True):
        curve = float(np.sum(step * turn))
        if curve > 1e-14 * np.linalg.norm(step) * np.linalg.norm(turn):
            share = float(np.sum(step * left)) / curve
            left = left - share * turn
            done.append((step, turn, curve, share))
    left = _metric(at, left, climb.rows)
    for step, turn, curve, share in reversed(done):
        left = left + step * (share - float(np.sum(turn * left)) / curve)
    left = left * free
    left[:, -1] = np.maximum(left[:, -1], _LOG_LEAST - at[:, -1])
    return np.asarray(left / max(1.0, float(np.abs(left[:, :-1]).max())))


def _metric(at: Matrix, gradient: Matrix, rows: float) -> Matrix:
    """Return EM's step for a gradient, near a maximum: the factors' own mean and covariance being fitted too."""
    w, _, noise = _parts(at)
    inner, shift = w.T @ gradient[:, :-2], w.T @ gradient[:, -2]
    return np.column_stack(
        [
            noise[:, None] * gradient[:, :-2] + w @ (inner + inner.T) / 4,
            noise * gradient[:, -2] + w @ shift,
            2 * gradient[:, -1],
        ]
    ) / max(rows, 1.0)


def from_products(products: Matrix, rows: float, factors: int, most: int = 2000) -> Climb:
    """Return the maximum for complete rows, from the cross-products (g, g) of standardised features.

    Raises:
        DidNotConverge: the steps are used up.

    """
    values, vectors = np.linalg.eigh(products / rows)
    first = vectors[:, ::-1][:, :factors] * np.sqrt(np.maximum(values[::-1][:factors] - 0.5, 0.1))
    climb = start(first, np.clip(1 - np.square(first).sum(axis=1), 0.05, 0.95))
    while not climb.settled:
        climb = advance(climb, expected_of(climb.at, products, rows), most)
    return climb


def apart(joined: NDArray[np.bool_]) -> list[int]:
    """Return the layers that no chain of joined ones (layers, layers) leads to from the first."""
    reached = np.arange(len(joined)) == 0
    for _ in range(len(joined)):
        reached = reached | joined[reached].any(axis=0)
    return [int(i) for i in np.flatnonzero(~reached)]


# -- rotation -------------------------------------------------------------------------------------


def rotation(at: Matrix, *, varimax: bool) -> Matrix:
    """Return the turn (k, k) after which loadings are identified.

    First the axes along which the factors' information is uncorrelated, as in factanal; then, if asked,
    Kaiser's varimax; then the factors in the order of what they explain, each with a positive sum.
    """
    w, _, noise = _parts(at)
    turn = np.linalg.svd(w / np.sqrt(noise)[:, None], full_matrices=False)[2].T
    turn = _ordered(w, turn)
    if varimax and w.shape[1] > 1:
        turn = _ordered(w, turn @ _varimax(w @ turn))
    return turn


def _ordered(w: Matrix, turn: Matrix) -> Matrix:
    turned = w @ turn
    order = np.argsort(-np.square(turned).sum(axis=0), kind="stable")
    sign = np.where(turned.sum(axis=0) < 0, -1.0, 1.0)
    return np.asarray((turn * sign)[:, order])


def _varimax(loadings: Matrix) -> Matrix:
    """Return Kaiser's turn, features weighing alike, by R's iteration carried to its end."""
    size = np.sqrt(np.square(loadings).sum(axis=1))
    x = loadings[size > 0] / size[size > 0, None]
    turn = np.eye(loadings.shape[1])
    for _ in range(5000):
        z = x @ turn
        left, _, right = np.linalg.svd(x.T @ (z**3 - z * np.square(z).mean(axis=0)))
        before, turn = turn, left @ right
        if np.abs(turn - before).max() < 1e-13:
            break
    return np.asarray(turn)


# -- what is told ---------------------------------------------------------------------------------


def explained(layer: NDArray[np.int64], names: list[str], loadings: Matrix, noise: Vector) -> list[dict[str, Any]]:
    """Return the share of the variance that each factor explains, and all of them: by layer, then of all layers."""
    whole = np.square(loadings).sum(axis=1) + noise
    rows = []
    for index, name in [*enumerate(names), (-1, "all layers")]:
        own = np.flatnonzero((layer == index) | (index < 0))
        share = np.square(loadings[own]).sum(axis=0) / whole[own].sum()
        told = {"share": [float(v) for v in share], "total": float(share.sum())}
        rows.append({"layer": name, "features": len(own), **told})
    return rows


def enough(at: Matrix, products: Matrix, rows: float) -> tuple[Test, ...]:
    """Return Bartlett's corrected test that so many factors are enough, where the cross-products are known."""
    w, _, noise = _parts(at)
    p, k = w.shape
    df = ((p - k) ** 2 - p - k) // 2
    sign, log_det = np.linalg.slogdet(products / rows) if len(products) else (0.0, 0.0)
    if df < 1 or sign <= 0:
        return ()
    fitted = w @ w.T + np.diag(noise)
    objective = float(np.linalg.slogdet(fitted)[1] + np.trace(np.linalg.solve(fitted, products / rows)) - log_det - p)
    statistic = (rows - 1 - (2 * p + 5) / 6 - 2 * k / 3) * objective
    return (chi_square(f"{k} factors are enough", statistic, df, ({"objective": objective},)),)
