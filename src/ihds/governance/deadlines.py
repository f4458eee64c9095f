"""The clocks of the law as data, and one pure question: what is due as of a day.

No clock grants anything when it runs out: the regulation knows no tacit approval (Art. 68(4)). What
each of them brings instead stands in ``on_expiry``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from ihds.errors import BadInput
from ihds.governance.calendar import Period, ends, last_day
from ihds.governance.holidays import Calendar
from ihds.governance.jurisdictions.eu_ehds import CHAPTER_IV
from ihds.governance.rule import Certainty


class Kind(StrEnum):
    """What the end of a period means; only an act that is due waits for a working day."""

    ACT = "act by the last day"
    BEFORE = "act by the day that long before"
    VALID = "holds until the last day at most"
    KEEP = "keep until the last day at least"


class Expiry(StrEnum):
    """What running out brings. None of them is an approval."""

    DELAY = "nothing is granted; the delay is reported"
    NO_PERMIT = "no permit: the application is closed as incomplete"
    TOO_LATE = "the request is refused as late"
    MEASURE = "a measure or penalty may follow (Art. 63, 64)"
    ENDS = "it ends by itself"
    MAY_DELETE = "it may be deleted from then on"
    MAY_DECIDE = "the access body may decide instead"


@dataclass(frozen=True, slots=True)
class Deadline:
    """One clock: who must do what, how long after which event, how often it may be extended: once or never."""

    id: str
    article: str
    who: str
    what: str
    starts: str
    period: Period
    on_expiry: Expiry
    kind: Kind = Kind.ACT
    extension: Period | None = None
    pauses: bool = False
    since: date = CHAPTER_IV
    certainty: Certainty = Certainty.READ


#: An extension as long as the access body says; the law names no number.
OPEN = Period(0, "months")


def _months(count: int) -> Period:
    return Period(count, "months")


DEADLINES: tuple[Deadline, ...] = (
    Deadline(
        "H4",
        "EHDS 60(1)(2)",
        "holder",
        "deliver the data to the access body",
        "its request",
        _months(3),
        Expiry.MEASURE,
        extension=_months(3),
    ),
    Deadline(
        "H5",
        "EHDS 60(3)",
        "holder",
        "look at the dataset's description again",
        "the last look",
        _months(12),
        Expiry.MEASURE,
    ),
    Deadline(
        "Q3",
        "EHDS 69(4)",
        "access body",
        "assess a request for an answer in statistics",
        "its receipt",
        _months(3),
        Expiry.DELAY,
        pauses=True,
    ),
    Deadline(
        "Q3-ANSWER",
        "EHDS 69(4)",
        "access body",
        "give the answer, where possible",
        "the end of the assessment",
        _months(3),
        Expiry.DELAY,
    ),
    Deadline(
        "D4",
        "EHDS 68(4)",
        "access body",
        "decide an application",
        "the complete application",
        _months(3),
        Expiry.DELAY,
        extension=_months(3),
        pauses=True,
    ),
    Deadline(
        "D4-COMPLETE",
        "EHDS 68(4)",
        "applicant",
        "complete the application",
        "the list of what is missing",
        Period(4, "weeks"),
        Expiry.NO_PERMIT,
    ),
    Deadline(
        "D5",
        "EHDS 68(6)",
        "access body",
        "decide an application of a public body, accelerated",
        "the complete application",
        _months(2),
        Expiry.DELAY,
        extension=_months(1),
        pauses=True,
    ),
    Deadline(
        "D6-HOLDER",
        "EHDS 72(3)",
        "trusted holder",
        "assess an application forwarded to it",
        "its receipt from the access body",
        _months(2),
        Expiry.DELAY,
    ),
    Deadline(
        "D6-DECIDE",
        "EHDS 72(5)",
        "access body",
        "decide after the trusted holder's assessment",
        "the assessment",
        _months(2),
        Expiry.DELAY,
    ),
    Deadline(
        "D11",
        "EHDS 68(12)",
        "user",
        "work under a permit",
        "its issue",
        Period(10, "years"),
        Expiry.ENDS,
        Kind.VALID,
        extension=Period(10, "years"),
    ),
    Deadline(
        "D11-EXTEND",
        "EHDS 68(12)",
        "user",
        "ask for the extension, with its reason",
        "the permit's end",
        _months(1),
        Expiry.TOO_LATE,
        Kind.BEFORE,
    ),
    Deadline(
        "D11-DELETE",
        "EHDS 68(12)",
        "access body",
        "delete the data in the secure environment",
        "the permit's end",
        _months(6),
        Expiry.MEASURE,
    ),
    Deadline(
        "S1",
        "EHDS 68(7)",
        "access body",
        "give access in the secure environment",
        "receipt of the data",
        _months(2),
        Expiry.DELAY,
    ),
    Deadline(
        "S4",
        "EHDS 73(1)(e)",
        "access body",
        "keep the log of an access",
        "the access",
        _months(12),
        Expiry.MAY_DELETE,
        Kind.KEEP,
    ),
    Deadline(
        "U1",
        "EHDS 61(4)",
        "user",
        "publish results, anonymous only",
        "the end of processing",
        _months(18),
        Expiry.MEASURE,
        extension=OPEN,
    ),
    Deadline(
        "P2",
        "EHDS 57(1)(j)(iii)",
        "access body",
        "publish a permit, an approval or a refusal",
        "the decision",
        Period(30, "working days"),
        Expiry.DELAY,
    ),
    Deadline(
        "P6",
        "EHDS 59",
        "access body",
        "send the activity report of two years",
        "the end of the two years",
        _months(6),
        Expiry.DELAY,
    ),
    Deadline(
        "F3",
        "EHDS 62(4)",
        "holder and user",
        "agree on the holder's fees",
        "the permit",
        _months(1),
        Expiry.MAY_DECIDE,
    ),
    Deadline(
        "EN1",
        "EHDS 63(2)",
        "holder or user",
        "give its views on a finding",
        "its notice",
        Period(4, "weeks"),
        Expiry.MEASURE,
    ),
    Deadline(
        "EN2",
        "EHDS 63(3)",
        "user",
        "stay excluded from access",
        "the measure",
        Period(5, "years"),
        Expiry.ENDS,
        Kind.VALID,
    ),
)


class Mark(StrEnum):
    """What can happen to a clock."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    EXTEND = "extend"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Entry:
    """A mark on a day; an extension says why.

    ``about`` is the day it is about, where that is another: what a clock counts from, until when it is extended.
    """

    on: date
    mark: Mark
    reason: str = ""
    about: date | None = None


