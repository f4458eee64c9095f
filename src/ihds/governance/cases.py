"""A case as a value: what was asked, where it stands, whose verdicts it has, which clocks run.

``judge`` and ``take`` are the only way on: by the table of its life, for one role, with what the file
shows. They take the day, so that any decision can be replayed as of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from typing import Any

from ihds.governance.access import QUESTIONS, Answer, Dossier, Verdict
from ihds.governance.application import Application
from ihds.governance.deadlines import Due, Entry, Expiry, Mark, Standing, deadlines, due
from ihds.governance.duties import Role, Shown
from ihds.governance.holidays import Calendar
from ihds.governance.lifecycle import permitted
from ihds.governance.lives import LIFE, WIRE, CaseAction, CaseState, Kind
from ihds.governance.permit import RESERVED_PURPOSES
from ihds.governance.policy import Decision

_A = CaseAction

#: States in which nothing is left to do.
CLOSED = frozenset(
    {
        CaseState.GRANTED,
        CaseState.REFUSED,
        CaseState.CONVERTED,
        CaseState.ANSWERED,
        CaseState.CLOSED_INCOMPLETE,
        CaseState.WITHDRAWN,
    }
)


@dataclass(frozen=True, slots=True)
class Clock:
    """One run of a clock of the law: its id and what happened to it."""

    id: str
    entries: tuple[Entry, ...]

    def stands(self, calendar: Calendar, on: date) -> Due:
        """Return how it stands on a day."""
        return due(deadlines()[self.id], self.entries, calendar, on)

    def marked(self, entry: Entry) -> Clock:
        """Return it with one more mark."""
        return replace(self, entries=(*self.entries, entry))

    def written(self) -> list[Any]:
        """Return the JSON form."""
        return [self.id, [_written(e) for e in self.entries]]

    @classmethod
    def read(cls, body: list[Any]) -> Clock:
        """Read the JSON form that ``written`` made."""
        return cls(str(body[0]), tuple(map(_read, body[1])))


@dataclass(frozen=True, slots=True)
class Case:
    """An application, request or amendment inside the access body.

    ``forwarded_to`` is the trusted holder that assesses it, ``amends`` the permit to be changed,
    ``statistics`` the method and parameters whose answer is asked for (Art. 69).
    """

    application: Application
    kind: Kind
    legal_regime: str
    received_on: date
    stage: CaseState = CaseState.DRAFT
    verdicts: Mapping[StrEnum, Verdict] = field(default_factory=dict)
    fee_notice: dict[str, Any] | None = None
    agreement: str = ""
    amends: str = ""
    changes: tuple[str, ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)
    forwarded_to: str = ""
    clocks: tuple[Clock, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def accelerated(self) -> bool:
        """Whether a public body asks for one of its own purposes, which is decided sooner (EHDS Art. 68(6))."""
        return self.application.public_body and self.application.purpose in RESERVED_PURPOSES

    @property
    def decides(self) -> str:
        """The id of the clock of its decision; beside the EHDS no law sets one."""
        if self.legal_regime != "ehds":
            return ""
        if self.kind is Kind.REQUEST:
            return "Q3"
        return "D5" if self.accelerated else "D4"

    def dossier(self, **more: Any) -> Dossier:
        """Return what is on file; ``more`` is what only the access body knows: exclusion, agreement."""
        told = date.fromisoformat(self.fee_notice["on"]) if self.fee_notice else None
        return Dossier(
            self.application, self.legal_regime, self.verdicts, fee_notice_on=told, reasons=self.reasons, **more
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; ``state`` is what other countries are shown."""
        wire = WIRE[self.stage]
        return {
            "application": self.application.to_dict(),
            "kind": str(self.kind),
            "legal_regime": self.legal_regime,
            "received_on": self.received_on.isoformat(),
            "stage": str(self.stage),
            "state": str(wire) if wire else "",
            "verdicts": {
                str(q): {"answer": str(v.answer), "assessor": v.assessor, "justification": v.justification}
                for q, v in self.verdicts.items()
            },
            "fee_notice": self.fee_notice,
            "agreement": self.agreement,
            "amends": self.amends,
            "changes": list(self.changes),
            "statistics": self.statistics,
            "forwarded_to": self.forwarded_to,
            "clocks": [c.written() for c in self.clocks],
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Case:
        """Read the JSON form that ``to_dict`` made; other keys are let be."""
        regime = str(body["legal_regime"])
        words = {str(q): q for q in QUESTIONS[regime]}
        return cls(
            application=Application.from_dict(body["application"]),
            kind=Kind(body["kind"]),
            legal_regime=regime,
            received_on=date.fromisoformat(body["received_on"]),
            stage=CaseState(body["stage"]),
            verdicts={
                words[q]: Verdict(Answer(v["answer"]), v["assessor"], v["justification"])
                for q, v in body["verdicts"].items()
            },
            fee_notice=body["fee_notice"],
            agreement=body["agreement"],
            amends=body["amends"],
            changes=tuple(body["changes"]),
            statistics=body["statistics"],
            forwarded_to=body["forwarded_to"],
            clocks=tuple(map(Clock.read, body["clocks"])),
            reasons=tuple(body["reasons"]),
        )


def _written(entry: Entry) -> list[Any]:
    return [entry.on.isoformat(), str(entry.mark), entry.reason, entry.about.isoformat() if entry.about else None]


def _read(entry: list[Any]) -> Entry:
    on, mark, reason, about = entry
    return Entry(date.fromisoformat(on), Mark(mark), reason, date.fromisoformat(about) if about else None)


def judge(case: Case, action: CaseAction, role: Role, shown: frozenset[Shown]) -> Decision:
    """Judge whether a role may take a step of a case's life, given what is shown."""
    noun = f"the {case.kind}"
    return permitted(LIFE[case.legal_regime, case.kind], noun, case.stage, action, role, frozenset(shown))


def take(case: Case, action: CaseAction, on: date, calendar: Calendar, reasons: tuple[str, ...] = ()) -> Case:
    """Return the case after a step that was judged allowed, with its clocks; reasons given replace those before.

    Raises:
        BadInput: a clock cannot bear it: it was extended before, or ran out already.

    """
    to = LIFE[case.legal_regime, case.kind][case.stage][action].to
    after = replace(_marked(case, action, on, calendar, "; ".join(reasons)), stage=to, reasons=reasons)
    for run in after.clocks:
        run.stands(calendar, on)
    return after


def revised(case: Case, application: Application) -> Case:
    """Return the case after the applicant changed the application: verdicts and fee notice are made anew."""
    return replace(case, application=application, verdicts={}, fee_notice=None)


def running(case: Case, id: str) -> Clock | None:  # noqa: A002
    """Return the run of a clock that is not done, if there is one."""
    found = [c for c in case.clocks if c.id == id]
    return found[-1] if found and found[-1].entries[-1].mark is not Mark.DONE else None


def start(case: Case, id: str, on: date, about: date | None = None) -> Case:  # noqa: A002
    """Return the case with a clock that starts, unless it runs, or its law holds only from a later day."""
    if running(case, id) or deadlines()[id].since > on or case.legal_regime != "ehds":
        return case
    return replace(case, clocks=(*case.clocks, Clock(id, (Entry(on, Mark.START, about=about),))))


def mark(case: Case, id: str, entry: Entry) -> Case:  # noqa: A002
    """Return the case with a mark on a running clock; one that does not run is let be."""
    run = running(case, id)
    if run is None:
        return case
    return replace(case, clocks=tuple(run.marked(entry) if c is run else c for c in case.clocks))


_DONE = Mark.DONE
#: What a step does to which clocks besides that of the decision.
_STARTS: dict[CaseAction, tuple[str, ...]] = {
    _A.ASK: ("D4-COMPLETE",),
    _A.FORWARD: ("D6-HOLDER",),
    _A.RETURN: ("D6-DECIDE",),
    _A.GRANT: ("P2",),
    _A.REFUSE: ("P2",),
}
_ENDS: dict[CaseAction, tuple[str, ...]] = {
    _A.ANSWER: ("D4-COMPLETE",),
    _A.RETURN: ("D6-HOLDER",),
    _A.LAPSE: ("D4-COMPLETE", "D6-HOLDER"),
    _A.GRANT: ("D6-DECIDE",),
    _A.REFUSE: ("D6-DECIDE",),
    _A.WITHDRAW: ("D4-COMPLETE", "D6-HOLDER", "D6-DECIDE"),
    _A.DELIVER: ("Q3-ANSWER",),
}
#: Steps that end the time the access body has to decide.
_DECIDED = frozenset({_A.GRANT, _A.REFUSE, _A.WITHDRAW, _A.LAPSE})


def _marked(case: Case, action: CaseAction, on: date, calendar: Calendar, reason: str) -> Case:
    for id_ in _ENDS.get(action, ()):
        case = mark(case, id_, Entry(on, _DONE))
    for id_ in _STARTS.get(action, ()):
        case = start(case, id_, on)
    decides = case.decides
    if not decides:
        return case
    run = running(case, decides)
    paused = run is not None and run.stands(calendar, on).standing is Standing.PAUSED
    begins = _A.SUBMIT if case.kind is Kind.REQUEST else _A.COMPLETE  # 69(4): from receipt; 68(4): once complete
    if action in _DECIDED and case.stage not in (CaseState.WITH_TRUSTED_HOLDER, CaseState.STATISTICS_OFFERED):
        case = mark(case, decides, Entry(on, _DONE))
        return start(case, "Q3-ANSWER", on) if action is _A.GRANT and case.kind is Kind.REQUEST else case
    if action is _A.ASK and run is not None and not paused:
        return mark(case, decides, Entry(on, Mark.PAUSE))
    if action is _A.COMPLETE and paused:
        return mark(case, decides, Entry(on, Mark.RESUME))
    if action is _A.EXTEND:
        return mark(case, decides, Entry(on, Mark.EXTEND, reason))
    return start(case, decides, on) if action is begins else case


def pressing(clocks: tuple[Clock, ...], calendar: Calendar, on: date, warn_days: int) -> tuple[Due, ...]:
    """Return the clocks that ran out, or will within some days."""
    found = [c.stands(calendar, on) for c in clocks]
    return tuple(
        d
        for d in found
        if d.standing is Standing.RUN_OUT
        or (d.standing is Standing.RUNNING and d.days_left is not None and d.days_left <= warn_days)
    )


def lapses(case: Case, calendar: Calendar, on: date) -> bool:
    """Return whether the clock itself must act: an application that was not completed in time (Art. 68(4))."""
    run = running(case, "D4-COMPLETE")
    return run is not None and run.stands(calendar, on).consequence is Expiry.NO_PERMIT
