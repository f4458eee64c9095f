"""ComBat's shrinkage of one site's shifts and variances towards those of all its features (Johnson et al. 2007)."""

from __future__ import annotations

import numpy as np

from ihds.analysis.method import Vector

#: Shrinkage stands still when a step is this small, relatively; it does so long before the last step.
_STILL, _MOST_STEPS = 1e-15, 500
#: Keeps a quotient of nothings from being none.
_NOTHING = 1e-300


def shrunk_means(shift: Vector) -> Vector:
    """Return a site's shifts (g,), shrunk as sva does where spreads are left alone: each counts as one row's."""
    wide = float(shift.var(ddof=1))
    return np.asarray((wide * shift + float(shift.mean())) / (wide + 1))


def shrunk(shift: Vector, spread: Vector, count: Vector) -> tuple[Vector, Vector]:
    """Return a site's shifts and variances (g,), each shrunk given the other, of ``count`` rows, to the end.

    The inverse gamma prior of mean m and variance v is written without dividing by v: features all of one
    spread take that spread. sva stops at steps of 1e-4, ours go on.
    """
    middle, wide = float(shift.mean()), float(shift.var(ddof=1))
    m, v = float(spread.mean()), float(spread.var(ddof=1))
    g, d = shift, spread
    for _ in range(_MOST_STEPS):
        old = d
        g = (wide * count * shift + old * middle) / np.maximum(wide * count + old, _NOTHING)
        squares = (count - 1) * spread + count * (shift - g) ** 2
        d = (v * squares / 2 + m * v + m**3) / np.maximum(v * (count / 2 + 1) + m**2, _NOTHING)
        if np.all(np.abs(d - old) <= _STILL * d):
            break
    return g, np.maximum(d, _NOTHING)


def own_part(kind: str, shift: Vector, spread: Vector, count: Vector) -> tuple[Vector, Vector]:
    """Return what is taken for a site's own shift and variance of each feature."""
    match kind:
        case "combat":
            return shrunk(shift, spread, count)
        case "combat_means":
            return shrunk_means(shift), np.ones_like(shift)
    return shift, np.ones_like(shift)
