"""What an attacker finds in everything that came back: packed states and totals, and rows of numbers."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from ihds.canonical import unpack
from ihds.errors import IhdsError


def texts(received: Any) -> Iterator[str]:
    """Yield every text in JSON values."""
    if isinstance(received, str):
        yield received
    elif isinstance(received, dict | list):
        for value in received.values() if isinstance(received, dict) else received:
            yield from texts(value)


def unpacked(received: Any, kind: type[Any]) -> list[Any]:
    """Return what a reader finds of a kind, packed, in what was received: states or totals that should not be there."""
    found = []
    for text in texts(received):
        with contextlib.suppress(ValueError, IhdsError):
            found.append(unpack(kind, base64.b64decode(text, validate=True)))
    return found


def rows_in(received: Any, width: int) -> list[Any]:
    """Return every run of so many numbers in JSON values, and of the differences of neighbouring lists of numbers."""
    if isinstance(received, dict):
        received = list(received.values())
    if not isinstance(received, list):
        return []
    found = [row for value in received for row in rows_in(value, width)]
    lists = [value for value in received if isinstance(value, list) and value and all(map(_is_number, value))]
    lists += [list(filter(_is_number, received))]
    off = [np.subtract(a, b) for a, b in pairwise(lists) if len(a) == len(b)]
    for numbers in (*lists, *off):
        found += [numbers[i : i + width] for i in range(len(numbers) - width + 1)]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
