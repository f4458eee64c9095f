"""After a decision: appeals of applicants, and measures against users (EHDS Art. 63, 68(9); national law)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from ihds.audit.log import Event
from ihds.errors import BadInput, IllegalTransition, NotFound, Refused
from ihds.governance.calendar import ends
from ihds.governance.deadlines import deadlines
from ihds.governance.duties import Actor, Role, Shown
from ihds.governance.lifecycle import permitted
from ihds.governance.lives import APPEAL, AppealAction, AppealState, CaseState
from ihds.governance.policy import Refused as No
from ihds.governance.rights import may
from ihds.ids import ApplicationId, Did
from ihds.roles.cases import REMEDY, Asked, Cases, settled
from ihds.store.store import Put, Record


@dataclass
class Redress:
    """Appeals against refusals, and exclusion of applicants, over the cases of an access body."""

    cases: Cases

    def appeal(self, identifier: str, action: AppealAction, actor: Actor, reasons: tuple[str, ...]) -> dict[str, Any]:
        """Take a step of an appeal; one that is remitted is a new case, assessed anew.

        Raises:
            IllegalTransition: it does not fit.
            Refused: not by this actor, or against no refusal, or without reasons.

        """

        def once() -> dict[str, Any]:
            record = self.cases.record(identifier)
            found = self.cases.log.get("appeal", record.id)
            state = AppealState(found.body["state"]) if found else AppealState.PREPARED
            step = APPEAL[state].get(action)
            if step is None:
                possible = ", ".join(APPEAL[state]) or "nothing: it has ended"
                raise IllegalTransition(f"the appeal is {state}; {action} does not fit", remedy=possible)
            shown = {Shown.REASONS} if any(r.strip() for r in reasons) else set()
            if record.body["stage"] == CaseState.REFUSED:
                shown.add(Shown.NEGATIVE)
            role = Role(step.by) if step.by in actor.roles else next(iter(sorted(actor.roles)), Role.CLOCK)
            verdict = permitted(APPEAL, "the appeal", state, action, role, frozenset(shown))
            if isinstance(verdict, No):
                raise Refused(f"{action} is refused", reasons=verdict.reasons, remedy=REMEDY)
            body = {"state": str(step.to), "reasons": list(reasons), "again": ""}
            if action is AppealAction.REMIT:
                body["again"] = _again(record.id)
            details = {"application": record.id, "action": str(action), "by": actor.name, **body}
            put = Put("appeal", record.id, found.version if found else 0, body)
            self.cases.log.commit(Event("appeal.advanced", self.cases.me, details), put)
            return {"application": record.id, **body}

        answer = settled(once)
        self._remit(identifier, str(answer["again"]))
        return answer

    def _remit(self, identifier: str, again: str) -> None:
        if again and self.cases.log.get("application", again) is None:
            case = self.cases.case(identifier)
            asked = replace(case.application, id=ApplicationId(again))
            self.cases.submit(
                Asked(
                    asked,
                    case.kind,
                    case.agreement,
                    case.amends,
                    case.changes,
                    case.statistics,
                    {"remitted": identifier},
                )
            )

    def resume(self) -> None:
        """Take in what was remitted when a crash came in between."""
        for record in self.cases.log.store.list("appeal"):
            self._remit(record.id, str(record.body["again"]))

    def exclude(self, user: str, actor: Actor, years: int, reason: str) -> dict[str, Any]:
        """Exclude an applicant from access for up to five years (EHDS Art. 63(3)).

        Raises:
            BadInput: longer than the law allows, or without a reason.
            Refused: not by this actor.

        """
        verdict = may(actor.roles, "applicant", "exclude")
        if isinstance(verdict, No):
            raise Refused(f"{actor.name} may not exclude anybody", reasons=verdict.reasons, remedy=REMEDY)
        longest = deadlines()["EN2"].period
        if not 0 < years <= longest.count or not reason.strip():
            raise BadInput(f"EHDS 63(3): at most {longest}, and with a reason", remedy="--years 1 to 5, --reason")

        def once() -> dict[str, Any]:
            found = self.cases.log.get("exclusion", Did.parse(user))
            until: date = ends(self.cases.today, replace(longest, count=years))
            body = {"until": until.isoformat(), "reason": reason}
            details = {"applicant": user, "by": actor.name, **body}
            put = Put("exclusion", user, found.version if found else 0, body)
            self.cases.log.commit(Event("applicant.excluded", self.cases.me, details), put)
            return details

        return settled(once)


def own(record: Record, who: str) -> Record:
    """Return a case if it is somebody's own; others do not learn that it exists. Raises NotFound."""
    if record.body["application"]["applicant"] != who:
        raise NotFound("there is no such application of yours")
    return record


def _again(identifier: str) -> str:
    """Return the id of the case that a remitted one becomes: the same whenever it is asked."""
    return ApplicationId(uuid.uuid5(uuid.UUID(identifier.removeprefix("urn:uuid:")), "remitted").urn)
