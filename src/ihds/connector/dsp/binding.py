"""The HTTPS binding of DSP 2025-1: the connector's endpoints, who may call them, and their error forms.

Trust: a counterparty is who its token proves; it sees only its own processes, everything else is "not found".
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from starlette.routing import Route

from ihds.canonical import digest
from ihds.connector.dataplane.plane import FlowEvent
from ihds.connector.dsp import catalog, negotiation, transfer
from ihds.connector.dsp.connector import Connector, Conversation, again, read_process
from ihds.connector.dsp.message import check, message
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import Transfer
from ihds.errors import BadInput, BadMessage, IhdsError, NotFound
from ihds.store.store import Put, Record
from ihds.wire.serve import Answer, Call, endpoint
from ihds.wire.strict import reasons

_NEGOTIATION_PATHS: dict[str, str | None] = {
    "request": "ContractRequestMessage",
    "offers": "ContractOfferMessage",
    "agreement/verification": "ContractAgreementVerificationMessage",
    "agreement": "ContractAgreementMessage",
    "events": None,
    "termination": "ContractNegotiationTerminationMessage",
}
_TRANSFER_PATHS = {
    "start": "TransferStartMessage",
    "suspension": "TransferSuspensionMessage",
    "completion": "TransferCompletionMessage",
    "termination": "TransferTerminationMessage",
}


class Callers(Protocol):
    """Knows who calls, and lets in who may."""

    def check(self, authorization: str) -> dict[str, Any]:
        """Return the claims of an Authorization header. Raises NotAuthenticated, Refused."""
        ...


@dataclass
class Binding:
    """The endpoints of one connector."""

    connector: Connector
    callers: Callers

    def routes(self) -> list[Route]:
        """Return the binding's routes."""
        base = "/dsp/2025-1"

        def route(path: str, handler: Callable[[Call], Answer], *methods: str) -> Route:
            return Route(base + path, endpoint(self._answering(handler), on_error=_error_answer), methods=list(methods))

        routes = [
            Route("/.well-known/dspace-version", endpoint(self._versions), methods=["GET"]),
            route("/catalog/request", self._catalog, "POST"),
            route("/catalog/datasets/{id:text}", self._dataset, "GET"),
            route("/negotiations/request", self._first_request, "POST"),
            route("/negotiations/offers", self._first_offer, "POST"),
            route("/transfers/request", self._transfer_request, "POST"),
        ]
        for path, kind in _NEGOTIATION_PATHS.items():
            routes.append(route(f"/negotiations/{{pid}}/{path}", self._negotiation_message(kind), "POST"))
        for path, kind in _TRANSFER_PATHS.items():
            routes.append(route(f"/transfers/{{pid}}/{path}", self._transfer_message(kind), "POST"))
        routes.append(route("/negotiations/{pid}", self._show("negotiation"), "GET"))
        routes.append(route("/transfers/{pid}", self._show("transfer"), "GET"))
        return routes

    def _answering(self, handler: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
        """Let what a message causes wait until its answer is sent; read anew what moved meanwhile."""

        def answer(call: Call) -> Answer:
            known = replace(call, caller=self.callers.check(call.headers.get("authorization", "")))
            with self.connector.outbox.answering() as release:
                return replace(again(lambda: handler(known)), after=release)

        return answer

    def _versions(self, _call: Call) -> Answer:
        return Answer(catalog.versions(self.connector.identity.did))

    def _who(self, call: Call) -> str:
        return str(call.caller["iss"])

    def _catalog(self, call: Call) -> Answer:
        """Answer a page of the catalog, streamed; ``Link`` names the pages before and after (DSP §5.3)."""
        self._who(call)
        offset, limit = catalog.read_request(call.json())
        offset, limit = (
            _number(call, "offset", offset),
            _number(call, "limit", catalog.PAGE if limit is None else limit),
        )
        datasets = self.connector.decisions.datasets()
        end = offset + limit if limit else len(datasets)
        links = []
        base = f"{self.connector.address}/catalog/request?limit={limit}&offset="
        if limit and end < len(datasets):
            links.append(f'<{base}{end}>; rel="next"')
        if limit and offset:
            links.append(f'<{base}{max(0, offset - limit)}>; rel="previous"')
        did = self.connector.identity.did
        head = catalog.head(did, self.connector.address, f"{did}#dsp")
        shown = (datasets[i] for i in range(min(offset, len(datasets)), min(end, len(datasets))))
        headers = {"Link": ", ".join(links)} if links else {}
        return Answer(chunks=catalog.stream(head, shown), headers=headers)

    def _dataset(self, call: Call) -> Answer:
        self._who(call)
        entry = catalog.find(self.connector.decisions.datasets(), call.path["id"])
        return Answer({**message("Dataset"), **entry})

    def _show(self, kind: str) -> Callable[[Call], Answer]:
        def show(call: Call) -> Answer:
            return Answer(self._own(kind, call.path["pid"], self._who(call))[0].acknowledgement())

        return show

    def _first_request(self, call: Call) -> Answer:
        claims = call.caller
        who = str(claims["iss"])
        body = call.json()
        check(body, "ContractRequestMessage", "consumerPid", "offer", "callbackAddress")
        if body.get("providerPid"):
            raise BadMessage("an initial ContractRequestMessage has no providerPid")
        callback = _address(body["callbackAddress"])
        pid = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.connector.identity.did}|{who}|{body['consumerPid']}").urn
        found = self.connector.log.get("negotiation", pid)
        if found is None:
            fresh = Negotiation(
                pid=pid,
                other_pid=str(body["consumerPid"]),
                role="provider",
                state=negotiation.State.START,
                counterparty=who,
                callback=callback,
                offer=self._offer(body["offer"]),
                permit=str(body.get("ihds:permit", "")),
                access=str(claims.get("token") or ""),
            )
            asked = negotiation.step(fresh, negotiation.Event.REQUEST, "consumer")
            self.connector.commit(
                asked, 0, "request", *self.connector.next_steps(asked, negotiation.Event.REQUEST, own=False)
            )
        process, _ = self._own("negotiation", pid, who)
        return Answer(process.acknowledgement(), status=201)

    def _offer(self, offer: dict[str, Any]) -> dict[str, Any]:
        """Return the catalog's own offer for the one named; only its id is taken from the message."""
        for entry in self.connector.decisions.datasets():
            for known in entry["hasPolicy"]:
                if known["@id"] == offer.get("@id") and offer.get("target", entry["@id"]) == entry["@id"]:
                    return {**known, "target": entry["@id"]}
        raise BadInput(f"there is no offer {offer.get('@id')!r}", remedy="request the catalog")

    def _proposal(self, offer: dict[str, Any]) -> dict[str, Any]:
        """Return a counter-offer: the catalog's offer of that id, under the rules the consumer proposes."""
        own = self._offer(offer)
        return {**own, **negotiation.rules(offer)} if negotiation.rules(offer) else own

    def _first_offer(self, call: Call) -> Answer:
        """Take an unasked offer; whether it is accepted is decided after the answer."""
        claims = call.caller
        who = str(claims["iss"])
        body = call.json()
        check(body, "ContractOfferMessage", "providerPid", "offer", "callbackAddress")
        if body.get("consumerPid"):
            raise BadMessage("an initial ContractOfferMessage has no consumerPid")
        did = self.connector.identity.did
        pid = uuid.uuid5(uuid.NAMESPACE_URL, f"{did}|{who}|o|{body['providerPid']}").urn
        if self.connector.log.get("negotiation", pid) is None:
            fresh = Negotiation(
                pid=pid,
                other_pid=str(body["providerPid"]),
                role="consumer",
                state=negotiation.State.START,
                counterparty=who,
                callback=_address(body["callbackAddress"]),
                offer=_read_offer(body["offer"]),
            )
            event = negotiation.Event.OFFER
            offered = negotiation.step(fresh, event, "provider")
            self.connector.received(offered, 0, event)
        process, _ = self._own("negotiation", pid, who)
        return Answer(process.acknowledgement(), status=201)

    def _negotiation_message(self, kind: str | None) -> Callable[[Call], Answer]:
        def receive(call: Call) -> Answer:
            process, record = self._own("negotiation", call.path["pid"], self._who(call))
            assert isinstance(process, Negotiation)
            body = call.json()
            named = kind or "ContractNegotiationEventMessage"
            if self._repeated(process, body) or negotiation.said_before(process, named, body):
                return Answer(process.acknowledgement())
            event = negotiation.read(body, named, process)
            sender = negotiation.counterparty_role(process)
            after = negotiation.step(process, event, sender)
            after = replace(after, other_pid=self._other(process, body), last=digest(body))
            match event:
                case negotiation.Event.AGREE:
                    after = replace(after, agreement=self._check_agreement(process, body["agreement"]))
                case negotiation.Event.TERMINATE:
                    after = replace(after, reason=reasons(body.get("reason")))
                case negotiation.Event.REQUEST:
                    after = replace(after, offer=self._proposal(body["offer"]))
                case negotiation.Event.OFFER:
                    after = replace(after, offer=_read_offer(body["offer"]))
                case _:
                    pass
            agreed = [self.connector.agreement_record(after)] if event is negotiation.Event.FINALIZE else []
            self.connector.commit(
                after, record.version, str(event), *agreed, *self.connector.next_steps(after, event, own=False)
            )
            return Answer(after.acknowledgement())

        return receive

    def _check_agreement(self, process: Negotiation, agreement: dict[str, Any]) -> dict[str, Any]:
        for name, expected in (
            ("assignee", self.connector.identity.did),
            ("assigner", process.counterparty),
            ("target", process.offer.get("target")),
        ):
            if agreement.get(name) != expected:
                raise BadMessage(f"agreement: {name} is {agreement.get(name)!r}, not {expected!r}")
        if negotiation.rules(process.offer) != negotiation.rules(agreement):
            raise BadMessage("agreement: its rules are not those of the offer")
        return dict(agreement)

    def _transfer_request(self, call: Call) -> Answer:
        who = self._who(call)
        body = call.json()
        check(body, "TransferRequestMessage", "consumerPid", "agreementId", "format", "callbackAddress")
        pid = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.connector.identity.did}|{who}|t|{body['consumerPid']}").urn
        found = self.connector.log.get("transfer", pid)
        if found is None:
            agreement = self.connector.agreement(str(body["agreementId"]))
            if agreement["counterparty"] != who or agreement["role"] != "provider":
                raise NotFound(f"no agreement {body['agreementId']!r}")
            formats = [d["format"] for d in self._entry(agreement["dataset"])["distribution"]]
            if body["format"] not in formats:
                raise BadInput(f"the format {body['format']!r} is not offered", remedy=f"use {formats}")
            fresh = Transfer(
                pid=pid,
                other_pid=str(body["consumerPid"]),
                role="provider",
                state=transfer.State.START,
                counterparty=who,
                callback=_address(body["callbackAddress"]),
                agreement_id=str(body["agreementId"]),
                format=str(body["format"]),
                push=_push_address(body),
            )
            asked = transfer.step(fresh, transfer.Event.REQUEST, "consumer")
            self.connector.commit(
                asked, 0, "request", *self.connector.next_steps(asked, transfer.Event.REQUEST, own=False)
            )
        else:
            process = Transfer.from_dict(found.body)
            if process.state is transfer.State.STARTED:  # a repeat asks for a fresh token
                self.connector.commit(process, found.version, "renew", self.connector.row(process, task="renew"))
        process, _ = self._own("transfer", pid, who)  # type: ignore[assignment]
        return Answer(process.acknowledgement(), status=201)

    def _entry(self, dataset: str) -> dict[str, Any]:
        return catalog.find(self.connector.decisions.datasets(), dataset)

    def _transfer_message(self, kind: str) -> Callable[[Call], Answer]:
        def receive(call: Call) -> Answer:
            process, record = self._own("transfer", call.path["pid"], self._who(call))
            assert isinstance(process, Transfer)
            body = call.json()
            if self._repeated(process, body):
                return Answer(process.acknowledgement())
            event = transfer.read(body, kind, process)
            renewed = process.role == "consumer" and process.state is transfer.State.STARTED
            if event is transfer.Event.START and renewed and body.get("dataAddress"):
                after = process  # the provider renews the token
            else:
                after = transfer.step(process, event, _other_role(process))
            after = replace(
                after,
                other_pid=self._other(process, body),
                last=digest(body),
                address=body.get("dataAddress", process.address),
                reason=reasons(body.get("reason")),
            )
            stopped: list[Put] = []
            if event is not transfer.Event.START:
                stopped = self.connector.planes.stop(self.connector.flow(after), FlowEvent(event))
            self.connector.commit(
                after, record.version, str(event), *stopped, *self.connector.next_steps(after, event, own=False)
            )
            if event is transfer.Event.START and after.role == "consumer":
                self.connector.planes.started(self.connector.flow(after))
            if after.state in (transfer.State.COMPLETED, transfer.State.TERMINATED):
                self.connector.decisions.ended(after)
            return Answer(after.acknowledgement())

        return receive

    def _own(self, kind: str, pid: str, who: str) -> tuple[Conversation, Record]:
        record = self.connector.log.get(kind, pid)
        if record is None or record.body["counterparty"] != who:
            raise NotFound(f"no {kind} {pid!r}")
        return read_process(record), record

    def _repeated(self, process: Conversation, body: dict[str, Any]) -> bool:
        return bool(process.last) and process.last == digest(body)

    def _other(self, process: Conversation, body: dict[str, Any]) -> str:
        name = "providerPid" if process.role == "consumer" else "consumerPid"
        return process.other_pid or str(body[name])


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise BadMessage(f"the query parameter {name} is {text!r}, not a whole number")
    return int(text)


