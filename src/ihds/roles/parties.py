"""What a user or a trusted holder does in cases at an access body: answer, withdraw, amend, appeal, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ihds.audit.log import Event, acting
from ihds.errors import BadInput, NotFound
from ihds.ids import ApplicationId, Did, PermitId
from ihds.store.store import Put, Record

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node


class Parties:
    """Speaks to access bodies for its institution."""

    def __init__(self, node: Node) -> None:
        """Act for a node."""
        self.node = node

    def commands(self) -> dict[str, Command]:
        """Return the commands of somebody who has a case."""
        return {
            "permit.act": self.step,
            "permit.amend": self.amend,
            "permit.visa": self.visas,
            "publication.report": lambda a: self._publish(str(a["id"]), link=str(a["link"]), summary=str(a["summary"])),
            "publication.finding": lambda a: self._publish(str(a["id"]), finding=str(a["text"])),
        }

    def _mine(self, identifier: str) -> Record | None:
        return self.node.log.get("my.application", ApplicationId.parse(identifier))

    def step(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Take a step in a case at its access body; ``changes`` are what an answer changes in the form."""
        identifier = str(arguments["id"])
        mine = self._mine(identifier)
        body = str(arguments.get("access_body", "")) or (mine.body["access_body"] if mine else "")
        answer = self._post(
            body or next(iter(self.node.config.access_bodies), ""),
            f"applications/{identifier}/steps",
            {k: arguments[k] for k in ("action", "reasons", "changes") if k in arguments},
        )
        details = {"application": identifier, "action": str(arguments["action"])}
        puts = []
        if mine and "state" in answer and "stage" in answer:
            kept = {k: answer[k] for k in ("state", "stage", "reasons")}
            puts.append(Put("my.application", mine.id, mine.version, {**mine.body, **kept}))
        self.node.log.commit(Event("application.advanced", self.node.did, details), *puts)
        return answer

    def amend(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Ask for a change of a permit in force: persons, variables, or a longer time (EHDS Art. 68(12)(13))."""
        permit = PermitId.parse(str(arguments["id"]))
        found = [r for r in self.node.store.list("my.application") if r.body.get("permit") == permit]
        if not found:
            raise NotFound(f"this node holds no permit {permit}", remedy="ihds permit list")
        before = found[0].body["application"]
        changes: list[str] = []
        asked = dict(before)
        for field in ("persons", "variables"):
            if arguments.get(field):
                changes.append(field)
                asked[field] = sorted({*map(str, before[field]), *map(str, arguments[field])})
        if arguments.get("months"):
            changes.append("duration")
            asked["period_months"] = int(arguments["months"])
        if not changes:
            raise BadInput("an amendment changes something", remedy="give --person, --variable or --months")
        return self.send(
            {**asked, "kind": "amendment", "amends": permit, "changes": changes}, found[0].body["access_body"]
        )

    def visas(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return fresh visas of a grant for one of its persons (GA4GH Passport 1.2); they last an hour."""
        permit, person = PermitId.parse(str(arguments["id"])), str(arguments.get("person", ""))
        body = {"person": person, **({"signed_in": who} if (who := acting.get()) else {})}
        return self._post(self._granting(permit), f"permits/{permit}/visas", body)

    def _granting(self, permit: str) -> str:
        """Return which access body granted a permit. Raises NotFound."""
        found = [r for r in self.node.store.list("my.application") if r.body.get("permit") == permit]
        if not found:
            raise NotFound(f"this node holds no permit {permit}", remedy="ihds permit list")
        return str(found[0].body["access_body"])

    def send(self, form: dict[str, Any], access_body: str) -> dict[str, Any]:
        """Send a form under a fresh id and keep it; return the access body's answer."""
        identifier = ApplicationId.new()
        application = {**form, "id": identifier, "submitted_at": self.node.log.clock().isoformat()}
        answer = self._post(access_body, "applications", application)
        self.keep(identifier, application, access_body, answer)
        for child, held in answer.get("children", {}).items():
            self.keep(child, held["application"], held["body"], held)
        return answer

    def keep(self, identifier: str, application: dict[str, Any], access_body: str, answer: dict[str, Any]) -> None:
        """Keep what was sent, once."""
        if self.node.log.get("my.application", identifier) is None:
            record = {"application": application, "access_body": access_body, "state": answer["state"], "stage": ""}
            details = {"application": identifier, "access_body": access_body}
            self.node.log.commit(
                Event("application.submitted", self.node.did, details), Put("my.application", identifier, 0, record)
            )

    def _publish(self, permit: str, **words: str) -> dict[str, Any]:
        return self._post(self._granting(permit), f"publications/{PermitId.parse(permit)}", dict(words))

    def _post(self, access_body: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if not access_body:
            raise BadInput("no access body is configured", remedy="set access_bodies in node.toml")
        service = self.node.resolver.service(Did.parse(access_body), "AccessBody")
        answer: dict[str, Any] = self.node.http.call(
            "POST", f"{service}/{path}", body, self.node.wallet.token(access_body)
        )
        return answer
