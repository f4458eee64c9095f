"""Agreements of several institutions: proposed at a body, signed by each party's own node with its key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event
from ihds.errors import BadInput, NotAuthenticated, NotFound, Refused
from ihds.governance.agreement import STEPS, Agreement, AgreementAction, AgreementState
from ihds.governance.duties import Actor, Role, Shown
from ihds.governance.lifecycle import permitted
from ihds.governance.policy import Refused as No
from ihds.ids import AgreementId, Did
from ihds.roles.cases import settled
from ihds.store.store import Put, Record
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Node


class Agreements:
    """Keeps what parties propose and sign; the last signature brings an agreement into force."""

    def __init__(self, node: Node) -> None:
        """Work on an access body's node."""
        self.node = node

    def routes(self) -> list[Route]:
        """Return what parties read and where they sign."""
        return [
            Route("/access/agreements/{id}", endpoint(self._read), methods=["GET"]),
            Route("/access/agreements/{id}/signatures", endpoint(self._sign), methods=["POST"]),
        ]

    def propose(self, arguments: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """Put an agreement before its parties; what was not signed by all is nothing yet."""
        if Role.OFFICER not in actor.roles:
            raise Refused(f"{actor.name} is no officer here", remedy="ihds officer list")
        agreement = Agreement.from_dict({"id": AgreementId.new(), "body": self.node.did, **arguments})
        if agreement.body != self.node.did:
            raise BadInput("the agreement names another body", remedy="propose it there")
        body = {"agreement": agreement.to_dict(), "state": str(AgreementState.PROPOSED), "signatures": {}}
        details = {"agreement": agreement.id, "state": body["state"], "by": actor.name, "digest": agreement.digest()}
        self.node.log.commit(
            Event("agreement.advanced", self.node.did, details), Put("joint.agreement", agreement.id, 0, body)
        )
        return self.show(agreement.id)

    def end(self, identifier: str, actor: Actor, reason: str) -> dict[str, Any]:
        """End an agreement; from then on nothing is granted under it."""

        def once() -> dict[str, Any]:
            record = self._record(identifier)
            shown = frozenset({Shown.REASONS} if reason.strip() else set())
            self._advance(record, AgreementAction.END, actor.name, actor.roles, shown, {"reason": reason}, {})
            return self.show(identifier)

        return settled(once)

    def list(self) -> list[dict[str, Any]]:
        """Return every agreement and who has signed it."""
        return [self._row(r) for r in self.node.store.list("joint.agreement")]

    def show(self, identifier: str) -> dict[str, Any]:
        """Return an agreement in full, with its signatures."""
        record = self._record(identifier)
        return {**self._row(record), "text": record.body["agreement"], "signatures": record.body["signatures"]}

    def _row(self, record: Record) -> dict[str, Any]:
        agreement = record.body["agreement"]
        return {
            "agreement": record.id,
            "title": agreement["title"],
            "state": record.body["state"],
            "signed": sorted(record.body["signatures"]),
            "unsigned": [p["did"] for p in agreement["parties"] if p["did"] not in record.body["signatures"]],
            "until": agreement["until"],
        }

    def _record(self, identifier: str) -> Record:
        found = self.node.log.get("joint.agreement", AgreementId.parse(identifier))
        if found is None:
            raise NotFound(f"there is no agreement {identifier} here", remedy="ihds agreement list")
        return found

    def _read(self, call: Call) -> Answer:
        who = str(self.node.members.check(call.headers.get("authorization", ""))["iss"])
        record = self._record(call.path["id"])
        if who not in {p["did"] for p in record.body["agreement"]["parties"]}:
            raise NotFound("there is no such agreement of yours")
        return Answer({"agreement": record.body["agreement"], "state": record.body["state"]})

    def _sign(self, call: Call) -> Answer:
        who = str(self.node.members.check(call.headers.get("authorization", ""))["iss"])
        signature = str(call.json().get("signature", ""))

        def once() -> dict[str, Any]:
            record = self._record(call.path["id"])
            agreement = Agreement.from_dict(record.body["agreement"])
            if who not in {p.did for p in agreement.parties}:
                raise NotFound("there is no such agreement of yours")
            if who in record.body["signatures"]:
                return self._row(record)
            claims = self.node.resolver.verify(signature, "assertionMethod", who)
            if (claims.get("agreement"), claims.get("digest")) != (agreement.id, agreement.digest()):
                raise NotAuthenticated("this signature is for another agreement, or another text of it")
            signatures = {**record.body["signatures"], who: signature}
            last = len(signatures) == len(agreement.parties)
            action = AgreementAction.CONCLUDE if last else AgreementAction.SIGN
            party = frozenset({Role.PARTY})
            self._advance(record, action, who, party, frozenset(), {"signed": who}, {"signatures": signatures})
            return self._row(self._record(record.id))

        return Answer(settled(once))

    def _advance(
        self,
        record: Record,
        action: AgreementAction,
        who: str,
        roles: frozenset[Role],
        shown: frozenset[Shown],
        details: dict[str, Any],
        change: dict[str, Any],
    ) -> None:
        state = AgreementState(record.body["state"])
        step = STEPS[state].get(action)
        role = Role(step.by) if step and step.by in roles else next(iter(sorted(roles)), Role.CLOCK)
        verdict = permitted(STEPS, "the agreement", state, action, role, shown)
        if isinstance(verdict, No):
            raise Refused(f"{action} is refused", reasons=verdict.reasons, remedy="docs/law/lives.md has the steps")
        assert step is not None, "a step that was permitted exists"
        body = {**record.body, **change, "state": str(step.to)}
        told = {"agreement": record.id, "action": str(action), "by": who, "state": str(step.to), **details}
        self.node.log.commit(
            Event("agreement.advanced", self.node.did, told), Put("joint.agreement", record.id, record.version, body)
        )


def sign(node: Node, identifier: str, body: str) -> dict[str, Any]:
    """Read an agreement at its body and sign it with this node's key.

    Raises:
        Refused: this node is no party, or the text is not the one its id stands for.

    """
    node.membership.join()
    where = str(body or next(iter(node.config.access_bodies), ""))
    if not where:
        raise BadInput("no access body is configured", remedy="set access_bodies in node.toml, or give --body")
    url = f"{node.resolver.service(Did.parse(where), 'AccessBody')}/agreements/{AgreementId.parse(identifier)}"
    agreement = Agreement.from_dict(node.http.get_json(url, node.wallet.token(where))["agreement"])
    if agreement.id != identifier or agreement.body != where or node.did not in {p.did for p in agreement.parties}:
        raise Refused("this node is no party of that agreement", remedy="ask its body: ihds agreement list")
    claims = {"iss": node.did, "agreement": agreement.id, "digest": agreement.digest()}
    signature = node.identity.key.sign_jwt(claims)
    answer = node.http.call("POST", f"{url}/signatures", {"signature": signature}, node.wallet.token(where))
    details = {"agreement": agreement.id, "digest": agreement.digest(), "state": answer["state"]}
    node.log.commit(
        Event("agreement.signed", node.did, details),
        *(
            []
            if node.log.get("my.joint.agreement", agreement.id)
            else [Put("my.joint.agreement", agreement.id, 0, agreement.to_dict())]
        ),
    )
    return {**answer, "text": agreement.to_dict()}
