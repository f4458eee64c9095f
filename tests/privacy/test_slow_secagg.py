"""The fast secure sums against the slow ones: every byte that is said, and the sum, with drop-outs at random."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.privacy.secagg import opening
from tests.privacy import slow_secagg as slow
from tests.privacy.rounds import STATE, Ring, drawn


def secrets_of(party) -> dict[str, bytes]:
    return {name: bytes.fromhex(getattr(party, name)) for name in ("mask_key", "share_key", "self_seed", "coins")}


def test_the_slow_primitives_are_those_of_their_standards():
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert slow.x25519(scalar, point).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert slow.hkdf(b"\x0b" * 22, "", "", 42).hex() == expected
    first = slow.stream(bytes(16), 2)  # test case 2 of the GCM specification
    assert b"".join(w.to_bytes(8, "little") for w in first).hex() == "0388dace60b6a392f328c2b971b2fe78"


@settings(max_examples=10, deadline=None)
@given(n=st.integers(2, 6), size=st.integers(0, 9), data=st.data())
def test_fast_and_slow_say_the_same_bytes_and_open_the_same_sum(n, size, data):
    ring = Ring.shared(n, colluding=data.draw(st.integers(0, n - 2)))
    setting, words, secret = ring.setting, drawn(ring.setting, size, n), {}
    t = slow.threshold(n, setting.colluding)
    holders = list(setting.holders)
    vanish = data.draw(st.sets(st.sampled_from(holders), max_size=n - t))
    left = [h for h in holders if h not in vanish]
    secret = {h: secrets_of(p) for h, p in ring.parties.items()}
    roster = [slow.announce(setting.study, 0, h, secret[h]) for h in holders]
    assert roster == [ring.roster[h].claims() for h in holders]
    dealt = {h: slow.share(setting.colluding, h, secret[h], roster) for h in holders}
    for h in holders:
        assert b"".join(dealt[h]["boxes"]) == ring.shares[h].boxes.tobytes()
        assert "".join(dealt[h]["commitments"]) == ring.shares[h].commitments.tobytes().hex()
        assert dealt[h]["seed"] == ring.shares[h].seed
    ring.enter({h: words[h] for h in left})
    named = slow.round_digest(setting.study, 0, roster, STATE, holders)
    assert named == ring.opening(left).digest
    masked = {}
    for h in left:
        others = {a["sub"]: bytes.fromhex(a["maskKey"]) for a in roster if a["sub"] != h}
        mine = slow.masks(h, secret[h]["mask_key"], secret[h]["self_seed"], others, named, size)
        masked[h] = slow.mask([int(w) for w in words[h]], mine)
        assert masked[h] == [int(w) for w in ring.masked[h]]
    shown, reveals = ring.reveals(left), {}
    for at, h in enumerate(holders):
        if h in left:
            boxes = [dealt[d]["boxes"][at] for d in holders]
            reveals[h] = slow.reveal(h, secret[h], roster, holders, left, boxes)
            assert b"".join(s.to_bytes(33, "big") for s in reveals[h]) == shown[h].shares.tobytes()
            assert shown[h].survivors == slow.survivors_digest(left)
    total = slow.open_sum(roster, holders, left, named, masked, reveals, t)
    found = opening.recover(ring.opening(left), ring.shares, shown)
    fast = np.sum([ring.masked[h] for h in left], axis=0, dtype=np.uint64)
    assert [int(w) for w in opening.unmask(fast, ring.opening(left), found)] == total
    assert total == [sum(int(words[h][i]) for h in left) % 2**64 for i in range(size)]
