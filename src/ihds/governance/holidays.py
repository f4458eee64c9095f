"""Public holidays, computed: the EU institutions, Luxembourg, Korea.

Public holidays are those of the Member State or institution in which the act is to be done
(Regulation 1182/71, Art. 2(1)). Days a government sets from year to year, such as elections, are known
here only where the table names them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from ihds.errors import BadInput
from ihds.governance.rule import Certainty

Holidays = Mapping[date, str]


@dataclass(frozen=True, slots=True)
class Calendar:
    """Where holidays apply, whose clock says what day it is, and where the list is from."""

    name: str
    zone: str
    of_year: Callable[[int], Holidays]
    source: str
    certainty: Certainty

    def is_working_day(self, day: date) -> bool:
        """Return whether a day is neither Saturday, Sunday nor public holiday."""
        return day.weekday() < 5 and day not in self.of_year(day.year)

    def day_of(self, instant: datetime) -> date:
        """Return the day it is there at an instant."""
        return instant.astimezone(ZoneInfo(self.zone)).date()


def easter(year: int) -> date:
    """Return Easter Sunday (anonymous Gregorian computus; Meeus 1991, ch. 8)."""
    a, (b, c) = year % 19, divmod(year, 100)
    (d, e), g = divmod(b, 4), (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    r = (32 + 2 * e + 2 * i - h - k) % 7
    m = (a + 11 * h + 22 * r) // 451
    month, day = divmod(h + r - 7 * m + 114, 31)
    return date(year, month, day + 1)


@functools.cache
def luxembourg(year: int) -> Holidays:
    """Return the eleven legal holidays; 9 May since 2019."""
    sunday = easter(year)
    found = {
        date(year, 1, 1): "New Year",
        sunday + timedelta(days=1): "Easter Monday",
        date(year, 5, 1): "Labour Day",
        sunday + timedelta(days=39): "Ascension",
        sunday + timedelta(days=50): "Pentecost Monday",
        date(year, 6, 23): "National Day",
        date(year, 8, 15): "Assumption",
        date(year, 11, 1): "All Saints",
        date(year, 12, 25): "Christmas",
        date(year, 12, 26): "St Stephen",
    }
    return found | ({date(year, 5, 9): "Europe Day"} if year >= 2019 else {})


@functools.cache
def eu_institutions(year: int) -> Holidays:
    """Return the days the Commission is closed in Brussels, as its yearly list has them."""
    sunday = easter(year)
    found = {
        date(year, 1, 1): "New Year",
        date(year, 1, 2): "day after New Year",
        sunday - timedelta(days=3): "Maundy Thursday",
        sunday - timedelta(days=2): "Good Friday",
        sunday + timedelta(days=1): "Easter Monday",
        date(year, 5, 1): "Labour Day",
        date(year, 5, 9): "Schuman Declaration",
        sunday + timedelta(days=39): "Ascension",
        sunday + timedelta(days=40): "day after Ascension",
        sunday + timedelta(days=50): "Pentecost Monday",
        date(year, 7, 21): "Belgian National Day",
        date(year, 8, 15): "Assumption",
        date(year, 11, 1): "All Saints",
        date(year, 11, 2): "All Souls",
    }
    return found | {date(year, 12, day): "end of year" for day in range(24, 32)}


#: Seollal, Buddha's Birthday and Chuseok by the Korean lunisolar calendar, which in 2027 and 2028 starts its
#: year a day after the Chinese one. Each day was compared with the new moon at Korean time (Meeus 1991, ch. 47).
#: Workers' Day (1 May) is no day off of public offices and stands in no table here.
LUNAR: dict[int, tuple[str, str, str]] = {
    2025: ("01-29", "05-05", "10-06"),
    2026: ("02-17", "05-24", "09-25"),
    2027: ("02-07", "05-13", "09-15"),
    2028: ("01-27", "05-02", "10-03"),
    2029: ("02-13", "05-20", "09-22"),
    2030: ("02-03", "05-09", "09-12"),
    2031: ("01-23", "05-28", "10-01"),
    2032: ("02-11", "05-16", "09-19"),
    2033: ("01-31", "05-06", "09-08"),
    2034: ("02-19", "05-25", "09-27"),
    2035: ("02-08", "05-15", "09-16"),
    2036: ("01-28", "05-03", "10-04"),
}

#: Set by decree or by an election, year by year; later ones are not known yet.
ONCE: dict[date, str] = {
    date(2025, 1, 27): "temporary holiday",
    date(2025, 6, 3): "presidential election",
    date(2026, 6, 3): "local elections",
}


@functools.cache
def korea(year: int) -> Holidays:
    """Return the public holidays with their substitutes.

    National days, Children's Day, Buddha's Birthday and Christmas are made up for when they fall on a
    Saturday, a Sunday or another holiday; the days of Seollal and Chuseok on a Sunday or another holiday.

    Raises:
        BadInput: the lunar days of that year are not in the table.

    """
    if year not in LUNAR:
        raise BadInput(
            f"the Korean holidays of {year} are not known",
            remedy=f"the table LUNAR in ihds/governance/holidays.py holds {min(LUNAR)} to {max(LUNAR)}",
        )
    seollal, buddha, chuseok = (date.fromisoformat(f"{year}-{day}") for day in LUNAR[year])
    single = [
        (date(year, 3, 1), "Independence Movement Day"),
        (date(year, 5, 5), "Children's Day"),
        (buddha, "Buddha's Birthday"),
        (date(year, 8, 15), "Liberation Day"),
        (date(year, 10, 3), "National Foundation Day"),
        (date(year, 10, 9), "Hangeul Day"),
        (date(year, 12, 25), "Christmas"),
    ]
    single += [(date(year, 7, 17), "Constitution Day")] if year >= 2026 else []
    feasts = [
        (day + timedelta(days=n), name)
        for day, name in ((seollal, "Seollal"), (chuseok, "Chuseok"))
        for n in (-1, 0, 1)
    ]
    plain = [(date(year, 1, 1), "New Year"), (date(year, 6, 6), "Memorial Day")]
    plain += [(day, name) for day, name in ONCE.items() if day.year == year]
    found = dict([*plain, *feasts, *single])
    twice = {day for day, _ in single} & {day for day, _ in feasts} | {buddha} & {date(year, 5, 5)}
    missed = {day for day, _ in single if day.weekday() >= 5} | {day for day, _ in feasts if day.weekday() == 6} | twice
    for day in sorted(missed):
        instead = day
        while instead.weekday() >= 5 or instead in found:
            instead += timedelta(days=1)
        found[instead] = f"substitute for {found[day]}"
    return found


CALENDARS: dict[str, Calendar] = {
    "LU": Calendar("Luxembourg", "Europe/Luxembourg", luxembourg, "Labour Code, Art. L. 232-2", Certainty.SECONDARY),
    "EU": Calendar(
        "EU institutions", "Europe/Brussels", eu_institutions, "the Commission's yearly list", Certainty.SECONDARY
    ),
    "KR": Calendar("Korea", "Asia/Seoul", korea, "Public Holidays Act and its decree", Certainty.SECONDARY),
}
