"""A private fingerprint of the persons a query covers: it tells whether two queries cover nearly the same.

Each row gives a weight to its person, both from a keyed hash; the fingerprint is the power sums
of that weighting over the field of 2^31 - 1 (Prony 1795; Ben-Or & Tiwari 1988). The difference of
two fingerprints obeys a linear recurrence of length k where the rows of k persons differ, so a
difference of few persons is seen for certain, and one of many never looks small. Which persons
they are cannot be read without the site's key.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ihds.privacy.disclosure import MOST_DIFFERENCE

Words = NDArray[np.uint64]

_PRIME = 2**31 - 1
#: Power sums of a fingerprint: twice the largest threshold, and two so that chance cannot imitate a small difference.
TERMS = 2 * MOST_DIFFERENCE + 2
_CHUNK = 1 << 14  # rows per step: they stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Marks:
    """Per row of a table (n,): the mark of its person, and that of the row among the person's rows."""

    person: Words
    row: Words

    def of(self, rows: NDArray[np.intp]) -> Marks:
        """Return the marks of rows by position; those stay what they are in the whole table."""
        return Marks(self.person[rows], self.row[rows])


def marks(secret: bytes, persons: Iterable[Any] | None, rows: int) -> Marks:
    """Return the marks of a table's rows, under a secret of the site.

    ``persons`` are identifiers, block by block of the rows, or None where nobody is named: then a row is a
    person by its position, as is a row without an identifier.
    """
    if persons is None:
        person = np.concatenate([_hashed(secret, "position", part) for part in _positions(rows)])
        return Marks(person, np.broadcast_to(_hashed(secret, "row", np.zeros(1, dtype=int)), rows))
    person, at = np.empty(rows, dtype=np.uint64), 0
    for identifiers in persons:
        block = pd.Series(identifiers).reset_index(drop=True)
        nobody = np.flatnonzero(block.isna())
        named = block.mask(block.isna(), "") if len(nobody) else block
        person[at : at + len(block)] = _hashed(secret, "person", named.to_numpy())
        person[at + nobody] = _hashed(secret, "position", at + nobody)
        at += len(block)
    place = pd.Series(person).groupby(person).cumcount().to_numpy()
    row = _hashed(secret, "row", np.arange(place.max(initial=0) + 1))
    return Marks(person, row[place] if place.any() else np.broadcast_to(row[0], rows))


def _positions(rows: int) -> Iterator[NDArray[np.intp]]:
    return (np.arange(at, min(at + _CHUNK, rows)) for at in range(0, max(rows, 1), _CHUNK))


def _hashed(secret: bytes, kind: str, values: NDArray[Any]) -> Words:
    """Return SipHash-2-4 of texts as numbers of the field, none of them 0."""
    key = base64.b64encode(hmac.digest(secret, kind.encode(), "sha256")[:12]).decode()  # the 16 letters it takes
    texts = values if pd.api.types.infer_dtype(values) == "string" else values.astype(str).astype(object)
    hashed = pd.util.hash_array(texts, hash_key=key, categorize=False)
    return np.asarray(hashed % np.uint64(_PRIME - 1) + np.uint64(1), dtype=np.uint64)


def fingerprint(marked: Marks, rows: NDArray[np.bool_]) -> Words:
    """Return the fingerprint (TERMS,) of the rows flagged (n,)."""
    found = np.zeros(TERMS, dtype=np.uint64)
    person, row = marked.person[rows], marked.row[rows]
    prime, bits = np.uint64(_PRIME), np.uint64(31)
    for at in range(0, len(person), _CHUNK):
        x, power = person[at : at + _CHUNK], row[at : at + _CHUNK].copy()
        high = np.empty_like(power)
        for term in range(TERMS):
            found[term] += power.sum()
            np.multiply(power, x, out=power)
            for _ in range(2):  # 2^31 is 1 here: fold the upper bits down; below 2^31 + 1 after two
                np.right_shift(power, bits, out=high)
                np.bitwise_and(power, prime, out=power)
                np.add(power, high, out=power)
        found %= prime
    return found


def without(whole: Words, part: Words) -> Words:
    """Return the fingerprint of rows less that of some of them."""
    return (whole + np.uint64(_PRIME) - part) % np.uint64(_PRIME)


def differing(one: Words, other: Words, least: int) -> int:
    """Return how many persons differ between two populations, or ``least`` if so many or more do.

    Berlekamp & Massey: the length of the shortest recurrence that the difference obeys.
    """
    sums = [int(v) for v in without(one, other)]
    current, before = [1], [1]
    length, gap, scale = 0, 1, 1
    for n, value in enumerate(sums):
        miss = (value + sum(current[i] * sums[n - i] for i in range(1, min(length, len(current) - 1) + 1))) % _PRIME
        if miss == 0:
            gap += 1
            continue
        factor = miss * pow(scale, -1, _PRIME) % _PRIME
        kept = list(current)
        current += [0] * (len(before) + gap - len(current))
        for i, c in enumerate(before):
            current[i + gap] = (current[i + gap] - factor * c) % _PRIME
        if 2 * length <= n:
            length, before, scale, gap = n + 1 - length, kept, miss, 1
            if length >= least:
                return least
        else:
            gap += 1
    return length
