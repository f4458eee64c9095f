"""The description of a dataset: what a holder publishes and a user searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ihds.data.codebook import Codebook
from ihds.errors import BadInput, BadMessage
from ihds.privacy.disclosure import Thresholds


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """A dataset in a catalogue. ``persons`` is rounded down to tens; ``offer`` is its ODRL offer.

    ``thresholds`` are the holder's own, so that a study names the strictest of all before it is signed.
    """

    id: str
    holder: str
    holder_name: str
    country: str
    title: str
    description: str
    keywords: tuple[str, ...]
    health_category: str
    hdab: str
    persons: int
    codebook: Codebook
    offer: dict[str, Any]
    thresholds: Thresholds | None = None

    def matches(self, text: str) -> bool:
        """Return whether every word of a query occurs in the description, keywords or variables."""
        variables = [f"{v.name} {v.label} {v.concept}" for v in self.codebook.variables.values()]
        hay = " ".join([self.id, self.title, self.description, *self.keywords, *variables]).lower()
        return all(word in hay for word in text.lower().split())

    def summary(self) -> dict[str, Any]:
        """Return the row shown in a search."""
        return {
            "dataset": self.id,
            "title": self.title,
            "holder": self.holder,
            "name": self.holder_name,
            "country": self.country,
            "persons": self.persons,
            "variables": len(self.codebook.variables),
        }


def read_entry(entry: dict[str, Any], holder: str) -> DatasetRecord:
    """Read a dataset entry of a DSP catalog.

    Raises:
        BadMessage: it lacks what a study needs.

    """
    try:
        offers = entry["hasPolicy"]
        return DatasetRecord(
            id=str(entry["@id"]),
            holder=holder,
            holder_name=str(entry.get("dct:publisher", holder)),
            country=str(entry["ihds:country"]),
            title=str(entry.get("dct:title", entry["@id"])),
            description=str(entry.get("dct:description", "")),
            keywords=tuple(map(str, entry.get("dcat:keyword", []))),
            health_category=str(entry.get("healthdcatap:healthCategory", "")),
            hdab=str(entry.get("healthdcatap:hdab", "")),
            persons=int(entry.get("healthdcatap:numberOfUniqueIndividuals", 0)),
            codebook=Codebook.from_dict(entry["ihds:codebook"]),
            offer={**offers[0], "target": str(entry["@id"])},
            thresholds=Thresholds.of(own) if (own := entry.get("ihds:thresholds")) else None,
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, BadInput) as error:
        raise BadMessage(f"the catalogue of {holder} has an entry that cannot be read: {error!r}") from error
