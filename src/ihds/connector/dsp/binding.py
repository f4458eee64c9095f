"""The HTTPS binding: endpoints, and what a node says and does by itself, through the outbox.

A state and the message it causes are one transaction; the receiver recognises a repeat. Trust: a
counterparty is who its token proves; it sees only its own processes, everything else is "not found".
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from starlette.routing import Route

from ihds.audit.log import Event as LogEvent
from ihds.audit.log import Log, now
from ihds.canonical import digest, sha256
from ihds.connector.dcp.tokens import Identity
from ihds.connector.dsp import catalog, negotiation, transfer
from ihds.connector.dsp.message import check, message
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import Transfer
from ihds.connector.outbox import Outbox
from ihds.errors import (
    BadInput,
    BadMessage,
    Conflict,
    IhdsError,
    IllegalTransition,
    NotAuthenticated,
    NotFound,
    PeerFailed,
    Refused,
)
from ihds.governance.policy import Granted
from ihds.governance.policy import Refused as No
from ihds.store.store import Put, Record
from ihds.wire.http import Answer, Call, Http, endpoint

_RETRY = frozenset({401, 404, 408, 409, 425, 429})

Conversation = Negotiation | Transfer


class Decisions(Protocol):
    """What the institution behind the connector decides; the connector only keeps the protocol."""

    def datasets(self) -> list[dict[str, Any]]:
        """Return the catalog's dataset entries."""
        ...

    def judge(self, process: Negotiation) -> Granted | No:
        """Judge a contract request."""
        ...

    def may_start(self, process: Transfer, agreement: dict[str, Any]) -> Granted | No:
        """Judge a transfer request under an agreement in force."""
        ...

    def ended(self, process: Transfer) -> None:
        """Learn that a transfer has completed or was terminated."""
        ...


