"""What the variables of a dataset mean: kind, unit, levels, missing codes, concept.

A codebook is metadata. It is published in the catalogue, so formulas can be checked, levels
agreed and matrix columns named without looking at one row.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w

from ihds.errors import BadInput, BadLevel, UnknownVariable

#: ``empty`` stands in drafts only: a column without any value fits every kind.
Kind = Literal["number", "category", "text", "identifier", "empty"]

#: A dictionary lists the categories of a variable only up to this many (DataSHIELD's levels.max).
MAX_LEVELS = 40


@dataclass(frozen=True, slots=True)
class Variable:
    """One column of a dataset.

    ``levels`` are the permitted categories as text. ``time_bin`` is the width, in the variable's
    own unit, of the grid on which survival risk sets may be pooled; ``horizon`` the longest
    follow-up the dataset can hold. ``labels`` are labels by language: de, fr, ko.
    """

    name: str
    kind: Kind
    label: str = ""
    unit: str = ""
    levels: tuple[str, ...] = ()
    level_labels: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    concept: str = ""
    minimum: float | None = None
    maximum: float | None = None
    time_bin: float | None = None
    horizon: float | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def label_in(self, language: str) -> str:
        """Return the label in a language, in English where there is none."""
        return self.labels.get(language) or self.label or self.name


@dataclass(frozen=True, slots=True)
class Codebook:
    """The variables of one dataset, by name; ``person`` names the column that tells people apart."""

    name: str
    variables: dict[str, Variable] = field(default_factory=dict)
    person: str = ""
    citation: str = ""

    def variable(self, name: str) -> Variable:
        """Return one variable.

        Raises:
            UnknownVariable: it does not stand in this codebook.

        """
        if name not in self.variables:
            raise UnknownVariable(
                f"variable {name!r} is not in the codebook {self.name!r}",
                remedy=f"use one of: {', '.join(sorted(self.variables))}",
            )
        return self.variables[name]

    def restricted(self, names: frozenset[str]) -> Codebook:
        """Return the codebook with only ``names``."""
        kept = {n: v for n, v in self.variables.items() if n in names}
        return replace(self, variables=kept)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without empty entries."""
        variables = []
        for variable in self.variables.values():
            entry = {k: v for k, v in asdict(variable).items() if v not in ("", (), None, {})}
            variables.append({k: list(v) if isinstance(v, tuple) else v for k, v in entry.items()})
        head = {"name": self.name, "person": self.person, "citation": self.citation}
        return {**{k: v for k, v in head.items() if v}, "variables": variables}

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Codebook:
        """Read the JSON form.

        Raises:
            BadInput: an entry has no name or an unknown kind or field.

        """
        known = set(Variable.__dataclass_fields__)
        variables: dict[str, Variable] = {}
        for entry in body.get("variables", []):
            name, kind = entry.get("name"), entry.get("kind")
            unknown = set(entry) - known
            if not name or kind not in get_args(Kind) or unknown:
                raise BadInput(
                    f"codebook entry {name or entry!r} has kind {kind!r} and extra {sorted(unknown)}",
                    remedy=f"give name and kind ({', '.join(get_args(Kind))}); fields: {', '.join(sorted(known))}",
                )
            parts: dict[str, Any] = {k: tuple(map(str, v)) if isinstance(v, list) else v for k, v in entry.items()}
            variables[name] = Variable(**parts)
        return cls(
            name=str(body.get("name", "")),
            variables=variables,
            person=str(body.get("person", "")),
            citation=str(body.get("citation", "")),
        )

    @classmethod
    def read(cls, path: Path) -> Codebook:
        """Read a codebook from a TOML file.

        Raises:
            BadInput: the file is absent or not such a codebook.

        """
        try:
            return cls.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise BadInput(f"codebook {path}: {error}", remedy="give a TOML codebook") from error

    def write(self, path: Path) -> None:
        """Write the codebook as TOML, for a person to correct."""
        path.write_text(tomli_w.dumps(self.to_dict()), encoding="utf-8")


def agree(codebooks: dict[str, Codebook]) -> Codebook:
    """Merge the published dictionaries of several sites into the one a study uses.

    Levels are united in sorted order, so no site's rows decide the order. A variable that one
    site does not have is left out; a variable of two kinds is an error.

    Raises:
        BadLevel: two sites hold the same variable as different kinds, or in different units.

    """
    names = list(codebooks)
    first = codebooks[names[0]]
    merged: dict[str, Variable] = {}
    for name, variable in first.variables.items():
        found = {s: c.variables[name] for s, c in codebooks.items() if name in c.variables}
        if len(found) < len(names):
            continue
        found = {s: v for s, v in found.items() if v.kind != "empty"} or found
        kinds = {s: v.kind for s, v in found.items()}
        if set(kinds.values()) == {"category", "text"}:  # many texts at one site, few at another
            merged[name] = replace(variable, kind="text", levels=())
            continue
        if len(set(kinds.values())) > 1:
            raise BadLevel(
                f"variable {name!r} is not the same thing everywhere: "
                + ", ".join(f"{s} has a {k}" for s, k in kinds.items()),
                remedy="correct the column, or declare it in a codebook all sites share",
            )
        units = {s: v.unit for s, v in found.items() if v.unit}
        if len(set(units.values())) > 1:
            raise BadLevel(
                f"variable {name!r} is not measured alike everywhere: "
                + ", ".join(f"{s} has {u}" for s, u in units.items()),
                remedy="convert the column (of a variant: count the same allele, of one strand and build)",
            )
        variable = next(iter(v for v in found.values() if v.unit or not units))
        levels = variable.levels
        if any(not v.levels for v in found.values()):
            levels = ()  # one site cannot list them, so nobody can
        elif any(v.levels != levels for v in found.values()):
            levels = _ordered({lv for v in found.values() for lv in v.levels})
        bins = [v.time_bin for v in found.values() if v.time_bin is not None]
        ends = [v.horizon for v in found.values() if v.horizon is not None]
        merged[name] = replace(
            variable,
            levels=levels if len(levels) <= MAX_LEVELS else (),
            time_bin=max(bins, default=None),
            horizon=max(ends, default=None),
        )
    return replace(first, variables=merged)


def _ordered(levels: set[str]) -> tuple[str, ...]:
    try:
        return tuple(sorted(levels, key=float))
    except ValueError:
        return tuple(sorted(levels))
