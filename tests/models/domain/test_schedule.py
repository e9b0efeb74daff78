from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.errors import Invalid
from models.domain.schedule import (
    EASTERNMOST,
    OFFSETS_APART,
    AtLocalTime,
    AtOnce,
    Once,
    Recurring,
    Timing,
    common_start,
    local_instant,
    local_over,
    local_starts,
    looks,
    parse_timing,
    read_timing,
    require_ahead,
    spread_delay,
    stored,
    warnings,
)

clock = datetime.fromisoformat  # what one on a wall reads
NOW = datetime(2026, 11, 25, 16, tzinfo=UTC)
# Four-and-twenty, around the world, with half and quarter hours, daylight saving north and south, and both sides of the date line.
ZONES = {
    "Pacific/Kiritimati": "2027-02-28 19:00",
    "Pacific/Apia": "2027-02-28 20:00",
    "Pacific/Chatham": "2027-02-28 19:15",
    "Pacific/Auckland": "2027-02-28 20:00",
    "Pacific/Fiji": "2027-02-28 21:00",
    "Australia/Lord_Howe": "2027-02-28 22:00",
    "Australia/Sydney": "2027-02-28 22:00",
    "Australia/Adelaide": "2027-02-28 22:30",
    "Asia/Tokyo": "2027-03-01 00:00",
    "Australia/Eucla": "2027-03-01 00:15",
    "Asia/Shanghai": "2027-03-01 01:00",
    "Asia/Kathmandu": "2027-03-01 03:15",
    "Asia/Kolkata": "2027-03-01 03:30",
    "Asia/Dubai": "2027-03-01 05:00",
    "Asia/Tehran": "2027-03-01 05:30",
    "Europe/Berlin": "2027-03-01 08:00",
    "Europe/London": "2027-03-01 09:00",
    "Atlantic/Azores": "2027-03-01 10:00",
    "America/Sao_Paulo": "2027-03-01 12:00",
    "America/St_Johns": "2027-03-01 12:30",
    "America/New_York": "2027-03-01 14:00",
    "America/Los_Angeles": "2027-03-01 17:00",
    "Pacific/Marquesas": "2027-03-01 18:30",
    "Pacific/Niue": "2027-03-01 20:00",
}


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("zone", ZONES)
def test_nine_in_the_morning_comes_zone_by_zone(zone: str) -> None:
    assert local_instant(clock("2027-03-01 09:00"), ZoneInfo(zone)) == instant(ZONES[zone])


@pytest.mark.parametrize(
    ("zone", "wall", "expected"),
    [
        ("Europe/Berlin", "2027-03-28 01:59", "2027-03-28 00:59"),
        ("Europe/Berlin", "2027-03-28 02:00", "2027-03-28 01:00"),  # skipped: the first minute after is 03:00
        ("Europe/Berlin", "2027-03-28 02:59", "2027-03-28 01:00"),
        ("Europe/Berlin", "2027-03-28 03:00", "2027-03-28 01:00"),
        ("Europe/Berlin", "2026-10-25 02:30", "2026-10-25 00:30"),  # repeated: the first time
        ("America/New_York", "2027-03-14 02:30", "2027-03-14 07:00"),
        ("America/New_York", "2026-11-01 01:30", "2026-11-01 05:30"),
        ("Australia/Lord_Howe", "2026-10-04 02:15", "2026-10-03 15:30"),  # half an hour
        ("Australia/Lord_Howe", "2027-04-04 01:45", "2027-04-03 14:45"),
        ("Africa/Cairo", "2027-04-30 00:30", "2027-04-29 22:00"),  # midnight itself is skipped
        ("Pacific/Apia", "2011-12-30 09:00", "2011-12-30 10:00"),  # a whole day was skipped at the date line
    ],
)
def test_a_skipped_time_is_the_first_minute_after_and_a_repeated_one_the_first_of_the_two(zone: str, wall: str, expected: str) -> None:
    assert local_instant(datetime.fromisoformat(wall), ZoneInfo(zone)) == instant(expected)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*ZONES, "Africa/Cairo", "America/Santiago"]), st.datetimes(clock("2024-01-01 00:00"), clock("2036-01-01 00:00")))
def test_no_clock_has_read_the_time_before_and_it_reads_it_or_has_jumped_over_it(zone: str, wall: datetime) -> None:
    wall, place = wall.replace(second=0, microsecond=0), ZoneInfo(zone)
    found = local_instant(wall, place)
    reads = found.astimezone(place).replace(tzinfo=None)
    before = (found - timedelta(seconds=1)).astimezone(place).replace(tzinfo=None)
    assert before < wall <= reads
    if reads != wall:
        assert place.utcoffset(found.astimezone(place)) != place.utcoffset((found - timedelta(seconds=1)).astimezone(place))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(ZONES)), st.datetimes(clock("2024-01-01 00:00"), clock("2036-01-01 00:00")))
