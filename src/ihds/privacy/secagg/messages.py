"""What parties of a secure sum say to one another through the coordinator; each signs its claims with its DID key.

Claims are small: what is large (words, shares) is in them by its SHA-256 digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from numpy.typing import NDArray

from ihds.canonical import sha256
from ihds.errors import BadMessage
from ihds.privacy.secagg.setting import Setting
from ihds.privacy.secagg.shamir import SHARE_BYTES
from ihds.privacy.secagg.stream import Words

Bytes = NDArray[np.uint8]

_PROBE = X25519PrivateKey.generate()

#: Bytes of two shares sealed to one party with AES-GCM.
BOX_BYTES = 2 * SHARE_BYTES + 16


class Said:
    """Base of all messages: its claims as the JSON that the party signs, and whether signed claims are those."""

    __slots__ = ()

    def claims(self) -> dict[str, Any]:
        """Return what the party signs."""
        raise NotImplementedError

    def check(self, signed: Mapping[str, Any]) -> None:
        """Compare with claims whose signature was verified.

        Raises:
            BadMessage: they are not the claims of this message.

        """
        if any(signed.get(name) != value for name, value in self.claims().items()):
            raise BadMessage(f"a signed {type(self).__name__} does not fit what came with it")


@dataclass(frozen=True, slots=True)
class Announcement(Said):
    """A party's public keys for one round: for masks, for shares; and whom it chose to share masks with.

    ``chosen`` is a bitmap over the study's holders, in hex; empty where everybody shares with everybody.
    """

    party: str
    study: str
    round: int
    mask_key: str
    share_key: str
    chosen: str

    def claims(self) -> dict[str, Any]:
        """Return what the party signs."""
        keys = {"maskKey": self.mask_key, "shareKey": self.share_key, "chosen": self.chosen}
        return {"sub": self.party, "study": self.study, "secureRound": self.round, **keys}

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Self:
        """Read verified claims.

        Raises:
            BadMessage: a field is missing, or a key is not a usable X25519 key.

        """
        try:
            keys = [bytes.fromhex(str(claims[name])).hex() for name in ("maskKey", "shareKey")]
            for key in keys:  # a key of low order gives no secret
                _PROBE.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(key)))
            chosen = bytes.fromhex(str(claims["chosen"])).hex()
            return cls(str(claims["sub"]), str(claims["study"]), int(claims["secureRound"]), keys[0], keys[1], chosen)
        except (KeyError, TypeError, ValueError) as error:
            raise BadMessage(f"an announcement of keys cannot be used: {error}") from error


def bitmap(setting: Setting, chosen: Iterable[str]) -> str:
    """Return the holders chosen as a bitmap in hex."""
    marks = np.isin(np.array(setting.holders), list(chosen))
    return np.packbits(marks).tobytes().hex()


def chosen_by(setting: Setting, said: Announcement) -> frozenset[str]:
    """Return whom a party chose; everybody else where everybody shares with everybody.

    Raises:
        BadMessage: the choice is not one of ``setting.degree`` others.

    """
    if setting.complete:
        return frozenset(setting.holders) - {said.party}
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(said.chosen), dtype=np.uint8))
    found = frozenset(h for h, bit in zip(setting.holders, bits, strict=False) if bit)
    if len(found) != setting.degree or said.party in found or bits[len(setting.holders) :].any():
        raise BadMessage(f"{said.party} did not choose {setting.degree} others to share masks with")
    return found


Roster = Mapping[str, Announcement]


def checked(setting: Setting, number: int, roster: Roster) -> dict[str, Announcement]:
    """Return a round's announcements in the order of the parties.

    Raises:
        BadMessage: somebody is no holder, speaks for another, or of another study or round; or there are too few.

    """
    ordered = {party: roster[party] for party in sorted(roster)}
    for party, said in ordered.items():
        if party not in setting.holders or (said.party, said.study, said.round) != (party, setting.study, number):
            raise BadMessage(f"the announced keys of {party} are not for this study and round")
        chosen_by(setting, said)
    if len(ordered) < setting.threshold(len(ordered)):
        raise BadMessage(f"{len(ordered)} parties are too few where {setting.colluding} may collude")
    return ordered


def roster_digest(roster: Roster) -> str:
    """Return the digest of a round's announcements."""
    said = [roster[party] for party in sorted(roster)]  # no DID has a blank
    lines = [f"{a.party} {a.study} {a.round} {a.mask_key} {a.share_key} {a.chosen}\n" for a in said]
    return sha256(f"ihds roster\n{''.join(lines)}".encode())


