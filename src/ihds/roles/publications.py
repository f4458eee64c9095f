"""After a permit: publication within 18 months, significant findings, deletion within six (EHDS Art. 58, 61, 68)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from ihds.audit.log import Event, Log
from ihds.errors import BadInput, NotFound, Refused
from ihds.governance.cases import Clock
from ihds.governance.deadlines import Entry, Mark
from ihds.governance.duties import Actor, Role, taken_on
from ihds.governance.holidays import Calendar
from ihds.governance.permit import Permit
from ihds.governance.policy import Refused as No
from ihds.governance.rights import may
from ihds.ids import PermitId
from ihds.roles.cases import REMEDY, settled
from ihds.roles.projects import project_of, taking
from ihds.store.store import Put, Record

#: What runs once processing has ended: publish results, delete what the secure environment holds.
AFTER = ("U1", "D11-DELETE")
_TEXT = 20_000


@dataclass
class Publications:
    """What users owe after their work, kept by permit; an agreement has terms of its own: no clock runs then."""

    log: Log
    me: str
    calendar: Calendar

    def begin(self, permit: Permit, on: date) -> tuple[Put, ...]:
        """Return the write that starts the clocks once processing has ended; nothing if it was begun before."""
        found = self.log.get("publication", permit.id)
        if found is not None and (found.body["clocks"] or permit.legal_regime != "ehds"):
            return ()
        running = [Clock(name, (Entry(on, Mark.START),)).written() for name in AFTER]
        body = _fresh(permit) if found is None else dict(found.body)
        body["clocks"] = running if permit.legal_regime == "ehds" else []
        return (Put("publication", permit.id, found.version if found else 0, body),)

    def open(self) -> Sequence[Record]:
        """Return the records of which a clock still runs."""
        return [
            r
            for r in self.log.store.list("publication")
            if any(Clock.read(c).entries[-1].mark is not Mark.DONE for c in r.body["clocks"])
        ]

    def list(self) -> list[dict[str, Any]]:
        """Return what was published and found under each permit."""
        return [
            {
                "permit": r.id,
                "user": r.body["user"],
                "reports": len(r.body["reports"]),
                "findings": len(r.body["findings"]),
                "links": [x["link"] for x in r.body["reports"]],
            }
            for r in self.log.store.list("publication")
        ]

    def report(self, permit: str, who: str, link: str, summary: str) -> dict[str, Any]:
        """Take in what a user published: anonymous results, with a lay summary (EHDS Art. 61(4)).

        Raises:
            BadInput: link or summary is missing.
            Refused: the permit is another's.

        """
        if not link.startswith(("https://", "http://", "doi:")) or not summary.strip():
            raise BadInput("a report names where results stand and sums them up", remedy="give --link and --summary")
        told = {"link": link[:_TEXT], "summary": summary[:_TEXT]}
        return self._add(permit, who, "reports", told, "publication.reported", "U1")

    def finding(self, permit: str, who: str, text: str) -> dict[str, Any]:
        """Take in a significant finding for persons in the data; it goes on to the holders (Art. 61(5), 58(3)).

        Raises:
            BadInput: it says nothing.
            Refused: the permit is another's.

        """
        if not text.strip():
            raise BadInput("a finding says what was found", remedy="give --text, without any name or record")
        return self._add(permit, who, "findings", {"text": text[:_TEXT]}, "finding.reported", "")

    def extend(self, permit: str, actor: Actor, until: date, reason: str) -> dict[str, Any]:
        """Give a user longer to publish, with the reason (EHDS Art. 61(4)); once.

        Raises:
            BadInput: without a reason, a second time, or too late.

        """
        return self._mark(permit, actor, "U1", Mark.EXTEND, reason, until)

    def deleted(self, permit: str, actor: Actor) -> dict[str, Any]:
        """Record that the secure environment's data were deleted (EHDS Art. 68(12))."""
        return self._mark(permit, actor, "D11-DELETE", Mark.DONE, "", None)

    def _add(self, permit: str, who: str, name: str, told: dict[str, Any], event: str, ends: str) -> dict[str, Any]:
        def once() -> dict[str, Any]:
            held = self.log.get("permit", PermitId.parse(permit))
            if held is None or held.body["permit"]["user"] != who:
                raise Refused("only the user of a permit reports on it", remedy="ihds permit list shows yours")
            found = self.log.get("publication", permit)
            body = dict(found.body) if found else _fresh(Permit.from_dict(held.body["permit"]))
            if any({k: v for k, v in x.items() if k != "at"} == told for x in body[name]):
                return {"permit": permit, name: len(body[name])}  # sent twice: kept once
            today = self.calendar.day_of(self.log.clock())
            body[name] = [*body[name], {**told, "at": self.log.clock().isoformat()}]
            body["clocks"] = [_done(c, ends, today) for c in body["clocks"]]
            put = Put("publication", permit, found.version if found else 0, body)
            self.log.commit(Event(event, who, {"permit": permit, **told}), put)
            return {"permit": permit, name: len(body[name])}

        return settled(once)

    def _mark(
        self, permit: str, actor: Actor, clock: str, mark: Mark, reason: str, about: date | None
    ) -> dict[str, Any]:
        verdict = may(actor.roles, "publication", "give more time" if mark is Mark.EXTEND else "record deletion")
        if isinstance(verdict, No):
            raise Refused(f"{actor.name} may not", reasons=verdict.reasons, remedy=REMEDY)
        role = Role.OFFICER if Role.OFFICER in actor.roles else Role.ENVIRONMENT

        def once() -> dict[str, Any]:
            found = self.log.get("publication", PermitId.parse(permit))
            granted = self.log.get("permit", permit)
            if found is None or all(c[0] != clock for c in found.body["clocks"]):
                raise NotFound(f"no clock {clock} runs for {permit}", remedy="ihds permit clock PERMIT")
            today = self.calendar.day_of(self.log.clock())
            entry = Entry(today, mark, reason, about)
            marked = [Clock.read(c).marked(entry) if c[0] == clock else Clock.read(c) for c in found.body["clocks"]]
            for run in marked:
                run.stands(self.calendar, today)  # a mark that cannot be is refused here
            body = {**found.body, "clocks": [c.written() for c in marked]}
            project = project_of(self.log, str(granted.body["application"])) if granted else permit
            held, duties = taking(self.log, project, actor, role)
            if why := taken_on(held, actor, role):
                raise Refused(f"{actor.name} may not", reasons=why, remedy=REMEDY)
            details = {"permit": permit, "clock": clock, "mark": str(mark), "by": actor.name, "reason": reason}
            put = Put("publication", permit, found.version, body)
            self.log.commit(Event("publication.clock", self.me, details), put, *duties)
            return {**details, "until": about.isoformat() if about else None}

        return settled(once)


def _fresh(permit: Permit) -> dict[str, Any]:
    return {"user": permit.user, "clocks": [], "reports": [], "findings": [], "told": []}


def _done(clock: list[Any], ends: str, on: date) -> list[Any]:
    run = Clock.read(clock)
    over = run.id == ends and run.entries[-1].mark is not Mark.DONE
    return run.marked(Entry(on, Mark.DONE)).written() if over else clock
