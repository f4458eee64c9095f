from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.canonical import digest, pack, unpack
from ihds.errors import BadMessage


@dataclass(frozen=True, slots=True)
class Inner:
    name: str
    values: np.ndarray


@dataclass(frozen=True, slots=True)
class Outer:
    number: float
    count: int
    flag: bool
    maybe: float | None
    pairs: tuple[tuple[str, int], ...]
    levels: dict[str, tuple[str, ...]]
    inner: Inner


def make(number=1.5, size=3):
    inner = Inner("é", np.linspace(0, 1, size))
    return Outer(number, 2, True, None, (("a", 1),), {"x": ("u", "v")}, inner)


@settings(max_examples=50, deadline=None)
@given(number=st.floats(allow_nan=False), size=st.integers(0, 50))
def test_what_is_packed_comes_back_and_equal_values_give_equal_bytes(number, size):
    value = make(number, size)
    back = unpack(Outer, pack(value))
    assert pack(back) == pack(value) == pack(make(number, size))
    assert back.number == number
    assert np.array_equal(back.inner.values, value.inner.values)
    assert back.levels == value.levels


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_body_is_named_or_read_as_some_value_but_never_crashes(at, byte):
    data = bytearray(pack(make()))
    data[at % len(data)] = byte
    with contextlib.suppress(BadMessage):
        unpack(Outer, bytes(data))


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 40])
def test_a_cut_body_is_named(cut):
    with pytest.raises(BadMessage):
        unpack(Outer, pack(make())[:cut])


def test_nesting_and_sizes_are_bounded():
    import json
    import struct

    for tree in (
        "[" * 100_000,
        json.dumps({"@a": ["<f8", 10**12]}),
        json.dumps({"@a": ["<f8", -1]}),
        '{"@a": ["|O", 1]}',
    ):
        body = tree.encode()
        with pytest.raises(BadMessage):
            unpack(Outer, struct.pack("<8sIIQ8x", b"IHDSpack", 1, len(body), 0) + body)


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1.0]}) == digest({"b": [1], "a": 1})
