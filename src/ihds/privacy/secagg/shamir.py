"""Threshold shares of 32-byte secrets: Shamir's scheme over the prime field of 2^256 + 297 elements.

Every sharing takes the same steps whatever the secret is. Who holds fewer shares than the threshold
knows nothing of the secret, whatever their computing power.

Source: Shamir 1979, "How to share a secret", CACM 22(11).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

#: The smallest prime above 2^256: every 32-byte secret is an element.
PRIME = 2**256 + 297
#: Bytes of one share.
SHARE_BYTES = 33

_DRAW = 48  # bytes per coefficient: what is left after reduction differs from uniform by less than 2^-126


def share(secret: bytes, coins: bytes, threshold: int, parties: int) -> list[bytes]:
    """Return one share per party 1..``parties``; any ``threshold`` of them give the secret back.

    ``coins`` are 32 secret random bytes used for this secret only; equal coins give equal shares.
    """
    drawn = hashlib.shake_256(b"ihds shamir|" + coins).digest(_DRAW * (threshold - 1))
    rest = [int.from_bytes(drawn[at : at + _DRAW], "big") % PRIME for at in range(0, len(drawn), _DRAW)]
    coefficients = [*rest, int.from_bytes(secret, "big")]  # highest power first
    shares = []
    for x in range(1, parties + 1):
        y = 0
        for coefficient in coefficients:
            y = (y * x + coefficient) % PRIME
        shares.append(y.to_bytes(SHARE_BYTES, "big"))
    return shares


def weights(points: Sequence[int]) -> list[int]:
    """Return Lagrange's weights at zero for shares of these parties (1, 2, ...)."""
    found = []
    for x in points:
        above, below = 1, 1
        for other in points:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return found


def combine(shares: Sequence[bytes], lagrange: Sequence[int]) -> bytes | None:
    """Return the secret that shares stand for, in the order of their ``weights``; None if it is not 32 bytes."""
    total = sum(int.from_bytes(s, "big") * w for s, w in zip(shares, lagrange, strict=True)) % PRIME
    return total.to_bytes(32, "big") if total < 2**256 else None
