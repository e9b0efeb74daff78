from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.errors import Invalid
from models.domain.recurrence import Rule, end, exact, occurrences, read_rule, skipped

BERLIN = ZoneInfo("Europe/Berlin")
clock = datetime.fromisoformat  # what one on a wall reads
NOW = datetime(2026, 11, 25, 16, tzinfo=UTC)  # a Wednesday
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")


def following(text: str, count: int = 4, zone: ZoneInfo = BERLIN, after: datetime = NOW) -> list[str]:
    moments = islice(occurrences(read_rule(text), zone, after), count)
    return [f"{moment.astimezone(zone):%a %Y-%m-%d %H:%M}" for moment in moments]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("FREQ=DAILY;BYHOUR=9", ["Thu 2026-11-26 09:00", "Fri 2026-11-27 09:00", "Sat 2026-11-28 09:00"]),
        ("RRULE:freq=daily;byhour=9,17;byminute=30", ["Wed 2026-11-25 17:30", "Thu 2026-11-26 09:30", "Thu 2026-11-26 17:30"]),
        ("FREQ=DAILY;BYDAY=MO,TU,WE,TH,FR;BYHOUR=9", ["Thu 2026-11-26 09:00", "Fri 2026-11-27 09:00", "Mon 2026-11-30 09:00"]),
        ("FREQ=WEEKLY;BYDAY=TU;BYHOUR=9", ["Tue 2026-12-01 09:00", "Tue 2026-12-08 09:00", "Tue 2026-12-15 09:00"]),
        ("FREQ=MONTHLY;BYMONTHDAY=31;BYHOUR=9", ["Thu 2026-12-31 09:00", "Sun 2027-01-31 09:00", "Wed 2027-03-31 09:00"]),
        ("FREQ=MONTHLY;BYMONTHDAY=-1;BYHOUR=9", ["Mon 2026-11-30 09:00", "Thu 2026-12-31 09:00", "Sun 2027-01-31 09:00"]),
        ("FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9", ["Mon 2026-12-07 09:00", "Mon 2027-01-04 09:00", "Mon 2027-02-01 09:00"]),
        ("FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9", ["Fri 2026-11-27 09:00", "Fri 2026-12-25 09:00", "Fri 2027-01-29 09:00"]),
        ("FREQ=MONTHLY;BYDAY=5MO;BYHOUR=9", ["Mon 2026-11-30 09:00", "Mon 2027-03-29 09:00", "Mon 2027-05-31 09:00"]),
        ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13;BYHOUR=9", ["Fri 2027-08-13 09:00", "Fri 2028-10-13 09:00", "Fri 2029-04-13 09:00"]),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYHOUR=9", ["Tue 2028-02-29 09:00", "Sun 2032-02-29 09:00", "Fri 2036-02-29 09:00"]),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=-1;BYHOUR=9", ["Sun 2027-02-28 09:00", "Tue 2028-02-29 09:00", "Wed 2029-02-28 09:00"]),
        ("FREQ=YEARLY;BYMONTH=11;BYDAY=4TH;BYHOUR=9", ["Thu 2026-11-26 09:00", "Thu 2027-11-25 09:00", "Thu 2028-11-23 09:00"]),
        ("FREQ=DAILY;BYHOUR=9;UNTIL=20261126", ["Thu 2026-11-26 09:00"]),
        ("FREQ=DAILY;BYHOUR=9;UNTIL=20261127T080000Z", ["Thu 2026-11-26 09:00", "Fri 2026-11-27 09:00"]),
        ("FREQ=DAILY;BYHOUR=9;UNTIL=20261127T075959Z", ["Thu 2026-11-26 09:00"]),
    ],
)
def test_a_rule_means_what_rfc_5545_says(rule: str, expected: list[str]) -> None:
    assert following(rule, 3) == expected