def test_a_look_falls_on_every_zones_instant(zone: str, wall: datetime) -> None:
    wall = wall.replace(second=0, microsecond=0)
    local = AtLocalTime(at=wall)
    at = local_instant(wall, ZoneInfo(zone))
    if at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == wall:
        assert looks(local, at - timedelta(microseconds=1)) == at
    assert looks(local, wall.replace(tzinfo=UTC) - timedelta(days=30)) == wall.replace(tzinfo=UTC) - EASTERNMOST
    assert timedelta(0) < looks(local, at) - at <= OFFSETS_APART
    assert not local_over(local, at - timedelta(minutes=1))


def local(**fields: Any) -> AtLocalTime:
    return AtLocalTime.model_validate({"at": "2027-03-01T09:00", **fields})


@pytest.mark.parametrize(
    ("default_zone", "timezone", "used", "zone_of", "contact_zone"),
    [
        (None, "Asia/Tokyo", "Asia/Tokyo", "contact", "given"),
        (None, "", "Europe/Berlin", "organization", "missing"),
        (None, "Mars/Olympus", "Europe/Berlin", "organization", "invalid"),
        ("America/New_York", "", "America/New_York", "default", "missing"),
        ("America/New_York", "Mars/Olympus", "America/New_York", "default", "invalid"),
        ("America/New_York", "Asia/Tokyo", "Asia/Tokyo", "contact", "given"),
    ],
)
def test_whoever_has_no_valid_zone_has_the_default_or_the_organizations(
    default_zone: str | None, timezone: str, used: str, zone_of: str, contact_zone: str
) -> None:
    [start] = local_starts(local(default_zone=default_zone), [timezone], "Europe/Berlin", NOW, NOW).values()
    assert (start.zone, start.zone_of, start.contact_zone) == (used, zone_of, contact_zone)
    assert start.at == local_instant(clock("2027-03-01 09:00"), ZoneInfo(used))


def test_an_organization_without_a_valid_zone_has_utc() -> None:
    [start] = local_starts(local(), [None], "nowhere", NOW, NOW).values()
    assert (start.timezone, start.zone, start.zone_of) == ("", "UTC", "utc")


@pytest.mark.parametrize(("late", "passed"), [("send", False), ("skip", True)])
def test_whose_time_has_passed_at_the_start_is_sent_at_once_or_left_out(late: str, passed: bool) -> None:
    now = instant("2027-03-01 06:00")
    starts = local_starts(local(late=late), ["Asia/Tokyo", "Europe/Berlin"], "UTC", now, NOW)
    assert (starts["Asia/Tokyo"].passed, starts["Asia/Tokyo"].late, starts["Asia/Tokyo"].at) == (passed, not passed, now)
    assert (starts["Europe/Berlin"].passed, starts["Europe/Berlin"].late) == (False, False)


def test_a_start_at_the_very_moment_is_not_late() -> None:
    now = instant("2027-03-01 08:00")
    [start] = local_starts(local(late="skip"), ["Europe/Berlin"], "UTC", now, NOW).values()
    assert not start.passed and not start.late


@pytest.mark.parametrize(
    ("launched", "starts", "passed"),
    [
        ("2027-02-01 00:00", "2027-03-01 08:00:01", False),  # a workflow wakes a little after the moment
        ("2027-02-01 00:00", "2027-03-01 09:00", False),
        ("2027-02-01 00:00", "2027-03-01 09:00:01", True),  # nobody was there to start it for more than an hour
        ("2027-03-01 08:00", "2027-03-01 08:00:01", False),
        ("2027-03-01 08:00:01", "2027-03-01 08:00:02", True),  # it was launched too late for them
    ],
)
def test_whose_time_came_between_launch_and_start_is_left_out_only_when_more_than_an_hour_late(
    launched: str, starts: str, passed: bool
) -> None:
    now = instant(starts)
    [start] = local_starts(local(late="skip"), ["Europe/Berlin"], "UTC", now, instant(launched)).values()
    assert start.passed is passed and (passed or start.at == now)


def test_a_common_start_is_later_or_at_once() -> None:
    at, hour = NOW + timedelta(days=1), timedelta(hours=1)
    assert common_start(Timing(), NOW) is None
    assert common_start(Timing(spread=hour), NOW) == NOW
    assert common_start(Timing(schedule=Once(at=at)), NOW) == at
    assert common_start(Timing(schedule=Once(at=at)), at + hour) == at + hour
    assert common_start(Timing(schedule=Once(at=at), spread=hour), at + hour) == at + hour  # a worker that was away does not catch up


