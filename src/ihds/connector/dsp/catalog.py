"""The DSP catalog: datasets with their offers, as a provider shows them (DSP 2025-1 §5)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ihds.connector.dsp.message import VERSION, check, message
from ihds.errors import BadInput, BadMessage, NotFound

#: Datasets on a page unless the caller asks for another number; 0 asks for all of them.
PAGE = 500
_PIECE = 1 << 16


def versions(service_id: str) -> dict[str, Any]:
    """Return the answer of ``/.well-known/dspace-version``."""
    entry = {
        "version": VERSION,
        "path": "/dsp/2025-1",
        "binding": "HTTPS",
        "serviceId": service_id,
        "identifierType": "did:web",
        "auth": {"protocol": "DCP", "version": "1.0", "profile": ["vc11-sl2021/jwt"]},
    }
    return {"protocolVersions": [entry]}


def dataset(
    identifier: str, offers: list[dict[str, Any]], service: str, formats: list[str], extra: dict[str, Any]
) -> dict[str, Any]:
    """Return a dataset entry; ``extra`` holds further DCAT properties."""
    distributions = [{"@type": "Distribution", "format": name, "accessService": service} for name in formats]
    return {
        **extra,
        "@id": identifier,
        "@type": "Dataset",
        "hasPolicy": offers,
        "distribution": distributions,
    }


def head(participant: str, base: str, service: str) -> dict[str, Any]:
    """Return the catalog of a participant without its datasets."""
    return message(
        "Catalog",
        **{"@id": f"{participant}#catalog"},
        participantId=participant,
        service=[{"@id": service, "@type": "DataService", "endpointURL": base}],
    )


def read_request(body: dict[str, Any]) -> tuple[int, int | None]:
    """Check a catalog request; return the offset and limit it asks for, if it does.

    A filter is refused, except the empty query in which Eclipse EDC says no more than a page.

    Raises:
        BadMessage: it is malformed.
        BadInput: it carries a filter, which this node does not support.

    """
    check(body, "CatalogRequestMessage")
    given = body.get("filter") or []
    offset, limit = 0, None
    for item in given if isinstance(given, list) else [given]:
        if not isinstance(item, dict) or item.get("@type") != "QuerySpec" or item.get("filterExpression"):
            raise BadInput("filters are not supported", remedy="request the catalog without a filter")
        numbers = (item.get("offset", 0), item.get("limit", PAGE))
        if not all(isinstance(n, int) and 0 <= n < 2**31 for n in numbers):
            raise BadMessage("QuerySpec: offset and limit are whole numbers")
        offset, limit = numbers
    return offset, limit


def stream(head: dict[str, Any], datasets: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the JSON of a catalog, dataset by dataset, in pieces worth sending; ``head`` has all but datasets."""
    pending = [json.dumps(head)[:-1]]
    size, first = 0, True
    for entry in datasets:
        text = json.dumps(entry)
        pending.append((', "dataset": [' if first else ", ") + text)
        first = False
        size += len(text)
        if size > _PIECE:
            yield "".join(pending).encode()
            pending, size = [], 0
    yield ("".join(pending) + ("}" if first else "]}")).encode()


def error(code: str, reasons: list[str]) -> dict[str, Any]:
    """Return a CatalogError."""
    return message("CatalogError", code=code, reason=reasons)


def find(datasets: Sequence[dict[str, Any]], identifier: str) -> dict[str, Any]:
    """Return one dataset.

    Raises:
        NotFound: there is none of that id.

    """
    for entry in datasets:
        if entry["@id"] == identifier:
            return entry
    raise NotFound(f"no dataset {identifier!r}")
