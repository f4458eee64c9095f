"""Commands between participants: membership of the data space."""

from __future__ import annotations

from typing import Any

from ihds.cli.words import command, open_space, show, show_rows


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
