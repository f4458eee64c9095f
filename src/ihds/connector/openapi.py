"""The description of a node's protocol endpoints in OpenAPI 3.1: what other connectors may call, with which bodies."""

from __future__ import annotations

from typing import Any

from ihds.connector.dsp.message import CONTEXT

_TEXT = {"type": "string", "minLength": 1, "maxLength": 2048}
_PID = {"type": "string", "minLength": 1, "maxLength": 500}
_JSON = "application/json"
_OFFER = {
    "type": "object",
    "required": ["@id", "@type", "target"],
    "properties": {
        "@id": _TEXT,
        "@type": {"const": "Offer"},
        "target": _TEXT,
        "permission": {"type": "array", "items": {"type": "object"}},
    },
}
_AGREEMENT = {
    "type": "object",
    "required": ["@id", "@type", "target", "assigner", "assignee"],
    "properties": {
        "@id": _TEXT,
        "@type": {"const": "Agreement"},
        "target": _TEXT,
        "assigner": _TEXT,
        "assignee": _TEXT,
        "timestamp": {"type": "string", "format": "date-time"},
    },
}
_REASONS = {"type": "array", "items": {"type": "string"}, "maxItems": 10}
_FIELDS: dict[str, dict[str, Any]] = {
    "consumerPid": _PID,
    "providerPid": _PID,
    "callbackAddress": {"type": "string", "format": "uri", "pattern": "^https?://"},
    "offer": _OFFER,
    "agreement": _AGREEMENT,
    "eventType": {"enum": ["ACCEPTED", "FINALIZED"]},
    "agreementId": _TEXT,
    "format": _TEXT,
    "reason": _REASONS,
    "code": {"type": "string"},
    "dataAddress": {"type": "object", "required": ["@type", "endpointType"]},
}

#: Path below the base, message type, its required fields, its optional ones, the status of success.
_MESSAGES: list[tuple[str, str, str, str, int]] = [
    ("/catalog/request", "CatalogRequestMessage", "", "", 200),
    ("/negotiations/request", "ContractRequestMessage", "consumerPid offer callbackAddress", "", 201),
    ("/negotiations/offers", "ContractOfferMessage", "providerPid offer callbackAddress", "", 201),
    ("/negotiations/{pid}/request", "ContractRequestMessage", "consumerPid providerPid offer", "", 200),
    ("/negotiations/{pid}/offers", "ContractOfferMessage", "consumerPid providerPid offer", "", 200),
    ("/negotiations/{pid}/agreement", "ContractAgreementMessage", "consumerPid providerPid agreement", "", 200),
    (
        "/negotiations/{pid}/agreement/verification",
        "ContractAgreementVerificationMessage",
        "consumerPid providerPid",
        "",
        200,
    ),
    ("/negotiations/{pid}/events", "ContractNegotiationEventMessage", "consumerPid providerPid eventType", "", 200),
    (
        "/negotiations/{pid}/termination",
        "ContractNegotiationTerminationMessage",
        "consumerPid providerPid",
        "code reason",
        200,
    ),
    (
        "/transfers/request",
        "TransferRequestMessage",
        "consumerPid agreementId format callbackAddress",
        "dataAddress",
        201,
    ),
    ("/transfers/{pid}/start", "TransferStartMessage", "consumerPid providerPid", "dataAddress", 200),
    ("/transfers/{pid}/suspension", "TransferSuspensionMessage", "consumerPid providerPid", "code reason", 200),
    ("/transfers/{pid}/completion", "TransferCompletionMessage", "consumerPid providerPid", "", 200),
    ("/transfers/{pid}/termination", "TransferTerminationMessage", "consumerPid providerPid", "code reason", 200),
]
_READ = ["/negotiations/{pid}", "/transfers/{pid}", "/catalog/datasets/{id}"]


def description(base_url: str, base: str = "/dsp/2025-1") -> dict[str, Any]:
    """Return the description of the Dataspace Protocol endpoints of a node."""
    paths: dict[str, Any] = {
        "/.well-known/dspace-version": {"get": {"responses": {"200": _answer("the versions spoken here")}}}
    }
    for path, kind, required, optional, status in _MESSAGES:
        names = required.split()
        properties = {n: _FIELDS[n] for n in (*names, *optional.split())}
        properties |= {
            "@context": {"type": "array", "contains": {"const": CONTEXT}, "items": {"type": "string"}},
            "@type": {"const": kind},
        }
        schema = {"type": "object", "required": ["@context", "@type", *names], "properties": properties}
        paths[base + path] = {
            "post": {
                "operationId": path.strip("/").replace("/", "-").replace("{pid}", "pid"),
                "summary": kind,
                "parameters": _parameters(path),
                "requestBody": {"required": True, "content": {_JSON: {"schema": schema}}},
                "responses": _responses(status),
                "security": [{"token": []}],
            }
        }
    for path in _READ:
        paths[base + path] = {
            "get": {"parameters": _parameters(path), "responses": _responses(200), "security": [{"token": []}]}
        }
    scheme = {"type": "http", "scheme": "bearer", "description": "a self-issued ID token (DCP 1.0.1)"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "IHDS node: Dataspace Protocol 2025-1", "version": "2025-1"},
        "servers": [{"url": base_url}],
        "paths": paths,
        "components": {"securitySchemes": {"token": scheme}},
    }


def _parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": n, "in": "path", "required": True, "schema": _PID} for n in names]


def _answer(text: str) -> dict[str, Any]:
    return {"description": text, "content": {_JSON: {"schema": {"type": "object"}}}}


def _responses(status: int) -> dict[str, Any]:
    refused = {
        "400": "the message is malformed, or does not fit the state",
        "401": "there is no valid token",
        "403": "refused",
        "404": "no such thing, or not yours",
        "405": "another method",
        "413": "too large",
        "415": "no JSON",
    }
    return {str(status): _answer("done")} | {code: _answer(text) for code, text in refused.items()}
