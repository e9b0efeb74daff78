from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.errors import Invalid
from models.domain.quiet_hours import NeverAllowed, QuietHours, allowed_until, choose_zone, next_allowed, read_window

ZONES = sorted(available_timezones() - {"localtime", "Factory", "posixrules"})
NIGHT = QuietHours(time(21), time(8))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "window", "zone", "expected"),
    [
        ("2026-01-15 12:00", NIGHT, "UTC", "2026-01-15 12:00"),
        ("2026-01-15 21:00", NIGHT, "UTC", "2026-01-16 08:00"),
        ("2026-01-15 20:59:59.999999", NIGHT, "UTC", "2026-01-15 20:59:59.999999"),
        ("2026-01-16 07:59:59", NIGHT, "UTC", "2026-01-16 08:00"),
        ("2026-01-16 08:00", NIGHT, "UTC", "2026-01-16 08:00"),
        ("2026-01-15 13:00", QuietHours(time(12), time(14)), "UTC", "2026-01-15 14:00"),
        ("2026-01-16 03:00", NIGHT, "America/New_York", "2026-01-16 13:00"),  # 22:00 there
        ("2026-01-16 03:00", NIGHT, "Asia/Kathmandu", "2026-01-16 03:00"),  # 08:45 there
        # The night in which New York's clock jumps from 02:00 to 03:00 is an hour shorter.
        ("2026-03-08 03:00", NIGHT, "America/New_York", "2026-03-08 12:00"),
        # The night in which it goes back is an hour longer.
        ("2026-11-01 02:00", NIGHT, "America/New_York", "2026-11-01 13:00"),
        # The end falls into the skipped hour: quiet ends at the jump.
        ("2026-03-08 06:00", QuietHours(time(0), time(2, 30)), "America/New_York", "2026-03-08 07:00"),
        # The end is read twice: 01:30 comes at 05:30 UTC; the second 01:00-01:30 is quiet again.
        ("2026-11-01 05:00", QuietHours(time(0), time(1, 30)), "America/New_York", "2026-11-01 05:30"),
        ("2026-11-01 06:10", QuietHours(time(0), time(1, 30)), "America/New_York", "2026-11-01 06:30"),
        # The clock goes back from within the window to before its start.
        ("2026-11-01 05:45", QuietHours(time(1, 30), time(8)), "America/New_York", "2026-11-01 06:00"),
        # Samoa skipped 30 December 2011.
        ("2011-12-30 08:00", NIGHT, "Pacific/Apia", "2011-12-30 18:00"),
    ],
)
def test_waits_for_the_end_of_the_window(at: str, window: QuietHours, zone: str, expected: str) -> None:
    assert next_allowed(utc(at), window, ZoneInfo(zone)) == utc(expected)


@given(
    at=st.integers(0, 37 * 365 * 86400).map(lambda seconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)),
    start=st.times(),
    end=st.times(),
    zone=st.sampled_from(ZONES),
)
@settings(max_examples=800, deadline=None)
def test_the_result_is_allowed_and_nothing_earlier_is(at: datetime, start: time, end: time, zone: str) -> None:
    window = QuietHours(start.replace(second=0, microsecond=0), end.replace(second=0, microsecond=0))
    if window.start == window.end:
        return
    there = ZoneInfo(zone)
    allowed = next_allowed(at, window, there)
    assert allowed >= at
    assert allowed.utcoffset() == timedelta(0)
    assert not window.covers(allowed.astimezone(there).time())
    earlier = at
    while earlier < allowed:  # every five minutes in between is quiet
        assert window.covers(earlier.astimezone(there).time())
        earlier += timedelta(minutes=5)
    if allowed > at:
        assert window.covers((allowed - timedelta(seconds=1)).astimezone(there).time()) or allowed - at < timedelta(seconds=1)


@pytest.mark.parametrize("zone", ZONES)
def test_every_zone_waits_until_its_own_morning(zone: str) -> None:
    for day in ("2026-03-08", "2026-03-29", "2026-07-01", "2026-10-25", "2026-11-01"):
        for hour in range(0, 24, 3):
            at = utc(f"{day} {hour:02}:00")
            allowed = next_allowed(at, NIGHT, ZoneInfo(zone))
            there = allowed.astimezone(ZoneInfo(zone))
            assert allowed == at or there.time() == time(8)
            assert allowed - at < timedelta(hours=13)


def test_a_window_over_the_whole_day_never_ends() -> None:
    with pytest.raises(NeverAllowed):
        next_allowed(utc("2026-01-15 12:00"), QuietHours(time(9), time(9)), ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("contact", "organization", "expected"),
    [
        ("Asia/Tokyo", "Europe/Berlin", ("Asia/Tokyo", "contact", "given")),
        (None, "Europe/Berlin", ("Europe/Berlin", "organization", "missing")),
        ("Mars/Olympus", "Europe/Berlin", ("Europe/Berlin", "organization", "invalid")),
        ("America", "Europe/Berlin", ("Europe/Berlin", "organization", "invalid")),
        ("../../etc/passwd", "Europe/Berlin", ("Europe/Berlin", "organization", "invalid")),
        ("", "nowhere", ("UTC", "utc", "missing")),
    ],
)
def test_the_zone_is_the_contacts_where_it_is_valid(contact: str | None, organization: str, expected: tuple[str, str, str]) -> None:
    chosen = choose_zone(contact, organization)
    assert (chosen.zone.key, chosen.used, chosen.contact_zone) == expected


def test_a_window_is_read_by_channel() -> None:
    assert read_window({"email": {"start": "21:00", "end": "08:00"}}, "email") == NIGHT
    assert read_window({"email": {"start": "21:00", "end": "08:00"}}, "sms") is None
    with pytest.raises(Invalid, match=r"quiet_hours\.email\.end"):
        read_window({"email": {"start": "21:00", "end": "late"}}, "email")


@pytest.mark.parametrize(
    ("at", "zone", "expected"),
    [
        ("2026-01-15 12:00", "UTC", "2026-01-15 21:00"),
        ("2026-01-15 08:00", "UTC", "2026-01-15 21:00"),
        ("2026-03-08 12:00", "America/New_York", "2026-03-09 01:00"),
    ],
)
def test_the_permitted_hours_end_where_the_window_starts(at: str, zone: str, expected: str) -> None:
    assert allowed_until(utc(at), NIGHT, ZoneInfo(zone)) == utc(expected)
