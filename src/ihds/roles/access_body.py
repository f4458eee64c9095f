"""The health data access body: receives applications, works its cases, issues and revokes permits."""

from __future__ import annotations

import contextlib
from datetime import date, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.routing import Route

from ihds.audit.log import now
from ihds.connector.dcp import credentials, status
from ihds.connector.dcp.credentials import permission_type
from ihds.errors import BadInput, IhdsError, NotFound
from ihds.governance.duties import Actor, Role
from ihds.governance.holidays import CALENDARS
from ihds.governance.lives import AppealAction, CaseAction
from ihds.governance.permit import Permit, PermitEvent, PermitState
from ihds.ids import PermitId
from ihds.roles.agreements import Agreements
from ihds.roles.applicants import Applicants
from ihds.roles.authority import OffersNothing
from ihds.roles.cases import Cases
from ihds.roles.duties import ProjectDesk
from ihds.roles.grants import Grants
from ihds.roles.opt_out import Registry
from ihds.roles.publications import Publications
from ihds.roles.redress import Redress
from ihds.roles.timekeeper import Timekeeper
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
        self.officers = node.people.officers
        self.agreements = Agreements(node)
        self.opt_outs = Registry(node)
        self.redress = Redress(self.cases)
        self.publications = Publications(node.log, node.did, calendar)
        self.applicants = Applicants(node, self.cases, self.redress, self.publications)
        self.time = Timekeeper(self.cases, self.publications, self._tell, self.applicants.forward)

    @property
    def list_url(self) -> str:
        """Where the status list of permits lies."""
        return f"{self.node.config.base_url}/access/status"

    def routes(self) -> list[Route]:
        """Return the applicant's endpoints and the public status list."""
        return [
            Route("/access/status", endpoint(self._status_list), methods=["GET"]),
            *self.applicants.routes(),
            *self.agreements.routes(),
            *self.opt_outs.routes(),
            *ProjectDesk(self.node, self.cases).routes(),
        ]

    def commands(self) -> dict[str, Command]:
        """Return what officers do."""

        def by(arguments: dict[str, Any]) -> Actor:
            return self.officers.actor(str(arguments.get("by", "")))

        def headed(arguments: dict[str, Any]) -> str:
            """Return who does what the table of rights let through; the node's own key needs no name for it."""
            return by(arguments).name if arguments.get("by") else str(self.node.did)

        def counter(command: Command) -> Command:
            """Return a command of the counter: who assesses or prepares data does not learn who opted out."""
            return lambda a: command({**a, "by": a.get("by") and headed(a)})

        return {
            **{name: counter(command) for name, command in self.opt_outs.commands().items()},
            "officer.assign": lambda a: self._assign(a, headed(a)),
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
            "permit.clock": lambda a: self.time.clock(str(a["id"])),
            "permit.overdue": lambda a: self.time.overdue(int(a.get("days", 0))),
            "permit.look": lambda _a: {"done": self.time.look()},
            "permit.appeal": lambda a: self.redress.appeal(
                str(a["id"]), _word(AppealAction, a["action"]), by(a), tuple(map(str, a.get("reasons", ())))
            ),
            "permit.exclude": lambda a: self.redress.exclude(
                str(a["user"]), by(a), int(a.get("years", 5)), str(a.get("reason", ""))
            ),
            "publication.list": lambda _a: self.publications.list(),
            "publication.extend": lambda a: self.publications.extend(
                str(a["id"]), by(a), date.fromisoformat(str(a["until"])), str(a.get("reason", ""))
            ),
            "publication.deleted": lambda a: self.publications.deleted(str(a["id"]), by(a)),
            "permit.revoke": lambda a: self.revoke(str(a["id"]), str(a.get("reason", "")), headed(a)),
            "joint.list": lambda _a: self.agreements.list(),
            "joint.show": lambda a: self.agreements.show(str(a["id"])),
            "joint.propose": lambda a: self.agreements.propose(dict(a["agreement"]), by(a)),
            "joint.end": lambda a: self.agreements.end(str(a["id"]), by(a), str(a.get("reason", ""))),
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
                shown = {k: v for k, v in record.body.items() if k != "credential"}
                return shown | (self.applicants.visas.shown(record.id) if kind == "application" else {})
        raise NotFound(f"there is no application or permit {identifier}", remedy="ihds permit list")

    def _act(self, arguments: dict[str, Any], actor: Actor) -> dict[str, Any]:
        words = {str(a): a for a in CaseAction if a is not CaseAction.GRANT}
        action = str(arguments["action"])
        if action not in words:
            raise BadInput(f"{action!r} is no step", remedy=f"one of: {', '.join(words)}")
        reasons = tuple(map(str, arguments.get("reasons", ())))
        if words[action] is CaseAction.FORWARD:
            holder = str(arguments.get("holder", ""))
            return self.applicants.public(self.applicants.to_trusted(str(arguments["id"]), actor, holder, reasons))
        return self.applicants.public(self.cases.act(str(arguments["id"]), words[action], actor, reasons=reasons))

    def _decide(self, arguments: dict[str, Any], actor: Actor) -> dict[str, Any]:
        identifier = str(arguments["id"])
        if not arguments["grant"]:
            reasons = tuple(map(str, arguments.get("reasons", ())))
            return self.applicants.public(self.grants.refuse(identifier, actor, reasons))
        return self.applicants.public(self.grants.grant(identifier, actor, dict(arguments.get("conditions", {}))))

    def _issue(self, permit: Permit) -> str:
        """Return the signed credential of a permit."""
        entry = status.entry(self.list_url, permit.status_index)
        claims = {"permit": permit.to_dict()}
        kind = permission_type(permit.legal_regime)
        return credentials.issue(self.node.identity, permit.user, kind, claims, permit.expires_at, entry)

    def _assign(self, arguments: dict[str, Any], _by: str) -> dict[str, Any]:
        actor = self.officers.actor(str(arguments["name"]))
        return self.cases.assign(str(arguments["id"]), actor, _word(Role, arguments["role"]))

    def revoke(self, identifier: str, reason: str, by: str) -> dict[str, Any]:
        """Revoke a permit (EHDS Art. 63(3)) and tell its holders and its environment to look.

        Raises:
            NotFound: there is no such permit.
            IllegalTransition: it is revoked already.

        """
        record = self.node.log.get("permit", PermitId.parse(identifier))
        if record is None:
            raise NotFound(f"there is no permit {identifier}", remedy="ihds permit list shows them")
        ended = self.time.end(record, PermitEvent.REVOKE, "permit.revoked", {"reason": reason, "by": by})
        return {"permit": ended.id, "state": str(PermitState.REVOKED)}

    def _tell(self, permit: Permit) -> None:
        """Tell holders and environment to fetch the status list again; they would find out by themselves in seconds."""
        for who in (*(holder for holder, _dataset in permit.datasets), permit.asker):
            with contextlib.suppress(IhdsError):
                url = self.node.resolver.service(who, "DataService").removesuffix("/.well-known/dspace-version")
                self.node.http.call("POST", f"{url}/permits/changed", {}, self.node.identity.token(who))

    def started(self) -> None:
        """Go on with what a crash interrupted, and watch the clocks."""
        self.cases.resume()
        self.redress.resume()
        self.time.keep()

    def stopped(self) -> None:
        """Stop watching the clocks."""
        self.time.stop()

    def _status_list(self, _call: Call) -> Answer:
        revoked = {
            int(r.body["permit"]["status_index"])
            for r in self.node.store.list("permit")
            if r.body["state"] in (PermitState.REVOKED, PermitState.SUPERSEDED)
        }
        expires = now() + timedelta(hours=_LIST_HOURS)
        token = status.status_list(self.node.identity, self.list_url, revoked, expires)
        return Answer(raw=token.encode(), media_type="application/vc+jwt")


W = TypeVar("W", bound=StrEnum)


def _word(words: type[W], text: object) -> W:
    """Read a duty or an action. Raises BadInput."""
    try:
        return words(str(text))
    except ValueError as error:
        raise BadInput(f"{text!r} is unknown here", remedy=f"one of: {', '.join(words)}") from error
