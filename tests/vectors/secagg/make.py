"""Writes round.json and bad.json with the slow implementation: python -m tests.vectors.secagg.make."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.privacy import slow_secagg as slow

HERE = Path(__file__).parent
STUDY, STATE, NUMBER, COLLUDING, SIZE = "ab" * 32, "5e" * 32, 7, 1, 5
HOLDERS = [f"did:web:{name}.example" for name in ("a", "b", "c", "d", "e")]
NAMES = ("mask_key", "share_key", "self_seed", "coins")


def drawn(*what: object) -> bytes:
    return hashlib.sha256("|".join(map(str, ("ihds vector", *what))).encode()).digest()


def good() -> dict:
    """One round of five, of whom one vanishes before it answered and one after."""
    secret = {h: {name: drawn(h, name) for name in NAMES} for h in HOLDERS}
    words = {h: [int.from_bytes(drawn(h, "word", i)[:8], "big") for i in range(SIZE)] for h in HOLDERS}
    roster = [slow.announce(STUDY, NUMBER, h, secret[h]) for h in HOLDERS]
    dealt = {h: slow.share(COLLUDING, h, secret[h], roster) for h in HOLDERS}
    named = slow.round_digest(STUDY, NUMBER, roster, STATE, HOLDERS)
    keys = {a["sub"]: bytes.fromhex(a["maskKey"]) for a in roster}
    masked = {}
    for h in HOLDERS:
        others = {o: k for o, k in keys.items() if o != h}
        mine = slow.masks(h, secret[h]["mask_key"], secret[h]["self_seed"], others, named, SIZE)
        masked[h] = slow.mask(words[h], mine)
    survivors, t = HOLDERS[:4], slow.threshold(len(HOLDERS), COLLUDING)
    reveals = {}
    for at, h in enumerate(HOLDERS[:4]):
        boxes = [dealt[d]["boxes"][at] for d in HOLDERS]
        reveals[h] = slow.reveal(h, secret[h], roster, HOLDERS, survivors, boxes)
    total = slow.open_sum(roster, HOLDERS, survivors, named, masked, reveals, t)
    return {
        "study": STUDY,
        "state": STATE,
        "number": NUMBER,
        "colluding": COLLUDING,
        "threshold": t,
        "secrets": {h: {name: value.hex() for name, value in s.items()} for h, s in secret.items()},
        "announcements": roster,
        "roster_digest": slow.roster_digest(roster),
        "shares": {h: {**d, "boxes": [b.hex() for b in d["boxes"]]} for h, d in dealt.items()},
        "digest": named,
        "words": {h: list(map(str, w)) for h, w in words.items()},
        "masked": {h: list(map(str, w)) for h, w in masked.items()},
        "survivors": survivors,
        "survivors_digest": slow.survivors_digest(survivors),
        "reveals": {h: [s.to_bytes(33, "big").hex() for s in r] for h, r in reveals.items()},
        "total": list(map(str, total)),
    }


def bad() -> list[dict]:
    """What must be refused or blamed: the step, what is changed of the good round, the error, what it says."""
    a, b, c, d, e = HOLDERS
    cases = [
        ("announcement", {"maskKey": "00" * 32}, "BadMessage", "cannot be used"),
        ("announcement", {"maskKey": "01" + "00" * 31}, "BadMessage", "cannot be used"),
        ("announcement", {"shareKey": "ab"}, "BadMessage", "cannot be used"),
        ("roster", {"study": "cd" * 32}, "BadMessage", "not for this study and round"),
        ("roster", {"secureRound": NUMBER - 1}, "BadMessage", "not for this study and round"),
        ("roster", {"sub": "did:web:f.example"}, "BadMessage", "not for this study and round"),
        ("roster-of", [a, b], "BadMessage", "too few"),
        ("roster-again", {"shareKey": slow.public(drawn("other")).hex()}, "Refused", "keys of a round changed"),
        ("enter", [HOLDERS[:3], STATE], "Refused", "too few"),
        ("enter", [HOLDERS[1:], STATE], "Refused", "not those whose keys were announced"),
        ("enter", [[*HOLDERS, "did:web:f.example"], STATE], "Refused", "not those whose keys were announced"),
        ("enter-again", [HOLDERS, "6f" * 32], "Refused", "under the same number"),
        ("enter-again", [HOLDERS[:4], STATE], "Refused", "under the same number"),
        ("confirm", [a, b, c], "Refused", "too few"),
        ("confirm", [b, c, d, e], "Refused", "this party is missing"),
        ("confirm", [a, b, c, d, "did:web:f.example"], "Refused", "not all of this round"),
        ("confirm-again", HOLDERS, "Refused", "another set was confirmed"),
        ("confirm-fixed", HOLDERS, "Refused", "two opened sums"),
        ("confirmed", {"by": [a, b, c]}, "Refused", "too few confirmed"),
        ("confirmed", {"survivors": slow.survivors_digest(HOLDERS)}, "Refused", "too few confirmed"),
        ("confirmed", {"digest": "00" * 32}, "Refused", "too few confirmed"),
        ("box", [b, 3], "fault", f"{b} sealed a box that does not open ({a})"),
        ("share", [c, 1], "fault", f"{c} revealed another share than was dealt ({b})"),
        ("reveals-of", [a, b, c], "SiteMissing", "cannot be taken off"),
        ("reveal", {"digest": "00" * 32}, "BadMessage", "of another round"),
        ("reveal", {"survivors": slow.survivors_digest(HOLDERS)}, "BadMessage", "of another round"),
        ("shares", {"roster": "00" * 32}, "BadMessage", "not of this round"),
        ("shares", {"round": NUMBER - 1}, "BadMessage", "not of this round"),
        ("shares", {"seed": "00" * 32}, "SiteMissing", f"{b} dealt shares that do not fit together (all)"),
    ]
    return [dict(zip(("step", "change", "error", "told"), case, strict=True)) for case in cases]


if __name__ == "__main__":
    for name, value in (("round", good()), ("bad", bad())):
        (HERE / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
