"""The health data user: harvests catalogues, applies for permits, agrees contracts, runs studies."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event
from ihds.catalogue.record import DatasetRecord
from ihds.connector.dcp.credentials import Credential, permission, read
from ihds.connector.dsp.negotiation import Negotiation
from ihds.errors import (
    BadInput,
    CannotVerify,
    NotFound,
    Refused,
)
from ihds.governance import jurisdiction
from ihds.governance.permit import Permit, PermitState
from ihds.governance.policy import Granted, explained
from ihds.governance.policy import Refused as No
from ihds.ids import PermitId
from ihds.roles.authority import OffersNothing
from ihds.roles.parties import Parties
from ihds.roles.records import catalogue
from ihds.store.store import Put

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node
    from ihds.roles.studies import Studies

_log = logging.getLogger("ihds.user")

#: Where a case has ended, so that it need not be asked for again.
_LAST = frozenset({"REFUSED", "CONVERTED", "ANSWERED", "CLOSED_INCOMPLETE", "WITHDRAWN"})


class User(OffersNothing):
    """Acts for the researchers of one institution."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node
        self.parties = Parties(node)
        self._harvest: dict[str, list[DatasetRecord]] = {}
        self._studies: Studies | None = None
        self._lock = threading.Lock()

    @property
    def studies(self) -> Studies:
        """The user's studies; what they need is loaded with the first of them, for it weighs 100 MB."""
        from ihds.roles.studies import Studies

        with self._lock:
            if self._studies is None:
                self._studies = Studies(self)
            return self._studies

    def routes(self) -> list[Route]:
        """Return nothing: a user offers no endpoint of its own."""
        return []

    def commands(self) -> dict[str, Command]:
        """Return the researcher's commands."""
        return {
            "catalogue.search": lambda a: [r.summary() for r in self.search(str(a.get("text", "")))],
            "catalogue.show": lambda a: self.show_dataset(str(a["dataset"])),
            "policy.explain": self.explain,
            "apply": self.apply,
            "permit.list": lambda _a: self.permits(),
            "permit.show": lambda a: self.permit(str(a["id"])).to_dict(),
            **self.parties.commands(),
            "study.run": lambda a: self.studies.start_study(a),
            "study.cancel": lambda a: self.studies.cancel(str(a["study"])),
            "study.steps": lambda a: self.studies.runs.steps(str(a["study"]), int(a.get("after", 0))),
            "study.list": lambda _a: self.studies.studies(),
            "study.show": lambda a: self.studies.show_study(str(a["study"])),
        }

    def consider(self, process: Negotiation) -> Granted | No | None:
        """Accept an offer that is the one asked for; others are refused, or wait for a person if so configured."""
        if self.node.config.counter_offers == "hand":
            return None
        return No(("this node takes no other terms than those it asked for",))

    # -- finding -----------------------------------------------------------------------------------

    def harvest(self) -> dict[str, list[DatasetRecord]]:
        """Fetch the catalogues of all configured holders; return records by holder."""
        for holder in self.node.config.catalogues:
            self._harvest[holder] = self.fetch(holder)
        return self._harvest

    def fetch(self, holder: str) -> list[DatasetRecord]:
        """Return the datasets of one holder's catalogue."""
        self.node.membership.join()  # holders show their catalogue to members
        return catalogue(self.node.connector, holder)

    def search(self, text: str) -> list[DatasetRecord]:
        """Return the datasets that match every word."""
        return [r for records in self.harvest().values() for r in records if r.matches(text)]

    def show_dataset(self, dataset: str) -> dict[str, Any]:
        """Return one dataset with its codebook and offer."""
        for record in self.search(""):
            if record.id == dataset:
                return {
                    **record.summary(),
                    "description": record.description,
                    "codebook": record.codebook.to_dict(),
                    "offer": record.offer,
                }
        raise NotFound(f"no catalogue lists {dataset!r}", remedy="ihds catalogue search")

    def explain(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Judge a dataset's offer by what this node can show now, and say how."""
        shown = self.show_dataset(str(arguments["dataset"]))
        known: dict[str, str | tuple[str, ...]] = {}
        token = self.node.wallet.membership()
        if token:
            subject = read(token).subject
            known |= {"membership": "member", "role": str(subject.get("role", ""))}
            known["recipientCountry"] = str(subject.get("country", ""))
        if arguments.get("permit"):
            permit = str(arguments["permit"])
            state = self._permit_state(permit)
            facts = self.permit(permit).facts(PermitState.GRANTED)
            known |= {**facts, "permitStatus": state}
        known["jurisdiction"] = tuple(sorted(jurisdiction.applying(str(shown["country"]))))
        return explained(shown["offer"], known)

    # -- permission --------------------------------------------------------------------------------

    def apply(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Send a data access application to the access body; return its state."""
        self.node.membership.join()  # only members apply
        body = dict(arguments)
        access_body = str(body.pop("access_body", "") or next(iter(self.node.config.access_bodies), ""))
        if not access_body:
            raise BadInput("no access body is configured", remedy="set access_bodies in node.toml")
        holders = {r.id: r.holder for r in self.search("")}
        wanted = body.pop("datasets", [])
        unknown = sorted(set(wanted) - set(holders))
        if unknown:
            raise BadInput(f"no catalogue lists {unknown}", remedy="ihds catalogue search")
        form = {
            "applicant": self.node.did,
            "applicant_country": self.node.config.country,
            "public_body": False,
            "datasets": [[holders[d], d] for d in wanted],
            **body,
        }
        return self.parties.send(form, access_body)

    def refresh(self) -> None:
        """Ask the access bodies what became of open applications; keep permits that were issued."""
        for record in self.node.store.list("my.application"):
            if record.body["state"] == "WITHDRAWN" or record.body.get("stage") in _LAST:
                continue
            access_body = record.body["access_body"]
            service = self.node.resolver.service(access_body, "AccessBody")
            url = f"{service}/applications/{record.id}"
            try:
                answer = self.node.http.get_json(url, self.node.wallet.token(access_body))
            except NotFound:
                continue  # another body did not take its part in yet
            if (answer["state"], answer["stage"]) == (record.body["state"], record.body.get("stage")):
                continue
            if answer.get("credential"):
                kind = permission(answer["credential"])
                credential = self.node.verifier.credential(answer["credential"], self.node.did, kind)
                self.node.wallet.keep(kind, str(credential.subject["permit"]["id"]), credential.token)
            body = {**record.body, **{k: answer[k] for k in ("state", "stage", "reasons", "permit", "answer")}}
            details = {"application": record.id, "state": answer["state"], "permit": answer.get("permit")}
            self.node.log.commit(
                Event("application.advanced", access_body, details),
                Put("my.application", record.id, record.version, body),
            )

    def permits(self) -> list[dict[str, Any]]:
        """Return applications and permits with their present state."""
        self.refresh()
        self.node.verifier.lists.forget()  # a person asks: the answer is fresh
        rows = []
        for record in self.node.store.list("my.application"):
            body = record.body
            permit = body.get("permit")
            rows.append(
                {
                    "application": record.id,
                    "title": body["application"]["title"],
                    "purpose": body["application"]["purpose"],
                    "state": body["state"],
                    "stage": body.get("stage", ""),
                    "reasons": body.get("reasons", []),
                    "permit": permit,
                    "permit_state": self._permit_state(permit) if permit else None,
                }
            )
        return rows

    def _permit_state(self, permit: str) -> str:
        try:
            return "REVOKED" if self.node.verifier.revoked(self._credential(permit)) else "GRANTED"
        except (Refused, CannotVerify):
            return "UNKNOWN"

    def _credential(self, permit: str) -> Credential:
        record = self.node.log.get("credential", PermitId.parse(permit))
        if record is None:
            raise NotFound(f"this node holds no permit {permit}", remedy="ihds permit list")
        return read(record.body["token"])

    def permit(self, identifier: str) -> Permit:
        """Return a permit this node holds."""
        self.refresh()
        return self.held(identifier)

    def held(self, identifier: str) -> Permit:
        """Return a permit this node holds by now."""
        return Permit.from_dict(self._credential(identifier).subject["permit"])

    def started(self) -> None:
        """Go on with studies that a crash interrupted."""
        if any(r.body["status"] == "running" for r in self.node.store.list("study.request")):
            self.studies.runs.go_on()

    def stopped(self) -> None:
        """End what runs."""
        if self._studies is not None:
            self._studies.stop()