@pytest.mark.parametrize(
    ("rule", "problems"),
    [
        ("FREQ=HOURLY;BYHOUR=9", ["rule.FREQ unsupported"]),
        ("BYHOUR=9", ["rule.FREQ required"]),
        ("FREQ=DAILY", ["rule.BYHOUR required"]),
        ("FREQ=WEEKLY;BYHOUR=9", ["rule.BYDAY required"]),
        ("FREQ=WEEKLY;BYDAY=1MO;BYHOUR=9", ["rule.BYDAY unsupported"]),
        ("FREQ=WEEKLY;BYDAY=MO;BYMONTHDAY=1;BYHOUR=9", ["rule.BYMONTHDAY unsupported"]),
        ("FREQ=WEEKLY;INTERVAL=0;BYDAY=MO;BYHOUR=9", ["rule.INTERVAL out_of_range"]),
        ("FREQ=WEEKLY;INTERVAL=53;BYDAY=MO;BYHOUR=9", ["rule.INTERVAL out_of_range"]),
        ("FREQ=DAILY;INTERVAL=two;BYHOUR=9", ["rule.INTERVAL out_of_range"]),
        ("FREQ=MONTHLY;BYHOUR=9", ["rule.BYMONTHDAY required"]),
        ("FREQ=YEARLY;BYMONTHDAY=1;BYHOUR=9", ["rule.BYMONTH required"]),
        ("FREQ=DAILY;BYHOUR=24", ["rule.BYHOUR out_of_range"]),
        ("FREQ=DAILY;BYHOUR=9;BYMINUTE=-1", ["rule.BYMINUTE out_of_range"]),
        ("FREQ=MONTHLY;BYMONTHDAY=0;BYHOUR=9", ["rule.BYMONTHDAY out_of_range"]),
        ("FREQ=MONTHLY;BYDAY=6MO;BYHOUR=9", ["rule.BYDAY malformed"]),
        ("FREQ=DAILY;BYHOUR=9;UNTIL=20261301", ["rule.UNTIL malformed"]),
        ("FREQ=DAILY;BYHOUR=9;UNTIL=20261201T090000", ["rule.UNTIL malformed"]),
        ("FREQ=DAILY;BYHOUR=9;COUNT=0", ["rule.COUNT out_of_range"]),
        ("FREQ=DAILY;BYHOUR=9;COUNT=2;UNTIL=20261201", ["rule.COUNT one_of"]),
        ("FREQ=DAILY;BYHOUR=9;BYSETPOS=1", ["rule.BYSETPOS unsupported_part"]),
        ("FREQ=DAILY;BYHOUR=9;BYHOUR=10", ["rule.BYHOUR repeated"]),
        ("FREQ=DAILY;BYHOUR=9;", ["rule malformed"]),
        ("every day at nine", ["rule malformed", "rule.FREQ required", "rule.BYHOUR required"]),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30;BYHOUR=9", ["rule never"]),
        ("FREQ=DAILY;BYHOUR=9,10;BYMINUTE=0,5,10,15,20,25,30,35,40,45,50,55,59", ["rule.BYMINUTE too_often"]),
    ],
)
def test_what_cannot_be_kept_exactly_is_refused_with_its_part(rule: str, problems: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        read_rule(rule)
    assert [f"{problem.path} {problem.code}" for problem in refused.value.problems] == problems


def test_a_time_that_daylight_saving_skips_does_not_occur_and_one_that_it_repeats_occurs_once() -> None:
    spring = following("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", 2, after=datetime(2027, 3, 27, 2, tzinfo=UTC))
    assert spring == ["Mon 2027-03-29 02:30", "Tue 2027-03-30 02:30"]
    autumn = list(islice(occurrences(read_rule("FREQ=DAILY;BYHOUR=2;BYMINUTE=30"), BERLIN, datetime(2026, 10, 24, 12, tzinfo=UTC)), 2))
    assert autumn == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC)]


def test_the_skipped_times_are_known_beforehand() -> None:
    rule = read_rule("FREQ=WEEKLY;BYDAY=SU;BYHOUR=2,9;BYMINUTE=30")
    assert list(skipped(rule, BERLIN, NOW, 732)) == [clock("2027-03-28 02:30"), clock("2028-03-26 02:30")]
    assert not list(skipped(read_rule("FREQ=WEEKLY;BYDAY=MO;BYHOUR=2;BYMINUTE=30"), BERLIN, NOW, 732))
    assert not list(skipped(rule, ZoneInfo("Asia/Kolkata"), NOW, 732))


@pytest.mark.parametrize(
    ("rule", "last"),
    [
        ("FREQ=DAILY;BYHOUR=9", None),
        ("FREQ=DAILY;BYHOUR=9;COUNT=1", datetime(2026, 11, 26, 8, tzinfo=UTC)),
        ("FREQ=DAILY;BYHOUR=9,17;COUNT=3", datetime(2026, 11, 27, 8, tzinfo=UTC)),
        ("FREQ=DAILY;BYHOUR=9;UNTIL=20270701", datetime(2027, 7, 1, 21, 59, 59, tzinfo=UTC)),
        ("FREQ=DAILY;BYHOUR=9;UNTIL=20270701T070000Z", datetime(2027, 7, 1, 7, tzinfo=UTC)),
    ],
)
def test_a_rule_ends_with_its_last_moment(rule: str, last: datetime | None) -> None:
    assert end(read_rule(rule), BERLIN, NOW) == last


