"""A rule of law as data: what it is about, what it asks for, from when to when, how sure we are of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Literal, get_args

from ihds.privacy.disclosure import Thresholds

Artefact = Literal["ROW", "PSEUDONYMISED_ROW", "MODEL_UPDATE", "AGGREGATE", "MODEL", "METADATA"]
ARTEFACTS: tuple[Artefact, ...] = get_args(Artefact)

#: Records of persons, under their names or a pseudonym.
RECORDS: frozenset[Artefact] = frozenset({"ROW", "PSEUDONYMISED_ROW"})
#: What a result is made of when it leaves for good.
RESULTS: frozenset[Artefact] = frozenset({"AGGREGATE", "MODEL"})
#: What a site adds to a sum in one round.
UPDATES: frozenset[Artefact] = frozenset({"MODEL_UPDATE"})
DESCRIPTIONS: frozenset[Artefact] = frozenset({"METADATA"})

#: On what a permission rests: an EHDS permit, or agreements beside it (EHDS Art. 1(8)).
REGIMES = ("ehds", "contract")


class Certainty(StrEnum):
    """How sure we are of a rule; a lawyer looks first at those from memory."""

    READ = "read in the law's text"
    SECONDARY = "read in a summary of the law"
    MEMORY = "from memory, to be checked"
    DESIGN = "our own choice, stricter than the law"


@dataclass(frozen=True, slots=True)
class Term:
    """What a term of evidence means, and whether it is shown of each recipient anew."""

    meaning: str
    of_recipient: bool = False


#: Any one of these sets of evidence is enough; no set at all means never.
Needs = tuple[frozenset[str], ...]

NEVER: Needs = ()
NOTHING: Needs = (frozenset(),)


def all_of(*names: str) -> Needs:
    """Return the need for all of these together."""
    return (frozenset(names),)


def any_of(*sets: set[str]) -> Needs:
    """Return the need for one of these sets."""
    return tuple(frozenset(s) for s in sets)


def in_words(needs: Needs) -> str:
    """Return a need as an officer reads it aloud."""
    if needs == NEVER:
        return "never"
    return ", or ".join(" and ".join(sorted(s)) for s in needs) or "nothing"


@dataclass(frozen=True, slots=True)
class Destinations:
    """Some countries, or all but some; ``words`` names them."""

    words: str = "anywhere"
    countries: frozenset[str] = frozenset()
    among: bool = False

    def __contains__(self, country: str) -> bool:
        """Return whether a country is meant."""
        return (country in self.countries) is self.among


ANYWHERE = Destinations()


def to(words: str, countries: frozenset[str]) -> Destinations:
    """Return these countries."""
    return Destinations(f"to {words}", countries, among=True)


def outside(words: str, countries: frozenset[str]) -> Destinations:
    """Return all countries but these."""
    return Destinations(f"outside {words}", countries)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of one law.

    An artefact it covers may leave only with what it ``needs``. A rule that ``opens`` lets it leave by
    that; one that does not adds a condition to what another rule opens. It holds from ``since`` until
    the day before ``until``.
    """

    id: str
    article: str
    artefacts: frozenset[Artefact]
    needs: Needs
    text: str
    since: date
    certainty: Certainty
    until: date | None = None
    regimes: frozenset[str] = frozenset(REGIMES)
    destinations: Destinations = ANYWHERE
    opens: bool = True

    def in_force(self, on: date) -> bool:
        """Return whether it holds on a day."""
        return self.since <= on and (self.until is None or on < self.until)

    def covers(self, artefact: str, destination: str, legal_regime: str) -> bool:
        """Return whether it is about this artefact, going there, under this regime."""
        return artefact in self.artefacts and destination in self.destinations and legal_regime in self.regimes


@dataclass(frozen=True, slots=True)
class Limit:
    """A rule on how few persons a number may tell of: thresholds that no permit under this law goes below."""

    id: str
    article: str
    thresholds: Thresholds
    text: str
    source: str
    since: date
    certainty: Certainty
