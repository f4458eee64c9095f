"""Studies whose sums are released with noise: what one person can move, and by how much.

Nothing is agreed on from rows: columns, bounds and levels are those of the codebook, or of the study itself.
Every number is cut to its published bounds and rounded to 1/8192 of half their distance, so that sums
and products are exact in floating point, and one person's part is exactly what is declared (sums of floats
are not: Casacuberta et al. 2022).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ihds.analysis import design as designs
from ihds.analysis.agree import Agreement, AgreeState
from ihds.analysis.design import Ask
from ihds.analysis.method import Contribution, Leaves, Method, fraction_bits, leaves, method
from ihds.analysis.result import Result
from ihds.analysis.rows import Rows, read_rows
from ihds.data.codebook import Codebook
from ihds.data.wide import Table
from ihds.errors import BadFormula, BadInput, Refused
from ihds.privacy.accountant import Promise, exact
from ihds.privacy.noise import Part, Shares, shares

#: Half the distance of a number's bounds is this many steps; a product of two is a multiple of 2^-26.
_STEPS = 2.0**13
_PRODUCT_BITS = 26
#: Rows for which the words of a noisy sum have room; their number is not asked of the data.
_ROOM = 2**27
#: Most rows a study may take of one person: the noise grows with them.
_MOST_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a study asks for: a promise, how many holders may collude or be lost, and what bounds one person.

    ``bounds`` are used instead of the codebook's; whoever gives them must not have looked at the data.
    """

    promise: Promise
    colluding: int
    rows_per_person: int
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any, sites: int) -> Wanted:
        """Read the parameter ``privacy`` of a study: a mapping, or text as ``epsilon=1,delta=1e-6``.

        Raises:
            BadInput: a part of it is unknown, or no such number.

        """
        if isinstance(given, str):
            given = {name: value for name, _, value in (part.partition("=") for part in given.split(","))}
        known = ("epsilon", "delta", "colluding", "rows_per_person", "bounds")
        if not isinstance(given, Mapping) or set(given) - set(known):
            raise BadInput(f"privacy is {given!r}", remedy=f"write epsilon=1,delta=1e-6; it has: {', '.join(known)}")
        colluding = exact(given.get("colluding", (sites - 1) // 2), "colluding")
        if colluding.denominator != 1 or not 0 <= colluding < max(sites, 1):
            raise BadInput(f"colluding is {colluding}", remedy="give fewer holders than the study has")
        rows = exact(given.get("rows_per_person", 1), "rows_per_person")
        if rows.denominator != 1 or not 1 <= rows <= _MOST_ROWS:
            raise BadInput(f"rows_per_person is {rows}", remedy=f"give a whole number from 1 to {_MOST_ROWS}")
        bounds = given.get("bounds", {})
        if not isinstance(bounds, Mapping):
            raise BadInput(f"bounds are {bounds!r}", remedy='write for example {"age": [18, 100]}')
        return cls(Promise.of(given), int(colluding), int(rows), {str(n): _pair(n, b) for n, b in bounds.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the promise, what it costs, and what it rests on."""
        rests = {"rho": str(self.promise.rho), "colluding": self.colluding, "rows_per_person": self.rows_per_person}
        return {**self.promise.to_dict(), **rests}


def _pair(name: str, given: Any) -> tuple[float, float]:
    try:
        low, high = (float(exact(value, "bound")) for value in given)
    except (TypeError, ValueError) as error:
        raise BadInput(f"the bounds of {name!r} are {given!r}", remedy="give two numbers, the lower first") from error
    if not low < high:
        raise BadInput(f"the bounds of {name!r} are {low:g} and {high:g}", remedy="give the lower first")
    return low, high


@dataclass(frozen=True, slots=True)
class Moved:
    """How far one row moves the ``size`` numbers of a field (the square of the length), and the field's part of rho."""

    size: int
    squared: Fraction
    weight: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class Noise:
    """The standard deviation of the noise in each field of an opened sum."""

    sd: Mapping[str, float]
    shares: Shares


class Twin(Method, Protocol):
    """A method whose sums carry noise: what one row moves, and from how many persons on it says something.

    ``finish`` is also told the noise of the last round.
    """

    def rounds(self, params: Any) -> tuple[Fraction, ...]:
        """Return the parts of rho that its rounds take; there are as many."""
        ...

    def moved(self, params: Any, ask: Ask, frame: designs.Frame) -> dict[str, Moved]:
        """Return what one row moves, by field."""
        ...

    def least(self, params: Any, frame: designs.Frame, noise: Mapping[str, float]) -> float:
        """Return how many persons are needed for an answer that is not mostly noise."""
        ...


#: Why other methods have no twin. What is not named here has simply none yet.
_WHY = {
    "kaplan_meier": "a person stands in the risk sets of all times before their own: use a histogram of published bins",
    "cox": "a person stands in the risk sets of all times before their own",
    "differential_expression": "genes have no published bounds, and noise grows with the root of their number",
    "association_scan": "noise grows with the root of the number of variants; ask genotype_qc for frequencies",
    "quantiles": "its steps depend on earlier answers: use a histogram of published bins",
}


@functools.cache
def twins() -> dict[str, Twin]:
    """Return every private twin by the name of its method."""
    package = importlib.import_module("ihds.analysis.private")
    found: dict[str, Any] = {
        info.name: importlib.import_module(f"{package.__name__}.{info.name}")
        for info in pkgutil.iter_modules(package.__path__)
    }
    return found


def twin(name: str) -> Twin:
    """Return the private twin of a method.

    Raises:
        BadInput: there is no such method.
        Refused: it is not offered with noise.

    """
    method(name)
    if name not in twins():
        raise Refused(
            f"{name} is not offered with noise",
            reasons=(f"differential privacy: {_WHY.get(name, 'nobody has bounded what one person adds to its sums')}",),
            remedy=f"use one of: {', '.join(sorted(twins()))}",
        )
    return twins()[name]


@dataclass(frozen=True, slots=True)
class PublicAgreement(Agreement):
    """An agreement that asks no row: everything is published, and done before the study begins."""

    wanted: Wanted

    def begin(self) -> AgreeState:
        """Return the whole frame, from metadata alone.

        Raises:
            BadInput: a number has no bounds.
            BadFormula: a term is more than a variable.

        """
        start = Agreement.begin(self)
        formula, columns = self.ask.formula, start.frame.columns
        terms = () if self.ask.covariates == "groups" else formula.terms
        if any(formula.label(term) not in self.codebook.variables for term in (*terms, *formula.response)):
            raise BadFormula(
                f"{formula.text!r} holds more than variables, whose bounds are not published",
                remedy="write for example outcome ~ age + sex",
            )
        if formula.offset or formula.weights or formula.strata:
            raise BadFormula("a noisy study takes no offset, strata() or weights()", remedy="leave it out")
        numbers = [n for n in columns if n in self.codebook.variables and n not in start.levels]
        at = {name: self._bounds(name) for name in numbers}
        low, high = np.array([at.get(name, (-1.0, 1.0)) for name in columns]).reshape(-1, 2).T
        outcome = (0.0, 1.0)
        if self.ask.outcome == "number":
            low_y, high_y = self._bounds(formula.label(formula.response[0]))
            outcome = ((low_y + high_y) / 2, (high_y - low_y) / 2)
        frame = replace(
            start.frame,
            centre=(low + high) / 2,
            scale=(high - low) / 2,
            rows=_ROOM,
            groups=designs.combinations(designs.group_names(self.ask), start.levels),
            strata=designs.combinations(designs.strata_names(self.ask), start.levels),
            outcome_centre=outcome[0],
            outcome_scale=outcome[1],
        )
        return replace(start, phase="done", frame=frame)

    def _bounds(self, name: str) -> tuple[float, float]:
        variable = self.codebook.variable(name)
        if name in self.wanted.bounds:
            return self.wanted.bounds[name]
        if variable.minimum is None or variable.maximum is None or not variable.minimum < variable.maximum:
            raise BadInput(
                f"the codebook gives no bounds for {name!r}, so nobody knows how far one person moves its sums",
                remedy=f'publish minimum and maximum, or give them: privacy={{"bounds": {{"{name}": [0, 100]}}}}',
            )
        return variable.minimum, variable.maximum

    def rows(self, state: AgreeState, table: Table) -> Rows:
        """Read a site's rows, of each person the first ones only."""
        found = read_rows(self.ask, self.codebook, state.levels, table)
        return _first(found, self.wanted.rows_per_person)


def _first(rows: Rows, most: int) -> Rows:
    order = np.argsort(rows.person, kind="stable")
    sorted_ = rows.person[order]
    place = np.arange(len(order)) - np.searchsorted(sorted_, sorted_)
    kept = np.sort(order[place < most])
    if len(kept) == len(order):
        return rows
    values = {name: getattr(rows, name) for name in Rows.__slots__}
    values |= {n: v[kept] for n, v in values.items() if isinstance(v, np.ndarray) and len(v) == len(order)}
    values["codes"] = {name: code[kept] for name, code in rows.codes.items()}
    return Rows(**{**values, "features": rows.features.of(kept)})


def units(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values cut to [-1, 1], where their bounds are, and rounded; NaN stays."""
    return np.asarray(np.rint(np.clip(values, -1.0, 1.0) * _STEPS) / _STEPS)


def bounded(shape: str, unit: str) -> Leaves:
    """Declare a field to which each row adds numbers in [-1, 1] that are multiples of 2^-26."""
    return Leaves(shape, unit, bound=1)


def noise_of(kind: type[Contribution], moved: Mapping[str, Moved], wanted: Wanted, sites: int, rho: Fraction) -> Noise:
    """Return the noise of a round that may cost ``rho``, in the words in which its contribution travels.

    A person has up to ``rows_per_person`` rows, which move a sum by no more than so many times one row's part.
    """
    declared = leaves(kind)
    whole = sum((m.weight for m in moved.values() if m.squared), Fraction(0))
    parts, bits = [], {}
    for name, leaf in declared.items():
        bits[name], move = fraction_bits(leaf, _ROOM, sites), moved[name]
        if bits[name] < _PRODUCT_BITS:
            raise BadInput(f"{sites} holders are too many for a noisy study", remedy="ask at most 512")
        squared = move.squared * wanted.rows_per_person**2 * 4 ** bits[name]
        parts.append(Part(move.size, squared, rho * move.weight / whole if move.squared else Fraction(0)))
    made = shares([*parts, Part(1, Fraction(0), Fraction(0))], sites - wanted.colluding)  # the last word is no person's
    sd = {name: scale * sites**0.5 / 2.0 ** bits[name] for (_, scale), name in zip(made.parts, declared, strict=False)}
    return Noise(sd, made)


def explained(result: Result, wanted: Wanted, noise: Noise, sites: int, codebook: Codebook) -> Result:
    """Return a result that says what it cost and what that means."""
    promise, whom = wanted.promise, "person" if codebook.person else "row"
    factor = float(np.exp(float(promise.epsilon)))
    told = {
        **wanted.to_dict(),
        "mechanism": "discrete Gaussian noise in shares (Kairouz, Liu & Steinke 2021), sampled exactly by OpenDP",
        "honest_holders": sites - wanted.colluding,
        "holders": sites,
        "unit": whom,
        "noise_sd": dict(noise.sd),
        "meaning": (
            f"Whatever anybody concludes of a {whom} from these numbers becomes at most {factor:.3g} times as likely "
            f"by that {whom}'s being in the data, but for a chance of {float(promise.delta):.0e}. It holds against "
            f"everybody, as long as {sites - wanted.colluding} of the {sites} holders keep their noise to themselves, "
            "and only for what is released with noise: what other studies release without is not covered."
        ),
    }
    return replace(result, details={**result.details, "privacy": told})
