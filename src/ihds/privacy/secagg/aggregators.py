"""The second model of trust: aggregators in different jurisdictions, of whom one must be honest.

A holder takes from its words one mask for each aggregator and seals the mask's seed to it. The user adds the
masked words of who answered; each aggregator adds the masks of the same holders and tells that sum, once a round.
Only the user together with all aggregators learns more than the sum; holders need not wait for one another, and
who does not answer is simply not in it. Two aggregators told of different holders add masks that do not vanish.

Source: additive shares as in Prio (Corrigan-Gibbs & Boneh, NSDI 2017); sealing as in ECIES/HPKE (RFC 9180):
an ephemeral X25519 key, HKDF-SHA256 and AES-256-GCM.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ihds.canonical import digest
from ihds.errors import BadMessage, Refused
from ihds.privacy.secagg.messages import Said, words_digest
from ihds.privacy.secagg.setting import Setting
from ihds.privacy.secagg.stream import Stream, Words, apply, derive

#: Aggregators' DIDs and their X25519 keys in hex, as in what the user signed.
Aggregators = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Split(Said):
    """What binds a holder to its masked words, and the seed of its mask for each aggregator, sealed."""

    party: str
    digest: str
    words: str
    sealed: dict[str, str]

    def claims(self) -> dict[str, Any]:
        """Return what the holder signs."""
        return {"sub": self.party, "secureRoundDigest": self.digest, "words": self.words, "sealed": self.sealed}


def split_digest(setting: Setting, number: int, state: str, aggregators: Aggregators) -> str:
    """Return the digest that names a round under aggregators: study, number, what is asked, and their keys."""
    return digest(["ihds split round", setting.study, number, state, dict(aggregators)])


@dataclass(frozen=True, slots=True, repr=False)
class SplitParty:
    """One holder in one round; used like ``party.Party``, but there is nothing to share, confirm or reveal.

    ``secret`` are 32 bytes drawn for this round, to be erased after it.
    """

    setting: Setting
    me: str
    round: int
    aggregators: dict[str, str]
    secret: str
    state: str = ""

    def __repr__(self) -> str:
        return f"SplitParty({self.me!r}, round {self.round}, ...)"

    @classmethod
    def begin(cls, setting: Setting, me: str, number: int, aggregators: Aggregators) -> Self:
        """Draw the secret of a round; ``number`` counts the attempts of a study and never comes twice.

        Raises:
            BadMessage: there are fewer than two aggregators, or one of them holds data of the study.

        """
        if len(aggregators) < 2 or set(aggregators) & set(setting.holders):
            raise BadMessage("two aggregators or more are needed who hold no data of the study")
        return cls(setting, me, number, dict(aggregators), secrets.token_hex(32))

    def to_bytes(self) -> bytes:
        """Return everything, secrets included: to be sealed before it is stored."""
        return json.dumps({**asdict(self), "setting": self.setting.to_dict()}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return what ``to_bytes`` gave."""
        body = json.loads(data)
        return cls(**{**body, "setting": Setting.from_dict(body["setting"])})

    def enter(self, state: str, sharers: Iterable[str] = ()) -> tuple[SplitParty, str]:
        """Fix the round: the digest of what is asked; return the digest of the round.

        Raises:
            Refused: the round was entered with another state.

        """
        if self.state not in ("", state):
            raise Refused("another round was asked under the same number", remedy="begin another round")
        entered = replace(self, state=state)
        return entered, entered.digest()

    def digest(self) -> str:
        """Return the digest of the round."""
        return split_digest(self.setting, self.round, self.state, self.aggregators)

    def mask(self, words: Words) -> Words:
        """Take one mask for each aggregator from words in place, and return them."""
        return apply(words, [stream.undone for stream in self._streams()])

    def unmask(self, words: Words) -> Words:
        """Put the masks back in place: what an adjudicator does with an opened round."""
        return apply(words, self._streams())

    def masked(self, words: Words) -> Split:
        """Return what binds this holder to the words it sends, and the seeds for the aggregators."""
        named = self.digest()
        sealed = {
            a: _seal(self.secret, seed, self.me, a, self.aggregators[a], named) for a, seed in self._seeds().items()
        }
        return Split(self.me, named, words_digest(words), sealed)

    def _streams(self) -> list[Stream]:
        return [_stream(seed, self.me, self.digest()) for seed in self._seeds().values()]

    def _seeds(self) -> dict[str, bytes]:
        named = self.digest()
        return {a: _draw(self.secret, named, f"seed|{self.me}|{a}") for a in self.aggregators}


def masks(private: str, me: str, setting: Setting, named: str, survivors: Mapping[str, Split], size: int) -> Words:
    """Return the sum (size,) of the survivors' masks for this aggregator, which tells it once a round.

    ``survivors`` are what holders said, their signatures verified by the caller.

    Raises:
        Refused: they are too few, or somebody is no holder of the study or speaks of another round.
        BadMessage: a seed sealed to this aggregator does not open: its sender is named.

    """
    if len(survivors) < setting.threshold(len(setting.holders)):
        raise Refused(f"{me} does not open this sum", reasons=(f"survivors: {len(survivors)} are too few",))
    key = X25519PrivateKey.from_private_bytes(bytes.fromhex(private))
    public = key.public_key().public_bytes_raw().hex()
    streams = []
    for party, said in sorted(survivors.items()):
        if party not in setting.holders or (said.party, said.digest) != (party, named):
            raise Refused(f"{me} does not open this sum", reasons=(f"survivors: {party} is not of this round",))
        try:
            raw = bytes.fromhex(said.sealed[me])
            shared = key.exchange(X25519PublicKey.from_public_bytes(raw[:32]))
            seed = AESGCM(_box_key(shared, raw[:32], public, party, me, named)).decrypt(bytes(12), raw[32:], None)
        except (KeyError, ValueError, InvalidTag) as error:
            raise BadMessage(f"what {party} sealed to {me} does not open") from error
        streams.append(_stream(seed, party, named))
    return apply(np.zeros(size, dtype=np.uint64), streams)


def _stream(seed: bytes, party: str, named: str) -> Stream:
    return Stream(derive(seed, named, f"ihds split mask|{party}", 16), add=True)


def _draw(secret: str, named: str, use: str) -> bytes:
    return derive(bytes.fromhex(secret), named, f"ihds split {use}")


def _seal(secret: str, seed: bytes, me: str, aggregator: str, public: str, named: str) -> str:
    """Return a seed sealed to an aggregator; drawn from the round's secret, so that a judge can make it again."""
    once = X25519PrivateKey.from_private_bytes(_draw(secret, named, f"key|{me}|{aggregator}"))
    ephemeral = once.public_key().public_bytes_raw()
    shared = once.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    box = AESGCM(_box_key(shared, ephemeral, public, me, aggregator, named)).encrypt(bytes(12), seed, None)
    return (ephemeral + box).hex()


def _box_key(shared: bytes, ephemeral: bytes, public: str, sender: str, receiver: str, named: str) -> bytes:
    return derive(shared + ephemeral + bytes.fromhex(public), named, f"ihds split box|{sender}|{receiver}")
