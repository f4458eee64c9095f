"""Contract negotiation: its states, who may say what when, and its messages (DSP 2025-1 §7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from ihds.connector.dsp.message import Process, Role, check, fresh, message, other
from ihds.errors import BadMessage, IllegalTransition
from ihds.governance.lifecycle import Table, advance


class State(StrEnum):
    """Where a negotiation stands."""

    START = "START"
    REQUESTED = "REQUESTED"
    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    AGREED = "AGREED"
    VERIFIED = "VERIFIED"
    FINALIZED = "FINALIZED"
    TERMINATED = "TERMINATED"


class Event(StrEnum):
    """What moves a negotiation: one per message."""

    REQUEST = "request"
    OFFER = "offer"
    ACCEPT = "accept"
    AGREE = "agree"
    VERIFY = "verify"
    FINALIZE = "finalize"
    TERMINATE = "terminate"


_S, _E = State, Event
_END = {_E.TERMINATE: _S.TERMINATED}

NEXT: Table[State, Event] = {
    _S.START: {_E.REQUEST: _S.REQUESTED, _E.OFFER: _S.OFFERED},
    _S.REQUESTED: {_E.OFFER: _S.OFFERED, _E.AGREE: _S.AGREED, **_END},
    _S.OFFERED: {_E.REQUEST: _S.REQUESTED, _E.ACCEPT: _S.ACCEPTED, **_END},
    _S.ACCEPTED: {_E.AGREE: _S.AGREED, **_END},
    _S.AGREED: {_E.VERIFY: _S.VERIFIED, **_END},
    _S.VERIFIED: {_E.FINALIZE: _S.FINALIZED, **_END},
    _S.FINALIZED: {},
    _S.TERMINATED: {},
}

#: Who may cause each event; either side may terminate.
SENDER: dict[Event, Role] = {
    _E.REQUEST: "consumer",
    _E.OFFER: "provider",
    _E.ACCEPT: "consumer",
    _E.AGREE: "provider",
    _E.VERIFY: "consumer",
    _E.FINALIZE: "provider",
}


@dataclass(frozen=True, slots=True)
class Negotiation(Process):
    """One side's record of a negotiation.

    ``permit`` is the permit it is held under, if named; ``access`` the token with which the
    provider may ask for the consumer's credentials.
    """

    state: State
    counterparty: str
    callback: str
    offer: dict[str, Any]
    agreement: dict[str, Any] | None = None
    permit: str = ""
    access: str = ""
    last: str = ""
    reason: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the stored form."""
        return {**asdict(self), "reason": list(self.reason)}

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Negotiation:
        """Read the stored form."""
        return cls(**{**body, "state": State(body["state"]), "reason": tuple(body["reason"])})

    def acknowledgement(self) -> dict[str, Any]:
        """Return the ContractNegotiation answer."""
        return message("ContractNegotiation", **self.pids, state=str(self.state))

    def error(self, code: str, reasons: list[str]) -> dict[str, Any]:
        """Return the ContractNegotiationError answer."""
        return message("ContractNegotiationError", **self.pids, code=code, reason=reasons)


def step(negotiation: Negotiation, event: Event, sender: Role) -> Negotiation:
    """Return the negotiation after an event.

    Raises:
        IllegalTransition: the state or the sender's role does not allow it.

    """
    if SENDER.get(event, sender) != sender:
        raise IllegalTransition(f"a {sender} may not {event} in a negotiation")
    following = advance(NEXT, "the negotiation", negotiation.state, event)
    if event is Event.ACCEPT and negotiation.state is not State.OFFERED:
        raise IllegalTransition("only the provider's offer can be accepted")
    return replace(negotiation, state=following)


