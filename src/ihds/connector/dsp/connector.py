"""The connector: what a participant says and does in negotiations and transfers, through the outbox.

A state and the message it causes are one transaction; the receiver recognises a repeat. The HTTPS
binding of it stands in ``binding``.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from ihds.audit.log import Event as LogEvent
from ihds.audit.log import Log, now
from ihds.canonical import digest
from ihds.connector.dataplane.plane import Flow, FlowEvent, Planes
from ihds.connector.dcp.tokens import Identity
from ihds.connector.dsp import negotiation, transfer
from ihds.connector.dsp.message import VERSION, message
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import Transfer
from ihds.connector.outbox import Outbox
from ihds.errors import Conflict, IhdsError, IllegalTransition, NotFound, PeerFailed
from ihds.governance.policy import Granted
from ihds.governance.policy import Refused as No
from ihds.store.store import Put, Record
from ihds.wire.did import Resolver
from ihds.wire.http import Http
from ihds.wire.strict import clean

_MOST_PAGES = 1000
_RETRY = frozenset({401, 404, 408, 409, 425, 429})

Conversation = Negotiation | Transfer


@dataclass(frozen=True, slots=True)
class Counter:
    """A provider's answer to a request: not so, but under this offer."""

    offer: dict[str, Any]


#: What a provider decides on a request; None waits for a person.
Verdict = Granted | No | Counter | None


class Decisions(Protocol):
    """What the institution behind the connector decides; the connector only keeps the protocol."""

    def datasets(self) -> Sequence[dict[str, Any]]:
        """Return the catalog's dataset entries."""
        ...

    def judge(self, process: Negotiation) -> Verdict:
        """Judge a contract request, as its provider."""
        ...

    def consider(self, process: Negotiation) -> Granted | No | None:
        """Judge an offer, as its consumer; None waits for a person."""
        ...

    def may_start(self, process: Transfer, agreement: dict[str, Any]) -> Granted | No:
        """Judge a transfer request under an agreement in force."""
        ...

    def ended(self, process: Transfer) -> None:
        """Learn that a transfer has completed or was terminated."""
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
    negotiation.Event.OFFER: Step("consider"),
    negotiation.Event.ACCEPT: Step("judge"),
    negotiation.Event.AGREE: Step(negotiation.Event.VERIFY),
    negotiation.Event.VERIFY: Step(negotiation.Event.FINALIZE),
}


class Prudent:
    """The shipped reactions: judge requests and offers, verify what was agreed, give a fresh token on resumption."""

    def negotiation(self, process: Negotiation, event: negotiation.Event, own: bool) -> Step | None:
        """Return the next step of a negotiation, if any."""
        return None if own else _PRUDENT.get(event)

    def transfer(self, process: Transfer, event: transfer.Event, own: bool) -> Step | None:
        """Return the next step of a transfer, if any."""
        if own or process.role != "provider":
            return None
        return {transfer.Event.REQUEST: Step("may-start"), transfer.Event.START: Step("renew")}.get(event)


