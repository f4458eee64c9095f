"""The seam between control plane and data planes: what the one asks of the others.

The verbs and states are those of Data Plane Signaling 1.0: prepare, start, suspend, terminate,
complete. A plane in this process answers with writes that join the transaction of the transfer's
state; a plane in a process of its own is asked over HTTP (``signaling``) and remembers by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

from ihds.audit.log import Log, now
from ihds.canonical import sha256
from ihds.errors import BadInput, NotAuthenticated
from ihds.governance.lifecycle import Table
from ihds.store.store import Put

HTTP_ENDPOINT = "https://w3id.org/idsa/v4.1/HTTP"
#: How long the token before the newest one still counts.
GRACE_SECONDS = 30.0
#: Names under which Eclipse EDC looks for the properties of a data address.
EDC = "https://w3id.org/edc/v0.0.1/ns/"


@dataclass(frozen=True, slots=True)
class Flow:
    """What a plane is told of a transfer. ``id`` is the transfer's pid on this side; ``format`` the profile."""

    id: str
    counterparty: str
    agreement: str
    dataset: str
    format: str
    consumer: bool
    address: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


class FlowState(StrEnum):
    """Where a flow stands."""

    PREPARED = "PREPARED"
    STARTED = "STARTED"
    SUSPENDED = "SUSPENDED"
    COMPLETED = "COMPLETED"
    TERMINATED = "TERMINATED"


class FlowEvent(StrEnum):
    """What a control plane tells its planes."""

    START = "start"
    SUSPEND = "suspend"
    COMPLETE = "complete"
    TERMINATE = "terminate"


_S, _E = FlowState, FlowEvent
_END = {_E.TERMINATE: _S.TERMINATED}

NEXT: Table[FlowState, FlowEvent] = {
    _S.PREPARED: {_E.START: _S.STARTED, **_END},
    _S.STARTED: {_E.START: _S.STARTED, _E.SUSPEND: _S.SUSPENDED, _E.COMPLETE: _S.COMPLETED, **_END},
    _S.SUSPENDED: {_E.START: _S.STARTED, **_END},
    _S.COMPLETED: {},
    _S.TERMINATED: {},
}


class Plane(Protocol):
    """One data plane. Every call may be repeated without harm."""

    @property
    def formats(self) -> frozenset[str]:
        """The transfer formats it serves."""
        ...

    def prepare(self, flow: Flow) -> tuple[dict[str, Any] | None, list[Put]]:
        """Make ready on the consumer's side; return the address the provider shall push to, if any."""
        ...

    def start(self, flow: Flow) -> tuple[dict[str, Any] | None, list[Put]]:
        """Start or resume on the provider's side; return the address with a fresh token, if it is pulled from."""
        ...

    def started(self, flow: Flow) -> None:
        """Hear, on the consumer's side, that the provider has started or resumed."""
        ...

    def go(self, flow: Flow) -> None:
        """Begin what ``start`` prepared, now that it is written down."""
        ...

    def stop(self, flow: Flow, event: FlowEvent) -> list[Put]:
        """Suspend, complete or terminate."""
        ...


@dataclass
class Planes:
    """The planes of one connector, chosen by transfer format. A consumer that only pulls needs none."""

    planes: list[Plane] = field(default_factory=list)

    def prepare(self, flow: Flow) -> tuple[dict[str, Any] | None, list[Put]]:
        """Make ready on the consumer's side."""
        plane = self._of(flow)
        return plane.prepare(flow) if plane else (None, [])

    def start(self, flow: Flow) -> tuple[dict[str, Any] | None, list[Put]]:
        """Start or resume on the provider's side."""
        plane = self._of(flow)
        return plane.start(flow) if plane else (None, [])

    def started(self, flow: Flow) -> None:
        """Hear, on the consumer's side, that the provider has started or resumed."""
        plane = self._of(flow)
        if plane:
            plane.started(flow)

    def go(self, flow: Flow) -> None:
        """Begin what ``start`` prepared, now that it is written down."""
        plane = self._of(flow)
        if plane:
            plane.go(flow)

    def stop(self, flow: Flow, event: FlowEvent) -> list[Put]:
        """Suspend, complete or terminate on either side."""
        plane = self._of(flow)
        return plane.stop(flow, event) if plane else []

    def _of(self, flow: Flow) -> Plane | None:
        for plane in self.planes:
            if flow.format in plane.formats:
                return plane
        if flow.consumer:
            return None
        served = sorted({f for plane in self.planes for f in plane.formats})
        raise BadInput(f"no data plane here serves {flow.format!r}", remedy=f"there are: {', '.join(served)}")


