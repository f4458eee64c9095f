"""Runs secure sums whole, every party in this process, for the tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ihds.privacy.secagg import opening
from ihds.privacy.secagg.messages import Announcement, Reveal, Shares, Survivors
from ihds.privacy.secagg.opening import Opening, Recovered
from ihds.privacy.secagg.party import Party
from ihds.privacy.secagg.setting import Setting

STATE = "5e" * 32


@dataclass
class Ring:
    """All parties of one round, and what they said."""

    setting: Setting
    number: int = 0
    parties: dict[str, Party] = field(default_factory=dict)
    roster: dict[str, Announcement] = field(default_factory=dict)
    shares: dict[str, Shares] = field(default_factory=dict)
    masked: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def shared(cls, n: int, colluding: int | None = None, number: int = 0) -> Ring:
        """Parties whose keys and shares have gone round."""
        setting = Setting.of("ab" * 32, [f"did:web:p{i:03}" for i in range(n)], colluding)
        ring = cls(setting, number)
        ring.parties = {h: Party.begin(setting, h, number) for h in setting.holders}
        ring.roster = {h: p.announcement() for h, p in ring.parties.items()}
        for h, party in ring.parties.items():
            ring.parties[h], ring.shares[h] = party.share(ring.roster)
        return ring

    def enter(self, words: dict[str, np.ndarray], sharers: Iterable[str] = ()) -> Ring:
        """Everybody of ``words`` masks them."""
        for h, held in words.items():
            self.parties[h], _ = self.parties[h].enter(STATE, sharers or self.shares)
            self.masked[h] = self.parties[h].mask(held.copy())
        return self

    def confirm(self, survivors: Iterable[str]) -> dict[str, Survivors]:
        """Every survivor confirms."""
        said = {}
        for h in survivors:
            self.parties[h], said[h] = self.parties[h].confirm(survivors)
        return said

    def opening(self, survivors: Iterable[str], sharers: Iterable[str] = ()) -> Opening:
        return Opening.of(self.setting, self.number, self.roster, STATE, sharers or self.shares, survivors)

    def reveals(self, survivors: Iterable[str], by: Iterable[str] = ()) -> dict[str, Reveal]:
        """Those of ``by``, or all, reveal their shares after all have confirmed."""
        said, opened = self.confirm(survivors), self.opening(survivors)
        return {
            h: self.parties[h].reveal(said, opening.boxes_for(h, opened, self.shares)) for h in by or tuple(survivors)
        }

    def sum(self, survivors: Iterable[str], by: Iterable[str] = ()) -> tuple[np.ndarray, Recovered]:
        """Open the sum of the survivors' words."""
        survivors = tuple(survivors)
        found = opening.recover(self.opening(survivors), self.shares, self.reveals(survivors, by))
        total = np.sum([self.masked[h] for h in survivors], axis=0, dtype=np.uint64)
        return opening.unmask(total, self.opening(survivors), found), found


def drawn(setting: Setting, size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random words of every holder."""
    rng = np.random.default_rng(seed)
    return {h: rng.integers(0, 2**64, size, dtype=np.uint64) for h in setting.holders}