def test_a_spread_is_even_and_the_same_again() -> None:
    campaign, contacts, hour = uuid4(), [uuid4() for _ in range(6000)], timedelta(hours=1)
    delays = [spread_delay(campaign, contact, hour) for contact in contacts]
    assert delays == [spread_delay(campaign, contact, hour) for contact in contacts]
    assert all(timedelta(0) <= delay < hour and not delay.microseconds for delay in delays)
    tenths = [sum(timedelta(minutes=6 * n) <= delay < timedelta(minutes=6 * (n + 1)) for delay in delays) for n in range(10)]
    assert all(450 < count < 750 for count in tenths)  # 600, and more than six standard deviations
    assert spread_delay(campaign, contacts[0], None) == timedelta(0)


@pytest.mark.parametrize(
    "timing",
    [
        Timing(),
        Timing(spread=timedelta(hours=2)),
        Timing(schedule=Once(at=NOW)),
        Timing(schedule=local(late="skip", default_zone="Asia/Tokyo"), spread=timedelta(minutes=1)),
        Timing(schedule=Recurring(rule="FREQ=DAILY;BYHOUR=9", zone="UTC", begins_at=NOW)),
    ],
)
def test_what_is_stored_reads_the_same(timing: Timing) -> None:
    assert read_timing(stored(timing)) == timing
    assert (stored(timing) is None) == (timing == Timing())


