"""The coordinator's side of a secure sum: add, gather shares, take the masks off; who shared falsely is named.

Nothing here is secret from the coordinator, and nothing here lets it see more than one sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ihds.errors import BadMessage, SiteMissing
from ihds.privacy.secagg import shamir
from ihds.privacy.secagg.messages import Announcement, Bytes, Reveal, Roster, Shares, checked, roster_digest
from ihds.privacy.secagg.party import (
    alone,
    commitment,
    neighbours,
    pair_stream,
    private,
    public_half,
    round_digest,
    seed_commitment,
    self_stream,
    survivors_digest,
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


@dataclass(frozen=True)
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

    @cached_property
    def digest(self) -> str:
        """Return the digest of the round."""
        return round_digest(self.setting, self.round, self.roster_digest, self.state, self.sharers)

    @cached_property
    def roster_digest(self) -> str:
        """Return the digest of the announced keys."""
        return roster_digest(self.roster)

    @cached_property
    def alive(self) -> frozenset[str]:
        """Return the survivors as a set."""
        return frozenset(self.survivors)

    @cached_property
    def places(self) -> dict[str, int]:
        """Return where in the roster each party stands."""
        return {party: at for at, party in enumerate(self.roster)}

    @property
    def dropped(self) -> tuple[str, ...]:
        """Return who shared keys and is not in the sum."""
        return tuple(p for p in self.sharers if p not in self.alive)


def keeping(setting: Setting, roster: Roster, answered: Iterable[str]) -> tuple[str, ...]:
    """Return the survivors whose sum may be opened: those who answered and keep enough of their neighbours."""
    left = sorted(set(answered))
    while lost := set(alone(setting, roster, left)):
        left = [p for p in left if p not in lost]
    return tuple(left)


def boxes_for(party: str, opening: Opening, shares: Mapping[str, Shares]) -> Bytes:
    """Return the boxes for one party, one of each sharer in order."""
    return np.stack([shares[sender].boxes[opening.places[party]] for sender in opening.sharers])


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
    _check(opening, shares, reveals)
    threshold = opening.setting.threshold(len(opening.roster))
    secrets: dict[str, bytes] = {}
    faults: list[Fault] = []
    lagrange: dict[tuple[str, ...], list[int]] = {}
    for at, dealer in enumerate(opening.sharers):
        given = {party: said.shares[at].tobytes() for party, said in reveals.items()}
        wrong = {p: wrong_share(opening, shares[dealer], reveals[p], share) for p, share in given.items()}
        faults += [fault for fault in wrong.values() if fault]
        chosen = tuple(p for p, fault in wrong.items() if not fault)[:threshold]
        if len(chosen) < threshold:
            continue
        if chosen not in lagrange:
            lagrange[chosen] = shamir.weights([opening.places[p] + 1 for p in chosen])
        found = shamir.combine([given[p] for p in chosen], lagrange[chosen])
        if found is not None and _right(opening, shares[dealer], found):
            secrets[dealer] = found
        else:
            faults.append(Fault(dealer, "dealt shares that do not fit together", "all"))
    missing = sorted(set(opening.sharers) - set(secrets))
    if missing:
        raise SiteMissing(
            f"the masks of {', '.join(missing)} cannot be taken off",
            reasons=tuple(map(str, faults)),
            remedy="ask more survivors for their shares, or begin another round without those named",
        )
    return Recovered(secrets, tuple(faults))


def _check(opening: Opening, shares: Mapping[str, Shares], reveals: Mapping[str, Reveal]) -> None:
    mine, rows = survivors_digest(opening.survivors), (len(opening.sharers), shamir.SHARE_BYTES)
    for dealer in opening.sharers:
        if dealer not in shares or shares[dealer].party != dealer:
            raise BadMessage(f"there are no shares of {dealer}")
        shares[dealer].of_round(opening.roster, opening.roster_digest)
    for party, said in reveals.items():
        names = (said.party, said.digest, said.survivors, said.shares.shape)
        if party not in opening.alive or names != (party, opening.digest, mine, rows):
            raise BadMessage(f"{party} reveals shares of another round")


def wrong_share(opening: Opening, dealt: Shares, said: Reveal, share: bytes) -> Fault | None:
    """Return what is wrong with a share that a party revealed; which of the two lies ``judge_share`` finds out."""
    dealer, receiver = dealt.party, said.party
    if dealer in said.unreadable:
        return Fault(dealer, "sealed a box that does not open", receiver)
    kind, bound = dealt.bound(opening.places[receiver], survived=dealer in opening.alive)
    if commitment(share, kind, dealer, receiver, dealt.roster) != bound:
        return Fault(receiver, "revealed another share than was dealt", dealer)
    return None


def _right(opening: Opening, dealt: Shares, secret: bytes) -> bool:
    if dealt.party in opening.alive:
        return seed_commitment(secret.hex(), dealt.party, dealt.roster) == dealt.seed
    return public_half(secret.hex()) == opening.roster[dealt.party].mask_key


def masks_left(opening: Opening, recovered: Recovered) -> list[Stream]:
    """Return what the sum of the survivors' masked words still holds: to be taken off."""
    named = opening.digest
    others = neighbours(opening.setting, opening.roster, opening.sharers)
    left = [self_stream(recovered.secrets[p], p, named) for p in opening.survivors]
    for gone in opening.dropped:
        key = private(recovered.secrets[gone].hex())
        theirs = {other: opening.roster[other].mask_key for other in sorted(others[gone] & opening.alive)}
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
