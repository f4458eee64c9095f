"""Dominance in magnitudes: whether a total tells nearly what its largest contributors gave, from secure sums alone.

The (n, k) rule refuses a total of which the k largest contributors make up more than a share, the p % rule
one from which the second largest could tell the largest within p % (Hundepool et al. 2012, 4.2; SACRO). Who
the largest are no sum over sites may tell. But power sums bound them: for contributions x_i about a centre c,
with the fourth power sum F of what they lie from it,

    the k largest  <=  k |c| + k^(3/4) F^(1/4)        (Hoelder)
    all together   >=  max(|sum x|, S^(3/2) / Q^(1/2))   S the second, Q the fourth power sum about zero

So a total that passes here passes the rules; one that just passes them may be refused. The sums are those
that ``spread`` needs anyway: nothing more leaves a site. Where its rule holds with min_cell >= 3, the largest two
make up less than 85 % (S^2 / Q >= 2.5); stricter thresholds bind beyond it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ihds.privacy.disclosure import Thresholds

Vector = NDArray[np.float64]


def dominated(
    persons: Vector, centre: Vector, square: Vector, fourth: Vector, far: float, limits: Thresholds
) -> NDArray[np.bool_]:
    """Return which magnitudes (g,) cannot be shown to pass the rules.

    ``centre`` is the mean, ``square`` and ``fourth`` are sums over persons about it, in one unit; no contribution
    was taken for more than ``far``, so where one may have been larger, nothing is known of it.
    """
    n, middle = np.maximum(persons, 1.0), np.abs(centre)
    apart = np.where(fourth < far**4, np.maximum(fourth, 0.0), np.inf) ** 0.25
    about_zero = apart + n**0.25 * middle  # the fourth root of the fourth power sum, at most (Minkowski)
    second = n * middle**2 + np.maximum(square, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_powers = np.where(about_zero > 0, second**1.5 / about_zero**2, 0.0)
    whole = np.maximum(n * middle, np.nan_to_num(by_powers, posinf=0.0))

    def largest(k: int) -> Vector:
        return np.asarray(k * middle + k**0.75 * apart)

    found = np.zeros(len(n), dtype=bool)
    if limits.dominance_k:
        found |= largest(limits.dominance_k) > limits.dominance_share * whole
    if limits.p_percent:
        found |= whole - largest(2) < limits.p_percent / 100 * largest(1)
    return np.asarray(found & (whole > 0))
