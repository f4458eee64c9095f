"""A named adjudicator, the access body, finds out who broke a round: from secrets of that round and nothing else.

Keys of a round are announced and signed before it; with the mask key and the self-mask seed of a party its
masks are known, and with the masked words it signed its words are. So it needs no second commitment to the words.
What is opened to the adjudicator concerns one round; it must not be shown to the user, who could read the words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ihds.errors import BadMessage
from ihds.privacy.secagg import shamir
from ihds.privacy.secagg.aggregators import Split, SplitParty
from ihds.privacy.secagg.messages import Masked, Reveal, Shares, words_digest
from ihds.privacy.secagg.opening import Opening, wrong_share
from ihds.privacy.secagg.party import Party, box_key, commitment, masks_of, private, public_half, seed_commitment
from ihds.privacy.secagg.stream import Words, apply


@dataclass(frozen=True, slots=True, repr=False)
class Opened:
    """The secrets of one party in one round, sealed by it to the adjudicator."""

    party: str
    mask_key: str
    self_seed: str

    @classmethod
    def of(cls, party: Party) -> Self:
        """Return what an accused party opens."""
        return cls(party.me, party.mask_key, party.self_seed)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a party kept to the protocol in a round, and if not what it did."""

    party: str
    findings: tuple[str, ...]

    @property
    def guilty(self) -> bool:
        """Return whether something was found."""
        return bool(self.findings)


@dataclass(frozen=True, slots=True)
class Limits:
    """Declared bounds of a reply: runs of ``count`` words, each at most ``limit`` in absolute value."""

    runs: tuple[tuple[int, int], ...]

    def beyond(self, words: Words) -> int:
        """Return how many words are out of bounds; all of them if there are too many or too few."""
        if len(words) != sum(count for count, _ in self.runs):
            return len(words)
        signed, at, found = words.view(np.int64), 0, 0
        for count, limit in self.runs:
            part = signed[at : at + count]
            found += int(np.count_nonzero((part > limit) | (part < -limit)))
            at += count
        return found


def judge(
    opening: Opening, words: Words, signed: Mapping[str, Any], shares: Shares, opened: Opened | None, limits: Limits
) -> tuple[Verdict, Words | None]:
    """Judge one party's masked ``words``; ``signed`` are its verified claims about them.

    Returns the verdict, and the words under the masks for ``judge_sum``. Who opens nothing, or secrets
    that are not those of the round, is guilty of that. ``words`` are overwritten.

    Raises:
        BadMessage: the masked words are not those the party signed: whoever brought them has no case.

    """
    party, named = shares.party, opening.digest
    Masked(party, named, words_digest(words)).check(signed)
    if opened is None:
        return Verdict(party, ("opens nothing",)), None
    findings = []
    try:
        if opened.party != party or public_half(opened.mask_key) != opening.roster[party].mask_key:
            findings.append("opens another mask key than it announced")
        if seed_commitment(opened.self_seed, party, shares.roster) != shares.seed:
            findings.append("opens another self-mask seed than it was bound to")
    except ValueError:
        findings.append("opens what are no keys")
    if findings:
        return Verdict(party, tuple(findings)), None
    secret = opened.mask_key, opened.self_seed
    masks = masks_of(opening.setting, opening.roster, opening.sharers, party, named, *secret)
    plain = apply(words, [mask.undone for mask in masks])
    if beyond := limits.beyond(plain):
        findings.append(f"sent {beyond} words beyond the declared bounds")
    return Verdict(party, tuple(findings)), plain


def judge_split(party: SplitParty | None, said: Split, words: Words, limits: Limits) -> tuple[Verdict, Words | None]:
    """Judge one holder under aggregators: ``party`` is the round as it opened it, ``said`` its verified claims.

    The adjudicator fills in setting, round and aggregators itself. ``words`` are overwritten.

    Raises:
        BadMessage: the masked words are not those the holder signed.

    """
    if words_digest(words) != said.words:
        raise BadMessage("the masked words are not those that were signed")
    if party is None:
        return Verdict(said.party, ("opens nothing",)), None
    if party.masked(words).claims() != said.claims():
        return Verdict(said.party, ("opens other seeds than it sealed to the aggregators",)), None
    plain = party.unmask(words)
    beyond = limits.beyond(plain)
    return Verdict(said.party, (f"sent {beyond} words beyond the declared bounds",) if beyond else ()), plain


def judge_sum(total: Words, plain: Iterable[Words]) -> bool:
    """Return whether the sum a coordinator complains of is that of the words opened; if not, the coordinator lies."""
    rest = total.copy()
    for words in plain:
        np.subtract(rest, words, out=rest)
    return not rest.any()


def judge_share(opening: Opening, shares: Shares, reveal: Reveal, share_key: str) -> Verdict:
    """Judge a dispute on one share between its dealer and its receiver, who opens its share key of the round.

    All other boxes of that key hold one share of each secret, fewer than a threshold.

    Raises:
        BadMessage: there is no dispute: the share revealed is the one the dealer was bound to.

    """
    dealer, receiver = shares.party, reveal.party
    shares.of_round(opening.roster, opening.roster_digest)
    revealed = reveal.shares[opening.sharers.index(dealer)].tobytes()
    if wrong_share(opening, shares, reveal, revealed) is None:
        raise BadMessage(f"the share of {dealer} that {receiver} revealed is the one that was dealt")
    if public_half(share_key) != opening.roster[receiver].share_key:
        return Verdict(receiver, ("opens another share key than it announced",))
    box = shares.boxes[opening.places[receiver]].tobytes()
    key = box_key(private(share_key), opening.roster[dealer].share_key, dealer, receiver, shares.roster)
    try:
        pair = AESGCM(key).decrypt(bytes(12), box, None)
    except InvalidTag:
        return Verdict(dealer, ("sealed a box that does not open",))
    share = pair[shamir.SHARE_BYTES :] if dealer in opening.alive else pair[: shamir.SHARE_BYTES]
    kind, bound = shares.bound(opening.places[receiver], survived=dealer in opening.alive)
    if commitment(share, kind, dealer, receiver, shares.roster) != bound:
        return Verdict(dealer, ("sealed another share than it was bound to",))
    return Verdict(receiver, ("revealed another share than it was dealt, or said that its box does not open",))
