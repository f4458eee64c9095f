"""The data space authority: admits members and says so in a credential."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event, now
from ihds.connector import dcp
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import Transfer
from ihds.errors import Refused
from ihds.governance.policy import Granted
from ihds.governance.policy import Refused as No
from ihds.store.store import Put
from ihds.wire.http import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node

_MEMBERSHIP_DAYS = 365


class OffersNothing:
    """The connector decisions of an institution that holds no data."""

    def datasets(self) -> list[dict[str, Any]]:
        """Offer nothing."""
        return []

    def judge(self, process: Negotiation) -> Granted | No:
        """Refuse."""
        return No(("this institution holds no data",))

    def may_start(self, process: Transfer, agreement: dict[str, Any]) -> Granted | No:
        """Refuse."""
        return No(("this institution holds no data",))

    def ended(self, process: Transfer) -> None:
        """Nothing depends on it."""

    def started(self) -> None:
        """Nothing was interrupted."""

    def stopped(self) -> None:
        """There are no threads."""


class Authority(OffersNothing):
    """Admits the nodes its configuration lists as members, by decision of the steering committee."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node

    def routes(self) -> list[Route]:
        """Return the membership endpoint."""
        return [Route("/members", endpoint(self._admit), methods=["POST"])]

    def commands(self) -> dict[str, Command]:
        """Return the commands of the secretariat."""
        return {"members": lambda _a: [r.body for r in self.node.store.list("member")]}

    def _admit(self, call: Call) -> Answer:
        member = str(self.node.tokens.check(call.bearer)["iss"])
        if member not in self.node.config.members:
            raise Refused(
                f"{member} is not a member of this data space",
                reasons=("membership: no decision of the steering committee lists it",),
                remedy="ask the authority to add it to its members",
            )
        asked = call.json()
        claims = {name: str(asked.get(name, "")) for name in ("name", "role", "country")}
        expires = now() + timedelta(days=_MEMBERSHIP_DAYS)
        token = dcp.issue(self.node.identity, member, "MembershipCredential", claims, expires)
        found = self.node.log.get("member", member)
        put = Put("member", member, found.version if found else 0, {"did": member, **claims})
        self.node.log.commit(Event("member.admitted", self.node.did, {"member": member, **claims}), put)
        return Answer({"credential": token}, status=201)
