"""Clocks: holidays as published, periods as Regulation 1182/71 counts them, and no approval by silence."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihds.cli import main
from ihds.errors import BadInput
from ihds.governance.calendar import Period, ends, last_day, wait_months
from ihds.governance.deadlines import DEADLINES, OPEN, Entry, Expiry, Kind, Mark, Standing, deadlines, due, last_of
from ihds.governance.holidays import CALENDARS, LUNAR, easter
from ihds.governance.rule import Certainty

LU, EU, KR = CALENDARS["LU"], CALENDARS["EU"], CALENDARS["KR"]
CLOCKS = deadlines()


def day(text: str) -> date:
    return date.fromisoformat(text)


# -- holidays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("year", "sunday"),
    [(1961, "04-02"), (2000, "04-23"), (2024, "03-31"), (2026, "04-05"), (2027, "03-28"), (2038, "04-25")],
)
def test_easter_falls_where_the_almanacs_say(year, sunday):
    assert easter(year) == day(f"{year}-{sunday}")


def test_luxembourg_has_eleven_holidays_as_published():
    assert [f"{d:%m-%d}" for d in sorted(LU.of_year(2026))] == [
        "01-01",
        "04-06",
        "05-01",
        "05-09",
        "05-14",
        "05-25",
        "06-23",
        "08-15",
        "11-01",
        "12-25",
        "12-26",
    ]
    assert day("2018-05-09") not in LU.of_year(2018)


def test_the_institutions_close_around_easter_and_at_the_end_of_the_year():
    found = EU.of_year(2026)
    assert {day("2026-04-02"), day("2026-04-03"), day("2026-05-15"), day("2026-07-21")} <= set(found)
    assert [d for d in found if d.month == 12] == [date(2026, 12, n) for n in range(24, 32)]


@pytest.mark.parametrize(
    ("year", "substitutes"),
    [
        (2025, ["03-03", "05-06", "10-08"]),
        (2026, ["03-02", "05-25", "08-17", "10-05"]),
        (2027, ["02-09", "07-19", "08-16", "10-04", "10-11", "12-27"]),
        (2028, ["10-05"]),
        (2029, ["05-07", "05-21", "09-24"]),
    ],
)
def test_korea_makes_up_for_holidays_as_published(year, substitutes):
    found = KR.of_year(year)
    assert [f"{d:%m-%d}" for d, name in sorted(found.items()) if name.startswith("substitute")] == substitutes
    assert all(d.weekday() < 5 for d, name in found.items() if name.startswith("substitute"))


@pytest.mark.parametrize("year", LUNAR)
def test_the_korean_feasts_fall_on_the_first_and_the_middle_of_a_moon(year):
    seollal, _, chuseok = (day(f"{year}-{text}") for text in LUNAR[year])
    months = ((chuseok - timedelta(days=14)) - seollal).days / 29.530588
    assert abs(months - round(months)) < 0.05
    assert round(months) in (7, 8)  # eight where a month was leapt


def test_a_year_whose_lunar_days_are_unknown_is_refused_not_guessed():
    with pytest.raises(BadInput, match="2060"):
        KR.is_working_day(date(2060, 1, 5))


def test_the_day_is_that_of_the_place():
    instant = datetime(2026, 3, 31, 22, 30, tzinfo=UTC)
    assert (LU.day_of(instant), KR.day_of(instant)) == (day("2026-04-01"), day("2026-04-01"))
    assert LU.day_of(datetime(2026, 1, 31, 22, 30, tzinfo=UTC)) == day("2026-01-31")


# -- periods ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "period", "last"),
    [
        ("2029-11-30", Period(3, "months"), "2030-02-28"),  # a shorter month ends early
        ("2027-11-30", Period(3, "months"), "2028-02-29"),  # the leap day is its last
        ("2028-02-29", Period(1, "years"), "2029-02-28"),
        ("2028-02-29", Period(48, "months"), "2032-03-01"),  # 29 February 2032 is a Sunday
        ("2029-04-03", Period(3, "months"), "2029-07-03"),
        ("2026-09-25", Period(3, "months"), "2026-12-28"),  # Christmas, St Stephen, Sunday
        ("2026-03-23", Period(3, "months"), "2026-06-24"),  # the National Day
        ("2026-03-06", Period(4, "weeks"), "2026-04-03"),  # Good Friday is no holiday in Luxembourg
        ("2026-12-24", Period(2, "days"), "2026-12-29"),  # two working days are within
        ("2026-12-23", Period(1, "days"), "2026-12-24"),
        ("2026-12-22", Period(3, "working days"), "2026-12-28"),
        ("2026-12-22", Period(2, "working days"), "2026-12-24"),
        ("2026-05-08", Period(30, "working days"), "2026-06-24"),
    ],
)
def test_a_period_ends_as_the_regulation_says(event, period, last):
    assert last_day(day(event), period, LU) == day(last)


def test_the_same_period_ends_elsewhere_on_another_day():
    event, period = day("2026-03-06"), Period(4, "weeks")
    assert last_day(event, period, EU) == day("2026-04-07")  # the institutions are closed from Maundy Thursday
    assert last_day(day("2026-11-17"), Period(3, "months"), KR) == day("2027-02-17")
    assert last_day(day("2026-11-06"), Period(3, "months"), KR) == day("2027-02-10")  # Seollal and its substitute


EVENTS = st.dates(date(2025, 1, 1), date(2035, 6, 30))
PERIODS = st.one_of(
    st.builds(Period, st.integers(1, 120), st.just("days")),
    st.builds(Period, st.integers(1, 20), st.just("weeks")),
    st.builds(Period, st.integers(1, 6), st.just("months")),
    st.builds(Period, st.integers(1, 60), st.just("working days")),
)
PLACES = st.sampled_from([LU, EU, KR])


@given(event=EVENTS, period=PERIODS, place=PLACES)
def test_the_last_day_is_a_working_day_never_before_the_period_and_soon_after(event, period, place):
    last = last_day(event, period, place)
    assert place.is_working_day(last)
    assert last > event
    if period.unit != "working days":
        assert ends(event, period) <= last <= ends(event, period) + timedelta(days=14)
        if period != Period(1, "days"):
            within = [event + timedelta(days=n) for n in range(1, (last - event).days + 1)]
            assert sum(place.is_working_day(d) for d in within) >= 2


@given(event=EVENTS, count=st.integers(1, 60), place=PLACES)
def test_working_days_are_counted_one_by_one(event, count, place):
    last = last_day(event, Period(count, "working days"), place)
    within = [event + timedelta(days=n) for n in range(1, (last - event).days + 1)]
    assert sum(place.is_working_day(d) for d in within) == count


@given(event=EVENTS, months=st.integers(-60, 60))
def test_months_keep_the_number_of_the_day_or_end_with_the_month(event, months):
    last = ends(event, Period(months, "months"))
    assert (last.year * 12 + last.month) - (event.year * 12 + event.month) == months
    assert last.day == event.day or (last.day < event.day and (last + timedelta(days=1)).day == 1)
    assert wait_months(event, months) == last


@given(first=EVENTS, later=st.integers(0, 90), period=PERIODS, place=PLACES)
def test_who_starts_later_ends_no_earlier(first, later, period, place):
    assert last_day(first, period, place) <= last_day(first + timedelta(days=later), period, place)


# -- clocks -----------------------------------------------------------------------------------------


def test_every_clock_has_an_article_a_certainty_and_an_end_that_grants_nothing():
    assert len(CLOCKS) == len(DEADLINES)
    for clock in DEADLINES:
        assert clock.article.startswith("EHDS ")
        assert isinstance(clock.certainty, Certainty)
        assert clock.period.count > 0
        assert clock.extension is None or clock.extension.unit == clock.period.unit
        assert clock.on_expiry in Expiry
    assert not [e for e in Expiry if "grant" in e and "nothing is granted" not in e]
    assert not [e for e in Expiry if "approv" in e]


@pytest.mark.parametrize(
    ("clock", "start", "last", "extended"),
    [
        ("H4", "2029-04-03", "2029-07-03", "2029-10-03"),
        ("H5", "2028-02-29", "2029-02-28", None),
        ("Q3", "2029-04-03", "2029-07-03", None),
        ("Q3-ANSWER", "2029-04-03", "2029-07-03", None),
        ("D4", "2029-11-30", "2030-02-28", "2030-05-31"),  # 30 May 2030 is Ascension
        ("D4-COMPLETE", "2029-04-03", "2029-05-02", None),  # four weeks later is 1 May
        ("D5", "2029-04-03", "2029-06-04", "2029-07-03"),  # 3 June is a Sunday
        ("D6-HOLDER", "2029-04-03", "2029-06-04", None),
        ("D6-DECIDE", "2029-04-03", "2029-06-04", None),
        ("D11", "2029-03-31", "2039-03-31", "2049-03-31"),  # validity waits for no working day
        ("D11-EXTEND", "2039-03-31", "2039-02-28", None),  # counted back: the last day of the month
        ("D11-DELETE", "2039-03-31", "2039-09-30", None),
        ("S1", "2029-04-03", "2029-06-04", None),
        ("S4", "2029-06-23", "2030-06-23", None),  # kept through a holiday
        ("U1", "2029-04-03", "2030-10-03", None),
        ("P2", "2029-04-27", "2029-06-14", None),  # four holidays are not counted
        ("P6", "2031-03-31", "2031-09-30", None),
        ("F3", "2029-04-03", "2029-05-03", None),
        ("EN1", "2029-04-03", "2029-05-02", None),
        ("EN2", "2029-02-24", "2034-02-24", None),
    ],
)
def test_each_clock_ends_on_its_day(clock, start, last, extended):
    assert last_of(CLOCKS[clock], day(start), LU) == day(last)
    if extended:
        assert last_of(CLOCKS[clock], day(start), LU, extended=True) == day(extended)
    else:
        assert CLOCKS[clock].extension in (None, OPEN)


def test_a_clock_is_read_as_of_any_day():
    clock = CLOCKS["D4"]
    history = [
        Entry(day("2029-04-03"), Mark.START),
        Entry(day("2029-05-02"), Mark.PAUSE),
        Entry(day("2029-05-21"), Mark.RESUME),
        Entry(day("2029-08-01"), Mark.EXTEND, "two opinions are awaited"),
        Entry(day("2029-11-30"), Mark.DONE),
    ]

    def at(on):
        found = due(clock, history, LU, day(on))
        return found.standing, found.last, found.days_left

    assert at("2029-04-02") == (Standing.NOT_STARTED, None, None)
    assert at("2029-04-03") == (Standing.RUNNING, day("2029-07-03"), 91)
    assert at("2029-05-02") == (Standing.PAUSED, None, None)
    assert at("2029-05-21") == (Standing.RUNNING, day("2029-08-21"), 92)
    assert at("2029-08-01") == (Standing.RUNNING, day("2029-11-21"), 112)
    late = due(clock, history, LU, day("2029-11-22"))
    assert (late.standing, late.consequence) == (Standing.RUN_OUT, Expiry.DELAY)
    assert at("2029-12-31") == (Standing.LATE, day("2029-11-21"), None)


@pytest.mark.parametrize(
    ("clock", "entries", "word"),
    [
        ("D4", [("2029-04-03", Mark.DONE)], "does not fit"),
        ("D4", [("2029-04-03", Mark.START), ("2029-04-04", Mark.START)], "does not fit"),
        ("D4", [("2029-04-03", Mark.START), ("2029-04-04", Mark.RESUME)], "does not fit"),
        ("D4", [("2029-04-03", Mark.START), ("2029-07-04", Mark.EXTEND, "late")], "before it was extended"),
        ("D4", [("2029-04-03", Mark.START), ("2029-07-03", Mark.EXTEND, "")], "needs its reason"),
        ("D4", [("2029-04-03", Mark.START), *[("2029-05-03", Mark.EXTEND, "why")] * 2], "does not fit"),
        ("D4", [("2029-04-03", Mark.START), ("2029-05-03", Mark.EXTEND, "why", day("2031-01-01"))], "by law"),
        ("Q3", [("2029-04-03", Mark.START), ("2029-05-03", Mark.EXTEND, "why")], "cannot be extended"),
        ("H4", [("2029-04-03", Mark.START), ("2029-05-03", Mark.PAUSE)], "does not fit"),
        ("U1", [("2029-04-03", Mark.START), ("2029-05-03", Mark.EXTEND, "why")], "needs its last day"),
        ("U1", [("2029-04-03", Mark.START), ("2029-05-03", Mark.EXTEND, "why", day("2030-01-01"))], "no later"),
    ],
)
def test_a_history_that_cannot_be_is_refused(clock, entries, word):
    with pytest.raises(BadInput, match=word):
        due(CLOCKS[clock], [Entry(day(on), *rest) for on, *rest in entries], LU, day("2029-12-31"))


def test_an_extension_without_a_number_in_law_gets_its_day_from_the_access_body():
    history = [
        Entry(day("2029-04-03"), Mark.START),
        Entry(day("2030-10-01"), Mark.EXTEND, "a journal's review", day("2031-03-01")),
    ]
    assert due(CLOCKS["U1"], history, LU, day("2031-02-01")).last == day("2031-03-01")


def test_what_is_counted_back_is_known_before_its_event():
    history = [Entry(day("2029-04-03"), Mark.START, about=day("2039-03-31"))]
    assert due(CLOCKS["D11-EXTEND"], history, LU, day("2039-02-28")).standing is Standing.RUNNING
    too_late = due(CLOCKS["D11-EXTEND"], history, LU, day("2039-03-01"))
    assert (too_late.standing, too_late.consequence) == (Standing.RUN_OUT, Expiry.TOO_LATE)


def test_a_log_deleted_before_its_year_is_over_was_not_kept():
    history = [Entry(day("2029-04-03"), Mark.START), Entry(day("2030-04-03"), Mark.DONE)]
    assert due(CLOCKS["S4"], history, LU, day("2031-01-01")).standing is Standing.LATE
    history[1] = Entry(day("2030-04-04"), Mark.DONE)
    assert due(CLOCKS["S4"], history, LU, day("2031-01-01")).standing is Standing.IN_TIME


@given(
    clock=st.sampled_from([d for d in DEADLINES if d.kind is Kind.ACT]),
    start=st.dates(date(2029, 3, 26), date(2033, 1, 1)),
    waits=st.integers(0, 900),
)
def test_silence_grants_nothing_however_long(clock, start, waits):
    found = due(clock, [Entry(start, Mark.START)], LU, start + timedelta(days=waits))
    assert found.standing in (Standing.RUNNING, Standing.RUN_OUT)
    assert (found.consequence is None) == (found.standing is Standing.RUNNING)
    assert (found.days_left >= 0) == (found.standing is Standing.RUNNING)


def test_a_clock_is_asked_at_the_command_line(capsys):
    call = ["policy", "clock", "D4", "--start", "2029-11-30", "--place", "LU"]
    assert main([*call, "--on", "2030-03-01", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["last_day"], answer["last_day_extended"]) == ("2030-02-28", "2030-05-31")
    assert (answer["standing"], answer["on_expiry"]) == ("run out", "nothing is granted; the delay is reported")
    assert main(["policy", "clock", "D11-EXTEND", "--start", "2039-03-31", "--on", "2029-04-03"]) == 0
    assert "2039-02-28\nrunning" in capsys.readouterr().out
    assert main(["policy", "clock", "EN1", "--start", "2041-06-01", "--place", "KR", "--on", "2029-04-03"]) == 10
    assert "2041 are not known" in capsys.readouterr().err
