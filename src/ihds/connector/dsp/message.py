"""What every DSP message has: context, type, pids; building them and checking them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ihds.errors import BadMessage

CONTEXT = "https://w3id.org/dspace/2025/1/context.jsonld"
EXPANDED = "https://w3id.org/dspace/2025/1/"
VERSION = "2025-1"
Role = Literal["consumer", "provider"]


def message(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a message of a type; fields that are None or empty lists are left out."""
    kept = {k: v for k, v in fields.items() if v is not None and v != []}
    return {"@context": [CONTEXT], "@type": kind, **kept}


def fresh(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a message with an id of its own: sent again it is the same one, said again it is another."""
    return message(kind, **{"@id": uuid.uuid4().urn}, **fields)


def check(body: Mapping[str, Any], kind: str, *required: str) -> None:
    """Check type, context and required fields; unknown fields are allowed by the protocol.

    Raises:
        BadMessage: something is missing or wrong; it is named.

    """
    if str(body.get("@type", "")).removeprefix(EXPANDED).removeprefix("dspace:") != kind:
        raise BadMessage(f"expected a {kind}, got {body.get('@type')!r}")
    context = body.get("@context")
    expanded = str(body.get("@type", "")).startswith(EXPANDED)  # JSON-LD's long form needs no context
    if not expanded and (not isinstance(context, list) or CONTEXT not in context):
        raise BadMessage(f"{kind}: @context must be an array that holds {CONTEXT}")
    for name in required:
        value = body.get(name)
        if value is None or value == "":
            raise BadMessage(f"{kind}: {name} is missing")
        if name in ("consumerPid", "providerPid", "callbackAddress", "format", "agreementId") and not (
            isinstance(value, str) and len(value) <= 2048
        ):
            raise BadMessage(f"{kind}: {name} must be a text of at most 2048 characters")
        if name in ("offer", "agreement") and not isinstance(value, Mapping):
            raise BadMessage(f"{kind}: {name} must be an object")


@dataclass(frozen=True, slots=True)
class Process:
    """What a negotiation and a transfer have in common: an own pid and the counterparty's."""

    pid: str
    other_pid: str
    role: Role

    @property
    def consumer_pid(self) -> str:
        """The consumer's pid."""
        return self.pid if self.role == "consumer" else self.other_pid

    @property
    def provider_pid(self) -> str:
        """The provider's pid."""
        return self.pid if self.role == "provider" else self.other_pid

    @property
    def pids(self) -> dict[str, str]:
        """Both pids, as messages name them."""
        return {"consumerPid": self.consumer_pid, "providerPid": self.provider_pid}

    def check_pids(self, body: Mapping[str, Any], kind: str) -> None:
        """Check that a message names this process.

        Raises:
            BadMessage: it names another.
        """
        for name, pid in self.pids.items():
            if pid and body[name] != pid:
                raise BadMessage(f"{kind}: {name} is {body[name]!r}, not {pid!r}")


def other(role: Role) -> Role:
    """Return the counterparty's role."""
    return "provider" if role == "consumer" else "consumer"
