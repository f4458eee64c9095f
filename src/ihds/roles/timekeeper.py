"""What happens because time passed: reminders, delays, lapses, expiry, deletion. Nothing is ever granted by it.

A pass may be cut short and run again at any time: what it did is kept with the record in the same
transaction as its event, so nothing is told twice and nothing is forgotten.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ihds.audit.log import Event
from ihds.errors import IhdsError
from ihds.governance import cases as law
from ihds.governance.cases import Case, Clock
from ihds.governance.deadlines import Due, Standing
from ihds.governance.duties import THE_CLOCK
from ihds.governance.lifecycle import advance
from ihds.governance.lives import CaseAction, CaseState
from ihds.governance.permit import NEXT, Permit, PermitEvent, PermitState
from ihds.roles.cases import Cases, settled
from ihds.roles.publications import Publications
from ihds.store.store import Put, Record

_log = logging.getLogger("ihds.clock")

#: How long before its last day a clock is reminded of, and how long between two passes.
WARN_DAYS = 14
_PASS_SECONDS = 30.0


@dataclass
class Timekeeper:
    """Looks at every open case, permit and publication; ``tell`` says to holders that a permit changed."""

    cases: Cases
    publications: Publications
    tell: Callable[[Permit], None]
    also: Callable[[], None] = lambda: None
    _stopping: threading.Event = field(default_factory=threading.Event)

    def keep(self) -> None:
        """Pass again and again in the background."""
        threading.Thread(target=self._work, name="clock", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def _work(self) -> None:
        while not self._stopping.wait(_PASS_SECONDS):
            try:
                self.look()
            except IhdsError as error:
                _log.warning("the clocks were not all looked at: %s", error.message)

    def look(self) -> int:
        """Look once; return how many things were said or done."""
        done = 0
        for stage in CaseState:
            if stage not in law.CLOSED:
                for record in self.cases.log.store.page("application", {"stage": str(stage)}):
                    done += self._case(record.id)
        for record in self.cases.log.store.page("permit", {"state": str(PermitState.GRANTED)}):
            done += self._expiry(record)
        for record in self.publications.open():
            done += self._say("publication", record.id)
        self.also()
        return done

    # -- cases -----------------------------------------------------------------------------------

    def _case(self, identifier: str) -> int:
        case = self.cases.case(identifier)
        done = self._say("application", identifier)
        if law.lapses(case, self.cases.calendar, self.cases.today):
            reasons = ("R-67-INCOMPLETE EHDS 68(4): what was missing was not sent within four weeks",)
            self.cases.act(identifier, CaseAction.LAPSE, THE_CLOCK, reasons=reasons)
            return done + 1
        late = law.running(case, "D6-HOLDER") if case.stage is CaseState.WITH_TRUSTED_HOLDER else None
        if late and late.stands(self.cases.calendar, self.cases.today).standing is Standing.RUN_OUT:
            reasons = ("EHDS 72(3): the trusted holder gave no assessment in two months",)
            self.cases.act(identifier, CaseAction.LAPSE, THE_CLOCK, reasons=reasons)
            return done + 1
        return done

    def _say(self, kind: str, identifier: str) -> int:
        """Write a reminder or a delay into the log, once for each clock and last day."""

        def once() -> int:
            record = self.cases.log.get(kind, identifier)
            assert record is not None, "what is looked at is never removed"
            told = list(record.body["told"])
            for due in law.pressing(clocks(record), self.cases.calendar, self.cases.today, WARN_DAYS):
                over = due.standing is Standing.RUN_OUT
                key = f"{due.deadline.id} {due.last} {'over' if over else 'soon'}"
                if key in told:
                    continue
                details = {kind: identifier, **row(due)}
                put = Put(kind, identifier, record.version, {**record.body, "told": [*told, key]})
                self.cases.log.commit(Event("clock.ran_out" if over else "clock.warned", self.cases.me, details), put)
                return 1
            return 0

        done = 0
        while settled(once):
            done += 1
        return done

    # -- permits ---------------------------------------------------------------------------------

    def _expiry(self, record: Record) -> int:
        permit = Permit.from_dict(record.body["permit"])
        if self.cases.log.clock() < permit.expires_at:
            return 0
        self.end(record, PermitEvent.EXPIRE, "permit.expired", {})
        return 1

    def end(self, record: Record, event: PermitEvent, kind: str, more: dict[str, Any]) -> Record:
        """End a permit, start the clocks of deletion and publication, and tell its holders.

        Raises:
            IllegalTransition: it has ended already.

        """
        permit = Permit.from_dict(record.body["permit"])
        after = advance(NEXT, "the permit", PermitState(record.body["state"]), event)
        body = {**record.body, **more, "state": str(after)}
        details = {"permit": record.id, "state": str(after), **more}
        puts = self.publications.begin(permit, self.cases.today)
        self.cases.log.commit(
            Event(kind, self.cases.me, details), Put("permit", record.id, record.version, body), *puts
        )
        self.tell(permit)
        return record

    # -- what is due -----------------------------------------------------------------------------

    def clock(self, identifier: str) -> list[dict[str, Any]]:
        """Return the clocks of a case, or of what follows a permit, as of today. Raises NotFound."""
        found = self.cases.log.get("publication", identifier) or self.cases.record(identifier)
        return [row(c.stands(self.cases.calendar, self.cases.today)) for c in clocks(found)]

    def overdue(self, warn_days: int) -> list[dict[str, Any]]:
        """Return every clock that ran out or will within some days, the most pressing first."""
        rows = []
        found = [r for r in self.cases.log.store.list("application") if CaseState(r.body["stage"]) not in law.CLOSED]
        for record in [*found, *self.publications.open()]:
            pressing = law.pressing(clocks(record), self.cases.calendar, self.cases.today, warn_days)
            rows += [{"about": record.id, **row(due)} for due in pressing]
        return sorted(rows, key=lambda r: str(r["last"]))


def clocks(record: Record) -> tuple[Clock, ...]:
    """Return the clocks kept with a record."""
    if record.kind == "application":
        return Case.from_dict(record.body).clocks
    return tuple(Clock.read(c) for c in record.body["clocks"])


def row(due: Due) -> dict[str, Any]:
    """Return a clock's standing as JSON."""
    last: date | None = due.last
    return {
        "clock": due.deadline.id,
        "article": due.deadline.article,
        "who": due.deadline.who,
        "what": due.deadline.what,
        "standing": str(due.standing),
        "last": last.isoformat() if last else None,
        "days_left": due.days_left,
        "consequence": str(due.consequence) if due.consequence else None,
    }
