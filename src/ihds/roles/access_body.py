"""The health data access body: receives applications, works its cases, issues and revokes permits."""

from __future__ import annotations

import contextlib
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event, now
from ihds.connector.dcp import credentials, status
from ihds.connector.dcp.credentials import PERMIT
from ihds.errors import BadInput, IhdsError, NotFound, Refused
from ihds.governance import permit as permits
from ihds.governance.duties import Actor, Role
from ihds.governance.holidays import CALENDARS
from ihds.governance.lifecycle import advance
from ihds.governance.lives import CaseAction
from ihds.governance.permit import Permit, PermitEvent, PermitState
from ihds.ids import PermitId
from ihds.roles.agreements import Agreements
from ihds.roles.authority import OffersNothing
from ihds.roles.cases import Asked, Cases
from ihds.roles.grants import Grants
from ihds.roles.officers import Officers
from ihds.roles.opt_out import Registry
from ihds.store.store import Put, Record
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node

_LIST_HOURS = 24
_PAGE = 100


class AccessBody(OffersNothing):
    """Decisions carry the words "simulated" in demos: only a designated body acts with legal effect."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node
        config = node.config
        calendar = CALENDARS.get(config.country, CALENDARS["EU"])
        self.cases = Cases(node.log, node.did, config.legal_regime, calendar)
        self.grants = Grants(self.cases, self._issue, config.environment)
        self.officers = Officers(node.log, node.did)
        self.agreements = Agreements(node)
        self.opt_outs = Registry(node)

    @property
    def list_url(self) -> str:
        """Where the status list of permits lies."""
        return f"{self.node.config.base_url}/access/status"

    def routes(self) -> list[Route]:
        """Return the applicant's endpoints and the public status list."""
        return [
            Route("/access/applications", endpoint(self._submit), methods=["POST"]),
            Route("/access/applications/{id}", endpoint(self._follow), methods=["GET"]),
            Route("/access/status", endpoint(self._status_list), methods=["GET"]),
            *self.agreements.routes(),
            *self.opt_outs.routes(),
        ]

    def commands(self) -> dict[str, Command]:
        """Return what officers do, and what the administrator does."""
        return {**self._work(), **self.officers.commands()}

    def account(self, key: str, command: str) -> str:
        """Return in whose name an officer's key gives a command; it administers nothing."""
        name = self.officers.account(key)
        if command not in self._work():
            raise Refused(f"{command} is for the node's administrator", remedy="run it on the node's folder")
        return name

    def _work(self) -> dict[str, Command]:
        def by(arguments: dict[str, Any]) -> Actor:
            return self.officers.actor(str(arguments.get("by", "")))

        return {
            **self.opt_outs.commands(),
            "officer.list": lambda _a: self.officers.list(),
            "officer.assign": lambda a: self.cases.assign(
                str(a["id"]), self.officers.actor(str(a["name"])), _role(a["role"])
            ),
            "permit.list": self.list,
            "permit.show": lambda a: self.show(str(a["id"])),
            "permit.act": lambda a: self._act(a, by(a)),
            "permit.assess": lambda a: self.grants.assess(
                str(a["id"]), by(a), str(a["question"]), str(a["answer"]), str(a.get("because", ""))
            ),
            "permit.fees": lambda a: self.grants.fee_notice(str(a["id"]), by(a)),
            "permit.decide": lambda a: self._decide(a, by(a)),
            "permit.replay": lambda a: self.grants.replay(
                str(a["id"]), date.fromisoformat(str(a["on"])), str(a.get("regime", self.node.config.legal_regime))
            ),
            "permit.revoke": lambda a: self.revoke(str(a["id"]), str(a.get("reason", ""))),
            "joint.list": lambda _a: self.agreements.list(),
            "joint.show": lambda a: self.agreements.show(str(a["id"])),
            "joint.propose": lambda a: self.agreements.propose(dict(a["agreement"]), by(a)),
            "joint.end": lambda a: self.agreements.end(str(a["id"]), by(a), str(a.get("reason", ""))),
        }

    # -- for applicants --------------------------------------------------------------------------

    def _submit(self, call: Call) -> Answer:
        applicant = str(self.node.members.check(call.headers.get("authorization", ""))["iss"])
        asked = Asked.read(call.json())
        if asked.application.applicant != applicant:
            raise Refused("the application is not in the name of its sender", remedy="apply for yourself")
        admitted = self.node.members.country(applicant)
        if asked.application.applicant_country != admitted:
            raise Refused(
                f"the applicant is a member from {admitted or 'no country'}, "
                f"not from {asked.application.applicant_country}",
                reasons=("EHDS 67(2)(a), 91: the law depends on where the applicant is established",),
                remedy="apply from the country of your membership",
            )
        return Answer(self._public(self.cases.submit(asked)), status=201)

    def _follow(self, call: Call) -> Answer:
        who = str(self.node.members.check(call.headers.get("authorization", ""))["iss"])
        record = self.cases.record(call.path["id"])
        if record.body["application"]["applicant"] != who:
            raise NotFound("there is no such application of yours")
        return Answer(self._public(record))

    def _public(self, record: Record) -> dict[str, Any]:
        """Return what the applicant is shown."""
        body = record.body
        held = self.node.log.get("permit", body["permit"]) if body["permit"] else None
        return {
            "application": record.id,
            "legal_regime": body["legal_regime"],
            "state": body["state"],
            "stage": body["stage"],
            "reasons": body["reasons"],
            "fee_notice": body["fee_notice"],
            "permit": body["permit"],
            "credential": held.body["credential"] if held else None,
        }

    # -- for officers ----------------------------------------------------------------------------

    def list(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a page of applications by id, chosen by state, stage, kind or regime, and what became of them."""
        where = {k: str(arguments[k]) for k in ("state", "stage", "kind", "legal_regime") if arguments.get(k)}
        after, limit = str(arguments.get("after", "")), int(arguments.get("limit", _PAGE))
        rows = []
        for record in self.node.store.page("application", where, after=after, limit=max(1, min(limit, 1000))):
            body = record.body
            held = self.node.log.get("permit", body["permit"]) if body["permit"] else None
            asked = {k: body["application"][k] for k in ("title", "applicant", "purpose")}
            words = {k: body[k] for k in ("kind", "legal_regime", "state", "stage", "permit")}
            rows.append(
                {"application": record.id, **asked, **words, "permit_state": held.body["state"] if held else None}
            )
        return rows

    def show(self, identifier: str) -> dict[str, Any]:
        """Return an application or a permit in full."""
        for kind in ("permit", "application"):
            record = self.node.log.get(kind, identifier)
            if record is not None:
                return {k: v for k, v in record.body.items() if k != "credential"}
        raise NotFound(f"there is no application or permit {identifier}", remedy="ihds permit list")

    def _act(self, arguments: dict[str, Any], actor: Actor) -> dict[str, Any]:
        words = {str(a): a for a in CaseAction if a is not CaseAction.GRANT}
        action = str(arguments["action"])
        if action not in words:
            raise BadInput(f"{action!r} is no step", remedy=f"one of: {', '.join(words)}")
        reasons = tuple(map(str, arguments.get("reasons", ())))
        return self._public(self.cases.act(str(arguments["id"]), words[action], actor, reasons=reasons))

    def _decide(self, arguments: dict[str, Any], actor: Actor) -> dict[str, Any]:
        identifier = str(arguments["id"])
        if not arguments["grant"]:
            reasons = tuple(map(str, arguments.get("reasons", ())))
            return self._public(self.grants.refuse(identifier, actor, reasons))
        return self._public(self.grants.grant(identifier, actor, dict(arguments.get("conditions", {}))))

    def _issue(self, permit: Permit) -> str:
        """Return the signed credential of a permit."""
        entry = status.entry(self.list_url, permit.status_index)
        claims = {"permit": permit.to_dict()}
        return credentials.issue(self.node.identity, permit.user, PERMIT, claims, permit.expires_at, entry)

    def revoke(self, identifier: str, reason: str) -> dict[str, Any]:
        """Revoke a permit (EHDS Art. 63(3)) and tell its holders and its environment to look.

        Raises:
            NotFound: there is no such permit.
            IllegalTransition: it is revoked already.

        """
        record = self.node.log.get("permit", PermitId.parse(identifier))
        if record is None:
            raise NotFound(f"there is no permit {identifier}", remedy="ihds permit list shows them")
        after = advance(permits.NEXT, "the permit", PermitState(record.body["state"]), PermitEvent.REVOKE)
        body = {**record.body, "state": str(after), "reason": reason}
        details = {"permit": identifier, "reason": reason}
        self.node.log.commit(
            Event("permit.revoked", self.node.did, details), Put("permit", identifier, record.version, body)
        )
        self._tell(Permit.from_dict(record.body["permit"]))
        return {"permit": identifier, "state": str(after)}

    def _tell(self, permit: Permit) -> None:
        """Tell holders and environment to fetch the status list again; they would find out by themselves in seconds."""
        for who in (*(holder for holder, _dataset in permit.datasets), permit.asker):
            with contextlib.suppress(IhdsError):
                url = self.node.resolver.service(who, "DataService").removesuffix("/.well-known/dspace-version")
                self.node.http.call("POST", f"{url}/permits/changed", {}, self.node.identity.token(who))

    def started(self) -> None:
        """Go on with what a crash interrupted."""
        self.cases.resume()

    def _status_list(self, _call: Call) -> Answer:
        revoked = {
            int(r.body["permit"]["status_index"])
            for r in self.node.store.list("permit")
            if r.body["state"] in (PermitState.REVOKED, PermitState.SUPERSEDED)
        }
        expires = now() + timedelta(hours=_LIST_HOURS)
        token = status.status_list(self.node.identity, self.list_url, revoked, expires)
        return Answer(raw=token.encode(), media_type="application/vc+jwt")


def _role(text: object) -> Role:
    words = {str(role): role for role in Role}
    if str(text) not in words:
        raise BadInput(f"{text!r} is no duty", remedy=f"one of: {', '.join(words)}")
    return words[str(text)]
