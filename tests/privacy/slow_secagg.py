"""Secure sums once more, slow and obvious: from the papers and RFCs, in plain integers, sharing no code with ``ihds``.

X25519 is RFC 7748, HKDF is RFC 5869, the counter mode is SP 800-38A over single AES blocks of the
``cryptography`` package, whose AES-GCM seals the shares. Everything a party says is a plain dictionary.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PRIME = 2**256 + 297
RING = 2**64


# -- primitives ------------------------------------------------------------------------------------


def x25519(scalar: bytes, point: bytes) -> bytes:
    """RFC 7748, section 5."""
    p = 2**255 - 19
    k = int.from_bytes(scalar, "little") & ~7 & (2**255 - 1) | 2**254
    u = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3 = 1, 0, u, 1
    swapped = 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swapped != bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a, c * b
        x3, z3 = (da + cb) ** 2 % p, u * (da - cb) ** 2 % p
        e = a * a - b * b
        x2, z2 = a * a * b * b % p, e * (a * a + 121665 * e) % p
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


def public(scalar: bytes) -> bytes:
    return x25519(scalar, (9).to_bytes(32, "little"))


def hkdf(secret: bytes, salt: str, info: str, length: int) -> bytes:
    """RFC 5869 with SHA-256."""
    prk = hmac.new(salt.encode(), secret, hashlib.sha256).digest()
    block, out, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info.encode() + bytes([counter]), hashlib.sha256).digest()
        out, counter = out + block, counter + 1
    return out[:length]


def stream(key: bytes, size: int) -> list[int]:
    """The first ``size`` little-endian 64-bit words of AES-128 in counter mode from block 2, as GCM counts."""
    aes = Cipher(algorithms.AES128(key), modes.ECB()).encryptor()  # noqa: S305
    blocks = b"".join(aes.update(i.to_bytes(16, "big")) for i in range(2, size // 2 + 3))
    return [int.from_bytes(blocks[8 * i : 8 * i + 8], "little") for i in range(size)]


def sha(text: str, data: bytes = b"") -> str:
    return hashlib.sha256(text.encode() + data).hexdigest()


# -- Shamir ----------------------------------------------------------------------------------------


def deal(secret: bytes, coins: bytes, threshold: int, parties: int) -> list[int]:
    drawn = hashlib.shake_256(b"ihds shamir|" + coins).digest(48 * (threshold - 1))
    powers = [int.from_bytes(drawn[48 * i : 48 * i + 48], "big") for i in range(threshold - 1)]  # highest first
    secret_number = int.from_bytes(secret, "big")
    shares = []
    for x in range(1, parties + 1):
        value = secret_number
        for power, coefficient in zip(range(threshold - 1, 0, -1), powers, strict=True):
            value += coefficient * x**power
        shares.append(value % PRIME)
    return shares


def interpolate(points: dict[int, int]) -> int:
    """The polynomial through the points, at zero."""
    total = 0
    for x, y in points.items():
        term = y
        for other in points:
            if other != x:
                term = term * -other * pow(x - other, -1, PRIME) % PRIME
        total += term
    return total % PRIME


# -- one party -------------------------------------------------------------------------------------


def threshold(parties: int, colluding: int) -> int:
    return max((parties + colluding) // 2 + 1, colluding + 2)


def announce(study: str, number: int, me: str, secret: dict) -> dict:
    keys = {"maskKey": public(secret["mask_key"]).hex(), "shareKey": public(secret["share_key"]).hex()}
    return {"sub": me, "study": study, "secureRound": number, **keys, "chosen": ""}


def roster_digest(roster: list[dict]) -> str:
    names = ("sub", "study", "secureRound", "maskKey", "shareKey", "chosen")
    return sha("ihds roster\n" + "".join(" ".join(str(a[n]) for n in names) + "\n" for a in roster))


def share(colluding: int, me: str, secret: dict, roster: list[dict]) -> dict:
    """What a party deals to all, itself included; ``roster`` is in order of the DIDs."""
    index, t = roster_digest(roster), threshold(len(roster), colluding)
    dealt = {
        what: deal(secret[key], hkdf(secret["coins"], index, f"ihds coins|{what}", 32), t, len(roster))
        for what, key in (("mask", "mask_key"), ("seed", "self_seed"))
    }
    boxes, commitments = [], []
    for said, mask, seed in zip(roster, dealt["mask"], dealt["seed"], strict=True):
        to, pair = said["sub"], [mask.to_bytes(33, "big"), seed.to_bytes(33, "big")]
        shared = x25519(secret["share_key"], bytes.fromhex(said["shareKey"]))
        key = hkdf(shared, index, f"ihds share box|{me}|{to}", 32)
        boxes.append(AESGCM(key).encrypt(bytes(12), b"".join(pair), None))
        for what, value in zip(("mask", "seed"), pair, strict=True):
            commitments.append(sha(f"ihds share|{index}|{me}|{to}|{what}|", value))
    seed = sha(f"ihds self mask seed|{index}|{me}|", secret["self_seed"])
    return {"seed": seed, "boxes": boxes, "commitments": commitments}


def round_digest(study: str, number: int, roster: list[dict], state: str, sharers: list[str]) -> str:
    return sha(" ".join(["ihds secure round", study, str(number), roster_digest(roster), state, *sorted(sharers)]))


def masks(me: str, mask_key: bytes, self_seed: bytes, others: dict[str, bytes], named: str, size: int) -> list[int]:
    """The sum of a party's masks; ``others`` maps those it shares masks with to their public keys."""
    total = stream(hkdf(self_seed, named, f"ihds self mask|{me}", 16), size)
    for other, key in others.items():
        low, high = sorted((me, other))
        pair = stream(hkdf(x25519(mask_key, key), named, f"ihds pair mask|{low}|{high}", 16), size)
        total = [(a + b if me < other else a - b) % RING for a, b in zip(total, pair, strict=True)]
    return total


