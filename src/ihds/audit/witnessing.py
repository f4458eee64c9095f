"""Who witnesses whose log, and whether a log that is shown again extends what was seen before; pure.

A checkpoint binds its node to all entries before it. Witnesses keep the last one they saw, ask for the
proof that the next extends it, and sign it: a node that rewrites its log alone is found by each of them.

Source  RFC 9162 §2.1.4 (consistency), C2SP tlog-checkpoint and tlog-cosignature (the idea of witnesses).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ihds.audit import merkle
from ihds.audit.log import checkpoint_text
from ihds.canonical import sha256
from ihds.errors import BadMessage

#: How many members witness each log, if there are so many.
WITNESSES = 3


def witnesses(log: str, members: Mapping[str, str], number: int = WITNESSES) -> tuple[str, ...]:
    """Return who witnesses a log: members of other countries first, then by a digest nobody chooses.

    ``members`` are all members with their countries. Everybody computes the same; a new member takes over
    few logs (rendezvous hashing).
    """
    home = members.get(log, "")

    def place(other: str) -> tuple[bool, str]:
        return members[other] == home, sha256(f"{log}|{other}".encode())

    return tuple(sorted((m for m in members if m != log), key=place)[:number])


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a node signed of its log."""

    log: str
    size: int
    root: str
    signature: str

    @property
    def text(self) -> str:
        """The text that was signed."""
        return checkpoint_text(self.log, self.size, bytes.fromhex(self.root))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"log": self.log, "size": self.size, "root": self.root, "signature": self.signature}

    @classmethod
    def read(cls, log: str, told: Mapping[str, Any], signed: Callable[[bytes, str], bool]) -> Checkpoint:
        """Read what a node tells of its log; ``signed`` verifies a signature of its keys.

        Raises:
            BadMessage: it is not a checkpoint of this log, or not signed by it.

        """
        try:
            size, root = int(told["size"]), bytes.fromhex(told["root"])
            found = cls(log, size, root.hex(), str(told["signature"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadMessage(f"{log}: this is not a checkpoint: {error!r}") from error
        if size < 0 or len(root) != 32 or not signed(found.text.encode(), found.signature):
            raise BadMessage(f"{log}: its checkpoint over {size} entries is not signed by it")
        return found


def grown(before: Checkpoint, after: Checkpoint, proof: list[str]) -> str:
    """Return why a log does not extend what was seen of it before; empty if it does."""
    if after.size < before.size:
        return f"it was rolled back: {before.size} entries were signed, now there are {after.size}"
    if after.size == before.size and after.root != before.root:
        return f"it shows two histories of {after.size} entries"
    try:
        path = [bytes.fromhex(h) for h in proof]
    except (TypeError, ValueError):
        path = []
    roots = bytes.fromhex(before.root), bytes.fromhex(after.root)
    if not merkle.verify_consistency(before.size, after.size, *roots, path):
        return f"its {after.size} entries do not begin with the {before.size} it signed before"
    return ""
