"""Duties in a project beyond its access body: kept there, by person, whichever institution the person works for.

EHDS Art. 55(3) parts assessing, preparing data, running the environment and checking outputs. Whoever takes one of them
at an environment or a holder is told to the access body that granted; it refuses a person who holds another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event
from ihds.errors import BadInput, NotFound, Refused
from ihds.governance.duties import Actor, Role
from ihds.governance.permit import Permit
from ihds.ids import Did, PermitId
from ihds.store.store import Put
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.cases import Cases
    from ihds.roles.node import Command, Node

#: What may be taken on beyond the access body.
TAKEN = (Role.ENVIRONMENT, Role.PREPARER, Role.REVIEWER)


class ProjectDesk:
    """The access body's side: environment and holders of a permit tell who took which duty there."""

    def __init__(self, node: Node, cases: Cases) -> None:
        """Work on the cases of an access body."""
        self.node, self.cases = node, cases

    def routes(self) -> list[Route]:
        """Return where duties are told."""
        return [Route("/access/permits/{id}/duties", endpoint(self._take), methods=["POST"])]

    def _take(self, call: Call) -> Answer:
        who = str(self.node.members.check(call.headers.get("authorization", ""))["iss"])
        given, record = call.json(), self.node.log.get("permit", PermitId.parse(call.path["id"]))
        permit = Permit.from_dict(record.body["permit"]) if record else None
        if record is None or permit is None or who not in (permit.environment, *(h for h, _ in permit.datasets)):
            raise NotFound("there is no such permit that names you")
        role, person, name = role_of(given.get("role")), given.get("person"), given.get("name")
        if role is not Role.PREPARER and who != permit.environment:
            raise Refused(f"only the environment of the permit has its {role}", reasons=("EHDS 55(3), 73",))
        if not all(isinstance(x, str) and 0 < len(x) <= 1000 for x in (person, name)):
            raise BadInput("person and name are texts")
        actor = Actor(f"{name} of {who}", frozenset({role}), str(person))
        return Answer(self.cases.assign(str(record.body["application"]), actor, role))


class Duties:
    """The side of an environment or a holder: who took which duty, once the access body agreed."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node

    def commands(self) -> dict[str, Command]:
        """Return how somebody here takes a duty."""
        return {"duty.take": self.take, "duty.list": lambda _a: self.list()}

    def list(self) -> list[dict[str, Any]]:
        """Return who took which duty in which permit's project."""
        return [dict(r.body) for r in self.node.store.list("duty")]

    def take(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Take a duty in the project of a permit.

        Raises:
            Refused: the account does not have it, or the person holds a separate one in this project.

        """
        permit, role = PermitId.parse(str(arguments["id"])), role_of(arguments["role"])
        actor = self.node.people.officers.actor(str(arguments.get("by", "")))
        if role not in actor.roles:
            raise Refused(f"{actor.name} is no {role} here", reasons=("EHDS 55(3)",), remedy="ihds officer list")
        body = str(arguments.get("body") or next(iter(self.node.config.access_bodies), ""))
        service = self.node.resolver.service(Did.parse(body), "AccessBody")
        person = actor.person or f"{self.node.did}#{actor.name}"
        told = {"role": str(role), "person": person, "name": actor.name}
        self.node.http.call("POST", f"{service}/permits/{permit}/duties", told, self.node.wallet.token(body))
        key, record = f"{permit} {role} {person}", {"permit": permit, **told}
        if self.node.log.get("duty", key) is None:
            self.node.log.commit(Event("duty.assigned", self.node.did, record), Put("duty", key, 0, record))
        return record

    def operated(self, permit: str) -> None:
        """Check, where people sign in, that one of them runs the environment for a permit's project. Raises Refused."""
        held = (r.body for r in self.node.store.list("duty"))
        if self.node.people.sessions and not any((d["permit"], d["role"]) == (permit, Role.ENVIRONMENT) for d in held):
            raise Refused(
                "nobody here has taken on to run the environment for this project",
                reasons=(f"EHDS 55(3): the {Role.ENVIRONMENT} is a person who holds no other duty in it",),
                remedy=f"there: ihds officer take {permit} '{Role.ENVIRONMENT}'",
            )


def role_of(text: object) -> Role:
    """Read a duty that may be taken on beyond the access body. Raises BadInput."""
    found = next((role for role in TAKEN if role == text), None)
    if found is None:
        raise BadInput(f"{text!r} is no duty in a project here", remedy=f"one of: {', '.join(TAKEN)}")
    return found
