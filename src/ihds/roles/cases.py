"""The access body's cases at work: each step by the table of its life, with its actor, clocks and event.

Record and event are one transaction under the record's version, so two officers who decide at once, in one
process or two, give one decision: the second reads again and finds the case decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, TypeVar

from ihds.audit.log import Event, Log
from ihds.errors import BadInput, Conflict, IllegalTransition, NotFound, Refused
from ihds.governance import agreement as agreements
from ihds.governance import cases
from ihds.governance.application import Application, completeness, screen
from ihds.governance.cases import Case
from ihds.governance.duties import Actor, Role, Shown, taken_on
from ihds.governance.holidays import Calendar
from ihds.governance.lives import LIFE, CaseAction, CaseState, Kind
from ihds.governance.policy import Refused as No
from ihds.ids import AgreementId, ApplicationId, Did
from ihds.roles.amendments import Amending, read_changes
from ihds.roles.projects import project_of, taking
from ihds.store.store import Put, Record

_TRIES = 5
#: Checks the form as soon as it arrives: what is missing needs no judgement.
THE_FORM = Actor("the form's own check", frozenset({Role.ASSESSOR}))

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What arrives: the application and what goes with it.

    ``children`` are the parts that other access bodies decide, ``agreements`` what those rest on, by body.
    """

    application: Application
    kind: Kind = Kind.APPLICATION
    agreement: str = ""
    amends: str = ""
    changes: tuple[str, ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)
    parent: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    agreements: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, body: dict[str, Any]) -> Asked:
        """Read a submitted form.

        Raises:
            BadInput: a field is missing, unknown or of the wrong kind.

        """
        form = dict(body)
        try:
            more: dict[str, Any] = {
                "kind": Kind(form.pop("kind", Kind.APPLICATION)),
                "agreement": str(form.pop("agreement", "")),
                "amends": str(form.pop("amends", "")),
                "changes": tuple(map(str, form.pop("changes", ()))),
                "statistics": dict(form.pop("statistics", {})),
                "parent": {str(k): str(v) for k, v in dict(form.pop("parent", {})).items()},
                "agreements": {str(k): str(v) for k, v in dict(form.pop("agreements", {})).items()},
            }
        except (TypeError, ValueError) as error:
            raise BadInput(f"the form cannot be read: {error}", remedy="see `ihds apply --help`") from error
        read_changes(more["changes"])
        if more["agreement"]:
            AgreementId.parse(more["agreement"])
        return cls(Application.from_dict(form), **more)