@dataclass(frozen=True, slots=True)
class Shares(Said):
    """A party's sealed shares of its two secrets, one box for each party of the round in their order.

    ``commitments`` (parties, 2 × 32) are digests of the shares of mask key and self-mask seed;
    ``seed`` is that of the self-mask seed; the mask key has its public half for that.
    """

    party: str
    study: str
    round: int
    roster: str
    seed: str
    boxes: Bytes
    commitments: Bytes

    def claims(self) -> dict[str, Any]:
        """Return what the party signs."""
        large = {"boxes": sha256(self.boxes.tobytes()), "commitments": sha256(self.commitments.tobytes())}
        names = {"sub": self.party, "study": self.study, "secureRound": self.round, "roster": self.roster}
        return {**names, "seed": self.seed, **large}

    def of_round(self, roster: Roster, named: str) -> None:
        """Check that these shares are of a round with this roster.

        Raises:
            BadMessage: they are not, or not for each of it.

        """
        parties = len(roster)
        shapes = (self.boxes.shape, self.commitments.shape) == ((parties, BOX_BYTES), (parties, 64))
        known = roster.get(self.party)
        if known is None or (self.study, self.round, self.roster) != (known.study, known.round, named) or not shapes:
            raise BadMessage(f"the shares of {self.party} are not of this round")

    def bound(self, place: int, *, survived: bool) -> tuple[str, bytes]:
        """Return which share of a party is revealed to a sum, and the digest this dealer is bound to."""
        both = self.commitments[place].tobytes()
        return ("seed", both[32:]) if survived else ("mask", both[:32])


def words_digest(words: Words) -> str:
    """Return the digest of masked words."""
    return sha256(memoryview(np.ascontiguousarray(words)).cast("B"))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Masked(Said):
    """What binds a party to its masked words: keys and state of the round determine the words under the masks."""

    party: str
    digest: str
    words: str

    def claims(self) -> dict[str, Any]:
        """Return what the party signs."""
        return {"sub": self.party, "secureRoundDigest": self.digest, "words": self.words}


@dataclass(frozen=True, slots=True)
class Survivors(Said):
    """A party's word that it will help to open the sum of these parties, and of no others, in a round."""

    party: str
    digest: str
    survivors: str

    def claims(self) -> dict[str, Any]:
        """Return what the party signs."""
        return {"sub": self.party, "secureRoundDigest": self.digest, "survivors": self.survivors}

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Self:
        """Read verified claims.

        Raises:
            BadMessage: a field is missing.

        """
        try:
            return cls(str(claims["sub"]), str(claims["secureRoundDigest"]), str(claims["survivors"]))
        except KeyError as error:
            raise BadMessage(f"a confirmation lacks {error}") from error


@dataclass(frozen=True, slots=True)
class Reveal(Said):
    """A party's shares for one survivor set, (sharers, 33) in order: of the seed of who survived, else of the mask key.

    Rows of zeros are shares it never had: boxes of these ``unreadable`` senders did not open.
    """

    party: str
    digest: str
    survivors: str
    unreadable: tuple[str, ...]
    shares: Bytes

    def claims(self) -> dict[str, Any]:
        """Return what the party signs."""
        names = {"sub": self.party, "secureRoundDigest": self.digest, "survivors": self.survivors}
        return {**names, "unreadable": list(self.unreadable), "shares": sha256(self.shares.tobytes())}
