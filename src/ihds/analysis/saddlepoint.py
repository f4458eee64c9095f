"""Saddlepoint approximation of the score tests of a scan's hits, all hits in the same rounds.

Given covariates, a score is a sum over persons, each term of two values: its cumulant generating function K(t)
and its derivatives are sums over persons and sites. Per hit the two tails are looked for where K'(t) is the
score, or its opposite: Newton's method on the logarithm of K', kept between the bounds that are known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from scipy.special import expit, ndtr

from ihds.analysis.design import Design, Ints
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import blocks

#: Where this part of a hit's p values is, the score test needs no correction, and its saddlepoint has no digits.
CENTRE = 0.3
#: A tail is found when t moves by no more than this part of it.
_STILL = 1e-9
#: A tail is 0 where the logarithm of its probability is below this.
_NOTHING = -700.0
#: One for which t grows beyond this, in log-odds of those who do not carry the variant, has no answer.
_FURTHEST = 50.0
_MOST_STEPS = 60


@dataclass(frozen=True, slots=True)
class Cumulants(Contribution):
    """Per tail the cumulant generating function of the score and its two derivatives."""

    kind: ClassVar[str] = "score and information"

    value: Annotated[Vector, Leaves("(tails,)", "1")]
    slope: Annotated[Vector, Leaves("(tails,)", "scaled unit")]
    curvature: Annotated[Vector, Leaves("(tails,)", "scaled unit squared")]


@dataclass(frozen=True, slots=True)
class Tails:
    """The hits' variants, units, sizes (hits,), parts in the covariates (hits, p); and 2 tails each.

    ``target`` is a tail's score, ``at`` its t, its size between ``near`` and ``far``; ``p`` its probability, NaN
    until it is found; ``waiting`` is 1 while it is looked for.
    """

    which: Ints
    unit: Vector
    size: Vector
    on_covariates: Matrix
    target: Vector
    at: Vector
    near: Vector
    far: Vector
    p: Vector
    waiting: Ints
    steps: int

    def open(self) -> list[int]:
        """Return the tails that are still looked for."""
        return [int(k) for k in np.flatnonzero(self.waiting)]


def begin(which: Ints, unit: Vector, size: Vector, on_covariates: Matrix, score: Vector, variance: Vector) -> Tails:
    """Start where the normal approximation has the tails.

    Args:
        which: the hits (hits,).
        unit: brings each one's genotypes to a mean square near 1.
        size: of the genotypes of those who carry it, in these units; the others' are 1 / size.
        on_covariates: coefficients (hits, p) of the genotypes on the covariates, weighted as in the score.
        score: of the genotypes (hits,), not in these units.
        variance: of the score.

    """
    target = np.repeat(score * unit, 2) * np.tile([1.0, -1.0], len(which))
    at = target / np.repeat(variance * unit**2, 2)
    none = np.zeros(len(target))
    found, waiting = np.full(len(target), np.nan), np.ones(len(target), dtype=np.int64)
    return Tails(which, unit, size, on_covariates, target, at, none, np.full(len(at), np.inf), found, waiting, 0)


def local(state: Tails, beta: Vector, design: Design, genotypes: Callable[[Ints], Matrix]) -> Cumulants:
    """Return the sums of the tails that are still looked for.

    ``beta`` (p,) is the model without variants; ``genotypes`` gives those of chosen variants (n, hits), centred
    and scaled, none missing.
    """
    tails = state.open()
    owner = np.array(tails) // 2
    sums = np.zeros((3, len(tails)))
    hits, column = np.unique(owner, return_inverse=True)
    columns = genotypes(state.which[hits])
    for rows in blocks(len(design.y)):
        x = design.x[rows]
        eta = x @ beta
        mean, level = expit(eta), np.logaddexp(0, eta)
        left = (columns[rows] - x @ state.on_covariates[hits].T) * state.unit[hits]
        for i, k in enumerate(tails):
            g = left[:, column[i]]
            moved = eta + g * state.at[k]
            shifted = expit(moved)
            sums[0, i] += float((np.logaddexp(0, moved) - level - g * state.at[k] * mean).sum())
            sums[1, i] += float(g @ (shifted - mean))
            sums[2, i] += float((g * g) @ (shifted * expit(-moved)))
    return Cumulants(*sums)


def aggregate(state: Tails, total: Cumulants) -> Tails:
    """Take a step in every tail that is still looked for."""
    at, near, far, p = (a.copy() for a in (state.at, state.near, state.far, state.p))
    waiting = state.waiting.copy()
    for i, k in enumerate(state.open()):
        t, score = at[k], state.target[k]
        value, slope, curvature = float(total.value[i]), float(total.slope[i]), float(total.curvature[i])
        reached = slope / score  # both have the sign of t
        if reached < 1:
            near[k] = abs(t)
        else:
            far[k] = abs(t)
        step = -slope / curvature * np.log(reached) if reached > 0 and curvature > 0 else np.inf * t
        if abs(step) <= _STILL * abs(t):
            p[k], waiting[k] = _tail(t, score, value, curvature), 0
        elif reached < 1 and value - t * score < _NOTHING:  # Chernoff's bound of the tail's probability
            p[k], waiting[k] = 0.0, 0
        elif state.steps >= _MOST_STEPS or abs(t) > _FURTHEST * state.size[k // 2]:
            waiting[k] = 0
        else:
            further = min(abs(t) + step * np.sign(t), 2 * abs(t))
            if not near[k] < further < far[k]:
                further = (near[k] + far[k]) / 2
            at[k] = np.sign(t) * further
    return replace(state, at=at, near=near, far=far, p=p, waiting=waiting, steps=state.steps + 1)


def table(state: Tails, count: int) -> dict[str, Vector]:
    """Return two-sided p values (count,) of all features, NaN for those that are no hits or have no answer."""
    found = np.full(count, np.nan)
    found[state.which] = np.minimum(state.p.reshape(-1, 2).sum(axis=1), 1.0)
    return {"saddlepoint_p": found}


def _tail(t: float, score: float, value: float, curvature: float) -> float:
    """Return the probability of a score as far out, by Barndorff-Nielsen's formula."""
    w = np.sqrt(max(2 * (t * score - value), 0.0))
    v = abs(t) * np.sqrt(curvature)
    return float(ndtr(-abs(w + np.log(v / w) / w))) if w > 0 and v > 0 else np.nan
