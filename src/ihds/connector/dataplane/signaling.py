"""Data Plane Signaling 1.0 over HTTP: a data plane in a process of its own, and its connector's side of the talk.

Both sides hold one key, made with the node; it travels as a bearer token inside the operator's own
network. Trust: whoever holds it can open and close streams of this participant, no other's.
"""

from __future__ import annotations

import hmac
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from ihds.audit.log import Event, Log
from ihds.connector.dataplane.plane import NEXT, Flow, FlowEvent, FlowState, Plane, Planes
from ihds.errors import BadMessage, IllegalTransition, NotAuthenticated, NotFound, PeerFailed
from ihds.governance.lifecycle import advance
from ihds.store.store import Put, Record
from ihds.wire.http import Http, raise_for
from ihds.wire.serve import Answer, Call, endpoint

_ATTEMPTS = 12
_WORDS = {FlowEvent.SUSPEND: "suspend", FlowEvent.TERMINATE: "terminate", FlowEvent.COMPLETE: "completed"}


@dataclass(frozen=True)
class RemotePlane:
    """A registered data plane, as its connector speaks to it."""

    url: str
    formats: frozenset[str]
    key: str
    me: str
    http: Http

    def prepare(self, flow: Flow) -> tuple[dict[str, Any] | None, list[Put]]:
        """Ask it to make ready."""
        return self._call("/dataflows/prepare", self._message(flow)).get("dataAddress"), []

    def start(self, flow: Flow) -> tuple[dict[str, Any] | None, list[Put]]:
        """Ask it to start, or to resume what it knows; either way it gives a fresh address."""
        status, _ = self.http.json("GET", f"{self.url}/dataflows/{flow.id}/status", token=self.key)
        path = f"/dataflows/{flow.id}/resume" if status == 200 else "/dataflows/start"
        return self._call(path, self._message(flow)).get("dataAddress"), []

    def started(self, flow: Flow) -> None:
        """Tell it that the provider has started."""
        url = f"{self.url}/dataflows/{flow.id}/started"
        status, answer = self.http.json("POST", url, {"messageId": uuid.uuid4().urn}, self.key)
        if status not in (200, 202, 404):
            raise_for(status, answer, url)

    def go(self, flow: Flow) -> None:
        """Nothing: it begins by itself when it is asked to start."""

    def stop(self, flow: Flow, event: FlowEvent) -> list[Put]:
        """Ask it to stop; a flow it does not know needs no stopping."""
        url = f"{self.url}/dataflows/{flow.id}/{_WORDS[event]}"
        status, answer = self.http.json("POST", url, {"messageId": uuid.uuid4().urn}, self.key)
        if status not in (200, 202, 404):
            raise_for(status, answer, url)
        return []

    def _message(self, flow: Flow) -> dict[str, Any]:
        body = {
            "messageId": uuid.uuid4().urn,
            "participantId": self.me,
            "counterPartyId": flow.counterparty,
            "dataspaceContext": "ihds",
            "processId": flow.id,
            "agreementId": flow.agreement,
            "datasetId": flow.dataset,
            "profile": flow.format,
            "claims": {},
        }
        return {**body, "dataAddress": flow.address} if flow.address else body

    def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.http.call("POST", self.url + path, body, self.key)


