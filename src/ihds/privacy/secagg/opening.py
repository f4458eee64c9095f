"""The coordinator's side of a secure sum: add, gather shares, take the masks off; who shared falsely is named.

Nothing here is secret from the coordinator, and nothing here lets it see more than one sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ihds.canonical import digest
from ihds.errors import BadMessage, SiteMissing
from ihds.privacy.secagg import shamir
from ihds.privacy.secagg.messages import Announcement, Bytes, Reveal, Roster, Shares, checked
from ihds.privacy.secagg.party import (
    alone,
    commitment,
    neighbours,
    pair_stream,
    public_half,
    round_digest,
    seed_commitment,
    self_stream,
)
from ihds.privacy.secagg.setting import Setting
from ihds.privacy.secagg.stream import Stream, Words, apply


@dataclass(frozen=True, slots=True)
class Fault:
    """What a party did that no party that keeps to the protocol does; ``against`` is whom it wronged."""

    party: str
    what: str
    against: str

    def __str__(self) -> str:
        return f"{self.party} {self.what} ({self.against})"


@dataclass(frozen=True, slots=True)
class Opening:
    """A round as everybody knows it: keys, state, who takes part, who survived."""

    setting: Setting
    round: int
    roster: dict[str, Announcement]
    state: str
    sharers: tuple[str, ...]
    survivors: tuple[str, ...]

    @classmethod
    def of(
        cls, setting: Setting, number: int, roster: Roster, state: str, sharers: Iterable[str], survivors: Iterable[str]
    ) -> Opening:
        """Return a round that can be opened.

        Raises:
            SiteMissing: too few survive.

        """
        known = checked(setting, number, roster)
        opening = cls(setting, number, known, state, tuple(sorted(set(sharers))), tuple(sorted(set(survivors))))
        least = setting.threshold(len(known))
        if len(opening.survivors) < least:
            raise SiteMissing(
                f"{len(opening.survivors)} of {len(known)} holders answered; a sum opens for {least} or more",
                remedy="resume when more of them are back",
            )
        return opening

    @property
    def digest(self) -> str:
        """Return the digest of the round."""
        return round_digest(self.setting, self.round, self.roster, self.state, self.sharers)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Return who shared keys and is not in the sum."""
        return tuple(p for p in self.sharers if p not in set(self.survivors))


def keeping(setting: Setting, roster: Roster, answered: Iterable[str]) -> tuple[str, ...]:
    """Return the survivors whose sum may be opened: those who answered and keep enough of their neighbours."""
    left = sorted(set(answered))
    while lost := set(alone(setting, roster, left)):
        left = [p for p in left if p not in lost]
    return tuple(left)


def boxes_for(party: str, opening: Opening, shares: Mapping[str, Shares]) -> Bytes:
    """Return the boxes for one party, one of each sharer in order."""
    at = list(opening.roster).index(party)
    return np.stack([shares[sender].boxes[at] for sender in opening.sharers])


@dataclass(frozen=True, slots=True, repr=False)
class Recovered:
    """The seeds of who survived, the mask keys of who did not, and what was found wrong on the way."""

    secrets: dict[str, bytes]
    faults: tuple[Fault, ...]


def recover(opening: Opening, shares: Mapping[str, Shares], reveals: Mapping[str, Reveal]) -> Recovered:
    """Put together what takes the masks off; wrong shares are left out and their senders named.

    ``shares`` and ``reveals`` are by party; the caller verified their signatures.

    Raises:
        BadMessage: a reveal is of another round or survivor set.
        SiteMissing: somebody's secret cannot be put together; the reasons name who is to blame.

    """
    named, mine = opening.digest, digest(list(opening.survivors))
    for party, said in reveals.items():
        rows = (len(opening.sharers), shamir.SHARE_BYTES)
        if (said.party, said.digest, said.survivors, said.shares.shape) != (party, named, mine, rows):
            raise BadMessage(f"{party} reveals shares of another round")
    places = {party: at + 1 for at, party in enumerate(opening.roster)}
    threshold = opening.setting.threshold(len(opening.roster))
    secrets: dict[str, bytes] = {}
    faults: list[Fault] = []
    lagrange: dict[tuple[str, ...], list[int]] = {}
    for at, dealer in enumerate(opening.sharers):
        good = []
        for party, said in reveals.items():
            fault = _fault(opening, shares[dealer], said, at, places[party] - 1)
            if fault:
                faults.append(fault)
            else:
                good.append(party)
        chosen = tuple(good[:threshold])
        if len(chosen) == threshold:
            if chosen not in lagrange:
                lagrange[chosen] = shamir.weights([places[p] for p in chosen])
            found = shamir.combine([reveals[p].shares[at].tobytes() for p in chosen], lagrange[chosen])
            if found is not None and _right(opening, shares[dealer], found):
                secrets[dealer] = found
                continue
            faults.append(Fault(dealer, "dealt shares that do not fit together", "all"))
    missing = sorted(set(opening.sharers) - set(secrets))
    if missing:
        raise SiteMissing(
            f"the masks of {', '.join(missing)} cannot be taken off",
            reasons=tuple(map(str, faults)),
            remedy="ask more survivors for their shares, or begin another round without those named",
        )
    return Recovered(secrets, tuple(faults))


def _fault(opening: Opening, dealt: Shares, said: Reveal, at: int, place: int) -> Fault | None:
    """Return what is wrong with a revealed share; who of the two lies is found out by ``judge_share``."""
    dealer = opening.sharers[at]
    if dealer in said.unreadable:
        return Fault(dealer, "sealed a box that does not open", said.party)
    survived = dealer in set(opening.survivors)
    share = said.shares[at].tobytes()
    bound = dealt.commitments[place][32:] if survived else dealt.commitments[place][:32]
    if commitment(share, "seed" if survived else "mask", dealer, said.party, dealt.roster) != bound.tobytes():
        return Fault(said.party, "revealed another share than was dealt", dealer)
    return None


def _right(opening: Opening, dealt: Shares, secret: bytes) -> bool:
    if dealt.party in set(opening.survivors):
        return seed_commitment(secret.hex(), dealt.party, dealt.roster) == dealt.seed
    return public_half(secret.hex()) == opening.roster[dealt.party].mask_key


def masks_left(opening: Opening, recovered: Recovered) -> list[Stream]:
    """Return what the sum of the survivors' masked words still holds: to be taken off."""
    named, survivors = opening.digest, set(opening.survivors)
    others = neighbours(opening.setting, opening.roster, opening.sharers)
    left = [self_stream(recovered.secrets[p], p, named) for p in opening.survivors]
    for gone in opening.dropped:
        key = recovered.secrets[gone].hex()
        theirs = {other: opening.roster[other].mask_key for other in sorted(others[gone] & survivors)}
        # the sum holds the survivor's side of the mask
        left += [pair_stream(key, public, gone, other, named).undone for other, public in theirs.items()]
    return left


def unmask(total: Words, opening: Opening, recovered: Recovered) -> Words:
    """Take the masks off the sum of the survivors' masked words in place, and return it."""
    return apply(total, [stream.undone for stream in masks_left(opening, recovered)])


def add(total: Words, words: Words) -> None:
    """Add one party's masked words to a sum in place.

    Raises:
        BadMessage: it has another length.

    """
    if total.shape != words.shape:
        raise BadMessage(f"{len(words)} words were sent where {len(total)} were asked for")
    np.add(total, words, out=total)