class Callers(Protocol):
    """Knows who calls, and lets in who may."""

    def check(self, token: str) -> dict[str, Any]:
        """Return the claims of a bearer token. Raises NotAuthenticated, Refused."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """What a node does next by itself: "judge", "may-start" or an event, after a pause in seconds."""

    task: str
    pause: float = 0.0


class Reactions(Protocol):
    """Which step a node takes by itself when a process has moved; ``own`` says that it moved it."""

    def negotiation(self, process: Negotiation, event: negotiation.Event, own: bool) -> Step | None:
        """Return the next step of a negotiation, if any."""
        ...

    def transfer(self, process: Transfer, event: transfer.Event, own: bool) -> Step | None:
        """Return the next step of a transfer, if any."""
        ...


_PRUDENT = {
    negotiation.Event.REQUEST: Step("judge"),
    negotiation.Event.AGREE: Step(negotiation.Event.VERIFY),
    negotiation.Event.VERIFY: Step(negotiation.Event.FINALIZE),
    negotiation.Event.OFFER: Step(negotiation.Event.TERMINATE),
}


class Prudent:
    """The shipped reactions: judge requests, verify what was agreed, take no offer but the one asked for."""

    def negotiation(self, process: Negotiation, event: negotiation.Event, own: bool) -> Step | None:
        """Return the next step of a negotiation, if any."""
        return None if own else _PRUDENT.get(event)

    def transfer(self, process: Transfer, event: transfer.Event, own: bool) -> Step | None:
        """Return the next step of a transfer, if any."""
        return Step("may-start") if event is transfer.Event.REQUEST and not own else None


@dataclass
class Connector:
    """One participant's control plane: provider and consumer. ``speak`` makes a token for a counterparty."""

    identity: Identity
    tokens: Callers
    speak: Callable[[str], str]
    http: Http
    log: Log
    base_url: str
    decisions: Decisions
    token_seconds: float = 900.0
    reactions: Reactions = field(default_factory=Prudent)
    outbox: Outbox = field(init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.log, self.identity.did, self._perform, self._give_up)

    @property
    def address(self) -> str:
        """The base under which this node's negotiations and transfers are reached."""
        return f"{self.base_url}/dsp/2025-1"

    # -- endpoints -----------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """Return the binding's routes."""
        base = "/dsp/2025-1"

        def route(path: str, handler: Callable[[Call], Answer], *methods: str) -> Route:
            return Route(base + path, endpoint(self._answering(handler), on_error=_error_answer), methods=list(methods))

        routes = [
            Route("/.well-known/dspace-version", endpoint(self._versions), methods=["GET"]),
            route("/catalog/request", self._catalog, "POST"),
            route("/catalog/datasets/{id:path}", self._dataset, "GET"),
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
            with self.outbox.answering() as release:
                return replace(_again(lambda: handler(call)), after=release)

        return answer

    def _versions(self, _call: Call) -> Answer:
        return Answer(catalog.versions(self.identity.did))

    def _who(self, call: Call) -> str:
        return str(self.tokens.check(call.bearer)["iss"])

    def _catalog(self, call: Call) -> Answer:
        self._who(call)
        catalog.read_request(call.json())
        service = f"{self.identity.did}#dsp"
        return Answer(catalog.catalog(self.identity.did, self.address, service, self.decisions.datasets()))

    def _dataset(self, call: Call) -> Answer:
        self._who(call)
        entry = catalog.find(self.decisions.datasets(), call.path["id"])
        return Answer({**message("Dataset"), **entry})

    def _show(self, kind: str) -> Callable[[Call], Answer]:
        def show(call: Call) -> Answer:
            return Answer(self._own(kind, call.path["pid"], self._who(call))[0].acknowledgement())

        return show

    def _first_request(self, call: Call) -> Answer:
        claims = self.tokens.check(call.bearer)
        who = str(claims["iss"])
        body = call.json()
        check(body, "ContractRequestMessage", "consumerPid", "offer", "callbackAddress")
        if body.get("providerPid"):
            raise BadMessage("an initial ContractRequestMessage has no providerPid")
        callback = _address(body["callbackAddress"])
        pid = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.identity.did}|{who}|{body['consumerPid']}").urn
        found = self.log.get("negotiation", pid)
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
            self._commit(asked, 0, "request", *self._next(asked, negotiation.Event.REQUEST, own=False))
        process, _ = self._own("negotiation", pid, who)
        return Answer(process.acknowledgement(), status=201)

    def _offer(self, offer: dict[str, Any]) -> dict[str, Any]:
        """Return the catalog's own offer for the one named; only its id is taken from the message."""
        for entry in self.decisions.datasets():
            for known in entry["hasPolicy"]:
                if known["@id"] == offer.get("@id") and offer.get("target", entry["@id"]) == entry["@id"]:
                    return {**known, "target": entry["@id"]}
        raise BadInput(f"there is no offer {offer.get('@id')!r}", remedy="request the catalog")

    def _first_offer(self, call: Call) -> Answer:
        self._who(call)
        check(call.json(), "ContractOfferMessage", "providerPid", "offer", "callbackAddress")
        raise BadInput("this node does not take unasked offers", remedy="let it send a request")

    def _negotiation_message(self, kind: str | None) -> Callable[[Call], Answer]:
        def receive(call: Call) -> Answer:
            process, record = self._own("negotiation", call.path["pid"], self._who(call))
            assert isinstance(process, Negotiation)
            body = call.json()
            if self._repeated(process, body):
                return Answer(process.acknowledgement())
            event = negotiation.read(body, kind or "ContractNegotiationEventMessage", process)
            sender = negotiation.counterparty_role(process)
            after = negotiation.step(process, event, sender)
            after = replace(after, other_pid=self._other(process, body), last=digest(body))
            match event:
                case negotiation.Event.AGREE:
                    after = replace(after, agreement=self._check_agreement(process, body["agreement"]))
                case negotiation.Event.TERMINATE:
                    after = replace(after, reason=tuple(map(str, body.get("reason", []))))
                case negotiation.Event.REQUEST:
                    after = replace(after, offer=self._offer(body["offer"]))
                case negotiation.Event.OFFER:
                    after = replace(after, offer=dict(body["offer"]))
                case _:
                    pass
            agreed = [self._agreement_record(after)] if event is negotiation.Event.FINALIZE else []
            self._commit(after, record.version, str(event), *agreed, *self._next(after, event, own=False))
            return Answer(after.acknowledgement())

        return receive

    def _next(self, process: Conversation, event: negotiation.Event | transfer.Event, *, own: bool) -> list[Put]:
        """Return the row of the step this side takes by itself after an event."""
        if isinstance(process, Negotiation):
            step = self.reactions.negotiation(process, negotiation.Event(event), own)
        else:
            step = self.reactions.transfer(process, transfer.Event(event), own)
        return [self._row(process, step.pause, task=str(step.task))] if step else []

    def _check_agreement(self, process: Negotiation, agreement: dict[str, Any]) -> dict[str, Any]:
        for name, expected in (
            ("assignee", self.identity.did),
            ("assigner", process.counterparty),
            ("target", process.offer.get("target")),
        ):
            if agreement.get(name) != expected:
                raise BadMessage(f"agreement: {name} is {agreement.get(name)!r}, not {expected!r}")
        asked = {k: process.offer.get(k) for k in ("permission", "prohibition", "obligation")}
        given = {k: agreement.get(k) for k in asked}
        if asked != given:
            raise BadMessage("agreement: its rules are not those of the offer")
        return dict(agreement)

    def _transfer_request(self, call: Call) -> Answer:
        who = self._who(call)
        body = call.json()
        check(body, "TransferRequestMessage", "consumerPid", "agreementId", "format", "callbackAddress")
        pid = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.identity.did}|{who}|t|{body['consumerPid']}").urn
        found = self.log.get("transfer", pid)
        if found is None:
            agreement = self.agreement(str(body["agreementId"]))
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
            )
            asked = transfer.step(fresh, transfer.Event.REQUEST, "consumer")
            self._commit(asked, 0, "request", *self._next(asked, transfer.Event.REQUEST, own=False))
        else:
            process = Transfer.from_dict(found.body)
            if process.state is transfer.State.STARTED:  # a repeat asks for a fresh token
                self._commit(process, found.version, "renew", self._row(process, task="renew"))
        process, _ = self._own("transfer", pid, who)  # type: ignore[assignment]
        return Answer(process.acknowledgement(), status=201)

    def _entry(self, dataset: str) -> dict[str, Any]:
        return catalog.find(self.decisions.datasets(), dataset)

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
                reason=tuple(map(str, body.get("reason", []))),
            )
            self._commit(after, record.version, str(event), *self._next(after, event, own=False))
            if after.state in (transfer.State.COMPLETED, transfer.State.TERMINATED):
                self.decisions.ended(after)
            return Answer(after.acknowledgement())

        return receive

    def _own(self, kind: str, pid: str, who: str) -> tuple[Conversation, Record]:
        record = self.log.get(kind, pid)
        if record is None or record.body["counterparty"] != who:
            raise NotFound(f"no {kind} {pid!r}")
        return _process(record), record

    def _repeated(self, process: Conversation, body: dict[str, Any]) -> bool:
        return bool(process.last) and process.last == digest(body)

    def _other(self, process: Conversation, body: dict[str, Any]) -> str:
        name = "providerPid" if process.role == "consumer" else "consumerPid"
        return process.other_pid or str(body[name])

    # -- what this node does by itself -----------------------------------------------------------

    def request_contract(self, counterparty: str, base: str, offer: dict[str, Any], permit: str) -> str:
        """Begin a negotiation for an offer (with its ``target``); return its pid."""
        fresh = Negotiation(
            pid=uuid.uuid4().urn,
            other_pid="",
            role="consumer",
            state=negotiation.State.START,
            counterparty=counterparty,
            callback=base,
            offer=offer,
            permit=permit,
        )
        asked = negotiation.step(fresh, negotiation.Event.REQUEST, "consumer")
        path, body = negotiation.say(fresh, negotiation.Event.REQUEST, self.address)
        rows = [self._message(asked, path, body), *self._next(asked, negotiation.Event.REQUEST, own=True)]
        self._commit(asked, 0, "request", *rows)
        return asked.pid

    def request_transfer(self, agreement_id: str, format_: str) -> str:
        """Begin a transfer under a finalised agreement; return its pid."""
        agreement = self.agreement(agreement_id)
        fresh = Transfer(
            pid=uuid.uuid4().urn,
            other_pid="",
            role="consumer",
            state=transfer.State.START,
            counterparty=agreement["counterparty"],
            callback=agreement["base"],
            agreement_id=agreement_id,
            format=format_,
        )
        asked = transfer.step(fresh, transfer.Event.REQUEST, "consumer")
        path, body = transfer.say(fresh, transfer.Event.REQUEST, self.address)
        rows = [self._message(asked, path, body), *self._next(asked, transfer.Event.REQUEST, own=True)]
        self._commit(asked, 0, "request", *rows)
        return asked.pid

    def renew(self, pid: str) -> None:
        """Ask the provider of a started transfer for a fresh token."""
        process, record = self._by_pid("transfer", pid)
        assert isinstance(process, Transfer)
        path, body = transfer.say(process, transfer.Event.REQUEST, self.address)
        blank = replace(process, address=None)
        self._commit(blank, record.version, "renew", self._message(blank, path, body))

    def end_transfer(self, pid: str, event: transfer.Event, reasons: tuple[str, ...] = ()) -> None:
        """Complete, suspend or terminate a transfer from this side."""
        process, record = self._by_pid("transfer", pid)
        assert isinstance(process, Transfer)
        self._say_transfer(replace(process, reason=reasons), record, event)

    def agreement(self, identifier: str) -> dict[str, Any]:
        """Return an agreement in force.

        Raises:
            NotFound: there is none of that id.

        """
        record = self.log.get("agreement", identifier)
        if record is None:
            raise NotFound(f"no agreement {identifier!r}")
        return record.body

    def wait(self, kind: str, pid: str, until: frozenset[str], seconds: float) -> Conversation:
        """Wait until a process is in one of the states; return it.

        Raises:
            PeerFailed: the time is over.

        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                process, _ = self._by_pid(kind, pid)
                settled = process.state in until
                if settled and not (
                    isinstance(process, Transfer) and process.state == "STARTED" and not process.address
                ):
                    return process
                left = deadline - time.monotonic()
                if left <= 0:
                    raise PeerFailed(
                        f"{process.counterparty} left the {kind} in {process.state} for {seconds:g} s",
                        remedy="check that it runs; the request stays in the outbox and goes on by itself",
                    )
                self._changed.wait(min(left, 0.5))

    def _by_pid(self, kind: str, pid: str) -> tuple[Conversation, Record]:
        record = self.log.get(kind, pid)
        if record is None:
            raise NotFound(f"no {kind} {pid!r}")
        return _process(record), record

    # -- transactions ----------------------------------------------------------------------------

    def _commit(self, process: Conversation, version: int, what: str, *more: Put) -> None:
        kind = "negotiation" if isinstance(process, Negotiation) else "transfer"
        details = {
            "permit": self._permit(process),
            "pid": process.pid,
            "state": str(process.state),
            "event": what,
            "counterparty": process.counterparty,
            "reasons": list(process.reason),
        }
        event = LogEvent(f"{kind}.advanced", process.counterparty, details)
        self.log.commit(event, Put(kind, process.pid, version, process.to_dict()), *more)
        with self._changed:
            self._changed.notify_all()
        self.outbox.wake()

    def _permit(self, process: Conversation) -> str:
        if isinstance(process, Negotiation):
            return process.permit
        record = self.log.get("agreement", process.agreement_id)
        return str(record.body["permit"]) if record else ""

    def _row(self, process: Conversation, pause: float = 0.0, **content: Any) -> Put:
        kind = "negotiation" if isinstance(process, Negotiation) else "transfer"
        return self.outbox.row(kind, process.pid, process.counterparty, pause, **content)

    def _message(self, process: Conversation, path: str, body: dict[str, Any]) -> Put:
        return self._row(process, task="deliver", path=path, body=body)

    def _agreement_record(self, process: Negotiation) -> Put:
        agreement = process.agreement or {}
        body = {
            "permit": process.permit,
            "dataset": agreement["target"],
            "counterparty": process.counterparty,
            "role": process.role,
            "base": process.callback,
            "policy": agreement,
            "digest": digest(agreement),
            "negotiation": process.pid,
        }
        return Put("agreement", agreement["@id"], 0, body)

    # -- what the outbox asks for ------------------------------------------------------------------

    def _perform(self, row: Record) -> None:
        process, record = self._by_pid(row.body["kind"], row.body["pid"])
        done = Put("outbox", row.id, row.version, None)
        match row.body["task"]:
            case "deliver":
                self._deliver(process, record, row, done)
            case "judge":
                assert isinstance(process, Negotiation)
                self._judge(process, record, done)
            case "may-start":
                assert isinstance(process, Transfer)
                verdict = self.decisions.may_start(process, self.agreement(process.agreement_id))
                event = transfer.Event.START if isinstance(verdict, Granted) else transfer.Event.TERMINATE
                refused = verdict.reasons if isinstance(verdict, No) else ()
                self._say_transfer(replace(process, reason=refused), record, event, done)
            case "renew":
                assert isinstance(process, Transfer)
                address, token = self._address_for(process)
                renewed = replace(process, address=address)
                path, body = transfer.say(renewed, transfer.Event.START, self.address)
                self._commit(process, record.version, "renew", done, token, self._message(process, path, body))
            case own if isinstance(process, Negotiation):
                self._say(process, record, negotiation.Event(own), done)
            case own:
                self._say_transfer(process, record, transfer.Event(own), done)

    def _judge(self, process: Negotiation, record: Record, done: Put) -> None:
        if process.state is not negotiation.State.REQUESTED:
            self._commit(process, record.version, "judge", done)
            return
        verdict = self.decisions.judge(process)
        if isinstance(verdict, No):
            self._say(replace(process, reason=verdict.reasons), record, negotiation.Event.TERMINATE, done)
            return
        self._say(process, record, negotiation.Event.AGREE, done)

    def _agreement(self, process: Negotiation) -> dict[str, Any]:
        """Return the agreement to an offer: its rules, between the two parties, from now."""
        rules = {k: v for k, v in process.offer.items() if k in ("permission", "prohibition", "obligation")}
        return {
            **rules,
            "@id": uuid.uuid4().urn,
            "@type": "Agreement",
            "target": process.offer["target"],
            "assigner": self.identity.did,
            "assignee": process.counterparty,
            "timestamp": now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _say(self, process: Negotiation, record: Record, event: negotiation.Event, done: Put) -> None:
        try:
            after = negotiation.step(process, event, process.role)
        except IllegalTransition:  # the counterparty was faster, for example by terminating
            self._commit(process, record.version, "overtaken", done)
            return
        if event is negotiation.Event.AGREE:
            after = replace(after, agreement=self._agreement(after))
        path, body = negotiation.say(after, event, self.address)
        more = [self._agreement_record(after)] if event is negotiation.Event.FINALIZE else []
        rows = [self._message(after, path, body), *self._next(after, event, own=True)]
        self._commit(after, record.version, str(event), done, *more, *rows)

    def _say_transfer(self, process: Transfer, record: Record, event: transfer.Event, done: Put | None = None) -> None:
        """Move a transfer from this side; a step of the outbox (``done``) may have been overtaken."""
        settled = [done] if done else []
        try:
            after = transfer.step(process, event, process.role)
        except IllegalTransition:
            if done is None:
                raise
            self._commit(process, record.version, "overtaken", done)
            return
        stored = after
        if event is transfer.Event.START and process.role == "provider":
            address, token = self._address_for(process)
            settled.append(token)
            after = replace(after, address=address)  # the provider keeps only the token's hash
        path, body = transfer.say(after, event, self.address)
        rows = [self._message(after, path, body), *self._next(stored, event, own=True)]
        self._commit(stored, record.version, str(event), *settled, *rows)
        if stored.state in (transfer.State.COMPLETED, transfer.State.TERMINATED):
            self.decisions.ended(stored)

    def _address_for(self, process: Transfer) -> tuple[dict[str, Any], Put]:
        token = secrets.token_urlsafe(32)
        expires = (now() + timedelta(seconds=self.token_seconds)).timestamp()
        body = {"transfer": process.pid, "expires": expires}
        address = transfer.data_address(f"{self.base_url}/data", token)
        return address, Put("transfer.token", sha256(token.encode()), 0, body)

    def transfer_of(self, token: str) -> Transfer:
        """Return the started transfer that a data-plane token was issued for.

        Raises:
            NotAuthenticated: the token is unknown or has expired.
            Refused: the transfer is not started.

        """
        record = self.log.get("transfer.token", sha256(token.encode())) if token else None
        if record is None:
            raise NotAuthenticated("the token of this study endpoint is unknown", remedy="request a transfer")
        if record.body["expires"] < now().timestamp():
            raise NotAuthenticated("the token of this study endpoint has expired", remedy="repeat the transfer request")
        process, _ = self._by_pid("transfer", record.body["transfer"])
        assert isinstance(process, Transfer)
        if process.state is not transfer.State.STARTED:
            raise Refused(
                f"the transfer is {process.state}",
                reasons=process.reason or ("DSP: only a started transfer carries a study",),
                remedy="request a new transfer under a permit in force",
            )
        return process

    def _deliver(self, process: Conversation, record: Record, row: Record, done: Put) -> None:
        token = self.speak(process.counterparty)
        url = process.callback.rstrip("/") + row.body["path"]
        status, answer = self.http.json("POST", url, row.body["body"], token)
        if status in _RETRY or status >= 500:
            raise PeerFailed(f"{url} answered {status}")
        if status >= 400:
            self._abandon(process, record, row, done, status, answer)
            return
        event = LogEvent(
            "message.delivered",
            process.counterparty,
            {"permit": self._permit(process), "pid": process.pid, "type": row.body["body"]["@type"]},
        )
        body = answer if isinstance(answer, dict) else {}
        _again(lambda: self._delivered(row.body["kind"], process.pid, body, event, done))

    def _delivered(self, kind: str, pid: str, answer: dict[str, Any], event: LogEvent, done: Put) -> None:
        """Record that a message was acknowledged; the counterparty may have moved the process already."""
        process, record = self._by_pid(kind, pid)
        told = answer.get("providerPid" if process.role == "consumer" else "consumerPid")
        if told and not process.other_pid:
            learnt = replace(process, other_pid=str(told))
            self.log.commit(event, done, Put(kind, pid, record.version, learnt.to_dict()))
        else:
            self.log.commit(event, done)

    def _abandon(self, process: Conversation, record: Record, row: Record, done: Put, status: int, answer: Any) -> None:
        said = answer.get("reason") or answer.get("message") if isinstance(answer, dict) else answer
        reasons = (f"{row.body['body']['@type']} was answered {status}: {said}",)
        ended = process.state in ("TERMINATED", "COMPLETED", "FINALIZED")
        after = process if ended else replace(process, state=type(process.state)("TERMINATED"), reason=reasons)  # type: ignore[arg-type]
        details = {"permit": self._permit(process), "pid": process.pid, "reasons": list(reasons)}
        event = LogEvent("message.abandoned", process.counterparty, details)
        self.log.commit(event, done, Put(record.kind, process.pid, record.version, after.to_dict()))
        with self._changed:
            self._changed.notify_all()

    def _give_up(self, row: Record, error: IhdsError) -> None:
        process, record = self._by_pid(row.body["kind"], row.body["pid"])
        named = {**row.body, "body": row.body.get("body") or {"@type": row.body["task"]}}
        done = Put("outbox", row.id, row.version, None)
        self._abandon(process, record, Record("outbox", row.id, row.version, named), done, 0, error.message)


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


_T = TypeVar("_T")


def _again(step: Callable[[], _T], attempts: int = 8) -> _T:
    """Take a step that reads and then writes; take it again if another writer was faster."""
    while True:
        try:
            return step()
        except Conflict:
            attempts -= 1
            if not attempts:
                raise


def _process(record: Record) -> Conversation:
    return (Negotiation if record.kind == "negotiation" else Transfer).from_dict(record.body)


def _other_role(process: Transfer) -> Any:
    return "provider" if process.role == "consumer" else "consumer"


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
