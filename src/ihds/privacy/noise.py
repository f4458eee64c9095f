"""Discrete Gaussian noise, drawn in shares at the holders: nobody knows the noise of a sum.

Of n holders, some are thought to tell the user their own noise; each of the n draws so much that the noise
of the others suffices. Their sum is not itself a discrete Gaussian, but nearly: Kairouz, Liu & Steinke 2021
(theorem 1, proposition 14) bound what that costs. Shares are drawn by OpenDP's exact sampler (Canonne,
Kamath & Steinke 2020) from the operating system's randomness, in the whole numbers in which a contribution
travels: there is no floating-point noise whose low bits could tell something (Mironov 2012).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ihds.errors import BadInput

Words = NDArray[np.uint64]

#: The smallest scale of one share, in units of the last place.
_LEAST_SCALE = 16
#: What every variance is larger by, so that a sum of shares costs no more than its rho.
_SLACK = Fraction(1, 2**20)
#: Numbers of one noisy round: exact samples take 30 microseconds each.
MOST_NUMBERS = 200_000


@dataclass(frozen=True, slots=True)
class Part:
    """Numbers that one person moves by at most the root of ``sensitivity`` together, in units of the last place.

    What they cost is ``rho``. Without sensitivity they tell of no person and get no noise.
    """

    size: int
    sensitivity: Fraction
    rho: Fraction


@dataclass(frozen=True, slots=True)
class Shares:
    """The noise of one round: of each part its size and the scale of one holder's share; and what the sum costs."""

    parts: tuple[tuple[int, float], ...]
    rho: Fraction

    def drawn(self) -> Words:
        """Return fresh noise, modulo 2^64: for one contribution, and never for a second."""
        found = np.zeros(sum(size for size, _ in self.parts), dtype=np.int64)
        at = 0
        for size, scale in self.parts:
            if scale:
                found[at : at + size] = _sample(size, scale)
            at += size
        return found.view(np.uint64)


def shares(parts: Iterable[Part], honest: int) -> Shares:
    """Return the noise that lets each part be released at its rho, if ``honest`` holders keep theirs to themselves.

    Raises:
        BadInput: there are too many numbers, or they travel too coarsely for such noise.

    """
    found, rho = [], Fraction(0)
    for part in parts:
        scale = share(part.sensitivity, part.rho, honest) if part.sensitivity else 0.0
        if scale and cost(part.sensitivity, scale, honest, part.size) > part.rho:
            raise BadInput("sums of such shares of noise cost more than was asked for", remedy="give a smaller epsilon")
        found.append((part.size, scale))
        rho += part.rho if scale else 0
    size = sum(size for size, _ in found)
    if size > MOST_NUMBERS:
        raise BadInput(f"noise for {size} numbers would take too long", remedy=f"ask for at most {MOST_NUMBERS}")
    return Shares(tuple(found), rho)


def share(sensitivity: Fraction, rho: Fraction, honest: int) -> float:
    """Return the scale of one holder's discrete Gaussian, rounded up.

    Raises:
        BadInput: it would be too small for sums of shares to be nearly discrete Gaussian.

    """
    target = sensitivity * (1 + _SLACK) / (2 * rho * honest)
    scale = math.sqrt(target)
    while Fraction(scale) ** 2 < target:
        scale = math.nextafter(scale, math.inf)
    if scale < _LEAST_SCALE:
        raise BadInput(f"noise of {scale:g} units is too fine to be drawn in shares", remedy="give a smaller epsilon")
    return scale


def cost(sensitivity: Fraction, scale: float, honest: int, numbers: int) -> Fraction:
    """Return the rho of a sum of ``honest`` shares, rounded up (Kairouz, Liu & Steinke 2021, proposition 14).

    Theirs is (sensitivity / sigma + tau sqrt(d))^2 / 2 with sigma of the sum, and tau 10 times the sum over
    k < n of exp(-2 pi^2 scale^2 k / (k + 1)). No term of that is larger than the one of k = 1, and
    (a + b)^2 is at most (1 + c) a^2 + (1 + 1/c) b^2.
    """
    exponent = min(math.floor(math.pi**2 * scale**2), 4096)  # e^-x is less than 2^-x
    tau = Fraction(10 * (honest - 1), 2**exponent)
    c = _SLACK / 2
    return ((1 + c) * sensitivity / (honest * Fraction(scale) ** 2) + (1 + 1 / c) * tau**2 * numbers) / 2


def _sample(size: int, scale: float) -> list[int]:
    import opendp.prelude as opendp  # loads a library, for which most studies have no use

    opendp.enable_features("contrib")
    domain = opendp.vector_domain(opendp.atom_domain(T="i64"))
    made = opendp.m.make_gaussian(domain, opendp.l2_distance(T="f64"), scale=scale)
    drawn: list[int] = made([0] * size)
    return drawn
