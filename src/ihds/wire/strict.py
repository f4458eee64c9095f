"""JSON from strangers, read strictly: what we could not write back in canonical form is refused at the door."""

from __future__ import annotations

import json
from typing import Any

from ihds.errors import BadMessage

#: Deeper nesting is refused; no message of ours comes near.
DEPTH = 64
_SAFE = 2**53


def read_json(data: bytes | str) -> Any:
    """Return a JSON value.

    Raises:
        BadMessage: it is not JSON, nests too deep, or holds what RFC 8785 cannot write: NaN and
            infinities, integers beyond 2^53, lone surrogates.

    """
    try:
        value = json.loads(data, parse_constant=_constant, parse_int=_integer)
        _check(value, 0)
    except (ValueError, RecursionError) as error:
        raise BadMessage(
            f"this is not JSON as we read it: {str(error)[:200]}", remedy="send JSON (RFC 8259)"
        ) from error
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > _SAFE:
        raise ValueError("an integer is beyond 2^53")
    return int(text)


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH:
        raise ValueError(f"it nests deeper than {DEPTH}")
    if isinstance(value, str):
        value.encode()  # a lone surrogate raises UnicodeEncodeError, a ValueError
    elif isinstance(value, dict):
        for key, inner in value.items():
            key.encode()
            _check(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth + 1)
    elif isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise ValueError("a number is beyond what can be written")


def clean(text: object, longest: int = 500) -> str:
    """Return a text of a stranger fit for a log: short, without control characters or broken code points."""
    plain = str(text)[: longest * 2].encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() else " " for c in plain)[:longest]


def reasons(value: Any) -> tuple[str, ...]:
    """Return the reasons of a message: at most ten, each short.

    Raises:
        BadMessage: it is not a list.

    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadMessage("reason must be a list")
    return tuple(clean(item) for item in value[:10])
