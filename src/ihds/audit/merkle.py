"""The Merkle tree of RFC 6962: hashes, incremental root, inclusion and consistency proofs; no I/O."""

from __future__ import annotations

import hashlib


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def extend(frontier: list[bytes], size: int, leaf: bytes) -> list[bytes]:
    """Return the frontier (roots of the full subtrees, largest first) after one more leaf."""
    grown = [*frontier, leaf]
    while size & 1:
        right = grown.pop()
        grown[-1] = node_hash(grown[-1], right)
        size >>= 1
    return grown


def frontier_root(frontier: list[bytes]) -> bytes:
    """Return the root a frontier stands for."""
    if not frontier:
        return hashlib.sha256(b"").digest()
    root = frontier[-1]
    for left in reversed(frontier[:-1]):
        root = node_hash(left, root)
    return root


def root(leaves: list[bytes]) -> bytes:
    """Return the root over leaf hashes, by definition: the slow twin of ``extend``."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return node_hash(root(leaves[:k]), root(leaves[k:]))


def _split(n: int) -> int:
    """Return the largest power of two smaller than ``n``."""
    return 1 << (n - 1).bit_length() - 1


class Tree:
    """A growing tree that keeps the roots of its full subtrees: a proof costs about log n hashes, not n."""

    def __init__(self) -> None:
        """Begin empty."""
        self._levels: list[bytearray] = [bytearray()]

    def __len__(self) -> int:
        """Return the number of leaves."""
        return len(self._levels[0]) // _HASH

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        value, level = leaf, 0
        while True:
            if level == len(self._levels):
                self._levels.append(bytearray())
            row = self._levels[level]
            row += value
            if len(row) // _HASH % 2:
                return
            value, level = node_hash(bytes(row[-2 * _HASH : -_HASH]), bytes(row[-_HASH:])), level + 1

    def root(self, size: int) -> bytes:
        """Return the root over the first ``size`` leaves."""
        return self._part(0, size) if size else root([])

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Return the audit path of a leaf in the tree of the first ``size`` leaves (RFC 6962 §2.1.1)."""
        start, count, path = 0, size, list[bytes]()
        while count > 1:
            k = _split(count)
            left = index < start + k
            path.append(self._part(start + k, count - k) if left else self._part(start, k))
            start, count = (start, k) if left else (start + k, count - k)
        return path[::-1]

    def consistency(self, old: int, size: int) -> list[bytes]:
        """Return the proof that the first ``old`` leaves are a prefix of the first ``size`` (RFC 6962 §2.1.2)."""
        if not 0 < old < size:
            return []
        start, count, m, path, complete = 0, size, old, list[bytes](), True
        while m != count:
            k = _split(count)
            if m <= k:
                path.append(self._part(start + k, count - k))
                count = k
            else:
                path.append(self._part(start, k))
                start, count, m, complete = start + k, count - k, m - k, False
        return ([] if complete else [self._part(start, count)]) + path[::-1]

    def _part(self, start: int, count: int) -> bytes:
        """Return the root of a subtree; one of 2^k leaves begins at a multiple of 2^k and is kept."""
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            at = _HASH * (start >> level)
            return bytes(self._levels[level][at : at + _HASH])
        k = _split(count)
        return node_hash(self._part(start, k), self._part(start + k, count - k))


_HASH = 32


def verify_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes], expected: bytes) -> bool:
    """Return whether a proof shows that the leaf stands at ``index`` of the tree."""
    if not 0 <= index < size:
        return False
    position, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position % 2 or position == last:
            value = node_hash(sibling, value)
            while position % 2 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and value == expected


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: list[bytes]) -> bool:
    """Return whether a proof shows that the new tree extends the old one (RFC 9162 §2.1.4.2)."""
    if old == new:
        return old_root == new_root and not proof
    if old == 0:
        return not proof
    if old > new or not proof:
        return False
    path = list(proof)
    if old & (old - 1) == 0:
        path = [old_root, *path]
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while position & 1 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root