@dataclass
class Connector:
    """One participant's control plane: provider and consumer.

    ``speak`` returns the Authorization header for a counterparty; ``planes`` move the data.
    """

    identity: Identity
    speak: Callable[[str], str]
    resolver: Resolver
    http: Http
    log: Log
    base_url: str
    decisions: Decisions
    planes: Planes
    reactions: Reactions = field(default_factory=Prudent)
    outbox: Outbox = field(init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.log, self.identity.did, self._perform, self._give_up)

    @property
    def address(self) -> str:
        """The base under which this node's negotiations and transfers are reached."""
        return f"{self.base_url}/dsp/2025-1"

    def find_address(self, counterparty: str) -> str:
        """Return a participant's DSP base of version 2025-1, from its DID document and version endpoint.

        Raises:
            NotAuthenticated: its DID document names none.
            PeerFailed: it does not answer, or speaks other versions only.

        """
        endpoint = self.resolver.service(counterparty, "DataService")
        root = endpoint.removesuffix("/.well-known/dspace-version")
        for version in self.http.get_json(endpoint).get("protocolVersions", []):
            if version.get("version") == VERSION:
                return root + str(version["path"]).rstrip("/")
        raise PeerFailed(f"{counterparty} does not speak Dataspace Protocol {VERSION}")

    def catalog(self, counterparty: str, base: str) -> list[dict[str, Any]]:
        """Return all dataset entries of a counterparty's catalog, page by page.

        Raises:
            IhdsError: it does not answer, or refuses.

        """
        url, entries = f"{base}/catalog/request", []
        for _ in range(_MOST_PAGES):
            answer, following = self.http.page("POST", url, message("CatalogRequestMessage"), self.speak(counterparty))
            found = answer.get("dataset") or []
            entries += found if isinstance(found, list) else [found]
            if following is None or not following.startswith(f"{base}/"):
                break
            url = following
        return entries

    # -- what this node begins -------------------------------------------------------------------

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
        rows = [self._message(asked, path, body), *self.next_steps(asked, negotiation.Event.REQUEST, own=True)]
        self.commit(asked, 0, "request", *rows)
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
        address, puts = self.planes.prepare(self.flow(asked))
        asked = replace(asked, push=address)
        path, body = transfer.say(asked, transfer.Event.REQUEST, self.address)
        rows = [self._message(asked, path, body), *self.next_steps(asked, transfer.Event.REQUEST, own=True)]
        self.commit(asked, 0, "request", *puts, *rows)
        return asked.pid

    def flow(self, process: Transfer) -> Flow:
        """Return what a data plane is told of a transfer."""
        record = self.log.get("agreement", process.agreement_id)
        dataset = str(record.body["dataset"]) if record else ""
        consumer = process.role == "consumer"
        pushed = None if consumer else process.push
        return Flow(process.pid, process.counterparty, process.agreement_id, dataset, process.format, consumer, pushed)

    def flow_ended(self, pid: str, failure: str | None) -> None:
        """Hear from a data plane that a flow completed, or why it failed: the transfer ends with it."""
        event = transfer.Event.COMPLETE if failure is None else transfer.Event.TERMINATE
        with contextlib.suppress(IllegalTransition, NotFound):  # it ended by itself meanwhile
            again(lambda: self.move_transfer(pid, event, () if failure is None else (failure,)))

    def renew(self, pid: str) -> None:
        """Ask the provider of a started transfer for a fresh token."""
        process, record = self.by_pid("transfer", pid)
        assert isinstance(process, Transfer)
        path, body = transfer.say(process, transfer.Event.REQUEST, self.address)
        blank = replace(process, address=None)
        self.commit(blank, record.version, "renew", self._message(blank, path, body))

    def move_transfer(self, pid: str, event: transfer.Event, reasons: tuple[str, ...] = ()) -> None:
        """Start (again), complete, suspend or terminate a transfer from this side.

        Raises:
            IllegalTransition: its state does not allow it.

        """
        process, record = self.by_pid("transfer", pid)
        assert isinstance(process, Transfer)
        self._say_transfer(replace(process, reason=reasons), record, event)

    def move_negotiation(
        self,
        pid: str,
        event: negotiation.Event,
        offer: dict[str, Any] | None = None,
        reasons: tuple[str, ...] = (),
    ) -> None:
        """Take a step of a negotiation by hand: accept, make a (counter-)offer, agree, terminate.

        Raises:
            IllegalTransition: its state, or this side's role, does not allow it.

        """
        process, record = self.by_pid("negotiation", pid)
        assert isinstance(process, Negotiation)
        named = {**offer, "target": process.offer["target"]} if offer else process.offer
        self._say(replace(process, offer=named, reason=reasons), record, event)

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
                process, _ = self.by_pid(kind, pid)
                settled = process.state in until
                if settled and not (
                    isinstance(process, Transfer)
                    and process.state == "STARTED"
                    and not (process.address or process.push)
                ):
                    return process
                left = deadline - time.monotonic()
                if left <= 0:
                    raise PeerFailed(
                        f"{process.counterparty} left the {kind} in {process.state} for {seconds:g} s",
                        remedy="check that it runs; the request stays in the outbox and goes on by itself",
                    )
                self._changed.wait(min(left, 0.5))

    def by_pid(self, kind: str, pid: str) -> tuple[Conversation, Record]:
        """Return a negotiation or transfer and its record. Raises NotFound."""
        record = self.log.get(kind, pid)
        if record is None:
            raise NotFound(f"no {kind} {pid!r}")
        return read_process(record), record

    # -- transactions ----------------------------------------------------------------------------

    def received(
        self, process: Conversation, version: int, event: negotiation.Event | transfer.Event, *more: Put
    ) -> None:
        """Write what a message of the counterparty caused, and the step this side takes next, in one transaction."""
        self.commit(process, version, str(event), *more, *self.next_steps(process, event, own=False))

    def commit(self, process: Conversation, version: int, what: str, *more: Put) -> None:
        """Write a process with its event; ``version`` is the one read before, 0 for a new one."""
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

    def row(self, process: Conversation, pause: float = 0.0, **content: Any) -> Put:
        """Return the outbox row of something a process has still to do."""
        kind = "negotiation" if isinstance(process, Negotiation) else "transfer"
        return self.outbox.row(kind, process.pid, process.counterparty, pause, **content)

    def _message(self, process: Conversation, path: str, body: dict[str, Any]) -> Put:
        return self.row(process, task="deliver", path=path, body=body)

    def agreement_record(self, process: Negotiation) -> Put:
        """Return the write of a finalised negotiation's agreement."""
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

    def next_steps(self, process: Conversation, event: negotiation.Event | transfer.Event, *, own: bool) -> list[Put]:
        """Return the row of the step this side takes by itself after an event."""
        if isinstance(process, Negotiation):
            step = self.reactions.negotiation(process, negotiation.Event(event), own)
        else:
            step = self.reactions.transfer(process, transfer.Event(event), own)
        return [self.row(process, step.pause, task=str(step.task))] if step else []

    # -- what the outbox asks for ------------------------------------------------------------------

    def _perform(self, row: Record) -> None:
        process, record = self.by_pid(row.body["kind"], row.body["pid"])
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
            case "consider":
                assert isinstance(process, Negotiation)
                self._consider(process, record, done)
            case "renew":
                assert isinstance(process, Transfer)
                if process.state is not transfer.State.STARTED:  # it was suspended or ended meanwhile
                    self.commit(process, record.version, "overtaken", done)
                    return
                address, puts = self.planes.start(self.flow(process))
                renewed = replace(process, address=address)
                path, body = transfer.say(renewed, transfer.Event.START, self.address)
                self.commit(process, record.version, "renew", done, *puts, self._message(process, path, body))
                self.planes.go(self.flow(process))
            case own if isinstance(process, Negotiation):
                self._say(process, record, negotiation.Event(own), done)
            case own:
                self._say_transfer(process, record, transfer.Event(own), done)

    def _judge(self, process: Negotiation, record: Record, done: Put) -> None:
        if process.state not in (negotiation.State.REQUESTED, negotiation.State.ACCEPTED):
            self.commit(process, record.version, "judge", done)
            return
        verdict = self.decisions.judge(process)
        match verdict:
            case No():
                self._say(replace(process, reason=verdict.reasons), record, negotiation.Event.TERMINATE, done)
            case Counter():
                offered = replace(process, offer={**verdict.offer, "target": process.offer["target"]})
                self._say(offered, record, negotiation.Event.OFFER, done)
            case Granted():
                self._say(process, record, negotiation.Event.AGREE, done)
            case None:  # a person decides
                self.commit(process, record.version, "judge", done)

    def _consider(self, process: Negotiation, record: Record, done: Put) -> None:
        """Answer the provider's offer, as its consumer."""
        verdict = self.decisions.consider(process) if process.state is negotiation.State.OFFERED else None
        match verdict:
            case No():
                self._say(replace(process, reason=verdict.reasons), record, negotiation.Event.TERMINATE, done)
            case Granted():
                self._say(process, record, negotiation.Event.ACCEPT, done)
            case None:
                self.commit(process, record.version, "consider", done)

    def _agreement(self, process: Negotiation) -> dict[str, Any]:
        """Return the agreement to an offer: its rules, between the two parties, from now."""
        return {
            **negotiation.rules(process.offer),
            "@id": uuid.uuid4().urn,
            "@type": "Agreement",
            "target": process.offer["target"],
            "assigner": self.identity.did,
            "assignee": process.counterparty,
            "timestamp": now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _say(self, process: Negotiation, record: Record, event: negotiation.Event, done: Put | None = None) -> None:
        """Move a negotiation from this side; a step of the outbox (``done``) may have been overtaken."""
        settled = [done] if done else []
        try:
            after = negotiation.step(process, event, process.role)
        except IllegalTransition:
            if done is None:
                raise
            self.commit(process, record.version, "overtaken", done)
            return
        if event is negotiation.Event.AGREE:
            after = replace(after, agreement=self._agreement(after))
        path, body = negotiation.say(after, event, self.address)
        more = [self.agreement_record(after)] if event is negotiation.Event.FINALIZE else []
        rows = [self._message(after, path, body), *self.next_steps(after, event, own=True)]
        self.commit(after, record.version, str(event), *settled, *more, *rows)

    def _say_transfer(self, process: Transfer, record: Record, event: transfer.Event, done: Put | None = None) -> None:
        """Move a transfer from this side; a step of the outbox (``done``) may have been overtaken."""
        settled = [done] if done else []
        try:
            after = transfer.step(process, event, process.role)
        except IllegalTransition:
            if done is None:
                raise
            self.commit(process, record.version, "overtaken", done)
            return
        stored = after
        if event is transfer.Event.START and process.role == "provider":
            address, puts = self.planes.start(self.flow(after))
            settled += puts
            after = replace(after, address=address)  # the provider keeps only the token's hash
        elif event is not transfer.Event.START:
            settled += self.planes.stop(self.flow(after), FlowEvent(event))
        path, body = transfer.say(after, event, self.address)
        rows = [self._message(after, path, body), *self.next_steps(stored, event, own=True)]
        self.commit(stored, record.version, str(event), *settled, *rows)
        if event is transfer.Event.START:
            self.planes.go(self.flow(stored))
        if stored.state in (transfer.State.COMPLETED, transfer.State.TERMINATED):
            self.decisions.ended(stored)

    def _deliver(self, process: Conversation, record: Record, row: Record, done: Put) -> None:
        url = process.callback.rstrip("/") + row.body["path"]
        status, answer = self.http.json("POST", url, row.body["body"], authorization=self.speak(process.counterparty))
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
        again(lambda: self._delivered(row.body["kind"], process.pid, body, event, done))

    def _delivered(self, kind: str, pid: str, answer: dict[str, Any], event: LogEvent, done: Put) -> None:
        """Record that a message was acknowledged; the counterparty may have moved the process already."""
        process, record = self.by_pid(kind, pid)
        told = answer.get("providerPid" if process.role == "consumer" else "consumerPid")
        if told and not process.other_pid:
            learnt = replace(process, other_pid=str(told))
            self.log.commit(event, done, Put(kind, pid, record.version, learnt.to_dict()))
        else:
            self.log.commit(event, done)

    def _abandon(self, process: Conversation, record: Record, row: Record, done: Put, status: int, answer: Any) -> None:
        said = answer.get("reason") or answer.get("message") if isinstance(answer, dict) else answer
        reasons = (f"{row.body['body']['@type']} was answered {status}: {clean(said)}",)
        ended = process.state in ("TERMINATED", "COMPLETED", "FINALIZED")
        after = process if ended else replace(process, state=type(process.state)("TERMINATED"), reason=reasons)  # type: ignore[arg-type]
        details = {"permit": self._permit(process), "pid": process.pid, "reasons": list(reasons)}
        event = LogEvent("message.abandoned", process.counterparty, details)
        stopped = self.planes.stop(self.flow(after), FlowEvent.TERMINATE) if isinstance(after, Transfer) else []
        self.log.commit(event, done, Put(record.kind, process.pid, record.version, after.to_dict()), *stopped)
        if isinstance(after, Transfer) and not ended:
            self.decisions.ended(after)
        with self._changed:
            self._changed.notify_all()

    def _give_up(self, row: Record, error: IhdsError) -> None:
        process, record = self.by_pid(row.body["kind"], row.body["pid"])
        named = {**row.body, "body": row.body.get("body") or {"@type": row.body["task"]}}
        done = Put("outbox", row.id, row.version, None)
        self._abandon(process, record, Record("outbox", row.id, row.version, named), done, 0, error.message)


_T = TypeVar("_T")


def again(step: Callable[[], _T], attempts: int = 8) -> _T:
    """Take a step that reads and then writes; take it again if another writer was faster."""
    while True:
        try:
            return step()
        except Conflict:
            attempts -= 1
            if not attempts:
                raise


def read_process(record: Record) -> Conversation:
    """Return the negotiation or transfer a record holds."""
    return (Negotiation if record.kind == "negotiation" else Transfer).from_dict(record.body)
