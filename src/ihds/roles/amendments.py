"""Amendments and extensions: a change of a permit in force is a new permit; the old one is superseded."""

from __future__ import annotations

from datetime import date, datetime

from ihds.audit.log import Log
from ihds.errors import BadInput, NotFound, Refused
from ihds.governance.access import Amendment, Change
from ihds.governance.application import Application
from ihds.governance.calendar import wait_months
from ihds.governance.cases import Case
from ihds.governance.deadlines import deadlines, last_of
from ihds.governance.duties import Shown
from ihds.governance.holidays import CALENDARS
from ihds.governance.lifecycle import advance
from ihds.governance.permit import NEXT, Permit, PermitEvent, PermitState
from ihds.ids import PermitId
from ihds.store.store import Put, Record


class Amending:
    """What an amendment asks of the permit it changes (EHDS Art. 68(12)(13))."""

    @staticmethod
    def held(log: Log, permit: str) -> Record:
        """Return the record of a permit. Raises NotFound."""
        found = log.get("permit", PermitId.parse(permit))
        if found is None:
            raise NotFound(f"there is no permit {permit}", remedy="ihds permit list shows them")
        return found

    @staticmethod
    def check(log: Log, amends: str, asked: Application) -> None:
        """Check that what is to be amended is the applicant's own. Raises NotFound and Refused."""
        if Amending.held(log, amends).body["permit"]["user"] != asked.applicant:
            raise Refused("only the user of a permit may ask to amend it", remedy="apply for a permit of your own")

    @staticmethod
    def shows(log: Log, case: Case, on: date) -> frozenset[Shown]:
        """Return what the amendment itself shows on a day; of a permit no longer in force, nothing."""
        record = Amending.held(log, case.amends)
        if record.body["state"] != PermitState.GRANTED:
            return frozenset()
        before, asked = Permit.from_dict(record.body["permit"]), case.application
        changes = read_changes(case.changes)
        declared = {
            Change.PERSONS: asked.persons != before.persons,
            Change.VARIABLES: not set(asked.variables) <= before.variables,
        }
        beyond = any(differs and change not in changes for change, differs in declared.items())
        beyond |= not set(asked.methods) <= before.methods
        last = last_of(deadlines()["D11-EXTEND"], before.expires_at.date(), CALENDARS["LU"])
        return Amendment(
            changes=changes,
            same_purpose=asked.purpose == before.purpose and not beyond,
            same_datasets=asked.datasets == before.datasets,
            last_request_day=last,
            extensions_before=int(record.body["extensions"]),
        ).shows(min(on, case.received_on))  # the day it was asked for counts, not the day it is decided

    @staticmethod
    def ends(log: Log, case: Case) -> datetime:
        """Return when the new permit ends: where the old one does, or its extension."""
        before = Permit.from_dict(Amending.held(log, case.amends).body["permit"])
        longer = Change.DURATION in read_changes(case.changes)
        end: datetime = wait_months(before.expires_at, case.application.period_months) if longer else before.expires_at
        return end

    @staticmethod
    def puts(log: Log, case: Case) -> tuple[tuple[Put, ...], int]:
        """Return the write that supersedes the old permit, and how often it was extended by now."""
        record = Amending.held(log, case.amends)
        after = advance(NEXT, "the permit", PermitState(record.body["state"]), PermitEvent.SUPERSEDE)
        extensions = int(record.body["extensions"]) + (Change.DURATION in read_changes(case.changes))
        return (Put("permit", record.id, record.version, {**record.body, "state": str(after)}),), extensions


def read_changes(words: tuple[str, ...]) -> frozenset[Change]:
    """Read what is to be amended. Raises BadInput."""
    known = {c.name.lower(): c for c in Change}
    unknown = [w for w in words if w not in known]
    if unknown:
        raise BadInput(f"{unknown[0]!r} cannot be amended", remedy=f"one of: {', '.join(known)}")
    return frozenset(known[w] for w in words)
