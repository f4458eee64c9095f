"""The health data access body: receives applications, decides, issues and revokes permits."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event, now
from ihds.connector.dcp import credentials, status
from ihds.connector.dcp.credentials import PERMIT
from ihds.errors import BadInput, IhdsError, NotFound, Refused
from ihds.governance import application as applications
from ihds.governance import permit as permits
from ihds.governance.application import Application, ApplicationEvent, ApplicationState, screen
from ihds.governance.calendar import wait_months
from ihds.governance.lifecycle import advance
from ihds.governance.permit import Permit, PermitEvent, PermitState
from ihds.governance.policy import Refused as No
from ihds.ids import ApplicationId, PermitId
from ihds.privacy.disclosure import Thresholds
from ihds.roles.authority import OffersNothing
from ihds.roles.opt_out import Registry
from ihds.store.store import Put, Record
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node

#: How many sums a permit may open at each holder unless the officer says otherwise.
DEFAULT_ROUNDS = 200
_LIST_HOURS = 24


class AccessBody(OffersNothing):
    """Decisions carry the words "simulated" in demos: only a designated body acts with legal effect."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node
        self._lock = threading.Lock()
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
            *self.opt_outs.routes(),
        ]

    def commands(self) -> dict[str, Command]:
        """Return the officer's commands."""
        return {
            **self.opt_outs.commands(),
            "permit.list": lambda _a: self.list(),
            "permit.show": lambda a: self.show(str(a["id"])),
            "permit.decide": self._decide,
            "permit.revoke": lambda a: self.revoke(str(a["id"]), str(a.get("reason", ""))),
        }

    # -- for applicants --------------------------------------------------------------------------

    def _submit(self, call: Call) -> Answer:
        applicant = str(self.node.members.check(call.headers.get("authorization", ""))["iss"])
        asked = Application.from_dict(call.json())
        if asked.applicant != applicant:
            raise Refused("the application is not in the name of its sender", remedy="apply for yourself")
        admitted = self.node.members.country(applicant)
        if asked.applicant_country != admitted:
            raise Refused(
                f"the applicant is a member from {admitted or 'no country'}, not from {asked.applicant_country}",
                reasons=("EHDS 67(2)(a), 91: the law depends on where the applicant is established",),
                remedy="apply from the country of your membership",
            )
        if self.node.log.get("application", asked.id) is None:
            body = {"application": asked.to_dict(), "state": str(ApplicationState.SUBMITTED), "reasons": []}
            details = {"application": asked.id, "title": asked.title, "purpose": asked.purpose}
            event = Event("application.submitted", applicant, details)
            self.node.log.commit(event, Put("application", asked.id, 0, body))
            self._screen(asked)
        return Answer(self._public(self._application(asked.id)), status=201)

    def _screen(self, asked: Application) -> None:
        """Take an application as far as it goes without a person."""
        self._advance(asked.id, ApplicationEvent.SCREEN, ())
        missing = applications.completeness(asked)
        step = ApplicationEvent.ASK if missing else ApplicationEvent.COMPLETE
        self._advance(asked.id, step, missing)

    def _advance(self, identifier: str, event: ApplicationEvent, reasons: tuple[str, ...]) -> None:
        record = self._application(identifier)
        state = ApplicationState(record.body["state"])
        after = advance(applications.NEXT, "the application", state, event)
        body = {**record.body, "state": str(after), "reasons": list(reasons)}
        details = {"application": identifier, "state": str(after), "reasons": list(reasons)}
        put = Put("application", identifier, record.version, body)
        self.node.log.commit(Event("application.advanced", self.node.did, details), put)

    def _follow(self, call: Call) -> Answer:
        who = str(self.node.members.check(call.headers.get("authorization", ""))["iss"])
        record = self._application(call.path["id"])
        if record.body["application"]["applicant"] != who:
            raise NotFound("there is no such application of yours")
        return Answer(self._public(record))

    def _public(self, record: Record) -> dict[str, Any]:
        body = record.body
        return {
            "application": record.id,
            "state": body["state"],
            "reasons": body["reasons"],
            "permit": body.get("permit"),
            "credential": body.get("credential"),
        }

    def _application(self, identifier: str) -> Record:
        record = self.node.log.get("application", ApplicationId.parse(identifier))
        if record is None:
            raise NotFound(f"there is no application {identifier}", remedy="ihds permit list shows them")
        return record

    # -- for the officer -------------------------------------------------------------------------

    def list(self) -> list[dict[str, Any]]:
        """Return all applications and what became of them."""
        rows = []
        for record in self.node.store.list("application"):
            asked = record.body["application"]
            permit = record.body.get("permit")
            held = self.node.log.get("permit", permit) if permit else None
            rows.append(
                {
                    "application": record.id,
                    "title": asked["title"],
                    "applicant": asked["applicant"],
                    "purpose": asked["purpose"],
                    "state": record.body["state"],
                    "permit": permit,
                    "permit_state": held.body["state"] if held else None,
                }
            )
        return rows

    def show(self, identifier: str) -> dict[str, Any]:
        """Return an application or a permit in full."""
        for kind in ("permit", "application"):
            record = self.node.log.get(kind, identifier)
            if record is not None:
                return {k: v for k, v in record.body.items() if k != "credential"}
        raise NotFound(f"there is no application or permit {identifier}", remedy="ihds permit list")

    def _decide(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return self.decide(
            str(arguments["id"]),
            grant=bool(arguments["grant"]),
            reasons=tuple(map(str, arguments.get("reasons", []))),
            conditions=dict(arguments.get("conditions", {})),
        )

    def decide(
        self, identifier: str, *, grant: bool, reasons: tuple[str, ...], conditions: dict[str, Any]
    ) -> dict[str, Any]:
        """Decide an application: issue a permit or refuse with reasons (EHDS Art. 68).

        ``conditions`` may set ``max_rounds`` and any threshold.

        Raises:
            Refused: it may not be granted; the rules are named.
            BadInput: a refusal without reasons (Art. 68(9)), or an unknown condition.

        """
        with self._lock:
            record = self._application(identifier)
            asked = Application.from_dict(record.body["application"])
            after = advance(
                applications.NEXT, "the application", ApplicationState(record.body["state"]), ApplicationEvent.DECIDE
            )
            if not grant:
                if not reasons:
                    raise BadInput("a refusal needs reasons (EHDS 68(9))", remedy="give --reason")
                body = {**record.body, "state": str(after), "reasons": list(reasons), "decision": "Negative"}
                event = Event("permit.refused", self.node.did, {"application": identifier, "reasons": list(reasons)})
                self.node.log.commit(event, Put("application", identifier, record.version, body))
                return self._public(self._application(identifier))
            verdict = screen(asked, self.node.config.legal_regime, now().date())
            if isinstance(verdict, No):
                raise Refused("this application may not be granted", reasons=verdict.reasons, remedy="refuse it")
            counter = self.node.log.get("counter", "permit")
            permit = self._permit(asked, conditions, counter.body["next"] if counter else 0)
            credential = credentials.issue(
                self.node.identity,
                asked.applicant,
                PERMIT,
                {"permit": permit.to_dict()},
                permit.expires_at,
                status.entry(self.list_url, permit.status_index),
            )
            body = {
                **record.body,
                "state": str(after),
                "reasons": [],
                "decision": "Positive",
                "permit": permit.id,
                "credential": credential,
            }
            held = {"permit": permit.to_dict(), "state": str(PermitState.GRANTED), "application": identifier}
            details = {"permit": permit.id, "application": identifier, "purpose": permit.purpose}
            self.node.log.commit(
                Event("permit.granted", self.node.did, details),
                Put("application", identifier, record.version, body),
                Put("permit", permit.id, 0, held),
                Put("counter", "permit", counter.version if counter else 0, {"next": permit.status_index + 1}),
            )
            return self._public(self._application(identifier))

    def _permit(self, asked: Application, conditions: dict[str, Any], index: int) -> Permit:
        limits = {f.name for f in fields(Thresholds)}
        unknown = sorted(set(conditions) - limits - {"max_rounds"})
        if unknown:
            raise BadInput(f"unknown condition {unknown[0]!r}", remedy=f"use: max_rounds, {', '.join(sorted(limits))}")
        issued = now().replace(microsecond=0)
        return Permit(
            id=PermitId.new(),
            application=asked.id,
            access_body=self.node.did,
            user=asked.applicant,
            legal_regime=self.node.config.legal_regime,
            purpose=asked.purpose,
            datasets=asked.datasets,
            variables=frozenset(asked.variables),
            methods=frozenset(asked.methods),
            persons=asked.persons,
            recipient_country=asked.applicant_country,
            thresholds=Thresholds(**{k: v for k, v in conditions.items() if k in limits}),
            max_rounds=int(conditions.get("max_rounds", DEFAULT_ROUNDS)),
            issued_at=issued,
            expires_at=wait_months(issued, asked.period_months),
            status_index=index,
        )

    def revoke(self, identifier: str, reason: str) -> dict[str, Any]:
        """Revoke a permit (EHDS Art. 63(3)) and tell its holders to look.

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
        for holder, _dataset in Permit.from_dict(record.body["permit"]).datasets:
            self._tell(holder)
        return {"permit": identifier, "state": str(after)}

    def _tell(self, holder: str) -> None:
        """Tell a holder to fetch the status list again; it would find out by itself in seconds."""
        with contextlib.suppress(IhdsError):
            url = self.node.resolver.service(holder, "DataService").removesuffix("/.well-known/dspace-version")
            self.node.http.call("POST", f"{url}/permits/changed", {}, self.node.identity.token(holder))

    def _status_list(self, _call: Call) -> Answer:
        revoked = {
            int(r.body["permit"]["status_index"])
            for r in self.node.store.list("permit")
            if r.body["state"] in (PermitState.REVOKED, PermitState.SUPERSEDED)
        }
        expires = now() + timedelta(hours=_LIST_HOURS)
        token = status.status_list(self.node.identity, self.list_url, revoked, expires)
        return Answer(raw=token.encode(), media_type="application/vc+jwt")
