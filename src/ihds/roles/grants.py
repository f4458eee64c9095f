"""How a case is decided: verdicts, fee notice, then the grant or the refusal with its reasons (EHDS Art. 62, 68)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from typing import Any

from ihds.audit.log import Event
from ihds.errors import BadInput, IllegalTransition, Refused
from ihds.governance import fees
from ihds.governance.access import QUESTIONS, Answer, Verdict
from ihds.governance.aggregation import Aggregation
from ihds.governance.agreement import Agreement, covered_until
from ihds.governance.application import screen
from ihds.governance.calendar import wait_months
from ihds.governance.cases import Case
from ihds.governance.duties import Actor, Role, taken_on
from ihds.governance.lives import CaseAction, CaseState, Kind
from ihds.governance.permit import Permit, PermitState
from ihds.governance.policy import Refused as No
from ihds.ids import Did, PermitId
from ihds.privacy.accountant import Demand
from ihds.privacy.disclosure import Thresholds
from ihds.roles.amendments import Amending
from ihds.roles.cases import REMEDY, Cases, settled
from ihds.store.store import Put, Record

#: How many sums a permit may open at each holder unless the officer says otherwise.
DEFAULT_ROUNDS = 200


@dataclass
class Grants:
    """Decides the cases of an access body; ``issue`` makes the signed credential of a permit.

    ``environment`` is the secure processing environment a permit names unless the officer decides otherwise.
    """

    cases: Cases
    issue: Callable[[Permit], str]
    environment: str = ""

    def assess(self, identifier: str, actor: Actor, question: str, answer: str, justification: str) -> dict[str, Any]:
        """Record a verdict, or with the question "all" the same one on every question.

        Raises:
            BadInput: question or answer is unknown, or no justification is given.
            IllegalTransition: it is not being assessed.
            Refused: not by this actor.

        """
        if not justification.strip():
            raise BadInput("a verdict needs its justification", remedy="say why: --because")
        if answer not in list(Answer):
            raise BadInput(f"{answer!r} is no answer", remedy=f"one of: {', '.join(Answer)}")
        verdict = Verdict(Answer(answer), actor.name, justification)

        def once() -> dict[str, Any]:
            record = self.cases.record(identifier)
            case = Case.from_dict(record.body)
            if case.stage is not CaseState.ASSESSMENT:
                raise IllegalTransition(
                    f"the {case.kind} is {case.stage}; verdicts are given in {CaseState.ASSESSMENT}",
                    remedy="ihds permit show says what is next",
                )
            held, duties = self.cases.duties(case, actor, Role.ASSESSOR)
            if why := taken_on(held, actor, Role.ASSESSOR):
                raise Refused("the verdict is not taken", reasons=why, remedy=REMEDY)
            chosen = [q for q in QUESTIONS[case.legal_regime] if question in ("all", q.name.lower())]
            if not chosen:
                known = ", ".join(q.name.lower() for q in QUESTIONS[case.legal_regime])
                raise BadInput(f"{question!r} is no question here", remedy=f"one of: all, {known}")
            after = replace(case, verdicts={**case.verdicts, **dict.fromkeys(chosen, verdict)})
            details = {"application": record.id, "by": actor.name, "questions": [q.name.lower() for q in chosen]}
            details |= {"answer": answer, "justification": justification}
            put = Put("application", record.id, record.version, {**record.body, **after.to_dict()})
            self.cases.log.commit(Event("application.assessed", self.cases.me, details), put, *duties)
            open_ = [str(q) for q in QUESTIONS[case.legal_regime] if q not in after.verdicts]
            failing = [str(q) for q, v in after.verdicts.items() if not v.passes(q)]
            return {"application": record.id, "answered": len(after.verdicts), "open": open_, "failing": failing}

        return settled(once)

    def fee_notice(self, identifier: str, actor: Actor) -> dict[str, Any]:
        """Tell the applicant the fees and the right to withdraw (EHDS Art. 62(5)); return the notice."""
        told = fees.notice(fees.estimate(self.cases.case(identifier).application), self.cases.today)
        self.cases.act(
            identifier, CaseAction.SEND_FEE_NOTICE, actor, change=lambda case: replace(case, fee_notice=told)
        )
        return {"application": identifier, **told}

    def grant(self, identifier: str, actor: Actor, conditions: dict[str, Any]) -> Record:
        """Grant a case: issue the permit, or for a request the right to its answer.

        ``conditions`` may set ``max_rounds``, any threshold, and the ``environment``: another DID, or "none".

        Raises:
            IllegalTransition: it is not at that point.
            Refused: not by this actor, or a verdict, the fee notice or eligibility is missing.
            BadInput: a condition is unknown.

        """

        def once() -> Record:
            record = self.cases.record(identifier)
            case = Case.from_dict(record.body)
            after, role, duties = self.cases.judged(case, CaseAction.GRANT, actor, ())
            stated = {**self._before(case), **conditions}
            details = {
                "application": record.id,
                "role": str(role),
                "by": actor.name,
                "purpose": case.application.purpose,
            }
            details["legal_regime"] = case.legal_regime
            if case.kind is Kind.AMENDMENT:
                details["supersedes"] = case.amends
            body = {**record.body, **after.to_dict(), "decision": "Positive", "conditions": stated}
            if case.kind is Kind.REQUEST:
                put = Put("application", record.id, record.version, body)
                self.cases.log.commit(Event("request.granted", self.cases.me, details), put, *duties)
                return self.cases.record(record.id)
            counter = self.cases.log.get("counter", "permit")
            permit = self._permit(case, stated, counter.body["next"] if counter else 0)
            credential = self.issue(permit)
            replaced, extensions = Amending.puts(self.cases.log, case) if case.kind is Kind.AMENDMENT else ((), 0)
            held = {
                "permit": permit.to_dict(),
                "state": str(PermitState.GRANTED),
                "application": record.id,
                "credential": credential,
                "extensions": extensions,
                "told": [],
            }
            self.cases.log.commit(
                Event("permit.granted", self.cases.me, {"permit": permit.id, **details}),
                Put("application", record.id, record.version, {**body, "permit": permit.id}),
                Put("permit", permit.id, 0, held),
                Put("counter", "permit", counter.version if counter else 0, {"next": permit.status_index + 1}),
                *replaced,
                *duties,
            )
            return self.cases.record(record.id)

        return settled(once)

    def refuse(self, identifier: str, actor: Actor, reasons: tuple[str, ...]) -> Record:
        """Refuse a case with its reasons.

        Raises:
            BadInput: none are given (EHDS Art. 68(9)).
            IllegalTransition: it is decided, or not at that point.

        """
        if not any(r.strip() for r in reasons):
            raise BadInput("a refusal needs reasons (EHDS 68(9))", remedy="give --reason")
        return self.cases.act(identifier, CaseAction.REFUSE, actor, reasons=reasons)

    def replay(self, identifier: str, on: date, legal_regime: str) -> dict[str, Any]:
        """Judge a case as of a day and under a regime, as it is on file; nothing is decided by that."""
        case = replace(self.cases.case(identifier), legal_regime=legal_regime)
        verdict = screen(case.application, legal_regime, on)
        reasons = list(verdict.reasons if isinstance(verdict, No) else verdict.because)
        if legal_regime == "contract":
            reasons += self.cases.uncovered(case, on)
        eligible = not isinstance(verdict, No) and not (legal_regime == "contract" and self.cases.uncovered(case, on))
        return {
            "application": identifier,
            "on": on.isoformat(),
            "legal_regime": legal_regime,
            "eligible": eligible,
            "reasons": reasons,
        }

    def _permit(self, case: Case, conditions: dict[str, Any], index: int) -> Permit:
        asked = case.application
        environment = str(conditions.get("environment") or self.environment or "none")
        issued = self.cases.log.clock().replace(microsecond=0)
        expires = wait_months(issued, asked.period_months)
        if case.kind is Kind.AMENDMENT:
            expires = Amending.ends(self.cases.log, case)
        if case.legal_regime == "contract":
            expires = min(expires, self._agreed_until(case, issued))
        return Permit(
            id=PermitId.new(),
            application=asked.id,
            access_body=self.cases.me,
            user=asked.applicant,
            legal_regime=case.legal_regime,
            purpose=asked.purpose,
            datasets=asked.datasets,
            variables=frozenset(asked.variables),
            methods=frozenset(asked.methods),
            persons=asked.persons,
            recipient_country=asked.applicant_country,
            thresholds=_thresholds(conditions),
            max_rounds=int(conditions.get("max_rounds", DEFAULT_ROUNDS)),
            issued_at=issued,
            expires_at=expires,
            status_index=index,
            aggregation=Aggregation.from_dict({k: v for k, v in conditions.items() if k in _TERMS}),
            environment=None if environment == "none" else Did.parse(environment),
            differential_privacy=_demand(conditions),
        )

    def _before(self, case: Case) -> dict[str, Any]:
        """Return the conditions of the permit that is amended: they hold on, unless the officer sets others."""
        if case.kind is not Kind.AMENDMENT:
            return {}
        held = Amending.held(self.cases.log, case.amends)
        return dict(self.cases.record(str(held.body["application"])).body.get("conditions", {}))

    def _agreed_until(self, case: Case, at: datetime) -> datetime:
        """Return when the agreement, or an ethics approval, ends: no grant under it lasts longer."""
        found = self.cases.log.get("joint.agreement", case.agreement)
        assert found is not None, "a grant beside the EHDS was judged to be covered"
        until = covered_until(Agreement.from_dict(found.body["agreement"]), case.application)
        return at.replace(year=until.year, month=until.month, day=until.day, hour=23, minute=59, second=59)


_TERMS = {f.name for f in fields(Aggregation)}


def _thresholds(conditions: dict[str, Any]) -> Thresholds:
    limits = {f.name for f in fields(Thresholds)}
    others = ("max_rounds", "environment", *_PRIVACY, *sorted(_TERMS))
    unknown = sorted(set(conditions) - limits - set(others))
    if unknown:
        known = ", ".join((*others, *sorted(limits)))
        raise BadInput(f"unknown condition {unknown[0]!r}", remedy=f"use: {known}")
    return Thresholds(**{k: v for k, v in conditions.items() if k in limits})


def _demand(conditions: dict[str, Any]) -> Demand | None:
    """Return the differential privacy that a permit demands, if a condition names it: then no sum is without noise."""
    asked = {name: conditions[key] for key, name in _PRIVACY.items() if key in conditions}
    return Demand.of(asked) if asked else None


#: Conditions of a grant, and what they are of a demand.
_PRIVACY = {"privacy_epsilon": "epsilon", "privacy_delta": "delta", "privacy_per_study": "per_study"}
