"""The Merkle tree of RFC 6962: hashes, incremental root, inclusion and consistency proofs; pure."""

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


def inclusion_proof(leaves: list[bytes], index: int) -> list[bytes]:
    """Return the audit path of a leaf (RFC 6962 §2.1.1)."""
    if len(leaves) <= 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*inclusion_proof(leaves[:k], index), root(leaves[k:])]
    return [*inclusion_proof(leaves[k:], index - k), root(leaves[:k])]


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


def consistency_proof(leaves: list[bytes], old: int) -> list[bytes]:
    """Return the proof that the first ``old`` leaves are a prefix (RFC 6962 §2.1.2)."""

    def subproof(m: int, part: list[bytes], complete: bool) -> list[bytes]:
        if m == len(part):
            return [] if complete else [root(part)]
        k = _split(len(part))
        if m <= k:
            return [*subproof(m, part[:k], complete), root(part[k:])]
        return [*subproof(m - k, part[k:], False), root(part[:k])]

    return subproof(old, leaves, True) if 0 < old < len(leaves) else []


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
