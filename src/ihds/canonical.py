"""One byte form and one digest for everything that is signed, masked or stored.

``digest`` is SHA-256 over RFC 8785 canonical JSON. ``pack``/``unpack`` carry frozen dataclasses
with numpy arrays: a 32-byte header, a JSON tree, then little-endian arrays; no pickle.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import struct
import types
import typing
from typing import Any

import numpy as np
import rfc8785

from ihds.errors import BadMessage

T = typing.TypeVar("T")

_MAGIC = b"IHDSpack"
_HEADER = struct.Struct("<8sIIQ8x")  # magic, version, JSON length, arrays length
_DTYPES = {"<f8", "<i8", "<u8", "|u1"}


def canonical_json(value: object) -> bytes:
    """Return RFC 8785 bytes of a JSON value."""
    return rfc8785.dumps(typing.cast("Any", value))


def digest(value: object) -> str:
    """Return the SHA-256 hex digest of a JSON value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256(data: bytes) -> str:
    """Return the SHA-256 hex digest of bytes."""
    return hashlib.sha256(data).hexdigest()


def pack(value: object) -> bytes:
    """Return the byte form of a dataclass tree; equal values give equal bytes."""
    arrays: list[np.ndarray[Any, Any]] = []
    tree = json.dumps(_encode(value, arrays), separators=(",", ":")).encode()
    tree += b" " * (-len(tree) % 8)
    flat: list[Any] = [np.ascontiguousarray(a).reshape(-1) for a in arrays if a.size]
    blobs = [memoryview(a).cast("B") for a in flat]
    header = _HEADER.pack(_MAGIC, 1, len(tree), sum(map(len, blobs)))
    return b"".join([header, tree, *blobs])


def _encode(value: object, arrays: list[np.ndarray[Any, Any]]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f":
            value = value.astype("<f8")
        if value.dtype.str not in _DTYPES:
            raise TypeError(f"arrays of {value.dtype} do not travel")
        arrays.append(value)
        return {"@a": [value.dtype.str, *value.shape]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [_encode(getattr(value, f.name), arrays) for f in dataclasses.fields(value)]
        return {"@d": type(value).__name__, "f": fields}
    if isinstance(value, (tuple, list)):
        if all(type(item) is str for item in value):  # thousands of names
            return list(value)
        return [_encode(item, arrays) for item in value]
    if isinstance(value, dict):
        return {"@m": [[_encode(k, arrays), _encode(v, arrays)] for k, v in value.items()]}
    raise TypeError(f"{type(value).__name__} does not travel")


def unpack(cls: type[T], data: bytes) -> T:
    """Rebuild ``cls`` (a dataclass type, or a union of them) from its byte form.

    Raises:
        BadMessage: the bytes are not a packed ``cls``.

    """
    try:
        magic, version, n_tree, n_blob = _HEADER.unpack_from(data)
        if magic != _MAGIC or version != 1 or len(data) != _HEADER.size + n_tree + n_blob:
            raise BadMessage("packed body has a wrong header or length")
        tree = json.loads(data[_HEADER.size : _HEADER.size + n_tree])
        reader = _Arrays(memoryview(data)[_HEADER.size + n_tree :])
        return typing.cast("T", _decode(cls, tree, reader))
    except (
        struct.error,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise BadMessage(f"packed body cannot be read: {error}") from error


class _Arrays:
    def __init__(self, blob: memoryview) -> None:
        self.blob = blob
        self.at = 0

    def take(self, dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        if dtype not in _DTYPES or any(n < 0 for n in shape):
            raise ValueError(f"array of {dtype} {shape}")
        count = int(np.prod(shape, dtype=np.int64)) if shape else 1
        size = count * np.dtype(dtype).itemsize
        if self.at + size > len(self.blob):
            raise ValueError("arrays are cut short")
        array = np.frombuffer(self.blob, dtype, count, self.at).reshape(shape)
        self.at += size
        return array


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(hint: Any, tree: Any, arrays: _Arrays) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [a for a in typing.get_args(hint) if a is not type(None)]
        if tree is None:
            return None
        if isinstance(tree, dict) and "@d" in tree:
            named = [a for a in options if getattr(a, "__name__", "") == tree["@d"]]
            return _decode(named[0], tree, arrays)
        return _decode(options[0], tree, arrays)
    if isinstance(tree, dict) and "@a" in tree:
        dtype, *shape = tree["@a"]
        return arrays.take(dtype, tuple(shape))
    if isinstance(tree, dict) and "@d" in tree:
        if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)) or hint.__name__ != tree["@d"]:
            raise ValueError(f"expected {hint}, found {tree['@d']}")
        hints = _hints(typing.cast("type", hint))
        names = [f.name for f in dataclasses.fields(hint)]
        if len(names) != len(tree["f"]):
            raise ValueError(f"{hint.__name__} has {len(names)} fields, not {len(tree['f'])}")
        values = [_decode(hints[n], t, arrays) for n, t in zip(names, tree["f"], strict=True)]
        return typing.cast("Any", hint)(*values)
    if isinstance(tree, dict) and "@m" in tree:
        k, v = typing.get_args(hint)
        return {_decode(k, a, arrays): _decode(v, b, arrays) for a, b in tree["@m"]}
    if isinstance(tree, list):
        args = typing.get_args(hint)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], item, arrays) for item in tree)
        return tuple(_decode(a, item, arrays) for a, item in zip(args, tree, strict=True))
    if hint is float and isinstance(tree, int) and not isinstance(tree, bool):
        return float(tree)
    return tree
