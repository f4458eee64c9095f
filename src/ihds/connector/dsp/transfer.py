"""Transfer process: its states, who may say what when, and its messages (DSP 2025-1 §9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from ihds.connector.dsp.message import Process, Role, check, fresh, message
from ihds.errors import BadMessage, IllegalTransition
from ihds.governance.lifecycle import Table, advance

#: The transfer format on which a federated study rides.
STUDY_FORMAT = "IhdsStudy-PULL"
ENDPOINT_TYPE = "https://w3id.org/ihds/policy#StudyEndpoint"


class State(StrEnum):
    """Where a transfer stands."""

    START = "START"
    REQUESTED = "REQUESTED"
    STARTED = "STARTED"
    SUSPENDED = "SUSPENDED"
    COMPLETED = "COMPLETED"
    TERMINATED = "TERMINATED"


class Event(StrEnum):
    """What moves a transfer: one per message."""

    REQUEST = "request"
    START = "start"
    SUSPEND = "suspend"
    COMPLETE = "complete"
    TERMINATE = "terminate"


_S, _E = State, Event
_END = {_E.TERMINATE: _S.TERMINATED}

NEXT: Table[State, Event] = {
    _S.START: {_E.REQUEST: _S.REQUESTED},
    _S.REQUESTED: {_E.START: _S.STARTED, **_END},
    _S.STARTED: {_E.SUSPEND: _S.SUSPENDED, _E.COMPLETE: _S.COMPLETED, **_END},
    _S.SUSPENDED: {_E.START: _S.STARTED, **_END},
    _S.COMPLETED: {},
    _S.TERMINATED: {},
}


@dataclass(frozen=True, slots=True)
class Transfer(Process):
    """One side's record of a transfer.

    ``address`` is the data address the provider gave, ``push`` the one the consumer gave; ``paused_by``
    is the role that suspended it, and alone may resume it (Data Plane Signaling).
    """

    state: State
    counterparty: str
    callback: str
    agreement_id: str
    format: str
    address: dict[str, Any] | None = None
    last: str = ""
    reason: tuple[str, ...] = ()
    push: dict[str, Any] | None = None
    paused_by: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the stored form."""
        return {**asdict(self), "reason": list(self.reason)}

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Transfer:
        """Read the stored form."""
        return cls(**{**body, "state": State(body["state"]), "reason": tuple(body["reason"])})

    def acknowledgement(self) -> dict[str, Any]:
        """Return the TransferProcess answer."""
        return message(
            "TransferProcess",
            **self.pids,
            state=str(self.state),
        )

    def error(self, code: str, reasons: list[str]) -> dict[str, Any]:
        """Return the TransferError answer."""
        return message(
            "TransferError",
            **self.pids,
            code=code,
            reason=reasons,
        )


def step(transfer: Transfer, event: Event, sender: Role) -> Transfer:
    """Return the transfer after an event.

    Raises:
        IllegalTransition: the state or the sender's role does not allow it.

    """
    if event is Event.REQUEST and sender != "consumer":
        raise IllegalTransition("only a consumer requests a transfer")
    if event is Event.START and sender == "consumer" and transfer.state is not State.SUSPENDED:
        raise IllegalTransition("a consumer may start only a suspended transfer")
    following = advance(NEXT, "the transfer", transfer.state, event)
    if event is Event.START and transfer.state is State.SUSPENDED and transfer.paused_by not in ("", sender):
        raise IllegalTransition(f"the {transfer.paused_by} suspended the transfer, so the {sender} may not resume it")
    return replace(transfer, state=following, paused_by=sender if event is Event.SUSPEND else "")


_EVENTS = {
    "TransferStartMessage": Event.START,
    "TransferSuspensionMessage": Event.SUSPEND,
    "TransferCompletionMessage": Event.COMPLETE,
    "TransferTerminationMessage": Event.TERMINATE,
}


def read(body: Mapping[str, Any], kind: str, transfer: Transfer) -> Event:
    """Return the event a message of an existing transfer stands for.

    Raises:
        BadMessage: it is malformed or names other pids.

    """
    check(body, kind, "consumerPid", "providerPid")
    transfer.check_pids(body, kind)
    return _EVENTS[kind]


def say(transfer: Transfer, event: Event, callback: str) -> tuple[str, dict[str, Any]]:
    """Return the path below the counterparty's base and the message for an own event."""
    pids = transfer.pids
    base = f"/transfers/{transfer.other_pid}"
    reasons = list(transfer.reason)
    match event:
        case Event.REQUEST:
            return "/transfers/request", fresh(
                "TransferRequestMessage",
                consumerPid=transfer.pid,
                agreementId=transfer.agreement_id,
                format=transfer.format,
                callbackAddress=callback,
                dataAddress=transfer.push,
            )
        case Event.START:
            address = transfer.address if transfer.role == "provider" else None
            return f"{base}/start", fresh("TransferStartMessage", **pids, dataAddress=address)
        case Event.COMPLETE:
            return f"{base}/completion", fresh("TransferCompletionMessage", **pids)
        case Event.SUSPEND | Event.TERMINATE:
            word = "suspension" if event is Event.SUSPEND else "termination"
            return f"{base}/{word}", fresh(
                f"Transfer{word.capitalize()}Message",
                **pids,
                code="IHDS-REFUSED" if reasons else None,
                reason=reasons,
            )


def read_address(address: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return endpoint and token of a data address, in DSP's names or, as Eclipse EDC writes them, in its own.

    Raises:
        BadMessage: one is missing.

    """
    given = address or {}
    listed = given.get("endpointProperties")
    properties = {
        str(p.get("name")).rsplit("/", 1)[-1]: p.get("value")
        for p in (listed if isinstance(listed, list) else [])
        if isinstance(p, Mapping)
    }
    endpoint, token = given.get("endpoint") or properties.get("endpoint"), properties.get("authorization")
    if not isinstance(endpoint, str) or not isinstance(token, str) or not token.isascii() or not endpoint:
        raise BadMessage("the data address carries no endpoint or no token")
    return str(endpoint), str(token)
