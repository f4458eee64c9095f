"""Budgets: how many sums may still be opened, and how much may still be learned of one person.

Amounts are exact rationals, so that a budget is never off by a rounding. An opened sum costs one of a
permit's rounds; a noisy one also costs its rho of zero-concentrated differential privacy (Bun & Steinke
2016), which adds up over rounds, studies and permits. What rho comes to as epsilon at a delta is computed by
a maintained accountant: Google's dp-accounting, Renyi differential privacy (Mironov 2017; Canonne, Kamath
& Steinke 2020, proposition 12).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ihds.errors import BadInput

#: Rho is a whole multiple of this: amounts stay short, and rounding down never promises too much.
_GRAIN = Fraction(1, 2**48)
#: Orders of Renyi divergence between which the accountant chooses: 1 + 2^-10 up to 1 + 2^26.
_ORDERS = tuple(1 + 2 ** (k / 16) for k in range(-160, 417))
#: Beyond this, epsilon promises nothing a person could use.
MOST_EPSILON = 64


@dataclass(frozen=True, slots=True)
class Budget:
    """What a permit allows in total and what has been spent of it at one holder."""

    total: Fraction
    spent: Fraction = Fraction(0)

    def spend(self, charge: Fraction) -> Budget | None:
        """Return the budget after a charge, or None if it does not suffice."""
        if self.spent + charge > self.total:
            return None
        return Budget(self.total, self.spent + charge)

    @property
    def left(self) -> Fraction:
        """What may still be spent."""
        return self.total - self.spent


@dataclass(frozen=True, slots=True)
class Promise:
    """An epsilon and a delta of differential privacy, as exact rationals.

    Whatever is told of the data becomes at most e^epsilon times as likely by one person's taking part, but
    for a probability of delta (Dwork et al. 2006).
    """

    epsilon: Fraction
    delta: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= MOST_EPSILON:
            raise BadInput(
                f"epsilon is {float(self.epsilon):g}", remedy=f"give a number above 0, at most {MOST_EPSILON}"
            )
        if not Fraction(1, 10**12) <= self.delta <= Fraction(1, 1000):
            raise BadInput(f"delta is {float(self.delta):g}", remedy="give one from 1e-12 to 1e-3, as 1e-6")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Promise:
        """Read ``epsilon`` and ``delta``, which is 1e-6 unless given, from numbers or text.

        Raises:
            BadInput: one is no such number.

        """
        return cls(exact(given.get("epsilon"), "epsilon"), exact(given.get("delta", "1e-6"), "delta"))

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form: exact rationals as text."""
        return {"epsilon": str(self.epsilon), "delta": str(self.delta)}

    @property
    def rho(self) -> Fraction:
        """The rho that comes to no more than epsilon at delta, rounded down."""
        return _rho(self.epsilon, self.delta)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a permit demands: noise in every sum, all studies within ``total``, none with more than ``per_study``."""

    total: Promise
    per_study: Fraction

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Demand:
        """Read ``epsilon``, ``delta`` and ``per_study``, which is all of epsilon unless given.

        Raises:
            BadInput: one is no such number.

        """
        total = Promise.of(given)
        each = exact(given.get("per_study", total.epsilon), "per_study")
        if not 0 < each <= total.epsilon:
            raise BadInput(f"per_study is {float(each):g}", remedy="give an epsilon no larger than the permit's")
        return cls(total, each)

    def to_dict(self) -> dict[str, str]:
        """Return the JSON form: exact rationals as text."""
        return {**self.total.to_dict(), "per_study": str(self.per_study)}


#: What studies may learn of the persons of one dataset, under all permits together, unless their holder says otherwise.
OF_A_DATASET = Promise(Fraction(10), Fraction(1, 10**6))


def exact(given: Any, name: str) -> Fraction:
    """Return a number as written, as an exact rational: 0.1 is one tenth.

    Raises:
        BadInput: it is no number.

    """
    try:
        return Fraction("" if isinstance(given, bool) else str(given))
    except (ValueError, ZeroDivisionError) as error:
        raise BadInput(f"{name} is {given!r}", remedy=f"give a number, for example {name}=1") from error


@functools.lru_cache(maxsize=1024)
def epsilon_of(rho: Fraction, delta: Fraction) -> float:
    """Return what releases of together ``rho`` come to as epsilon at ``delta``."""
    if rho <= 0:
        return 0.0
    import dp_accounting  # takes most of a second to load, and most studies have no use for it
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(orders=_ORDERS)
    accountant.compose(dp_accounting.ZCDpEvent(_above(rho)))
    return float(accountant.get_epsilon(float(delta)))


@functools.lru_cache(maxsize=256)
def _rho(epsilon: Fraction, delta: Fraction) -> Fraction:
    low, high = 0, int((epsilon + 1) / _GRAIN)  # rho is below epsilon for every delta in use
    while high - low > 1:
        middle = (low + high) // 2
        within = epsilon_of.__wrapped__(middle * _GRAIN, delta) <= epsilon
        low, high = (middle, high) if within else (low, middle)
    return low * _GRAIN


def _above(value: Fraction) -> float:
    """Return the value as a float, never less."""
    near = float(value)
    return near if Fraction(near) >= value else near * (1 + 2.0**-52)
