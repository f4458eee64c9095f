"""A member's part in the government of the data space: its node reads motions and signs what its seats say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import acting
from ihds.errors import BadInput, NotFound
from ihds.governance.bodies import Motion
from ihds.roles.committee import MotionId

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node


class Seat:
    """Speaks for the seats of one institution; where its people sign in, each for its own, and the act says who."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node

    def routes(self) -> list[Route]:
        """Return nothing: the authority is asked, it does not ask."""
        return []

    def commands(self) -> dict[str, Command]:
        """Return the commands of those who sit in a body."""
        own = {} if self.node.config.role == "authority" else {"committee.list": lambda _a: self.read()}
        return {
            **own,
            "committee.propose": self.propose,
            "committee.vote": self.vote,
            "committee.withdraw": self.withdraw,
        }

    def _url(self) -> str:
        if not self.node.config.authority:
            raise BadInput("this node belongs to no data space", remedy="set authority in node.toml")
        return self.node.resolver.service(self.node.config.authority, "Committee")

    def read(self) -> dict[str, Any]:
        """Return the bodies, motions and approved versions, as the authority tells its members."""
        return self.node.http.get_json(self._url(), self.node.wallet.token(self.node.config.authority))

    def _say(self, act: str, motion: str, **claims: Any) -> dict[str, Any]:
        """Sign an act and send it; sent again it changes nothing."""
        body = {"iss": self.node.did, "aud": self.node.config.authority, "iat": int(time.time()), "act": act}
        body |= {"signed_in": who} if (who := acting.get()) else {}
        signed = self.node.keys.sign_jwt({**body, "motion": motion, **claims})
        return self.node.http.call("POST", f"{self._url()}/acts", {"act": signed})

    def propose(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Open a motion in the name of a seat."""
        words = ("person", "body", "matter", "subject", "title", "days")
        asked = {w: arguments[w] for w in words if w in arguments}
        return self._say("propose", str(arguments.get("motion") or MotionId.new()), **asked)

    def vote(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Vote on a motion as it reads now."""
        identifier = str(arguments["motion"])
        told = self.node.institution.commands().get("committee.list")
        motions = (told({}) if told else self.read())["motions"]
        for record in motions:
            if record["motion"]["id"] == identifier:
                text = Motion.from_dict(record["motion"]).digest()
                words = {"person": str(arguments["person"]), "choice": str(arguments["choice"])}
                return self._say("vote", identifier, digest=text, **words)
        raise NotFound(f"there is no motion {identifier}", remedy="ihds committee list")

    def withdraw(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Withdraw a motion that this seat proposed."""
        return self._say("withdraw", str(arguments["motion"]), person=str(arguments["person"]))