def _other_role(process: Transfer) -> Any:
    return "provider" if process.role == "consumer" else "consumer"


def _read_offer(offer: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(offer.get("@id"), str) or not isinstance(offer.get("target"), str):
        raise BadMessage("offer: it has no @id or no target")
    return dict(offer)


def _push_address(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the data address of a push; a pull has none (DSP §9.2.1)."""
    address = body.get("dataAddress")
    if not str(body["format"]).endswith("-PUSH"):
        return None
    if not isinstance(address, dict):
        raise BadMessage("a push transfer is requested with the dataAddress to push to")
    _address(transfer.read_address(address)[0])
    return address


def _address(value: Any) -> str:
    text = str(value)
    if not text.startswith(("http://", "https://")):
        raise BadMessage(f"callbackAddress {text!r} is not an HTTP address")
    return text.rstrip("/")


def _error_answer(call: Call, error: IhdsError) -> Answer:
    """Return the error message type that belongs to the path, as DSP asks for."""
    reasons = [error.message, *error.reasons]
    try:
        body = call.json() if call.body else {}
    except BadMessage:
        body = {}
    kind = str(body.get("@type", ""))
    if kind.startswith("Catalog") or "id" in call.path:
        return Answer(catalog.error(error.code, reasons), status=error.http_status)
    area = "TransferError" if kind.startswith("Transfer") else "ContractNegotiationError"
    pid = call.path.get("pid", uuid.uuid4().urn)
    pids = {
        "consumerPid": str(body.get("consumerPid") or pid),
        "providerPid": str(body.get("providerPid") or pid),
    }
    return Answer(message(area, **pids, code=error.code, reason=reasons), status=error.http_status)