def test_the_end_of_the_longest_count_is_found() -> None:
    assert end(read_rule("FREQ=DAILY;BYHOUR=9;COUNT=1000"), BERLIN, NOW) == exact(clock("2026-11-25 09:00") + timedelta(days=1000), BERLIN)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Of every shape that can be read."""
    ordinals = st.one_of(st.none(), st.integers(1, 5), st.integers(-5, -1))
    days = st.integers(-31, 31).filter(bool)
    found = Rule(
        months=tuple(sorted(draw(st.sets(st.integers(1, 12), min_size=1)))),
        month_days=tuple(sorted(draw(st.sets(days, max_size=4)))),
        weekdays=tuple(draw(st.sets(st.tuples(ordinals, st.integers(0, 6)), max_size=3))),
        hours=tuple(sorted(draw(st.sets(st.integers(0, 23), min_size=1, max_size=2)))),
        minutes=tuple(sorted(draw(st.sets(st.sampled_from([0, 15, 30, 59]), min_size=1, max_size=2)))),
    )
    return found


def fits(rule: Rule, day: date) -> bool:
    """What the rule says about a day, read without calendars."""
    from_end = (day.replace(day=28) + timedelta(days=4)).replace(day=1) - day
    back = -from_end.days
    nth, nth_from_end = (day.day - 1) // 7 + 1, -((-back - 1) // 7 + 1)
    return (
        day.month in rule.months
        and (not rule.month_days or day.day in rule.month_days or back in rule.month_days)
        and (not rule.weekdays or any(weekday == day.weekday() and n in (None, nth, nth_from_end) for n, weekday in rule.weekdays))
    )


@settings(max_examples=150, deadline=None)
@given(rules(), st.sampled_from(ZONES), st.dates(date(2026, 1, 1), date(2040, 1, 1)))
def test_the_calendars_hold_just_the_days_of_the_rule(rule: Rule, zone: str, first: date) -> None:
    calendars = rule.calendars()
    for day in (first + timedelta(days=number) for number in range(400)):
        assert any(calendar.has(day) for calendar in calendars) == fits(rule, day), day


@settings(max_examples=100, deadline=None)
@given(rules(), st.sampled_from(ZONES), st.datetimes(clock("2024-01-01 00:00"), clock("2036-01-01 00:00")))
def test_occurrences_are_in_order_never_twice_and_at_the_wall_times_of_the_rule(rule: Rule, zone: str, after: datetime) -> None:
    place, since = ZoneInfo(zone), after.replace(tzinfo=UTC)
    found = list(islice(occurrences(rule, place, since), 12))
    assert found == sorted(set(found)) and all(moment > since for moment in found)
    for moment in found:
        wall = moment.astimezone(place)
        assert fits(rule, wall.date()) and time(wall.hour, wall.minute) in rule.times() and wall.fold == 0
    walls = [moment.astimezone(place).replace(tzinfo=None) for moment in found]
    assert len(set(walls)) == len(walls)


# --- Every other day, week, month or year --------------------------------------------------------------------------------


@st.composite
def intervals(draw: st.DrawFn) -> tuple[Rule, date]:
    """A rule of every frequency, and the day from which its interval counts."""
    frequency = draw(st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    weekdays = draw(st.sets(st.integers(0, 6), min_size=frequency == "WEEKLY", max_size=3))
    nth = frequency in ("MONTHLY", "YEARLY") and draw(st.booleans())  # dateutil takes MO,1TU for Mondays that are first Tuesdays
    ordinals = st.one_of(st.integers(1, 4), st.just(-1)) if nth else st.none()
    rule = Rule(
        months=tuple(sorted(draw(st.sets(st.integers(1, 12), min_size=10)))),
        month_days=() if weekdays else tuple(sorted(draw(st.sets(st.sampled_from([*range(1, 29), -1, -3]), min_size=10)))),
        weekdays=tuple((draw(ordinals), weekday) for weekday in sorted(weekdays)),
        hours=(9,),
        minutes=(0,),
        frequency=frequency,
        interval=draw(st.integers(1, 4)),
        anchor=draw(st.dates(date(2026, 1, 1), date(2030, 12, 31))),
    )
    assert rule.anchor is not None
    return rule, rule.anchor


FREQUENCIES = {"DAILY": rrule.DAILY, "WEEKLY": rrule.WEEKLY, "MONTHLY": rrule.MONTHLY, "YEARLY": rrule.YEARLY}


@settings(max_examples=150, deadline=None)
@given(intervals(), st.integers(0, 500))
def test_an_interval_counts_as_dateutil_counts_it(drawn: tuple[Rule, date], later: int) -> None:
    rule, anchor = drawn
    start = datetime.combine(anchor, time())
    reference = rrule.rrule(
        FREQUENCIES[rule.frequency],
        dtstart=start,
        interval=rule.interval,
        bymonth=rule.months,
        bymonthday=rule.month_days or None,
        byweekday=[rrule.weekday(weekday, ordinal) for ordinal, weekday in rule.weekdays] or None,
        byhour=9,
        byminute=0,
        bysecond=0,
    )
    after = start + timedelta(days=later)
    found = islice(occurrences(rule, ZoneInfo("UTC"), after.replace(tzinfo=UTC)), 12)
    assert [each.replace(tzinfo=None) for each in found] == list(islice(reference.xafter(after), 12))


def test_an_interval_goes_by_the_zones_calendar_over_a_change_of_its_clock() -> None:
    rule = replace(read_rule("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR;BYHOUR=9"), anchor=date(2027, 3, 17))  # a Wednesday
    moments = islice(occurrences(rule, BERLIN, clock("2027-03-17T00:00").replace(tzinfo=BERLIN)), 4)
    assert [f"{moment:%a %m-%d %H:%M}" for moment in moments] == [
        "Fri 03-19 08:00",
        "Mon 03-29 07:00",
        "Fri 04-02 07:00",
        "Mon 04-12 07:00",
    ]
