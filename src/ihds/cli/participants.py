"""Commands between participants: membership, negotiations, transfers, data planes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from ihds.cli.words import ERR, command, open_space, show, show_rows
from ihds.errors import BadInput, PeerFailed


def member_commands(sub: Any) -> None:
    """Declare ``ihds member``."""
    join = command(
        sub,
        "join",
        "ask the authority for membership, signed; wait for its decision",
        "ihds member join --node lih",
        _join,
    )
    join.add_argument("--seconds", type=float, default=10.0, help="how long to wait (default 10)")
    command(sub, "show", "show whether this node is a member", "ihds member show --node lih", _member_show)
    command(
        sub, "list", "list members and applicants (on the authority)", "ihds member list --node authority", _members
    )
    for event, text in _DECISIONS.items():
        decide = command(
            sub,
            event,
            f"{text} (on the authority)",
            f"ihds member {event} did:web:lih.example --reason 'decision 2026/4' --node authority",
            _decide,
        )
        decide.add_argument("did")
        decide.add_argument("--reason", default="", help="recorded with the decision")
        decide.set_defaults(event=event)


_DECISIONS = {
    "admit": "admit an applicant; its credentials are delivered at once",
    "reject": "reject an applicant",
    "suspend": "suspend a member: it is refused everywhere within a minute",
    "reinstate": "end a suspension",
    "expel": "end a membership for good",
}


def _join(given: Any) -> None:
    answer = open_space(given).call("member.join", seconds=given.seconds)
    show(given, answer, f"a member of the data space of {answer['authority']}")


def _member_show(given: Any) -> None:
    answer = open_space(given).call("member.show")
    said = "a member" if answer["member"] else f"not a member; the last request is {answer['request']}"
    show(given, answer, f"{said} {answer['reason']}".strip())


def _members(given: Any) -> None:
    rows = open_space(given).call("member.list")
    show_rows(given, rows, ("did", "name", "role", "country", "state", "reason"))


def _decide(given: Any) -> None:
    answer = open_space(given).call("member.decide", did=given.did, event=given.event, reason=given.reason)
    show(given, answer, f"{answer['did']} is {answer['state']}")


# -- negotiations --------------------------------------------------------------------------------------


def negotiation_commands(sub: Any) -> None:
    """Declare ``ihds negotiation``."""
    where = "--node lih"
    command(sub, "list", "list contract negotiations", f"ihds negotiation list {where}", _negotiations)
    shown = command(sub, "show", "show a negotiation", f"ihds negotiation show urn:uuid:… {where}", _negotiation)
    shown.add_argument("pid")
    request = command(
        sub,
        "request",
        "request a contract on a dataset of another participant",
        "ihds negotiation request did:web:lih.example model-1 --node researcher",
        _negotiate,
    )
    request.add_argument("counterparty", help="DID of the provider")
    request.add_argument("dataset")
    request.add_argument("--address", default="", help="its DSP base (default: from its DID document)")
    request.add_argument("--permit", default="", help="the data permit to show")
    request.add_argument("--offer", type=Path, help="JSON file with other rules than the catalogue's: a counter-offer")
    for word, (event, text) in _NEGOTIATION_WORDS.items():
        move = command(sub, word, text, f"ihds negotiation {word} urn:uuid:… {where}", _move_negotiation)
        move.add_argument("pid")
        move.add_argument("--reason", action="append", default=[], help="told to the other side; may be repeated")
        if event in ("offer", "request"):
            move.add_argument("--offer", type=Path, required=True, help="JSON file with the offer's rules")
        move.set_defaults(event=event, offer=None)


_NEGOTIATION_WORDS = {
    "approve": ("approve", "agree to a request that waits for a person, if the rules allow it (provider)"),
    "offer": ("offer", "answer a request with other terms (provider)"),
    "counter": ("request", "answer an offer with other terms (consumer)"),
    "accept": ("accept", "accept the provider's offer (consumer)"),
    "terminate": ("terminate", "end a negotiation"),
}


def _negotiations(given: Any) -> None:
    rows = open_space(given).call("negotiation.list")
    show_rows(given, rows, ("pid", "role", "counterparty", "dataset", "state", "agreement"))


def _negotiation(given: Any) -> None:
    answer = open_space(given).call("negotiation.show", pid=given.pid)
    show(given, answer, _told(answer))


def _negotiate(given: Any) -> None:
    words = {"counterparty": given.counterparty, "address": given.address, "dataset": given.dataset}
    answer = open_space(given).call("negotiation.request", **words, permit=given.permit, offer=_rules(given.offer))
    show(given, answer, _told(answer))


def _move_negotiation(given: Any) -> None:
    space = open_space(given)
    if given.event == "approve":
        space.call("negotiation.approve", pid=given.pid)
    else:
        space.call(
            "negotiation.move", pid=given.pid, event=given.event, offer=_rules(given.offer), reasons=given.reason
        )
    answer = space.call("negotiation.show", pid=given.pid)
    show(given, answer, _told(answer))


def _rules(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not a JSON offer: {error}", remedy="write its permission list") from error
    return dict(body)


def _told(answer: dict[str, Any]) -> str:
    return "\n".join([f"{answer['pid']} is {answer['state']}", *answer["reasons"]])


# -- transfers -----------------------------------------------------------------------------------------


def transfer_commands(sub: Any) -> None:
    """Declare ``ihds transfer``."""
    command(sub, "list", "list transfer processes", "ihds transfer list --node researcher", _transfers)
    agreements = "list the agreements at hand"
    command(sub, "agreements", agreements, "ihds transfer agreements --node researcher", _agreements)
    request = command(
        sub,
        "request",
        "request a transfer under an agreement",
        "ihds transfer request model-1 --node researcher",
        _request_transfer,
    )
    request.add_argument("agreement", help="id of the agreement, or the dataset it is on")
    request.add_argument("--format", default="HttpData-PULL", help="as the catalogue lists it")
    fetch = command(
        sub,
        "fetch",
        "fetch the bytes of a started transfer; a file that is there in part is completed",
        "ihds transfer fetch model-1 model.bin --node researcher",
        _fetch,
    )
    fetch.add_argument("pid", help="pid of the transfer, or the dataset it moves")
    fetch.add_argument("file", type=Path)
    for word, event in _TRANSFER_WORDS.items():
        move = command(sub, word, f"{word} a transfer", f"ihds transfer {word} urn:uuid:… --node lih", _move_transfer)
        move.add_argument("pid")
        move.add_argument("--reason", action="append", default=[], help="told to the other side; may be repeated")
        move.set_defaults(event=event)


_TRANSFER_WORDS = {"suspend": "suspend", "resume": "start", "complete": "complete", "terminate": "terminate"}


def _transfers(given: Any) -> None:
    rows = open_space(given).call("transfer.list")
    show_rows(given, rows, ("pid", "role", "counterparty", "format", "state", "agreement"))


def _agreements(given: Any) -> None:
    show_rows(
        given, open_space(given).call("agreement.list"), ("agreement", "dataset", "counterparty", "role", "permit")
    )


def _request_transfer(given: Any) -> None:
    answer = open_space(given).call("transfer.request", agreement=given.agreement, format=given.format)
    show(given, answer, _told(answer))


def _move_transfer(given: Any) -> None:
    answer = open_space(given).call("transfer.move", pid=given.pid, event=given.event, reasons=given.reason)
    show(given, answer, _told(answer))


def _fetch(given: Any) -> None:
    from ihds.wire.http import fetch

    address = open_space(given).call("transfer.address", pid=given.pid)
    columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=ERR, disable=given.json or not ERR.is_terminal) as bar:
        task = bar.add_task(given.file.name, total=None)
        try:
            size = fetch(
                address["endpoint"],
                address["token"],
                given.file,
                lambda got, total: bar.update(task, completed=got, total=total),
            )
        except PeerFailed as error:
            raise PeerFailed(error.message, remedy="run the same command again: it goes on where it was") from error
    show(given, {"file": str(given.file), "bytes": size}, f"{given.file}: {size} bytes")


# -- data planes ---------------------------------------------------------------------------------------


def dataplane_commands(sub: Any) -> None:
    """Declare ``ihds dataplane``."""
    init = command(
        sub,
        "init",
        "make a data plane of its own for a node",
        "ihds dataplane init lih-data --for lih --port 9100",
        _plane_init,
        node=False,
    )
    init.add_argument("folder", type=Path)
    init.add_argument("--for", dest="node_folder", type=Path, required=True, help="the node's folder")
    init.add_argument("--port", type=int, help="port to listen on (default: a free one)")
    init.add_argument("--url", help="address others reach it at (default: loopback and the port)")
    run = command(
        sub, "run", "run a data plane until interrupted", "ihds dataplane run lih-data", _plane_run, node=False
    )
    run.add_argument("folder", type=Path)


def _plane_init(given: Any) -> None:
    from ihds.roles import dataplane
    from ihds.roles.config import free_port

    port = given.port or free_port()
    config = dataplane.create(given.folder, given.node_folder, given.url or f"http://127.0.0.1:{port}", port)
    answer = {"folder": str(given.folder), "url": config.url, "control": config.control, "files": sorted(config.files)}
    show(given, answer, f"ready at {config.url}; run it with: ihds dataplane run {given.folder}")


def _plane_run(given: Any) -> None:
    import uvicorn

    from ihds.roles.dataplane import DataPlane
    from ihds.wire.serve import Patient

    plane = DataPlane(given.folder)
    ERR.print(f"data plane of {plane.config.did} at {plane.config.url}")
    level = "info" if given.verbose else "warning"
    uvicorn.run(plane.app(), host=plane.config.host, port=plane.config.port, log_level=level, http=Patient)
