"""The shape of a federated method: what its parts are called, what may leave a site, the registry.

A method is a module with ``Params``, ``ask``, ``begin``, ``local``, ``aggregate`` and ``finish``.
``aggregate`` receives a *total*, never a list, so no method can depend on which site said what.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
import typing
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.numerics import blocks
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadInput, BadMessage, OutOfRange
from ihds.privacy.rules import class_reasons

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
State = Any  # each method's own frozen dataclass

#: Bits of a word of the ring Z_2^64 that a total may fill; the rest is headroom for the sign.
RING_BITS = 62


@dataclass(frozen=True, slots=True)
class Leaves:
    """What a field of a contribution is, for the docs, the gate and the fixed-point scale.

    ``bound`` declares that the absolute total is at most ``bound`` times the number of rows
    (``per="row"``) or of sites (``per="site"``).
    """

    shape: str
    unit: str
    bound: float = 2.0**12
    counts_persons: bool = False
    per: Literal["row", "site"] = "row"


@dataclass(frozen=True, slots=True)
class Contribution:
    """Base of everything that leaves a site; only ever read as a sum over sites."""

    kind: ClassVar[str] = "moment"


def leaves(cls: type[Contribution]) -> dict[str, Leaves]:
    """Return the declaration of every field of a contribution type.

    Raises:
        TypeError: a field has no ``Leaves``; such a type cannot be sent.

    """
    cached: Any = _declared
    found: dict[str, Leaves] = cached(cls)
    return found


@functools.cache
def _declared(cls: Any) -> dict[str, Leaves]:
    declared: dict[str, Leaves] = {}
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        notes = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Leaves)]
        if typing.get_origin(hint) is not Annotated or len(notes) != 1:
            raise TypeError(f"{cls.__name__}.{field.name} does not declare what leaves the site")
        declared[field.name] = notes[0]
    return declared


def sendable(value: Contribution) -> tuple[str, ...]:
    """Return why a contribution may not leave: its class has no rules, or a field is undeclared or no number."""
    reasons = class_reasons(type(value).kind)
    try:
        fields = leaves(type(value))
    except TypeError as error:
        return (*reasons, f"numbers_only: {error}")
    odd = [n for n in fields if np.asarray(getattr(value, n)).dtype.kind not in "fiub"]
    return (*reasons, *(f"numbers_only: {type(value).__name__}.{n} holds something else" for n in odd))


def fraction_bits(declared: Leaves, rows: int, sites: int) -> int:
    """Return the fixed-point scale (log2) at which a field travels, from public numbers only."""
    persons = rows if declared.per == "row" else sites
    used = np.ceil(np.log2(declared.bound)) + np.ceil(np.log2(max(persons, 1)))
    return int(RING_BITS - used - np.ceil(np.log2(max(sites, 1))))


Layout = tuple[tuple[str, tuple[int, ...]], ...]


def flatten(value: Contribution, rows: int, sites: int) -> tuple[Layout, NDArray[np.uint64]]:
    """Return the layout and the fixed-point words (mod 2^64) of a contribution.

    The last word counts sites whose values did not fit: they send zeros and a one, so that the
    *total* fails loudly while nobody learns which site it was.
    """
    arrays = {name: np.asarray(getattr(value, name), dtype=np.float64) for name in leaves(type(value))}
    words = np.zeros(sum(a.size for a in arrays.values()) + 1, dtype=np.int64)
    limit = 2.0 ** (RING_BITS - np.ceil(np.log2(max(sites, 1))))
    at = 0
    for name, declared in leaves(type(value)).items():
        flat, scale = arrays[name].ravel(), 2.0 ** fraction_bits(declared, rows, sites)
        for part in blocks(flat.size):
            scaled = np.rint(flat[part] * scale)
            if scaled.size and not (scaled.max() <= limit and scaled.min() >= -limit):  # NaN fails too
                words[at : at + flat.size] = 0
                words[-1] = 1
                break
            words[at + part.start : at + part.stop] = scaled
        at += flat.size
    return tuple((name, a.shape) for name, a in arrays.items()), words.view(np.uint64)


def unflatten(
    cls: type[Contribution], layout: Layout, words: NDArray[np.uint64], rows: int, sites: int
) -> Contribution:
    """Return the total a sum of words stands for.

    Raises:
        BadMessage: the layout is not that of ``cls``.
        OutOfRange: at least one site's values did not fit the declared range.
    """
    if not len(words) or words[-1] != 0:
        raise OutOfRange(
            f"the values of {cls.__name__} do not fit their declared range at some site",
            remedy="rescale the variables, or look for separation or a wrong unit",
        )
    words = words[:-1]
    declared = leaves(cls)
    if [name for name, _ in layout] != list(declared):
        raise BadMessage(f"a site answered with other fields than {cls.__name__}")
    values: dict[str, Any] = {}
    at = 0
    signed = words.view(np.int64)
    for name, shape in layout:
        size = int(np.prod(shape, dtype=np.int64)) if shape else 1
        part = signed[at : at + size].astype(np.float64)
        array = np.ldexp(part, -fraction_bits(declared[name], rows, sites)).reshape(shape)
        values[name] = float(array) if shape == () else array
        at += size
    if at != len(words):
        raise BadMessage(f"a site answered with {len(words)} words, not {at}")
    return cls(**values)


class Method(Protocol):
    """What a module in ``methods/`` offers. Type arguments would add nothing: modules are untyped."""

    __name__: str
    Params: type[Any]
    CONTRIBUTIONS: tuple[type[Contribution], ...]
    STATE: type[Any]

    def ask(self, params: Any, codebook: Codebook) -> Ask:
        """Say what the method needs of the rows."""
        ...

    def begin(self, params: Any, frame: Frame) -> State:
        """Return the first state; needs no data."""
        ...

    def local(self, params: Any, state: State, design: Design) -> Contribution:
        """Compute this site's contribution; the only function that sees rows."""
        ...

    def aggregate(self, params: Any, state: State, total: Any) -> State:
        """Take the total over sites and return the next state."""
        ...

    def finish(self, params: Any, frame: Frame, state: State) -> Result | None:
        """Return the result, or None to ask for another round."""
        ...