def read(body: Mapping[str, Any], kind: str, negotiation: Negotiation) -> Event:
    """Return the event a message of an existing negotiation stands for.

    Raises:
        BadMessage: it is malformed or names other pids.

    """
    needs = {
        "ContractRequestMessage": ("consumerPid", "providerPid", "offer"),
        "ContractOfferMessage": ("consumerPid", "providerPid", "offer"),
        "ContractAgreementMessage": ("consumerPid", "providerPid", "agreement"),
    }.get(kind, ("consumerPid", "providerPid"))
    check(body, kind, *needs)
    negotiation.check_pids(body, kind)
    if kind == "ContractNegotiationEventMessage":
        found = {"ACCEPTED": Event.ACCEPT, "FINALIZED": Event.FINALIZE}.get(
            str(body.get("eventType")).rsplit("/", 1)[-1].removeprefix("dspace:")
        )
        if found is None:
            raise BadMessage(f"{kind}: eventType {body.get('eventType')!r} is unknown")
        return found
    return {
        "ContractRequestMessage": Event.REQUEST,
        "ContractOfferMessage": Event.OFFER,
        "ContractAgreementMessage": Event.AGREE,
        "ContractAgreementVerificationMessage": Event.VERIFY,
        "ContractNegotiationTerminationMessage": Event.TERMINATE,
    }[kind]


def say(negotiation: Negotiation, event: Event, callback: str) -> tuple[str, dict[str, Any]]:
    """Return the path below the counterparty's base and the message for an own event.

    ``callback`` is this node's address, sent with the first message only.
    """
    pids = negotiation.pids
    base = f"/negotiations/{negotiation.other_pid}"
    match event:
        case Event.REQUEST:
            first = not negotiation.other_pid
            body = fresh(
                "ContractRequestMessage",
                consumerPid=negotiation.pid,
                providerPid=negotiation.other_pid or None,
                callbackAddress=callback if first else None,
                offer=negotiation.offer,
                **({"ihds:permit": negotiation.permit} if negotiation.permit else {}),
            )
            return ("/negotiations/request" if first else f"{base}/request"), body
        case Event.OFFER:
            first = not negotiation.other_pid
            body = fresh(
                "ContractOfferMessage",
                providerPid=negotiation.pid,
                consumerPid=negotiation.other_pid or None,
                callbackAddress=callback if first else None,
                offer=negotiation.offer,
            )
            return ("/negotiations/offers" if first else f"{base}/offers"), body
        case Event.AGREE:
            return f"{base}/agreement", fresh("ContractAgreementMessage", **pids, agreement=negotiation.agreement)
        case Event.VERIFY:
            return f"{base}/agreement/verification", fresh("ContractAgreementVerificationMessage", **pids)
        case Event.ACCEPT | Event.FINALIZE:
            kind = "ACCEPTED" if event is Event.ACCEPT else "FINALIZED"
            return f"{base}/events", fresh("ContractNegotiationEventMessage", **pids, eventType=kind)
        case Event.TERMINATE:
            reasons = list(negotiation.reason)
            return f"{base}/termination", fresh(
                "ContractNegotiationTerminationMessage",
                **pids,
                code="IHDS-REFUSED" if reasons else None,
                reason=reasons,
            )


def rules(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules of an offer or agreement; an empty list says nothing."""
    return {k: policy[k] for k in ("permission", "prohibition", "obligation") if policy.get(k)}


def counterparty_role(negotiation: Negotiation) -> Role:
    """Return the role of the other side."""
    return other(negotiation.role)


def said_before(process: Negotiation, kind: str, body: Mapping[str, Any]) -> bool:
    """Return whether a message comes again in other bytes, as Eclipse EDC sends it when it missed our answer.

    It is the same if it asks for what its sender has brought about already: the agreement at hand,
    a verification of it, its end.
    """
    event = read(body, kind, process)
    if SENDER.get(event) == process.role:
        return False
    match event:
        case Event.AGREE:
            known = (process.agreement or {}).get("@id")
            agreed = process.state in (State.AGREED, State.VERIFIED, State.FINALIZED)
            return agreed and known == body["agreement"].get("@id")
        case Event.VERIFY:
            return process.state in (State.VERIFIED, State.FINALIZED)
        case Event.FINALIZE:
            return process.state is State.FINALIZED
        case Event.TERMINATE:
            return process.state is State.TERMINATED
        case _:
            return False
