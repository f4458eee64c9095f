"""Periods of the law, as Regulation (EEC, Euratom) No 1182/71 counts them.

The day of the event is not counted (Art. 3(1)). A period in months ends on the day of the same number,
or on the last of a shorter month (3(2)(c)). An act due on a Saturday, Sunday or public holiday may be
done on the next working day (3(4)); that helps neither a period counted backwards (3(4)) nor one for
which something is valid (Art. 4). Two days or more hold at least two working days (3(5)).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from ihds.governance.holidays import Calendar

Unit = Literal["days", "weeks", "months", "years", "working days"]


@dataclass(frozen=True, slots=True)
class Period:
    """So many units."""

    count: int
    unit: Unit

    def __str__(self) -> str:
        """Return the words."""
        return f"{self.count} {self.unit.removesuffix('s') if self.count == 1 else self.unit}"

    def plus(self, more: Period) -> Period:
        """Return a period extended by another of the same unit."""
        assert self.unit == more.unit, "an extension is written in the unit of what it extends"
        return Period(self.count + more.count, self.unit)


def wait_months(start: Any, months: int) -> Any:
    """Return the instant some months later, at the same time of day; short months end early."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    last = (start.replace(year=year + (month == 11), month=(month + 1) % 12 + 1, day=1) - timedelta(days=1)).day
    return start.replace(year=year, month=month + 1, day=min(start.day, last))


def ends(event: date, period: Period) -> date:
    """Return the last day of a period as it stands, on a working day or not; a negative count looks back."""
    match period.unit:
        case "months":
            return date.fromisoformat(wait_months(event, period.count).isoformat())
        case "years":
            return ends(event, Period(12 * period.count, "months"))
        case "weeks":
            return event + timedelta(weeks=period.count)
        case _:
            return event + timedelta(days=period.count)


def last_day(event: date, period: Period, calendar: Calendar) -> date:
    """Return the last day on which an act is in time."""
    if period.unit == "working days":
        return _working_day(event, period.count, calendar)
    last = ends(event, period)
    while not calendar.is_working_day(last):
        last += timedelta(days=1)
    return last if (last - event).days < 2 else max(last, _working_day(event, 2, calendar))


def _working_day(event: date, number: int, calendar: Calendar) -> date:
    """Return the working day of that number after an event."""
    day = event
    while number:
        day += timedelta(days=1)
        number -= calendar.is_working_day(day)
    return day
