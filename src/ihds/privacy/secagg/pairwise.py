"""Pairwise masks over Z_2^64: every contribution looks uniform, their sum is exact.

Each holder makes one X25519 key per study and signs it with its DID key (outside this module).
Two holders derive a seed bound to the study and to both DIDs; per round the seed and the digest of
the round give an AES-128-CTR stream (as strong as X25519), which one adds and the other subtracts
(Bonawitz et al., CCS 2017, without recovery of drop-outs: a missing site stops the round). Because
the round's digest enters the stream, a coordinator that tells two sites different rounds gets noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_CHUNK = 1 << 14  # words per step: the key stream stays in the processor's cache


@dataclass(frozen=True, slots=True)
class MaskKey:
    """The secret half of a holder's key for one study; never leaves the holder."""

    raw: bytes

    @classmethod
    def new(cls) -> MaskKey:
        """Return a fresh key."""
        return cls(X25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> bytes:
        """Return the 32 public bytes to announce."""
        return X25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw()

    def check(self, public: bytes) -> None:
        """Raise ValueError if a public key is not 32 bytes or gives no shared secret (low order)."""
        X25519PrivateKey.from_private_bytes(self.raw).exchange(X25519PublicKey.from_public_bytes(public))

    def fingerprint(self, data: bytes, round_digest: str) -> str:
        """Return a keyed fingerprint of a round's reply (AES-GMAC), by which a repeat is recognised.

        Only this holder can make or check it; it costs a tenth of a hash.
        """
        key = _derive(self.raw, b"", b"ihds reply fingerprint", length=16)
        return AESGCM(key).encrypt(bytes.fromhex(round_digest)[:12], b"", data).hex()

    def __repr__(self) -> str:
        return "MaskKey(...)"


def seeds(mine: MaskKey, me: str, announced: dict[str, bytes], study: str) -> dict[str, bytes]:
    """Return the 32-byte seed shared with every other holder, by DID.

    ``announced`` maps each holder's DID, own included, to its public key; ``study`` is the digest
    that names the study.
    """
    private = X25519PrivateKey.from_private_bytes(mine.raw)
    found = {}
    for other, public in announced.items():
        if other == me:
            continue
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        low, high = sorted((me, other))
        info = f"ihds mask seed|{low}|{high}".encode()
        found[other] = _derive(shared, study.encode(), info)
    return found


def _derive(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


def mask(words: Words, me: str, pair_seeds: dict[str, bytes], round_digest: str) -> Words:
    """Return a copy of ``words`` (n,) plus this holder's share of masks, modulo 2^64.

    Summed over all holders of the study the masks vanish.
    """
    return add_masks(words.copy(), me, pair_seeds, round_digest)


def add_masks(masked: Words, me: str, pair_seeds: dict[str, bytes], round_digest: str) -> Words:
    """Add this holder's share of masks to words in place, and return them."""
    streams = []
    for other, seed in sorted(pair_seeds.items()):
        key = _derive(seed, b"", f"ihds mask stream|{round_digest}".encode(), length=16)
        stream = Cipher(algorithms.AES128(key), modes.CTR(bytes(16))).encryptor()
        streams.append((me < other, stream))
    size = min(_CHUNK, max(len(masked), 1))
    zeros = bytes(size * 8)
    buffer = bytearray(size * 8 + 15)
    view = memoryview(buffer)
    pad = np.frombuffer(buffer, dtype=np.uint64, count=size)
    for at in range(0, len(masked), size):
        part = masked[at : at + size]
        n = len(part)
        for add, stream in streams:
            stream.update_into(memoryview(zeros)[: n * 8], view)
            if add:
                np.add(part, pad[:n], out=part)
            else:
                np.subtract(part, pad[:n], out=part)
    return masked
