"""The DSP catalog: datasets with their offers, as a provider shows them (DSP 2025-1 §5)."""

from __future__ import annotations

from typing import Any

from ihds.connector.dsp.message import VERSION, check, message
from ihds.errors import BadInput, NotFound


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


def catalog(participant: str, base: str, service: str, datasets: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the catalog of a participant."""
    return message(
        "Catalog",
        **{"@id": f"{participant}#catalog"},
        participantId=participant,
        service=[{"@id": service, "@type": "DataService", "endpointURL": base}],
        dataset=datasets,
    )


def read_request(body: dict[str, Any]) -> None:
    """Check a catalog request.

    Raises:
        BadMessage: it is malformed.
        BadInput: it carries a filter, which this node does not support.

    """
    check(body, "CatalogRequestMessage")
    if body.get("filter"):
        raise BadInput("filters are not supported", remedy="request the catalog without a filter")


def error(code: str, reasons: list[str]) -> dict[str, Any]:
    """Return a CatalogError."""
    return message("CatalogError", code=code, reason=reasons)


def find(datasets: list[dict[str, Any]], identifier: str) -> dict[str, Any]:
    """Return one dataset.

    Raises:
        NotFound: there is none of that id.

    """
    for entry in datasets:
        if entry["@id"] == identifier:
            return entry
    raise NotFound(f"no dataset {identifier!r}")
