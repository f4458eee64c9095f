"""What the holders of datasets say of them, as a member reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ihds.catalogue.record import DatasetRecord, read_entry
from ihds.errors import NotFound

if TYPE_CHECKING:
    from ihds.connector.dsp.connector import Connector


def catalogue(connector: Connector, holder: str) -> list[DatasetRecord]:
    """Return the datasets of one holder's catalogue."""
    entries = connector.catalog(holder, connector.find_address(holder))
    return [read_entry(entry, holder) for entry in entries]


def described(connector: Connector, datasets: Iterable[tuple[str, str]]) -> list[DatasetRecord]:
    """Return what holders say of datasets, pairs of holder and id.

    Raises:
        NotFound: a holder no longer lists one.

    """
    found = []
    for holder, dataset in datasets:
        listed = {r.id: r for r in catalogue(connector, holder)}
        if dataset not in listed:
            raise NotFound(f"{holder} no longer lists {dataset!r}", remedy="ihds catalogue search")
        found.append(listed[dataset])
    return found
