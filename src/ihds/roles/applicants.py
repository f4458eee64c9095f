"""What applicants and trusted holders do in a case, over HTTP, and how a case is shared between access bodies."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event
from ihds.connector.dcp.credentials import PERMIT
from ihds.errors import BadInput, IhdsError, NotFound, Refused
from ihds.governance.application import Application, completeness
from ihds.governance.cases import revised
from ihds.governance.duties import Actor, Role
from ihds.governance.lives import AppealAction, CaseAction
from ihds.ids import ApplicationId, Did
from ihds.people.passports import tokens_of
from ihds.roles.cases import THE_FORM, Asked, Cases, settled
from ihds.roles.publications import Publications
from ihds.roles.redress import Redress, own
from ihds.roles.visas import Visas
from ihds.store.store import Put, Record
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Node

#: What an applicant does in its own case.
_OWN = (CaseAction.ANSWER, CaseAction.ACCEPT, CaseAction.DECLINE, CaseAction.WITHDRAW)
#: Fields of the form that an answer may not change.
_FIXED = ("id", "applicant", "applicant_country", "public_body", "datasets", "submitted_at")


class Applicants:
    """The doors of the access body."""

    def __init__(self, node: Node, cases: Cases, redress: Redress, publications: Publications) -> None:
        """Serve the cases of an access body."""
        self.node, self.cases, self.redress, self.publications = node, cases, redress, publications
        self.visas = Visas(node)

    def routes(self) -> list[Route]:
        """Return the endpoints."""
        return [
            Route("/access/applications", endpoint(self._submit), methods=["POST"]),
            Route("/access/applications/{id}", endpoint(self._follow), methods=["GET"]),
            Route("/access/applications/{id}/steps", endpoint(self._step), methods=["POST"]),
            Route("/access/forwarded", endpoint(self._forwarded), methods=["POST"]),
            Route("/access/publications/{id}", endpoint(self._publish), methods=["POST"]),
            *self.visas.routes(),
        ]

    def _member(self, call: Call) -> str:
        return str(self.node.members.check(call.headers.get("authorization", ""))["iss"])

    # -- applications ----------------------------------------------------------------------------

    def _submit(self, call: Call) -> Answer:
        applicant = self._member(call)
        form = call.json()
        visas = tokens_of(form.pop("visas", []))
        asked = Asked.read({k: v for k, v in form.items() if k != "parent"})
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
        here, children = self._split(asked.application)
        record = self.cases.submit(replace(asked, application=here, children=children))
        self.visas.take(record.id, visas)
        self.forward()
        return Answer(self.public(self.cases.record(record.id)), status=201)

    def _follow(self, call: Call) -> Answer:
        who = self._member(call)
        record = self.cases.record(call.path["id"])
        if who == record.body["parent"].get("body"):  # whoever forwarded it learns what became of it, no more
            return Answer({k: v for k, v in self.public(record).items() if k not in ("credential", "fee_notice")})
        return Answer(self.public(own(record, who)))

    def public(self, record: Record) -> dict[str, Any]:
        """Return what the applicant is shown."""
        body = record.body
        held = self.node.log.get("permit", body["permit"]) if body["permit"] else None
        shown = ("legal_regime", "kind", "state", "stage", "reasons", "fee_notice", "permit", "children")
        return {
            "application": record.id,
            **{k: body[k] for k in shown},
            "answer": body.get("answer"),
            "credential": held.body["credential"] if held else None,
        }

    def _step(self, call: Call) -> Answer:
        who, body = self._member(call), call.json()
        action, reasons = str(body.get("action", "")), _texts(body.get("reasons", []))
        record = self.cases.record(call.path["id"])
        if action == CaseAction.RETURN and record.body["forwarded_to"] == who:
            holder = Actor(who, frozenset({Role.TRUSTED_HOLDER}))
            return Answer(self._seen(self.cases.act(record.id, CaseAction.RETURN, holder, reasons=reasons)))
        own(record, who)
        applicant = Actor(who, frozenset({Role.APPLICANT}))
        if action in (AppealAction.LODGE, f"{AppealAction.WITHDRAW} appeal"):
            step = AppealAction(action.removesuffix(" appeal"))
            return Answer(self.redress.appeal(record.id, step, applicant, reasons))
        if action not in _OWN:
            raise BadInput(f"an applicant cannot {action!r}", remedy=f"one of: {', '.join(_OWN)}, {AppealAction.LODGE}")
        if action == CaseAction.ANSWER:
            return Answer(self.public(self._answered(record, applicant, dict(body.get("changes", {})))))
        return Answer(self.public(self.cases.act(record.id, CaseAction(action), applicant, reasons=reasons)))

    def _seen(self, record: Record) -> dict[str, Any]:
        return {"application": record.id, "stage": record.body["stage"]}

    def _answered(self, record: Record, applicant: Actor, changes: dict[str, Any]) -> Record:
        """Take in what was asked for and check the form again."""
        fixed = sorted(set(changes) & set(_FIXED))
        if fixed:
            raise BadInput(f"an answer does not change {', '.join(fixed)}", remedy="apply anew")
        asked = Application.from_dict({**record.body["application"], **changes})
        self.cases.act(record.id, CaseAction.ANSWER, applicant, change=lambda case: revised(case, asked))
        missing = completeness(asked)
        return self.cases.act(record.id, CaseAction.ASK if missing else CaseAction.COMPLETE, THE_FORM, reasons=missing)

    def _publish(self, call: Call) -> Answer:
        who, body = self._member(call), call.json()
        if "finding" in body:
            return Answer(self.publications.finding(call.path["id"], who, str(body["finding"])))
        words = (str(body.get("link", "")), str(body.get("summary", "")))
        return Answer(self.publications.report(call.path["id"], who, *words))

    # -- several countries -----------------------------------------------------------------------

    def _split(self, asked: Application) -> tuple[Application, dict[str, dict[str, Any]]]:
        """Return the part of an application decided here, and a child for each other body (Art. 67(3), 68(5))."""
        elsewhere = self.node.config.other_bodies
        here = tuple(pair for pair in asked.datasets if pair[0] not in elsewhere)
        bodies = sorted({elsewhere[h] for h, _ in asked.datasets if h in elsewhere})
        if not here and bodies:
            raise Refused(
                "none of these datasets is held in this country",
                reasons=("EHDS 67(3): apply where you or one of the holders are established",),
                remedy=f"apply at {bodies[0]}",
            )
        children: dict[str, dict[str, Any]] = {}
        for body in bodies:
            theirs = tuple(pair for pair in asked.datasets if elsewhere.get(pair[0]) == body)
            child = replace(asked, id=ApplicationId.new(), datasets=theirs)
            children[child.id] = {
                "body": body,
                "application": child.to_dict(),
                "state": "",
                "decision": "",
                "permit": None,
            }
        return replace(asked, datasets=here), children

    def forward(self) -> None:
        """Send children that were not taken in yet, and ask what became of those that were."""
        for record in self.node.store.list("application"):
            for child, held in record.body["children"].items():
                if held["state"] not in ("DECISION_ISSUED", "WITHDRAWN"):
                    with contextlib.suppress(IhdsError):  # tried again at the next pass
                        self._exchange(record.id, child, dict(held))

    def _exchange(self, parent: str, child: str, held: dict[str, Any]) -> None:
        service = self.node.resolver.service(Did.parse(held["body"]), "AccessBody")
        token = self.node.wallet.token(held["body"])
        if held["state"]:
            answer = self.node.http.get_json(f"{service}/applications/{child}", token)
        else:
            agreement = self.cases.record(parent).body["agreements"].get(held["body"], "")
            form = {**held["application"], "agreement": agreement, "parent": {"application": parent}}
            answer = self.node.http.call("POST", f"{service}/forwarded", form, token)
        told = {k: answer.get(k) for k in ("state", "permit")}
        told["decision"] = str(answer.get("stage", "")) if answer["state"] == "DECISION_ISSUED" else ""

        def once() -> None:
            record = self.cases.record(parent)
            before = record.body["children"][child]
            if {k: before[k] for k in told} == told:
                return
            children = {**record.body["children"], child: {**before, **told}}
            details = {"application": parent, "child": child, "body": held["body"], **told}
            put = Put("application", parent, record.version, {**record.body, "children": children})
            self.node.log.commit(Event("case.forwarded", self.node.did, details), put)

        settled(once)

    def _forwarded(self, call: Call) -> Answer:
        sender = self._member(call)
        if sender not in self.node.trust.issuers(PERMIT):
            raise NotFound("only access bodies forward applications")
        form = call.json()
        asked = Asked.read({**form, "parent": {**dict(form.get("parent", {})), "body": sender}})
        record = self.cases.submit(asked)
        if record.body["parent"].get("body") != sender:
            raise NotFound("there is no such application of yours")
        return Answer(
            {k: v for k, v in self.public(record).items() if k not in ("credential", "fee_notice")}, status=201
        )

    # -- trusted holders -------------------------------------------------------------------------

    def to_trusted(self, identifier: str, actor: Actor, holder: str, reasons: tuple[str, ...]) -> Record:
        """Have a trusted holder assess a case on its data alone (EHDS Art. 72(3)).

        Raises:
            Refused: it is no trusted holder, or others' data are asked for too.

        """
        case = self.cases.case(identifier)
        if holder not in self.node.config.trusted_holders or {h for h, _ in case.application.datasets} != {holder}:
            raise Refused(
                f"{holder or 'nobody'} may not assess this case",
                reasons=("EHDS 72(2)(3): a designated trusted holder assesses what is asked of its data alone",),
                remedy="trusted_holders in node.toml lists those designated",
            )
        return self.cases.act(
            identifier, CaseAction.FORWARD, actor, reasons=reasons, change=lambda c: replace(c, forwarded_to=holder)
        )


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadInput("reasons are a list of texts", remedy='send "reasons": ["…"]')
    return tuple(map(str, value))