RULE = {"kind": "recurring", "rule": "FREQ=DAILY;BYHOUR=9", "zone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("schedule", "paths"),
    [
        ({"kind": "sometime"}, ["schedule.kind"]),
        ({}, ["schedule.kind"]),
        ({"kind": "now", "at": "2027-01-01T09:00Z"}, ["schedule.at"]),
        ({"kind": "once"}, ["schedule.at"]),
        ({"kind": "once", "at": "2027-01-01T09:00"}, ["schedule.at"]),
        ({"kind": "once", "at": "0001-01-01T00:00Z"}, ["schedule.at"]),
        ({"kind": "local", "at": "2027-01-01T09:00Z"}, ["schedule.at"]),
        ({"kind": "local", "at": "9999-12-31T23:59"}, ["schedule.at"]),
        *(
            ({"kind": "local", "at": "2027-01-01T09:00", "default_zone": zone}, ["schedule.default_zone"])
            for zone in ("Mars", "localtime", "Factory", "posixrules")
        ),
        ({"kind": "local", "at": "2027-01-01T09:00", "late": "never"}, ["schedule.late"]),
        ({**RULE, "zone": "America"}, ["schedule.zone"]),
        ({**RULE, "rule": "FREQ=DAILY;INTERVAL=2;BYHOUR=9"}, ["schedule.begins_at"]),
        ({**RULE, "rule": "FREQ=DAILY;INTERVAL=0;BYHOUR=9"}, ["schedule.rule.INTERVAL"]),
        ({**RULE, "rule": "FREQ=DAILY", "zone": ""}, ["schedule.zone", "schedule.rule.BYHOUR"]),
        ({**RULE, "rule": "x" * 501}, ["schedule.rule"]),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_path(schedule: dict[str, Any], paths: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        parse_timing(schedule, None)
    assert [problem.path for problem in refused.value.problems] == paths


def test_a_field_that_is_missing_is_told_as_everywhere() -> None:
    with pytest.raises(Invalid) as refused:
        parse_timing({"kind": "once"}, None)
    assert [problem.message for problem in refused.value.problems] == ["This field is required."]


@pytest.mark.parametrize("spread", [timedelta(0), timedelta(seconds=-1), timedelta(days=8)])
def test_a_spread_has_its_limits(spread: timedelta) -> None:
    with pytest.raises(Invalid, match="spread"):
        parse_timing(None, spread)


def test_no_schedule_is_now() -> None:
    assert parse_timing(None, None) == Timing(schedule=AtOnce())


@pytest.mark.parametrize(
    ("schedule", "path"),
    [
        ({"kind": "once", "at": "2026-11-25T16:00Z"}, "schedule.at"),
        ({"kind": "once", "at": "2029-11-25T16:00Z"}, "schedule.at"),
        ({"kind": "local", "at": "2026-11-25T04:00"}, "schedule.at"),  # 04:00 at Baker Island is 16:00 UTC
        ({**RULE, "rule": "FREQ=DAILY;BYHOUR=9;UNTIL=20261125"}, "schedule.rule"),
        ({**RULE, "begins_at": "2029-01-01T00:00Z"}, "schedule.rule"),
    ],
)
def test_what_has_passed_or_is_too_far_ahead_is_refused(schedule: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as refused:
        require_ahead(parse_timing(schedule, None), NOW)
    assert [problem.path for problem in refused.value.problems] == [path]


@pytest.mark.parametrize(
    "schedule", [None, {"kind": "once", "at": "2026-11-25T16:00:01Z"}, {"kind": "local", "at": "2026-11-25T04:01"}, RULE]
)
def test_what_is_ahead_is_taken(schedule: dict[str, Any] | None) -> None:
    require_ahead(parse_timing(schedule, None), NOW)


def test_a_recurring_schedule_counts_from_its_launch_or_its_beginning() -> None:
    rule = Recurring(rule="FREQ=DAILY;BYHOUR=9;COUNT=2", zone="UTC")
    assert list(rule.next_after(NOW, NOW)) == [instant("2026-11-26 09:00"), instant("2026-11-27 09:00")]
    assert list(rule.next_after(instant("2026-11-26 09:00"), NOW)) == [instant("2026-11-27 09:00")]
    later = rule.model_copy(update={"begins_at": instant("2027-01-01 09:00")})
    assert list(later.next_after(NOW, NOW)) == [instant("2027-01-01 09:00"), instant("2027-01-02 09:00")]


def test_an_interval_counts_from_the_day_on_which_the_schedule_begins() -> None:
    rule = {**RULE, "rule": "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;BYHOUR=9;COUNT=3", "begins_at": "2026-12-06T23:30:00Z"}  # Monday in Berlin
    schedule = parse_timing(rule, None).schedule
    assert isinstance(schedule, Recurring)
    mondays = [instant(f"{day} 08:00") for day in ("2026-12-07", "2026-12-21", "2027-01-04")]
    assert list(schedule.next_after(NOW, NOW)) == mondays and schedule.ends_at(NOW) == mondays[-1]
    assert [schedule.on(date(2026, 12, day), NOW) for day in (7, 14, 21)] == [mondays[:1], [], mondays[1:2]]


def own_clocks(**values: Any) -> Recurring:
    return Recurring.model_validate({"rule": "FREQ=DAILY;BYHOUR=0,9", "zone": "recipient", **values})


def test_an_occurrence_by_each_recipients_clock_is_a_campaign_by_local_time() -> None:
    schedule = own_clocks(default_zone="Asia/Tokyo")
    moments = schedule.on(date(2027, 3, 2), NOW)
    assert moments == [instant("2027-03-01 10:00"), instant("2027-03-01 19:00")]  # in Kiritimati
    dawn = instant("2027-03-01 10:00")
    assert schedule.dawn_offset(NOW) == 14 and schedule.day_of(dawn, NOW) == date(2027, 3, 2)
    expected = [AtLocalTime(at=clock(f"2027-03-02 {hour}"), default_zone="Asia/Tokyo", late="skip") for hour in ("00:00", "09:00")]
    assert [schedule.occurrence(moment) for moment in moments] == expected
    berlin = Recurring(rule="FREQ=DAILY;BYHOUR=9", zone="Europe/Berlin")
    assert berlin.occurrence(dawn) == Once(at=dawn)
    assert (berlin.missed_after, schedule.missed_after) == (timedelta(hours=1), timedelta(hours=27))
    assert warnings(Timing(schedule=schedule), NOW) == []


def test_a_zone_for_those_without_one_needs_clocks_of_recipients() -> None:
    given = {"kind": "recurring", "rule": "FREQ=DAILY;BYHOUR=9", "default_zone": "Asia/Tokyo"}
    assert parse_timing({**given, "zone": "recipient"}, None).schedule == own_clocks(rule="FREQ=DAILY;BYHOUR=9", default_zone="Asia/Tokyo")
    for wrong, path, code in [
        ({"zone": "Europe/Berlin"}, "schedule.default_zone", "not_applicable"),
        ({"zone": "recipient", "default_zone": "Mars"}, "schedule.default_zone", "unknown_zone"),
        ({"zone": "recipients"}, "schedule.zone", "unknown_zone"),
    ]:
        with pytest.raises(Invalid) as caught:
            parse_timing({**given, **wrong}, None)
        assert (caught.value.problems[0].path, caught.value.problems[0].code) in [(path, code)]


def test_a_time_that_daylight_saving_skips_is_warned_of() -> None:
    night = {**RULE, "rule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30"}
    [warning] = warnings(parse_timing(night, None), NOW)
    assert (warning.path, warning.code) == ("schedule.rule", "skipped_hour") and "2027-03-28 02:30" in warning.message
    assert warnings(parse_timing({**night, "zone": "Asia/Tokyo"}, None), NOW) == warnings(parse_timing(RULE, None), NOW) == []


def test_a_local_time_that_has_passed_somewhere_is_warned_of() -> None:
    [warning] = warnings(Timing(schedule=AtLocalTime(at=clock("2026-11-26 06:00"))), NOW)  # 06:00 at Kiritimati is 16:00 UTC the day before
    assert warning.code == "passed_somewhere"
    assert warnings(Timing(schedule=AtLocalTime(at=clock("2026-11-26 06:01"))), NOW) == []
