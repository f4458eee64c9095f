"""A person's right to opt out of secondary use (EHDS Art. 71): choices with their history, scopes, exceptions.

A choice has two times: from when it holds, and when the registry recorded it. Nothing is overwritten,
so what held on one day as known on another can be asked for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from ihds.errors import BadMessage
from ihds.governance.jurisdictions.eu_ehds import CHAPTER_IV, GDPR
from ihds.governance.permit import RESERVED_PURPOSES, Permit
from ihds.governance.policy import Decision, Granted, Refused
from ihds.governance.rule import REGIMES, Certainty


class Choice(StrEnum):
    """What a person chose; whoever chose nothing is not in a registry."""

    OPTED_OUT = "OPTED_OUT"
    REVERSED = "REVERSED"


@dataclass(frozen=True, slots=True)
class Entry:
    """One choice of one person in one scope; ``version`` counts the registry's entries from 1."""

    version: int
    subject: str
    scope: str
    choice: Choice
    holds_from: datetime
    recorded_at: datetime
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        times = {"holds_from": self.holds_from.isoformat(), "recorded_at": self.recorded_at.isoformat()}
        names = {name: getattr(self, name) for name in ("version", "subject", "scope", "source")}
        return {**names, "choice": str(self.choice), **times}

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Entry:
        """Read the JSON form.

        Raises:
            BadMessage: it is none.

        """
        try:
            return cls(
                version=int(body["version"]),
                subject=str(body["subject"]),
                scope=str(body["scope"]),
                choice=Choice(body["choice"]),
                holds_from=datetime.fromisoformat(body["holds_from"]),
                recorded_at=datetime.fromisoformat(body["recorded_at"]),
                source=str(body["source"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadMessage(f"this is no entry of an opt-out registry: {error!r}") from error


def as_of(entries: Iterable[Entry], valid: datetime, known: datetime) -> Choice | None:
    """Return what one person's entries of one scope said at an instant, as far as was known at another.

    The choice that holds from latest wins; of two from the same instant the one recorded later.
    """
    told = [e for e in entries if e.holds_from <= valid and e.recorded_at <= known]
    return max(told, key=lambda e: (e.holds_from, e.version)).choice if told else None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a choice reaches: the purposes and regimes in which the person's data are then not used."""

    id: str
    article: str
    text: str
    purposes: frozenset[str]
    since: date
    certainty: Certainty
    regimes: frozenset[str] = frozenset(REGIMES)
    countries: frozenset[str] = frozenset()

    def covers(self, purpose: str, legal_regime: str, country: str, on: date) -> bool:
        """Return whether data held in a country stay out of a use."""
        about = not self.purposes or purpose in self.purposes
        return about and legal_regime in self.regimes and self.since <= on and country in (self.countries or {country})


#: The scopes a registry offers; no purposes or countries means all of them. A finer national scope is one more line.
SCOPES: tuple[Scope, ...] = (
    Scope(
        "all",
        "EHDS 71(1)",
        "all secondary use; we honour it beside the EHDS too",
        frozenset(),
        date(2018, 5, 25),
        Certainty.DESIGN,
    ),
    Scope(
        "research",
        "GDPR 21(6)",
        "objection to scientific research and statistics",
        frozenset({"scientific_research", "statistics"}),
        GDPR,
        Certainty.MEMORY,
    ),
    Scope(
        "kr_suspension",
        "PIPA 37",
        "suspension of processing, for data held in Korea",
        frozenset(),
        date(2011, 9, 30),
        Certainty.MEMORY,
        frozenset({"contract"}),
        frozenset({"KR"}),
    ),
)


def reaching(purpose: str, legal_regime: str, country: str, on: date) -> tuple[str, ...]:
    """Return the scopes in which a choice keeps a person out of a use."""
    return tuple(s.id for s in SCOPES if s.covers(purpose, legal_regime, country, on))


@dataclass(frozen=True, slots=True)
class Exemption:
    """A national law that lets some uses include people who opted out (EHDS Art. 71(4))."""

    id: str
    country: str
    article: str
    since: date
    certainty: Certainty


#: The laws under Art. 71(4). None is known, so every exception is refused; a law is one more line.
EXEMPTIONS: tuple[Exemption, ...] = ()


def exception(permit: Permit, country: str, on: date, laws: tuple[Exemption, ...] = EXEMPTIONS) -> Decision:
    """Judge whether people who opted out may be in a permit's data (EHDS Art. 71(4), 68(1)(g), 68(10)(c)).

    It takes a national law of the country the data lie in, a purpose it may serve, and the justification that
    the assessors accepted and the permit states.
    """
    reasons = []
    if not permit.opt_out_exception:
        reasons.append("EHDS 68(10)(c): the permit states no exception from opt-outs")
    if permit.legal_regime != "ehds" or on < CHAPTER_IV:
        reasons.append("EHDS 71(4), 105: there are exceptions for EHDS permits only")
    if permit.purpose not in RESERVED_PURPOSES | {"scientific_research"}:
        reasons.append(f"EHDS 71(4): no exception is for {permit.purpose}")
    held = [law for law in laws if law.country == country and law.since <= on]
    if not held:
        reasons.append(f"EHDS 71(4): no law of {country} is known that allows exceptions")
    return Refused(tuple(reasons)) if reasons else Granted((f"EHDS 71(4), {held[0].article}",))


#: The rules at work, for the docs: id, article, what happens, certainty.
RULES: tuple[tuple[str, str, str, Certainty], ...] = (
    ("O1", "EHDS 71(1)(3)", "who opted out by the second a permit was issued is not in its data", Certainty.READ),
    (
        "O2",
        "EHDS 71(3)",
        "who opts out later stays in the data of that permit; later permits leave them out",
        Certainty.READ,
    ),
    ("O3", "EHDS 71(2)", "who takes the opt-out back is in the data of permits issued from then on", Certainty.READ),
    (
        "O4",
        "EHDS 71(4)",
        "an exception takes a national law, a purpose it serves, and the permit's reason",
        Certainty.READ,
    ),
    (
        "O5",
        "EHDS 71(8)",
        "where nobody is identified there is nobody to leave out, and nobody is identified for it",
        Certainty.READ,
    ),
    (
        "O6",
        "EHDS 71",
        "a permit's list is fixed when a holder first opens its data, so its studies see the same",
        Certainty.DESIGN,
    ),
    ("O7", "EHDS 71", "without a fresh list nothing is opened under a new permit", Certainty.DESIGN),
    (
        "O8",
        "EHDS 68(13), 71",
        "an amended permit is a permit: it follows the choices as of its own issue",
        Certainty.DESIGN,
    ),
)