@functools.cache
def methods() -> dict[str, Method]:
    """Return every method by name: the folder ``methods/`` and the entry points ``ihds.methods``."""
    package = importlib.import_module("ihds.analysis.methods")
    found: dict[str, Any] = {
        info.name: importlib.import_module(f"{package.__name__}.{info.name}")
        for info in pkgutil.iter_modules(package.__path__)
    }
    for entry in entry_points(group="ihds.methods"):
        found[entry.name] = entry.load()
    return found


def method(name: str) -> Method:
    """Return one method.

    Raises:
        BadInput: there is none of that name.

    """
    found = methods()
    if name not in found:
        raise BadInput(f"there is no method {name!r}", remedy=f"use one of: {', '.join(sorted(found))}")
    return found[name]


def make_params(chosen: Method, values: dict[str, Any]) -> Any:
    """Build a method's ``Params`` from JSON values.

    Raises:
        BadInput: a name or a type does not fit.

    """
    fields = {f.name: f for f in dataclasses.fields(chosen.Params)}
    hints = typing.get_type_hints(chosen.Params)
    name = chosen.__name__.rsplit(".", 1)[-1]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise BadInput(f"{name} has no parameter {unknown[0]!r}", remedy=f"it has: {', '.join(fields)}")
    ready = {}
    for key, value in values.items():
        ready[key] = _checked(value, hints[key], f"{name}: parameter {key!r}")
    try:
        return chosen.Params(**ready)
    except TypeError as error:
        raise BadInput(f"{name}: {error}", remedy=f"it takes: {', '.join(fields)}") from error


def _checked(value: Any, hint: Any, what: str) -> Any:
    options = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        if value not in options:
            raise BadInput(f"{what} is {value!r}", remedy=f"use one of: {', '.join(map(str, options))}")
        return value
    if type(None) in options:
        return None if value is None else _checked(value, options[0], what)
    if typing.get_origin(hint) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise BadInput(f"{what} is {value!r}", remedy="give names, with commas")
        if options[0] is float and isinstance(value, str):
            try:
                items = [float(item) for item in items]
            except ValueError as error:
                raise BadInput(f"{what} is {value!r}", remedy="give numbers, with commas") from error
        return tuple(_checked(item, options[0], what) for item in items)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not np.isfinite(value):
            raise BadInput(f"{what} is {value}", remedy="give a finite number")
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise BadInput(f"{what} is {value!r}", remedy=f"give a {getattr(hint, '__name__', hint)}")
    return value
