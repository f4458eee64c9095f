"""What every DCP message has: context, type, and checked fields; building them and checking them."""

from __future__ import annotations

from typing import Any

from ihds.errors import BadMessage

CONTEXT = "https://w3id.org/dspace-dcp/v1.0/dcp.jsonld"
#: The longest list of credentials in one message.
MOST = 32


def message(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a message of a type; fields that are None are left out."""
    return {"@context": [CONTEXT], "type": kind, **{k: v for k, v in fields.items() if v is not None}}


def check(body: dict[str, Any], kind: str, *required: str) -> None:
    """Check type, context and required fields; texts are bounded, ``credentials`` is a bounded list.

    Raises:
        BadMessage: something is missing or wrong; it is named.

    """
    if body.get("type") != kind:
        raise BadMessage(f"expected a {kind}, got {body.get('type')!r}")
    context = body.get("@context")
    if not isinstance(context, list) or CONTEXT not in context:
        raise BadMessage(f"{kind}: @context must be an array that holds {CONTEXT}")
    for name in required:
        value = body.get(name)
        if not value:
            raise BadMessage(f"{kind}: {name} is missing")
        if name == "credentials":
            if not isinstance(value, list) or len(value) > MOST or not all(isinstance(v, dict) for v in value):
                raise BadMessage(f"{kind}: credentials must be a list of 1 to {MOST} objects")
        elif not isinstance(value, str) or len(value) > 2048:
            raise BadMessage(f"{kind}: {name} must be a text of at most 2048 characters")
