"""The role of a secure processing environment: an access body's, a trusted holder's or a partner's own node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.connector.dcp.credentials import PERMIT
from ihds.errors import NotFound, Refused
from ihds.federation.channel import HttpChannel
from ihds.federation.environment import Environment, Request
from ihds.federation.promises import refuse_useless
from ihds.federation.study import Study, study_of
from ihds.governance.permit import Permit, PermitState
from ihds.ids import Did, PermitId, StudyId
from ihds.roles.authority import OffersNothing
from ihds.roles.duties import Duties
from ihds.roles.proofs import Proofs
from ihds.roles.records import described
from ihds.wire.http import Line
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node


class SecureEnvironment(OffersNothing):
    """Lets the users of permits that name it ask, and calls holders as itself."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node
        self.proof = Proofs(node.verifier, node.log)
        self.duties = Duties(node)
        self.environment = Environment(node.did, node.log, node.signatures, self)

    def routes(self) -> list[Route]:
        """Return the endpoints of users, and the one by which an access body says that a permit changed."""
        return [
            Route("/environment/studies/{id}", endpoint(self._submit), methods=["PUT"]),
            Route("/environment/studies/{id}", endpoint(self._told), methods=["GET"]),
            Route("/environment/studies/{id}", endpoint(self._end), methods=["DELETE"]),
            Route("/permits/changed", endpoint(self._permits_changed), methods=["POST"]),
        ]

    def commands(self) -> dict[str, Command]:
        """Return the operator's commands: who runs what; no total, no result."""
        return {"study.list": lambda _a: self.studies(), **self.duties.commands()}

    def studies(self) -> list[dict[str, Any]]:
        """Return the studies that were asked for here."""
        names = ("user", "permit", "method", "status", "error")
        return [{"study": r.id, **{n: r.body[n] for n in names}} for r in self.node.store.list("study.request")]

    # -- for users -------------------------------------------------------------------------------

    def _user(self, call: Call) -> tuple[Did, str]:
        """Return the member who calls, and the token that opens its credentials."""
        claims = self.node.members.check(call.headers.get("authorization", ""))
        return Did.parse(claims["iss"]), str(claims.get("token") or "")

    def _submit(self, call: Call) -> Answer:
        user, access = self._user(call)
        request = Request.from_dict(call.path["id"], call.json())
        self._ask_permit(user, access, request.permit)
        self.duties.operated(request.permit)
        return Answer(self.environment.submit(user, request), status=201)

    def _told(self, call: Call) -> Answer:
        after = call.query.get("after", "0")
        return Answer(
            self.environment.told(self._user(call)[0], call.path["id"], int(after) if after.isdecimal() else 0)
        )

    def _end(self, call: Call) -> Answer:
        return Answer(self.environment.end(self._user(call)[0], call.path["id"]))

    def _ask_permit(self, user: Did, access: str, permit: str) -> None:
        """Have a user show a permit, and keep it: its status is looked up whenever it is used.

        Raises:
            Refused: it was not shown.

        """
        member, shown = self.proof.ask(user, access)
        for credential in shown:
            if self.proof.read(credential)[0].id == permit:
                self.proof.keep(permit, credential, member)
                return
        raise Refused(
            "the environment refuses the study",
            reasons=(f"EHDS 61(1), 68(10): the data permit {permit} was not presented",),
            remedy="apply: ihds apply",
        )

    def _permits_changed(self, call: Call) -> Answer:
        if self.node.tokens.check(call.bearer)["iss"] not in self.node.trust.issuers(PERMIT):
            raise NotFound("there is nothing here for you")
        self.node.verifier.lists.forget()
        return Answer({})

    # -- what the environment needs of the world -------------------------------------------------

    def permit(self, identifier: str, user: str) -> tuple[Permit, PermitState]:
        """Return a permit that its user showed here, and its present state."""
        kept = self.proof.kept(PermitId.parse(identifier))
        return self.proof.check(kept["token"], kept["membership"], user)

    def study(self, identifier: StudyId, permit: Permit, question: dict[str, Any]) -> Study:
        """Return the study that puts a question to holders, by what they say of their data to this node."""
        self.node.membership.join()
        records = described(self.node.connector, permit.datasets)
        study = study_of(identifier, permit, question, records)
        refuse_useless(study.plan(), sum(r.persons for r in records))
        return study

    @contextlib.contextmanager
    def channels(self, ways: dict[str, str]) -> Iterator[Sequence[HttpChannel]]:
        """Open channels to the holders themselves: their addresses are theirs to say, the user gives none."""
        opened = [self._channel(Did.parse(holder), token) for holder, token in ways.items()]
        try:
            yield opened
        finally:
            for channel in opened:
                channel.line.close()

    def _channel(self, holder: Did, token: str) -> HttpChannel:
        root = self.node.resolver.service(holder, "DataService").removesuffix("/.well-known/dspace-version")
        line = Line(f"{root}/data", self.node.http.guard)
        return HttpChannel(
            holder, self.node.http, f"{root}/data", token, line, shown=partial(self.node.wallet.token, holder)
        )

    def started(self) -> None:
        """Go on with studies that a crash interrupted."""
        self.environment.runs.go_on()

    def stopped(self) -> None:
        """End what runs."""
        self.environment.shutdown()
