from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.privacy import secagg
from ihds.privacy.secagg import MaskKey


def parties(n: int, study: str = "s"):
    keys = {f"did:web:p{i}": MaskKey.new() for i in range(n)}
    public = {d: k.public for d, k in keys.items()}
    return {d: secagg.seeds(k, d, public, study) for d, k in keys.items()}


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 8), size=st.integers(0, 300), seed=st.integers(0, 99))
def test_masks_cancel_in_the_sum_and_only_there(n, size, seed):
    rng = np.random.default_rng(seed)
    held = {d: rng.integers(0, 2**64, size, dtype=np.uint64) for d in parties(n)}
    seeds = parties(n)
    held = dict(zip(seeds, held.values(), strict=True))
    masked = {d: secagg.mask(held[d], d, s, "r") for d, s in seeds.items()}
    with np.errstate(over="ignore"):
        assert np.array_equal(sum(masked.values()), sum(held.values()))
    if size > 20:
        for d in held:
            assert np.mean(masked[d] == held[d]) < 0.1


def test_a_sum_without_one_party_is_noise():
    seeds = parties(4)
    masked = [secagg.mask(np.zeros(4000, dtype=np.uint64), d, s, "r") for d, s in seeds.items()]
    partial = np.sum(masked[:3], axis=0, dtype=np.uint64)
    bits = np.unpackbits(partial.view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.01
    assert len(np.unique(partial)) == 4000


def test_two_rounds_or_two_studies_never_share_a_mask():
    zero = np.zeros(100, dtype=np.uint64)
    seeds = parties(3)
    did = next(iter(seeds))
    one, two = (secagg.mask(zero, did, seeds[did], r) for r in ("r1", "r2"))
    assert not np.any(one == two)
    keys = {d: MaskKey.new() for d in seeds}
    public = {d: k.public for d, k in keys.items()}
    for other in ("a", "b"):
        assert secagg.seeds(keys[did], did, public, other) == secagg.seeds(keys[did], did, public, other)
    assert secagg.seeds(keys[did], did, public, "a") != secagg.seeds(keys[did], did, public, "b")


def test_a_mask_longer_than_one_step_is_the_same_stream():
    seeds = parties(2)
    did = next(iter(seeds))
    long = secagg.mask(np.zeros(200_000, dtype=np.uint64), did, seeds[did], "r")
    short = secagg.mask(np.zeros(50_000, dtype=np.uint64), did, seeds[did], "r")
    assert np.array_equal(long[:50_000], short)


def test_the_secret_half_is_not_printed():
    key = MaskKey.new()
    assert key.raw.hex() not in repr(key)
    with pytest.raises(AttributeError):
        key.raw = b""  # type: ignore[misc]