@dataclass
class Cases:
    """The cases of one access body, over its log: arrival, steps and who did what."""

    log: Log
    me: Did
    legal_regime: str
    calendar: Calendar

    @property
    def today(self) -> date:
        """The day it is where the access body sits."""
        return self.calendar.day_of(self.log.clock())

    # -- arrival ---------------------------------------------------------------------------------

    def submit(self, asked: Asked) -> Record:
        """Take an application in, once, and check its form; return its record.

        Raises:
            Refused: its id is taken by somebody else's, or what it amends is no permit of the applicant.

        """
        application = asked.application
        found = self.log.get("application", application.id)
        if found is not None:
            if found.body["application"]["applicant"] != application.applicant:
                raise Refused("this id is taken", remedy="apply again with a fresh id")
            return found
        if asked.kind is Kind.AMENDMENT:
            Amending.check(self.log, asked.amends, application)
        case = Case(
            application,
            asked.kind,
            self.legal_regime,
            self.today,
            agreement=asked.agreement,
            amends=asked.amends,
            changes=asked.changes,
            statistics=dict(asked.statistics),
        )
        case = cases.take(case, CaseAction.SUBMIT, self.today, self.calendar)
        body = {
            **case.to_dict(),
            "permit": None,
            "decision": "",
            "told": [],
            "children": {child: dict(held) for child, held in asked.children.items()},
            "parent": dict(asked.parent),
            "agreements": dict(asked.agreements),
        }
        details = {"application": application.id, "title": application.title, "purpose": application.purpose}
        event = Event("application.submitted", application.applicant, {**details, "kind": str(asked.kind)})
        try:
            self.log.commit(event, Put("application", application.id, 0, body))
        except Conflict:  # the same message came twice at once
            return self.record(application.id)
        self._screen(application.id)
        return self.record(application.id)

    def _screen(self, identifier: str) -> None:
        """Check the form: whatever is missing is asked for in one list (EHDS Art. 68(4))."""
        self.act(identifier, CaseAction.SCREEN, THE_FORM)
        missing = completeness(self.case(identifier).application)
        self.act(identifier, CaseAction.ASK if missing else CaseAction.COMPLETE, THE_FORM, reasons=missing)

    def resume(self) -> None:
        """Check the forms that a crash left unchecked."""
        for stage in (CaseState.SUBMITTED, CaseState.PRE_SCREENING):
            for record in self.log.store.page("application", {"stage": str(stage)}):
                if stage is CaseState.SUBMITTED:
                    self._screen(record.id)
                else:
                    missing = completeness(self.case(record.id).application)
                    step = CaseAction.ASK if missing else CaseAction.COMPLETE
                    self.act(record.id, step, THE_FORM, reasons=missing)

    # -- reading ---------------------------------------------------------------------------------

    def record(self, identifier: str) -> Record:
        """Return the record of a case. Raises NotFound."""
        found = self.log.get("application", ApplicationId.parse(identifier))
        if found is None:
            raise NotFound(f"there is no application {identifier}", remedy="ihds permit list shows them")
        return found

    def case(self, identifier: str) -> Case:
        """Return a case. Raises NotFound."""
        return Case.from_dict(self.record(identifier).body)

    def shown(self, case: Case, on: date) -> frozenset[Shown]:
        """Return what the file of a case shows on a day."""
        file = case.dossier(excluded_until=self._excluded(case), agreed=not self.uncovered(case, on))
        found = file.shows(on)
        if case.kind is Kind.AMENDMENT:
            found |= Amending.shows(self.log, case, on)
        return found

    def why_not(self, case: Case, on: date) -> tuple[str, ...]:
        """Return in detail why a case is not eligible or not covered on a day."""
        verdict = screen(case.application, case.legal_regime, on)
        found = verdict.reasons if isinstance(verdict, No) else ()
        until = self._excluded(case)
        if until is not None and on <= until:
            found += (f"R-63-EXCLUDED EHDS 63(3): the applicant is excluded until {until}",)
        return found + (self.uncovered(case, on) if case.legal_regime == "contract" else ())

    def _excluded(self, case: Case) -> date | None:
        found = self.log.get("exclusion", case.application.applicant)
        return date.fromisoformat(found.body["until"]) if found else None

    def uncovered(self, case: Case, on: date) -> tuple[str, ...]:
        """Return why no agreement covers a case on a day; nothing if one does."""
        if not case.agreement:
            return ("no agreement is named: joint research beside the EHDS rests on one (EHDS 1(8))",)
        found = self.log.get("joint.agreement", case.agreement)
        if found is None:
            return (f"there is no agreement {case.agreement} here",)
        state = agreements.AgreementState(found.body["state"])
        text = agreements.Agreement.from_dict(found.body["agreement"])
        return agreements.uncovered(text, state, case.application, on)

    # -- steps -----------------------------------------------------------------------------------

    def act(
        self,
        identifier: str,
        action: CaseAction,
        actor: Actor,
        *,
        reasons: tuple[str, ...] = (),
        change: Callable[[Case], Case] = lambda case: case,
        also: frozenset[Shown] = frozenset(),
    ) -> Record:
        """Take one step of a case that grants nothing.

        Raises:
            IllegalTransition: it does not fit the case's state.
            Refused: not by this actor, or something it needs is not shown; each with its article.

        """

        def once() -> Record:
            record = self.record(identifier)
            case = Case.from_dict(record.body)
            after, role, duties = self.judged(case, action, actor, reasons, change, also)
            details: dict[str, Any] = {"application": record.id, "action": str(action)}
            details |= {
                "role": str(role),
                "by": actor.name,
                "stage": str(after.stage),
                "state": after.to_dict()["state"],
                "reasons": list(reasons),
            }
            decision = "Negative" if action is CaseAction.REFUSE else record.body["decision"]
            put = Put(
                "application", record.id, record.version, {**record.body, **after.to_dict(), "decision": decision}
            )
            kind = "permit.refused" if action is CaseAction.REFUSE else "application.advanced"
            self.log.commit(Event(kind, self.me, details), put, *duties)
            return self.record(record.id)

        return settled(once)

    def judged(
        self,
        case: Case,
        action: CaseAction,
        actor: Actor,
        reasons: tuple[str, ...],
        change: Callable[[Case], Case] = lambda case: case,
        also: frozenset[Shown] = frozenset(),
    ) -> tuple[Case, Role, tuple[Put, ...]]:
        """Return the case after a step, the role it was taken in, and the duty this takes on."""
        row = LIFE[case.legal_regime, case.kind][case.stage]
        if action not in row:
            possible = ", ".join(f"{a} ({s.by})" for a, s in row.items()) or "nothing: it has ended"
            raise IllegalTransition(
                f"the {case.kind} is {case.stage}; {action} does not fit", remedy=f"possible now: {possible}"
            )
        role = Role(row[action].by)
        held, duties = self.duties(case, actor, role)
        why = taken_on(held, actor, role)
        on = self.today
        verdict = cases.judge(case, action, role, self.shown(replace(case, reasons=reasons), on) | also)
        if isinstance(verdict, No):
            why += verdict.reasons
            if {Shown.ELIGIBLE, Shown.AGREEMENT} & row[action].needs:
                why += self.why_not(case, on)
        if why:
            raise Refused(f"{action} is refused: the {case.kind} is {case.stage}", reasons=why, remedy=REMEDY)
        return cases.take(change(case), action, on, self.calendar, reasons), role, duties

    def duties(self, case: Case, actor: Actor, role: Role) -> tuple[Mapping[str, frozenset[Role]], tuple[Put, ...]]:
        """Return who did what in a case's project so far, and the write that adds this."""
        if actor is THE_FORM:
            return {}, ()
        return taking(self.log, project_of(self.log, case.application.id), actor, role)

    def assign(self, identifier: str, actor: Actor, role: Role) -> dict[str, Any]:
        """Give somebody a duty in a project; it is kept with all that was done there (EHDS Art. 55(3)).

        Raises:
            Refused: the account does not hold it, or holds a duty that is separate from it here.

        """

        def once() -> dict[str, Any]:
            case = self.case(identifier)
            held, duties = self.duties(case, actor, role)
            if why := taken_on(held, actor, role):
                raise Refused(f"{actor.name} may not be the {role} of this project", reasons=why, remedy=REMEDY)
            details = {"application": identifier, "name": actor.name, "role": str(role)}
            if duties:
                self.log.commit(Event("duty.assigned", self.me, details), *duties)
            return details

        return settled(once)


def settled(once: Callable[[], T]) -> T:
    """Do something that reads, judges and commits; if somebody else was faster, read and judge again."""
    for _ in range(_TRIES):
        try:
            return once()
        except Conflict:
            continue
    return once()


REMEDY = "docs/law/lives.md has the steps; ihds officer list has the duties"
