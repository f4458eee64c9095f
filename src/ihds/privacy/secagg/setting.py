"""Who takes part in secure sums, how many may collude, and the numbers that follow from it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ihds.errors import BadInput

#: Odds (log2) at which a sparse graph fails to protect somebody in a round.
FAILURE = -40.0
#: Share of the parties that may drop out of a sparse graph without anybody else being lost.
DROPPING = 0.3
#: Up to so many holders everybody shares masks with everybody.
SMALL = 50


@dataclass(frozen=True, slots=True)
class Setting:
    """One study's secure sums: the study's digest, its holders, and how many of them may collude with the user."""

    study: str
    holders: tuple[str, ...]
    colluding: int

    @classmethod
    def of(cls, study: str, holders: Iterable[str], colluding: int | None = None) -> Setting:
        """Return the setting of a study; unless said otherwise a third of the holders may collude.

        Raises:
            BadInput: there are too few holders for so many to collude.

        """
        known = tuple(sorted(set(holders)))
        allowed = len(known) // 3 if colluding is None else colluding
        if len(known) < 2 or not 0 <= allowed <= len(known) - 2:
            raise BadInput(f"{allowed} of {len(known)} holders cannot collude and leave two whose sum is secret")
        return cls(study, known, allowed)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"study": self.study, "holders": list(self.holders), "colluding": self.colluding}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Setting:
        """Read the JSON form."""
        return cls(str(body["study"]), tuple(body["holders"]), int(body["colluding"]))

    def threshold(self, parties: int) -> int:
        """Return how many must survive, confirm and reveal of those in a round.

        Any two groups of this size share a party that does not collude; and two such parties are in every sum.
        """
        return max((parties + self.colluding) // 2 + 1, self.colluding + 2)

    @property
    def degree(self) -> int:
        """Return how many others a party chooses to share masks with."""
        return _spread(len(self.holders), self.colluding)[0]

    @property
    def kept(self) -> int:
        """Return how many of those it chose must survive with a party; 0 where everybody shares with everybody."""
        return _spread(len(self.holders), self.colluding)[1]

    @property
    def complete(self) -> bool:
        """Return whether everybody shares masks with everybody."""
        return self.kept == 0


@functools.cache
def _spread(parties: int, colluding: int) -> tuple[int, int]:
    """Return the fewest choices that protect and survive drop-outs, and how many must survive.

    Where that is no cheaper, everybody shares masks with everybody: (parties - 1, 0).
    """
    low, high = 1, (parties - 1) // 2
    if parties <= SMALL or odds(parties, colluding, high, _kept(parties, high)) > FAILURE:
        return parties - 1, 0
    while low < high:
        middle = (low + high) // 2
        if odds(parties, colluding, middle, _kept(parties, middle)) <= FAILURE:
            high = middle
        else:
            low = middle + 1
    return low, _kept(parties, low)


def _kept(parties: int, degree: int) -> int:
    """Return the most choices that survive with everybody, but for odds of 2^-20, where ``DROPPING`` drop out."""
    factorials = _log_factorials(parties)
    surviving = np.array([parties - 1 - round(parties * DROPPING)])
    log_odds = -np.inf
    for kept in range(degree + 1):
        log_odds = np.logaddexp(
            log_odds, _log_drawn(factorials, parties - 1, surviving, degree, np.array([kept])).sum()
        )
        if log_odds + np.log(parties) > -20 * np.log(2):
            return kept
    return degree


def odds(parties: int, colluding: int, degree: int, kept: int) -> float:
    """Return the odds (log2, an upper bound) that random choices leave honest survivors in two unmasked groups.

    A group S of honest survivors is alone only if each of it finds ``kept`` of its choices in S and
    among the colluding (first bound), and nobody of it and of the other survivors R chose one another
    (second bound), whoever the coordinator says has dropped out. The union is over all S, and all R.

    Source: after Bell et al., CCS 2020, section 3; here with choices made by each party alone.
    """
    if kept < 1:
        return 0.0
    honest = parties - colluding
    least = max((parties + colluding) // 2 + 1, colluding + 2) - colluding
    factorials = _log_factorials(parties)
    none = np.array([0])
    avoid = np.array([_log_drawn(factorials, parties - 1, np.array([r]), degree, none)[0] for r in range(honest + 1)])
    total = -np.inf
    for s in range(1, honest // 2 + 1):
        rest = np.arange(max(s, least - s), honest - s + 1)
        near = np.array([colluding + s - 1])
        tail = np.logaddexp.reduce(_log_drawn(factorials, parties - 1, near, degree, np.arange(kept, degree + 1)))
        groups = _log_choose(factorials, honest, s)
        apart = groups + _log_choose(factorials, honest - s, rest) + s * avoid[rest] + rest * avoid[s]
        total = np.logaddexp(total, min(groups + s * tail, np.logaddexp.reduce(apart)))
    return float(total / np.log(2))


@functools.cache
def _log_factorials(n: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


def _log_drawn(factorials: NDArray[np.float64], n: int, marked: Any, draws: int, hits: Any) -> Any:
    """Return the log odds of so many hits when drawing from ``n``, some of them marked (hypergeometric)."""
    misses = _log_choose(factorials, n - marked, draws - hits)
    return _log_choose(factorials, marked, hits) + misses - _log_choose(factorials, n, draws)


def _log_choose(factorials: NDArray[np.float64], n: Any, k: Any) -> Any:
    """Return log binomial coefficients; minus infinity where there are none."""
    size, drawn = np.broadcast_arrays(n, k)
    fits = (drawn >= 0) & (drawn <= size)
    drawn = np.where(fits, drawn, 0)
    return np.where(fits, factorials[size] - factorials[drawn] - factorials[size - drawn], -np.inf)