@dataclass
class ControlSide:
    """What a connector offers its data planes: registration, and news of flows.

    ``ended`` tells the connector that a flow completed (None) or failed (the reason).
    """

    planes: Planes
    log: Log
    me: str
    key: str
    http: Http
    agreement: Callable[[str], dict[str, Any]]
    ended: Callable[[str, str | None], None]

    def routes(self) -> list[Route]:
        """Return the endpoints data planes call."""
        base = "/signaling"
        return [
            Route(f"{base}/dataplanes", endpoint(self._register), methods=["PUT"]),
            Route(f"{base}/dataplanes/{{id}}", endpoint(self._forget), methods=["DELETE"]),
            Route(f"{base}/transfers/{{id}}/dataflow/{{event}}", endpoint(self._news), methods=["POST"]),
            Route(f"{base}/transfers/{{id}}/agreement", endpoint(self._agreement), methods=["GET"]),
        ]

    def load(self) -> None:
        """Take up the planes that registered before a restart."""
        for record in self.log.store.list("dataplane"):
            self._add(record.body)

    def _add(self, body: dict[str, Any]) -> None:
        formats = frozenset(map(str, body["profiles"]))
        fresh = RemotePlane(str(body["endpoint"]).rstrip("/"), formats, self.key, self.me, self.http)
        kept = [p for p in self.planes.planes if not (isinstance(p, RemotePlane) and p.url == fresh.url)]
        self.planes.planes[:] = [fresh, *kept]  # a plane of its own goes before the one in this process

    def _register(self, call: Call) -> Answer:
        check_key(call, self.key)
        body = call.json()
        if not isinstance(body.get("endpoint"), str) or not isinstance(body.get("profiles"), list):
            raise BadMessage("a registration has dataplaneId, endpoint and profiles")
        identifier = str(body.get("dataplaneId") or body["endpoint"])
        kept = {"dataplaneId": identifier, "endpoint": body["endpoint"], "profiles": body["profiles"]}
        found = self.log.get("dataplane", identifier)
        if found is None or found.body != kept:
            put = Put("dataplane", identifier, found.version if found else 0, kept)
            self.log.commit(Event("dataplane.registered", self.me, kept), put)
        self._add(kept)
        return Answer(kept)

    def _forget(self, call: Call) -> Answer:
        check_key(call, self.key)
        found = self.log.get("dataplane", call.path["id"])
        if found is None:
            raise NotFound("no such data plane is registered")
        put = Put("dataplane", found.id, found.version, None)
        self.log.commit(Event("dataplane.registered", self.me, {"dataplaneId": found.id, "gone": True}), put)
        url = str(found.body["endpoint"]).rstrip("/")
        self.planes.planes[:] = [p for p in self.planes.planes if not (isinstance(p, RemotePlane) and p.url == url)]
        return Answer({})

    def _news(self, call: Call) -> Answer:
        check_key(call, self.key)
        match call.path["event"]:
            case "completed":
                self.ended(call.path["id"], None)
            case "errored":
                self.ended(call.path["id"], str(call.json().get("error") or "the data plane failed"))
            case "prepared" | "started":
                pass
            case other:
                raise NotFound(f"a data flow is never {other!r}")
        return Answer({})

    def _agreement(self, call: Call) -> Answer:
        check_key(call, self.key)
        return Answer(self.agreement(call.path["id"]))


