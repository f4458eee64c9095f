"""Who opted out, by pseudonym: two keyed hashes, and which choices stood at an instant as known at a version.

The first key turns a national identifier into the registry's name of a person; the second, one for each
holder's dataset, turns that into what the holder is told. Both are BLAKE2b with a key (RFC 7693). Whoever
lacks the second key of a dataset can join its list with nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: One entry as it travels: pseudonym, scope by its place in the list beside it, whether out, two times in seconds.
ENTRY = np.dtype([("token", "<u8"), ("scope", "u1"), ("out", "u1"), ("holds_from", "<i8"), ("recorded_at", "<i8")])

Tokens = NDArray[np.uint64]


def normal(country: str, identifier: str) -> bytes:
    """Return a national identifier as it is hashed: without spaces and punctuation, in capitals, with its country."""
    text = unicodedata.normalize("NFKC", identifier)
    return f"{country.upper()}:{''.join(c for c in text if c.isalnum()).upper()}".encode()


def _hasher(key: bytes, size: int) -> Callable[[bytes], bytes]:
    """Return a keyed hash; the key is worked in once, for it costs as much as a short text."""
    begun = blake2b(digest_size=size, key=key)

    def hashed(data: bytes) -> bytes:
        state = begun.copy()
        state.update(data)
        return state.digest()

    return hashed


def subject(key: bytes, country: str, identifier: str) -> str:
    """Return the registry's name of a person, as hex."""
    return _hasher(key, 16)(normal(country, identifier)).hex()


def told(key: bytes, subjects: Iterable[str]) -> Tokens:
    """Return what one dataset's holder is told of persons the registry names."""
    hashed = _hasher(key, 8)
    return np.frombuffer(b"".join([hashed(bytes.fromhex(s)) for s in subjects]), dtype="<u8")


def tokens(first: bytes, second: bytes, country: str, identifiers: pd.Series) -> Tokens:
    """Return the pseudonyms (n,) of a holder's persons; 0 where a person has no identifier."""
    known = identifiers.notna().to_numpy()
    texts = identifiers[known].astype(str).tolist()
    plain = "".join(texts)
    if plain.isascii() and plain.isalnum():  # nothing to take out: the common case
        head = f"{country}:".upper()
        read = [(head + text).upper().encode() for text in texts]
    else:
        read = [normal(country, text) for text in texts]
    named, hashed = _hasher(first, 16), _hasher(second, 8)
    found = np.zeros(len(identifiers), dtype=np.uint64)
    found[known] = np.frombuffer(b"".join([hashed(named(text)) for text in read]), dtype="<u8")
    return found


@dataclass(frozen=True)
class History:
    """A registry's entries for one dataset, oldest first; the first has version 1."""

    scopes: tuple[str, ...] = ()
    entries: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=ENTRY))

    @property
    def version(self) -> int:
        """The number of entries."""
        return len(self.entries)

    def out(self, at: int, version: int, scopes: Sequence[str]) -> Tokens:
        """Return, in order, the pseudonyms out in any of some scopes at an instant, as known at a version.

        The choice that holds from latest wins; of two from the same second the one recorded later.
        """
        known = self.entries[:version]
        wanted = np.isin(known["scope"], [i for i, s in enumerate(self.scopes) if s in set(scopes)])
        standing = known[wanted & (known["holds_from"] <= at)]
        order = np.argsort(standing["token"])
        name = standing["token"][order]
        again = np.zeros(len(name), dtype=bool)
        again[1:] = name[1:] == name[:-1]
        again[:-1] |= again[1:].copy()
        once = standing[order[~again]]
        often = _last(standing[np.sort(order[again])])
        out = np.sort(np.concatenate([part["token"][part["out"] == 1] for part in (once, often)]))
        return out[np.concatenate([[True], out[1:] != out[:-1]])] if len(out) else out


def _last(entries: NDArray[Any]) -> NDArray[Any]:
    """Return the entry that stands for each person and scope, of entries in the order of their versions."""
    held = entries[np.lexsort((entries["holds_from"], entries["scope"], entries["token"]))]  # it keeps that order
    last = np.ones(len(held), dtype=bool)
    last[:-1] = (held["token"][1:] != held["token"][:-1]) | (held["scope"][1:] != held["scope"][:-1])
    return np.asarray(held[last])


def among(persons: Tokens, out: Tokens) -> NDArray[np.bool_]:
    """Return which persons (n,) are out; whoever has no pseudonym is not."""
    at = np.searchsorted(out, persons)
    at[at == len(out)] = 0
    return np.asarray((out[at] == persons) & (persons != 0)) if len(out) else np.zeros(len(persons), dtype=bool)