class Standing(StrEnum):
    """How a clock stands."""

    NOT_STARTED = "not started"
    RUNNING = "running"
    PAUSED = "paused: void until what was asked for has come"
    IN_TIME = "done in time"
    LATE = "done late"
    RUN_OUT = "run out"


@dataclass(frozen=True, slots=True)
class Due:
    """A clock as of a day: its last day, if it has one, and what running out brings, once it has."""

    deadline: Deadline
    standing: Standing
    last: date | None
    days_left: int | None
    consequence: Expiry | None


def deadlines() -> dict[str, Deadline]:
    """Return every clock by its id."""
    return {d.id: d for d in DEADLINES}


def last_of(deadline: Deadline, start: date, calendar: Calendar, *, extended: bool = False) -> date:
    """Return the last day of a clock started on a day."""
    period = deadline.period
    if extended and deadline.extension is not None:
        period = period.plus(deadline.extension)
    match deadline.kind:
        case Kind.ACT:
            return last_day(start, period, calendar)
        case Kind.BEFORE:
            return ends(start, Period(-period.count, period.unit))
        case _:
            return ends(start, period)


def due(deadline: Deadline, history: Sequence[Entry], calendar: Calendar, on: date) -> Due:
    """Return how a clock stands on a day; what happened later is not looked at.

    Paused, it has no last day; resumed, it counts anew from that day, and an extension once given stays.

    Raises:
        BadInput: the history cannot be: out of order, extended twice, late or without a reason.

    """
    start: date | None = None
    until: date | None = None
    paused = extended = False
    for entry in sorted((e for e in history if e.on <= on), key=lambda e: e.on):
        match entry.mark:
            case Mark.START if start is None:
                start = entry.about or entry.on
            case Mark.PAUSE if start is not None and deadline.pauses and not paused:
                paused = True
            case Mark.RESUME if paused:
                start, paused = entry.on, False
            case Mark.EXTEND if start is not None and not paused and not extended:
                _check_extension(deadline, entry, last_of(deadline, start, calendar))
                extended, until = True, entry.about
            case Mark.DONE if start is not None:
                last = until or last_of(deadline, start, calendar, extended=extended)
                in_time = paused or (entry.on > last if deadline.kind is Kind.KEEP else entry.on <= last)
                return Due(deadline, Standing.IN_TIME if in_time else Standing.LATE, last, None, None)
            case _:
                raise BadInput(
                    f"{deadline.id}: {entry.mark} on {entry.on} does not fit what was before",
                    remedy="a clock starts once, pauses if its law lets it, is extended once, and ends when done",
                )
    if start is None:
        return Due(deadline, Standing.NOT_STARTED, None, None, None)
    if paused:
        return Due(deadline, Standing.PAUSED, None, None, None)
    last = until or last_of(deadline, start, calendar, extended=extended)
    over = on > last
    standing = Standing.RUN_OUT if over else Standing.RUNNING
    return Due(deadline, standing, last, (last - on).days, deadline.on_expiry if over else None)


def _check_extension(deadline: Deadline, entry: Entry, last: date) -> None:
    if deadline.extension is None:
        raise BadInput(f"{deadline.id} ({deadline.article}) cannot be extended", remedy="it has one period only")
    if entry.on > last:
        raise BadInput(f"{deadline.id} ended on {last}, before it was extended", remedy="extend a clock while it runs")
    if not entry.reason:
        raise BadInput(f"{deadline.id}: an extension needs its reason", remedy="say why")
    if (deadline.extension == OPEN) != (entry.about is not None):
        raise BadInput(
            f"{deadline.id}: an extension of {deadline.extension} "
            + ("needs its last day" if entry.about is None else "has its last day by law"),
            remedy="only where the law names no length, the access body sets the day",
        )
    if entry.about is not None and entry.about <= last:
        raise BadInput(f"{deadline.id}: {entry.about} is no later than {last}", remedy="extend to a later day")
