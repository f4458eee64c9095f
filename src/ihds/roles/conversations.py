"""What a person does by hand in negotiations and transfers: the management commands of a connector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ihds.connector.dsp import catalog, negotiation, transfer
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import Transfer, read_address
from ihds.errors import BadInput, IllegalTransition, NotFound

if TYPE_CHECKING:
    from ihds.connector.dsp.connector import Connector, Conversation


def conversations(connector: Connector) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Return the commands, by name."""

    def show(arguments: dict[str, Any], kind: str) -> dict[str, Any]:
        process, _ = connector.by_pid(kind, str(arguments["pid"]))
        return summary(process)

    def negotiate(arguments: dict[str, Any]) -> dict[str, Any]:
        counterparty, base = str(arguments["counterparty"]), str(arguments.get("address") or "")
        base = base.rstrip("/") or connector.find_address(counterparty)
        dataset = str(arguments["dataset"])
        entry = catalog.find(connector.catalog(counterparty, base), dataset)
        offer = {**entry["hasPolicy"][0], **dict(arguments.get("offer") or {}), "target": dataset}
        pid = connector.request_contract(counterparty, base, offer, str(arguments.get("permit") or ""))
        settled = frozenset({"FINALIZED", "TERMINATED", "OFFERED"})
        return summary(connector.wait("negotiation", pid, settled, float(arguments.get("seconds", 30.0))))

    def move_negotiation(arguments: dict[str, Any]) -> dict[str, Any]:
        event = _event(negotiation.Event, arguments)
        if event is negotiation.Event.AGREE:
            raise BadInput("an agreement needs the rules' consent", remedy="ihds negotiation approve")
        offer = arguments.get("offer")
        reasons = tuple(map(str, arguments.get("reasons", [])))
        connector.move_negotiation(str(arguments["pid"]), event, dict(offer) if offer else None, reasons)
        return show(arguments, "negotiation")

    def move_transfer(arguments: dict[str, Any]) -> dict[str, Any]:
        event = _event(transfer.Event, arguments)
        connector.move_transfer(str(arguments["pid"]), event, tuple(map(str, arguments.get("reasons", []))))
        return show(arguments, "transfer")

    def agreed(named: str) -> str:
        """Return an agreement by its id, or the one at hand on a dataset."""
        if connector.log.get("agreement", named):
            return named
        held = [r for r in connector.log.store.list("agreement") if r.body["role"] == "consumer"]
        found = [r.id for r in held if r.body["dataset"] == named]
        if len(found) != 1:
            raise NotFound(
                f"{len(found)} agreements on {named!r} are at hand", remedy="ihds transfer agreements; name one by id"
            )
        return found[0]

    def moving(named: str) -> str:
        """Return a transfer by its pid, or the one that has started on a dataset."""
        if connector.log.get("transfer", named):
            return named
        listed = [(r.id, r.body) for r in connector.log.store.list("transfer") if r.body["state"] == "STARTED"]
        agreements = {r.id: r.body["dataset"] for r in connector.log.store.list("agreement")}
        found = [pid for pid, body in listed if agreements.get(body["agreement_id"]) == named]
        if len(found) != 1:
            raise NotFound(
                f"{len(found)} transfers of {named!r} have started", remedy="ihds transfer list; name one by pid"
            )
        return found[0]

    def request(arguments: dict[str, Any]) -> dict[str, Any]:
        pid = connector.request_transfer(agreed(str(arguments["agreement"])), str(arguments["format"]))
        settled = frozenset({"STARTED", "TERMINATED", "COMPLETED"})
        return summary(connector.wait("transfer", pid, settled, float(arguments.get("seconds", 30.0))))

    def address(arguments: dict[str, Any]) -> dict[str, Any]:
        process, _ = connector.by_pid("transfer", moving(str(arguments["pid"])))
        assert isinstance(process, Transfer)
        if process.state is not transfer.State.STARTED or process.role != "consumer":
            raise IllegalTransition(f"the transfer is {process.state}", remedy="resume it, or request a new one")
        endpoint, token = read_address(process.address)
        return {"endpoint": endpoint, "token": token}

    def listed(kind: str) -> list[dict[str, Any]]:
        return [summary(connector.by_pid(kind, record.id)[0]) for record in connector.log.store.list(kind)]

    return {
        "negotiation.list": lambda _a: listed("negotiation"),
        "negotiation.show": lambda a: show(a, "negotiation"),
        "negotiation.request": negotiate,
        "negotiation.move": move_negotiation,
        "agreement.list": lambda _a: [
            {"agreement": r.id, **{k: r.body[k] for k in ("dataset", "counterparty", "role", "permit")}}
            for r in connector.log.store.list("agreement")
        ],
        "transfer.list": lambda _a: listed("transfer"),
        "transfer.show": lambda a: show(a, "transfer"),
        "transfer.request": request,
        "transfer.move": move_transfer,
        "transfer.address": address,
    }


def _event(kind: Any, arguments: dict[str, Any]) -> Any:
    try:
        return kind(str(arguments.get("event")))
    except ValueError as error:
        raise BadInput(str(error), remedy=f"it is one of {', '.join(kind)}") from error


def summary(process: Conversation) -> dict[str, Any]:
    """Return a negotiation or transfer as a person sees it."""
    shown = {
        "pid": process.pid,
        "role": process.role,
        "counterparty": process.counterparty,
        "counterparty_pid": process.other_pid,
        "state": str(process.state),
        "reasons": list(process.reason),
    }
    if isinstance(process, Negotiation):
        agreement = process.agreement or {}
        return {
            **shown,
            "dataset": process.offer.get("target"),
            "offer": process.offer,
            "agreement": agreement.get("@id"),
        }
    return {**shown, "agreement": process.agreement_id, "format": process.format}
