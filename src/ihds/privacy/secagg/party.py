"""One party's side of one round of a secure sum: what it says, and the order that keeps it safe.

A party shares its keys with one roster, masks for one state of the study, and helps to open the sum of
one survivor set only: of each other party it gives a share of the self-mask seed or of the mask key,
never of both. All secrets are drawn at the beginning, so that a step asked again after a crash gives
the same bytes; they are of one round and can be erased after it, which makes earlier rounds secret for good.

Source: Bonawitz et al., CCS 2017 (double masks, threshold shares, confirmation of the survivors).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ihds.canonical import sha256
from ihds.errors import BadMessage, Refused
from ihds.privacy.secagg import shamir
from ihds.privacy.secagg.messages import (
    BOX_BYTES,
    Announcement,
    Bytes,
    Masked,
    Reveal,
    Roster,
    Shares,
    Survivors,
    bitmap,
    checked,
    chosen_by,
    roster_digest,
    words_digest,
)
from ihds.privacy.secagg.setting import Setting
from ihds.privacy.secagg.stream import Stream, Words, apply, derive


@dataclass(frozen=True, slots=True, repr=False)
class Party:
    """One party in one round; each step that binds it returns it anew, to be stored before the answer is sent."""

    setting: Setting
    me: str
    round: int
    mask_key: str
    share_key: str
    self_seed: str
    coins: str
    chosen: str
    roster: dict[str, Announcement] | None = None
    roster_digest: str = ""
    state: str = ""
    digest: str = ""
    sharers: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Party({self.me!r}, round {self.round}, ...)"

    @classmethod
    def begin(cls, setting: Setting, me: str, number: int) -> Self:
        """Draw the secrets of a round; ``number`` counts the attempts of a study and never comes twice."""
        others = [h for h in setting.holders if h != me]
        chosen = () if setting.complete else secrets.SystemRandom().sample(others, setting.degree)
        mask_key, share_key = (X25519PrivateKey.generate().private_bytes_raw().hex() for _ in range(2))
        self_seed, coins = (secrets.token_hex(32) for _ in range(2))
        return cls(
            setting, me, number, mask_key, share_key, self_seed, coins, bitmap(setting, chosen) if chosen else ""
        )

    # -- storing -------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Return everything, secrets included: to be sealed before it is stored."""
        body = {name: getattr(self, name) for name in _PLAIN}
        said = self.roster and [
            (a.party, a.study, a.round, a.mask_key, a.share_key, a.chosen) for a in self.roster.values()
        ]
        return json.dumps({**body, "setting": self.setting.to_dict(), "roster": said}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what ``to_bytes`` gave."""
        body = json.loads(data)
        roster = body["roster"] and {said[0]: Announcement(*said) for said in body["roster"]}
        lists = {name: tuple(body[name]) for name in ("sharers", "survivors")}
        return cls(**{**body, **lists, "setting": Setting.from_dict(body["setting"]), "roster": roster})

    # -- before the round ----------------------------------------------------------------------

    def announcement(self) -> Announcement:
        """Return this party's public keys for the round."""
        keys = public_half(self.mask_key), public_half(self.share_key)
        return Announcement(self.me, self.setting.study, self.round, *keys, self.chosen)

    def share(self, roster: Roster) -> tuple[Party, Shares]:
        """Take everybody's announcements, whose signatures the caller verified; return sealed shares for them.

        Raises:
            Refused: another roster was taken in this round.
            BadMessage: the roster is not one of this study and round, or too small.

        """
        known = checked(self.setting, self.round, roster)
        if known.get(self.me) != self.announcement():
            raise BadMessage(f"the announced keys of {self.me} are not its own")
        if self.roster not in (None, known):
            raise Refused("the announced keys of a round changed", remedy="begin another round")
        named, threshold = roster_digest(known), self.setting.threshold(len(known))
        secret = {"mask": bytes.fromhex(self.mask_key), "seed": bytes.fromhex(self.self_seed)}
        dealt = [
            shamir.share(value, derive(bytes.fromhex(self.coins), named, f"ihds coins|{what}"), threshold, len(known))
            for what, value in secret.items()
        ]
        boxes, commitments, mine = [], [], private(self.share_key)
        for party, said, pair in zip(known, known.values(), zip(*dealt, strict=True), strict=True):
            key = box_key(mine, said.share_key, self.me, party, named)
            boxes.append(AESGCM(key).encrypt(bytes(12), b"".join(pair), None))
            commitments.append(commitment(pair[0], "mask", self.me, party, named))
            commitments.append(commitment(pair[1], "seed", self.me, party, named))
        shares = Shares(
            party=self.me,
            study=self.setting.study,
            round=self.round,
            roster=named,
            seed=seed_commitment(self.self_seed, self.me, named),
            boxes=_rows(boxes, BOX_BYTES),
            commitments=_rows(commitments, 32).reshape(len(known), 64),
        )
        return replace(self, roster=known, roster_digest=named), shares

    # -- the round -----------------------------------------------------------------------------

    def enter(self, state: str, sharers: Iterable[str]) -> tuple[Party, str]:
        """Fix the round: the digest of what is asked, and whose shares came; return the digest of the round.

        Raises:
            Refused: the round was entered with another state or other sharers; they are not of the roster, or too few.

        """
        known, ordered = self._roster(), tuple(sorted(set(sharers)))
        if self.state and (self.state, self.sharers) != (state, ordered):
            raise Refused("another round was asked under the same number", remedy="begin another round")
        if self.me not in ordered or not set(ordered) <= set(known):
            raise Refused("the parties of a round are not those whose keys were announced")
        if len(ordered) < self.setting.threshold(len(known)):
            raise Refused(f"{len(ordered)} parties are too few where {self.setting.colluding} may collude")
        named = round_digest(self.setting, self.round, self.roster_digest, state, ordered)
        return replace(self, state=state, digest=named, sharers=ordered), named

    def mask(self, words: Words) -> Words:
        """Add all masks to words in place, and return them.

        Raises:
            Refused: the round was not entered.

        """
        secret = self.mask_key, self.self_seed
        return apply(words, masks_of(self.setting, self._roster(), self.sharers, self.me, self._entered(), *secret))

    def masked(self, words: Words) -> Masked:
        """Return what binds this party to the words it sends."""
        return Masked(self.me, self._entered(), words_digest(words))

    # -- opening the sum -----------------------------------------------------------------------

    def confirm(self, survivors: Iterable[str], fixed: Sequence[str] | None = None) -> tuple[Party, Survivors]:
        """Agree to open the sum of these parties; ``fixed`` are those of the sums opened before, if there were any.

        Raises:
            Refused: it is another set than before, not of this round, without this party, or too small.

        """
        named = self._entered()
        ordered = tuple(sorted(set(survivors)))
        reasons = []
        if self.survivors and self.survivors != ordered:
            reasons.append("survivors: another set was confirmed in this round")
        if fixed is not None and tuple(sorted(fixed)) != ordered:
            reasons.append("survivors: those of two opened sums must be the same, or their difference is one party's")
        strangers = set(ordered) - set(self.sharers)
        if strangers or self.me not in ordered:
            reasons.append("survivors: they are not all of this round, or this party is missing")
        if len(ordered) < self.setting.threshold(len(self._roster())):
            reasons.append(f"survivors: too few where {self.setting.colluding} may collude")
        left_alone = [] if strangers else alone(self.setting, self._roster(), ordered)
        reasons += [f"survivors: {p} keeps too few of its neighbours" for p in left_alone]
        if reasons:
            raise Refused(f"{self.me} does not open this sum", reasons=tuple(reasons))
        return replace(self, survivors=ordered), Survivors(self.me, named, survivors_digest(ordered))

    def reveal(self, confirmed: Mapping[str, Survivors], boxes: Bytes) -> Reveal:
        """Return this party's shares for the survivors it confirmed; ``boxes`` hold one of each sharer, in order.

        ``confirmed`` are confirmations whose signatures the caller verified.

        Raises:
            Refused: this party confirmed nothing, or too few confirmed the same.
            BadMessage: there is not one box of each sharer.

        """
        known, named = self._roster(), self._entered()
        if not self.survivors:
            raise Refused("no survivors were confirmed")
        mine = survivors_digest(self.survivors)
        agreeing = [p for p in self.survivors if p in confirmed and confirmed[p] == Survivors(p, named, mine)]
        if len(agreeing) < self.setting.threshold(len(known)):
            raise Refused(f"{self.me} does not open this sum", reasons=("survivors: too few confirmed the same set",))
        if boxes.shape != (len(self.sharers), BOX_BYTES):
            raise BadMessage("there is not one box of each party")
        found, unreadable, key_of = [], [], private(self.share_key)
        for sender, box in zip(self.sharers, boxes, strict=True):
            key = box_key(key_of, known[sender].share_key, sender, self.me, self.roster_digest)
            try:
                pair = AESGCM(key).decrypt(bytes(12), box.tobytes(), None)
            except InvalidTag:
                unreadable.append(sender)
                pair = bytes(2 * shamir.SHARE_BYTES)
            survived = sender in self.survivors
            found.append(pair[shamir.SHARE_BYTES :] if survived else pair[: shamir.SHARE_BYTES])
        return Reveal(self.me, named, mine, tuple(unreadable), _rows(found, shamir.SHARE_BYTES))

    def _roster(self) -> dict[str, Announcement]:
        if self.roster is None:
            raise Refused("the keys of this round were not shared yet")
        return self.roster

    def _entered(self) -> str:
        if not self.digest:
            raise Refused("this round was not entered")
        return self.digest


_PLAIN = tuple(f.name for f in fields(Party) if f.name not in ("setting", "roster"))


# -- what all sides of a round compute alike -----------------------------------------------------


def round_digest(setting: Setting, number: int, index: str, state: str, sharers: Sequence[str]) -> str:
    """Return the digest that names a round: study, number, digest of the keys, what is asked, and who takes part."""
    return sha256(" ".join(["ihds secure round", setting.study, str(number), index, state, *sorted(sharers)]).encode())


def survivors_digest(survivors: Sequence[str]) -> str:
    """Return the digest of a survivor set."""
    return sha256(" ".join(["ihds survivors", *sorted(survivors)]).encode())


def neighbours(setting: Setting, roster: Roster, sharers: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return for each party of a round who shares a mask with it: it chose them, or they chose it."""
    alive = frozenset(sharers)
    if setting.complete:
        return {p: alive - {p} for p in sharers}
    found = {p: set(chosen_by(setting, roster[p]) & alive) for p in sharers}
    for party in sharers:
        for other in chosen_by(setting, roster[party]) & alive:
            found[other].add(party)
    return {p: frozenset(others) for p, others in found.items()}


def alone(setting: Setting, roster: Roster, survivors: Sequence[str]) -> list[str]:
    """Return the survivors who would keep too few of those they chose; always none where everybody shares with all."""
    if setting.complete:
        return []
    alive = frozenset(survivors)
    return [p for p in survivors if len(chosen_by(setting, roster[p]) & alive) < setting.kept]


def masks_of(
    setting: Setting, roster: Roster, sharers: Sequence[str], party: str, named: str, mask_key: str, self_seed: str
) -> list[Stream]:
    """Return all masks of a party in a round: its own, and one with each that it shares masks with."""
    others = sorted(neighbours(setting, roster, sharers)[party])
    key = private(mask_key)
    pairs = [pair_stream(key, roster[other].mask_key, party, other, named) for other in others]
    return [self_stream(bytes.fromhex(self_seed), party, named), *pairs]


def self_stream(seed: bytes, party: str, named: str) -> Stream:
    """Return a party's own mask in a round."""
    return Stream(derive(seed, named, f"ihds self mask|{party}", 16), add=True)


def pair_stream(key: X25519PrivateKey, public: str, me: str, other: str, named: str) -> Stream:
    """Return the mask two parties share in a round, as ``me`` applies it."""
    low, high = sorted((me, other))
    return Stream(derive(_exchange(key, public), named, f"ihds pair mask|{low}|{high}", 16), add=me < other)


def box_key(key: X25519PrivateKey, public: str, sender: str, receiver: str, index: str) -> bytes:
    """Return the key of the one box that a sender seals to a receiver in a round."""
    return derive(_exchange(key, public), index, f"ihds share box|{sender}|{receiver}")


def commitment(share: bytes, what: str, dealer: str, receiver: str, index: str) -> bytes:
    """Return the digest by which a dealer is bound to a share; a share is as good as random, so it hides it."""
    return bytes.fromhex(sha256(f"ihds share|{index}|{dealer}|{receiver}|{what}|".encode() + share))


def seed_commitment(seed: str, party: str, index: str) -> str:
    """Return the digest by which a party is bound to its self-mask seed."""
    return sha256(f"ihds self mask seed|{index}|{party}|".encode() + bytes.fromhex(seed))


def public_half(key: str) -> str:
    """Return the public half of a key."""
    return private(key).public_key().public_bytes_raw().hex()


def private(key: str) -> X25519PrivateKey:
    """Return a private key for use."""
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(key))


def _exchange(key: X25519PrivateKey, public: str) -> bytes:
    return key.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public)))


def _rows(parts: list[bytes], size: int) -> Bytes:
    return np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(len(parts), size)
