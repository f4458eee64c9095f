"""What a legal regime must answer, and how several of them are asked together.

Every law that applies to the data's origin is asked; the most restrictive answer wins; where no
rule speaks, the answer is no. A fourth jurisdiction is one more file in ``jurisdictions/``.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from dataclasses import dataclass
from typing import Literal, Protocol

from ihds.governance.policy import Decision, Granted, Refused
from ihds.privacy.disclosure import Thresholds

Artefact = Literal["ROW", "PSEUDO_ROW", "MODEL_UPDATE", "AGGREGATE", "MODEL", "METADATA"]


@dataclass(frozen=True, slots=True)
class Export:
    """Something that would cross a border: what, from where to where, under which evidence."""

    artefact: Artefact
    origin: str
    destination: str
    legal_regime: str
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: an artefact may leave if all ``needs`` are evidenced; ``needs`` None forbids it."""

    id: str
    article: str
    artefacts: frozenset[str]
    needs: frozenset[str] | None
    text: str


class Jurisdiction(Protocol):
    """A module in ``jurisdictions/``."""

    COUNTRIES: frozenset[str]
    RULES: tuple[Rule, ...]
    THRESHOLDS: Thresholds


@functools.cache
def jurisdictions() -> dict[str, Jurisdiction]:
    """Return every jurisdiction by name."""
    package = importlib.import_module("ihds.governance.jurisdictions")
    found: dict[str, Jurisdiction] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module: object = importlib.import_module(f"{package.__name__}.{info.name}")
        found[info.name] = module  # type: ignore[assignment]  # a module satisfies the protocol
    return found


def applying(country: str) -> dict[str, Jurisdiction]:
    """Return the jurisdictions whose law applies to data of a country."""
    return {n: j for n, j in jurisdictions().items() if country in j.COUNTRIES}


#: A federation inside one process on the user's own tables: no law is asked, nothing leaves.
SIMULATION = "simulation"


def thresholds(country: str, legal_regime: str, permit: Thresholds) -> Thresholds:
    """Return the strictest of the permit's thresholds and those of the country's law."""
    strict = permit
    if legal_regime == SIMULATION:
        return strict
    for jurisdiction in applying(country).values():
        strict = strict.strictest(jurisdiction.THRESHOLDS)
    return strict


def may_leave(export: Export) -> Decision:
    """Judge an export under every law of its origin."""
    if export.legal_regime == SIMULATION and export.origin == export.destination:
        return Granted(("simulation: nothing leaves this process",))
    laws = applying(export.origin)
    if not laws:
        return Refused((f"no jurisdiction is known for {export.origin!r}: no rule means no",))
    reasons: list[str] = []
    because: list[str] = []
    for name, law in laws.items():
        rules = [r for r in law.RULES if export.artefact in r.artefacts]
        if not rules:
            reasons.append(f"{name}: no rule allows {export.artefact} to leave")
        for rule in rules:
            missing = sorted(rule.needs - export.evidence) if rule.needs is not None else None
            if missing is None:
                reasons.append(f"{name} {rule.id} ({rule.article}): {rule.text}")
            elif missing:
                reasons.append(
                    f"{name} {rule.id} ({rule.article}): {rule.text}; evidence missing: {', '.join(missing)}"
                )
            else:
                because.append(f"{name} {rule.id} ({rule.article})")
    return Refused(tuple(reasons)) if reasons else Granted(tuple(because))