@dataclass
class Tokens:
    """Short-lived bearer tokens of flows; only a token's hash is kept, and the newest one counts.

    ``kind`` is the kind of record; ``seconds`` how long a token lives.
    """

    log: Log
    kind: str
    seconds: float

    def issue(self, flow: Flow, seconds: float | None = None) -> tuple[str, Put]:
        """Return a fresh token and the write that makes it good; the one before ends a little later."""
        token = secrets.token_urlsafe(32)
        expires = (now() + timedelta(seconds=seconds or self.seconds)).timestamp()
        found = self.log.get(self.kind, flow.id)
        hashes = [[sha256(token.encode()), expires]]
        if found is not None:  # whoever is on the way with the token before may arrive
            before, until = found.body["hashes"][0]
            hashes.append([before, min(until, now().timestamp() + GRACE_SECONDS)])
        body = {"hashes": hashes, "flow": flow.to_dict()}
        return f"{flow.id}.{token}", Put(self.kind, flow.id, found.version if found else 0, body)

    def revoke(self, flow: Flow) -> list[Put]:
        """Return the write that ends a flow's token."""
        found = self.log.get(self.kind, flow.id)
        return [Put(self.kind, flow.id, found.version, None)] if found else []

    def check(self, token: str) -> Flow:
        """Return the flow a token was issued for.

        Raises:
            NotAuthenticated: it is unknown, ended or expired.

        """
        identifier, _, secret = token.rpartition(".")
        found = self.log.get(self.kind, identifier) if identifier else None
        mine = sha256(secret.encode())
        known = [until for value, until in (found.body["hashes"] if found else []) if value == mine]
        if found is None or not known:
            raise NotAuthenticated("the token of this endpoint is unknown or ended", remedy="request a transfer")
        if known[0] < now().timestamp():
            raise NotAuthenticated("the token of this endpoint has expired", remedy="repeat the transfer request")
        return Flow(**found.body["flow"])


@dataclass
class TokenPlane:
    """A plane whose whole work is to open an endpoint of this node to a bearer: a federated study rides on it."""

    formats: frozenset[str]
    endpoint: str
    endpoint_type: str
    tokens: Tokens

    def prepare(self, flow: Flow) -> tuple[dict[str, Any] | None, list[Put]]:
        """Nothing to make ready: the consumer only asks."""
        return None, []

    def start(self, flow: Flow) -> tuple[dict[str, Any] | None, list[Put]]:
        """Return the endpoint with a fresh token."""
        token, put = self.tokens.issue(replace(flow, address=None))
        return data_address(self.endpoint, token, self.endpoint_type), [put]

    def started(self, flow: Flow) -> None:
        """Nothing depends on it."""

    def go(self, flow: Flow) -> None:
        """Nothing is left to begin."""

    def stop(self, flow: Flow, event: FlowEvent) -> list[Put]:
        """End the token."""
        return self.tokens.revoke(flow)


#: What a plane in this process tells its connector: a flow's id, and None or why it failed.
Report = Callable[[str, str | None], None]


def data_address(endpoint: str, token: str, endpoint_type: str = HTTP_ENDPOINT) -> dict[str, Any]:
    """Return the data address of an endpoint with its bearer token, in DSP's names and in EDC's."""
    pairs = {
        "authorization": token,
        "authType": "bearer",
        f"{EDC}endpoint": endpoint,
        f"{EDC}authorization": token,
        f"{EDC}authType": "bearer",
    }
    return {
        "@type": "DataAddress",
        "endpointType": endpoint_type,
        "endpoint": endpoint,
        "endpointProperties": [
            {"@type": "EndpointProperty", "name": name, "value": value} for name, value in pairs.items()
        ],
    }