def mask(words: list[int], mine: list[int]) -> list[int]:
    return [(a + b) % RING for a, b in zip(words, mine, strict=True)]


def survivors_digest(survivors: list[str]) -> str:
    return sha(" ".join(["ihds survivors", *sorted(survivors)]))


def reveal(
    me: str, secret: dict, roster: list[dict], sharers: list[str], survivors: list[str], boxes: list[bytes]
) -> list[int | None]:
    """A party's share of each sharer: of the seed of a survivor, of the mask key of another; None if unreadable."""
    index, found = roster_digest(roster), []
    keys = {a["sub"]: bytes.fromhex(a["shareKey"]) for a in roster}
    for sender, box in zip(sharers, boxes, strict=True):
        key = hkdf(x25519(secret["share_key"], keys[sender]), index, f"ihds share box|{sender}|{me}", 32)
        try:
            pair = AESGCM(key).decrypt(bytes(12), box, None)
        except InvalidTag:
            found.append(None)
            continue
        found.append(int.from_bytes(pair[33:] if sender in survivors else pair[:33], "big"))
    return found


# -- the coordinator -------------------------------------------------------------------------------


def open_sum(
    roster: list[dict],
    sharers: list[str],
    survivors: list[str],
    named: str,
    masked: dict[str, list[int]],
    reveals: dict[str, list[int]],
    t: int,
) -> list[int]:
    """Add the survivors' words, put secrets together from ``t`` reveals, and take every mask off."""
    places = {a["sub"]: at + 1 for at, a in enumerate(roster)}
    keys = {a["sub"]: bytes.fromhex(a["maskKey"]) for a in roster}
    some = sorted(reveals)[:t]
    size = len(next(iter(masked.values())))
    total = [sum(masked[p][i] for p in survivors) % RING for i in range(size)]
    for at, dealer in enumerate(sharers):
        secret = interpolate({places[p]: reveals[p][at] for p in some}).to_bytes(32, "big")
        if dealer in survivors:
            left = stream(hkdf(secret, named, f"ihds self mask|{dealer}", 16), size)
            total = [(a - b) % RING for a, b in zip(total, left, strict=True)]
            continue
        for other in survivors:  # what the survivor added for the pair is still in the sum
            low, high = sorted((dealer, other))
            pair = stream(hkdf(x25519(secret, keys[other]), named, f"ihds pair mask|{low}|{high}", 16), size)
            total = [(a - b if other < dealer else a + b) % RING for a, b in zip(total, pair, strict=True)]
    return total