@dataclass
class PlaneSide:
    """A data plane's own server: keeps the state of each flow and drives the plane in its process."""

    plane: Plane
    log: Log
    me: str
    key: str

    def routes(self) -> list[Route]:
        """Return the endpoints the connector calls."""
        return [
            Route("/dataflows/prepare", endpoint(self._prepare), methods=["POST"]),
            Route("/dataflows/start", endpoint(self._start), methods=["POST"]),
            Route("/dataflows/{id}/status", endpoint(self._status), methods=["GET"]),
            Route("/dataflows/{id}/{event}", endpoint(self._event), methods=["POST"]),
        ]

    def _prepare(self, call: Call) -> Answer:
        flow = self._flow(call, consumer=True)
        address, puts = self.plane.prepare(flow)
        return self._commit(flow, None, FlowState.PREPARED, address, puts)

    def _start(self, call: Call) -> Answer:
        flow = self._flow(call, consumer=False)
        if (flow.address is None) == flow.format.endswith("-PUSH"):
            raise BadMessage("a push is started with a dataAddress, a pull without")
        address, puts = self.plane.start(flow)
        return self._commit(flow, None, FlowState.STARTED, address, puts)

    def _flow(self, call: Call, *, consumer: bool) -> Flow:
        """Read a fresh flow; a processId that is known already is refused, as the specification asks."""
        check_key(call, self.key)
        body = call.json()
        names = ("processId", "counterPartyId", "agreementId", "datasetId", "profile")
        missing = [name for name in names if not isinstance(body.get(name), str)]
        if missing:
            raise BadMessage(f"the data flow message lacks {missing[0]}")
        identifier, counterparty, agreement, dataset, profile = (str(body[name]) for name in names)
        if self.log.get("dataflow", identifier) is not None:
            raise IllegalTransition(f"the data flow {identifier} is known already", remedy="resume it")
        return Flow(identifier, counterparty, agreement, dataset, profile, consumer, body.get("dataAddress"))

    def _commit(
        self, flow: Flow, found: Record | None, state: FlowState, address: dict[str, Any] | None, puts: list[Put]
    ) -> Answer:
        body = {"flow": flow.to_dict(), "state": str(state)}
        put = Put("dataflow", flow.id, found.version if found else 0, body)
        details = {"transfer": flow.id, "dataset": flow.dataset, "state": str(state)}
        self.log.commit(Event("dataflow.advanced", self.me, details), put, *puts)
        if state is FlowState.STARTED and not flow.consumer:
            self.plane.go(flow)
        status = {"messageId": uuid.uuid4().urn, "dataFlowId": flow.id, "state": str(state)}
        return Answer({**status, "dataAddress": address} if address else status)

    def _known(self, call: Call) -> Record:
        check_key(call, self.key)
        found = self.log.get("dataflow", call.path["id"])
        if found is None:
            raise NotFound(f"no data flow {call.path['id']!r}")
        return found

    def _status(self, call: Call) -> Answer:
        found = self._known(call)
        return Answer({"messageId": uuid.uuid4().urn, "dataFlowId": found.id, "state": found.body["state"]})

    def _event(self, call: Call) -> Answer:
        found = self._known(call)
        flow, state = Flow(**found.body["flow"]), FlowState(found.body["state"])
        words = {word: event for event, word in _WORDS.items()} | {"resume": FlowEvent.START, "started": None}
        if call.path["event"] not in words:
            raise NotFound(f"a data flow has no {call.path['event']!r}")
        event = words[call.path["event"]]
        if event is None:  # the consumer learns that its provider has started
            self.plane.started(flow)
            return self._commit(flow, found, advance(NEXT, "the data flow", state, FlowEvent.START), None, [])
        after = advance(NEXT, "the data flow", state, event)
        if event is FlowEvent.START:
            address, puts = self.plane.start(flow)
            return self._commit(flow, found, after, address, puts)
        return self._commit(flow, found, after, None, self.plane.stop(flow, event))


def check_key(call: Call, key: str) -> None:
    """Check the key both sides share.

    Raises:
        NotAuthenticated: it is another.

    """
    if not key or not hmac.compare_digest(call.bearer.encode(), key.encode()):
        raise NotAuthenticated("the signaling key is wrong", remedy="copy dataplane.key from the node's folder")


def report_to(control: str, key: str, http: Http) -> Callable[[str, str | None], None]:
    """Return the function by which a data plane in a process of its own tells its connector of an ended push."""

    def report(flow: str, failure: str | None) -> None:
        event = "completed" if failure is None else "errored"
        body = {"messageId": uuid.uuid4().urn, "dataFlowId": flow, "error": failure}
        for attempt in range(_ATTEMPTS):
            try:
                http.call("POST", f"{control}/signaling/transfers/{flow}/dataflow/{event}", body, key)
            except PeerFailed:
                time.sleep(min(30.0, 0.2 * 2**attempt))
            else:
                return
        raise PeerFailed(f"the connector at {control} does not hear that {flow} has ended")

    return report
