"""Visas at an access body: those that come with an application are evidence, permits in force give some."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event
from ihds.errors import BadInput, NotFound, Refused
from ihds.governance.permit import Permit, PermitState
from ihds.ids import PermitId
from ihds.people.passports import PASSPORT, VisaDesk, one_person, visas_of
from ihds.store.store import Put
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Node


class Visas:
    """Checks and gives visas for one access body."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node
        self.desk = VisaDesk(node.config.visa_issuers, node.http, lambda: node.log.clock().timestamp())
        self.keys_url = f"{node.config.base_url}/access/visas/keys"

    def routes(self) -> list[Route]:
        """Return where users fetch visas, and where whoever relies on one finds its key."""
        return [
            Route("/access/permits/{id}/visas", endpoint(self._give), methods=["POST"]),
            Route("/access/visas/keys", endpoint(self._keys), methods=["GET"]),
        ]

    def take(self, application: str, tokens: tuple[str, ...]) -> None:
        """Check the visas that came with an application, once, and keep what they are evidence of."""
        if not tokens or self.node.log.get("visas", application) is not None:
            return
        shown = self.desk.evidence(tokens)
        body = {"visas": shown, "one_person": one_person(shown), "checked_at": self.node.log.clock().isoformat()}
        believed = [f"{v['type']} of {v['issuer']}" for v in shown if v["believed"]]
        details = {"application": application, "believed": believed, "not_believed": len(shown) - len(believed)}
        self.node.log.commit(Event("visas.received", self.node.did, details), Put("visas", application, 0, body))

    def shown(self, application: str) -> dict[str, Any]:
        """Return what came, for the assessor; what has run out since says so."""
        found = self.node.log.get("visas", application)
        if found is None:
            return {}
        at = self.node.log.clock().timestamp()
        rows = [{**v, "over": v["believed"] and v["expires"] < at} for v in found.body["visas"]]
        return {"evidence": {**found.body, "visas": rows, "grants": "nothing by itself"}}

    def _give(self, call: Call) -> Answer:
        user = str(self.node.members.check(call.headers.get("authorization", ""))["iss"])
        given, permit = call.json(), PermitId.parse(call.path["id"])
        record = self.node.log.get("permit", permit)
        if record is None or record.body["permit"]["user"] != user:
            raise NotFound("there is no such permit of yours", remedy="ihds permit list")
        held, at, person = Permit.from_dict(record.body["permit"]), self.node.log.clock(), str(given.get("person", ""))
        if record.body["state"] != PermitState.GRANTED or not held.issued_at <= at < held.expires_at:
            state = record.body["state"] if record.body["state"] != PermitState.GRANTED else PermitState.EXPIRED
            raise Refused("there is no visa of a grant that has ended", reasons=(f"{permit} is {state}",))
        if person not in held.persons:
            raise Refused(
                f"the grant names {', '.join(held.persons) or 'nobody'}, not {person or 'nobody'}",
                reasons=("EHDS 68(10): a permit names who may use it",),
                remedy="ihds permit amend PERMIT --person NAME",
            )
        subject = hashlib.sha256(f"{user} {person}".encode()).hexdigest()[:32]
        base = self.node.config.base_url
        made = visas_of(held, self.node.keys, base, self.keys_url, subject, at, _same(given.get("signed_in")))
        details = {"permit": permit, "person": person, "subject": subject, "visas": len(made)}
        self.node.log.commit(Event("visas.issued", self.node.did, details))
        return Answer({"permit": permit, "legal_regime": held.legal_regime, "person": person, PASSPORT: made})

    def _keys(self, _call: Call) -> Answer:
        listed = [{**jwk, "kid": kid, "use": "sig"} for kid, jwk, _ in self.node.keys.methods()]
        return Answer({"keys": listed})


def _same(body: object) -> dict[str, str] | None:
    if body is None:
        return None
    if not isinstance(body, dict) or not all(isinstance(body.get(k), str) and body[k] for k in ("issuer", "subject")):
        raise BadInput("signed_in is issuer and subject")
    return {k: str(body[k])[:1000] for k in ("issuer", "subject")}
