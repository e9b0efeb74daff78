from datetime import UTC, datetime

import pytest

from models.domain.segment_values import EARLIEST, LATEST, parse_moment, resolve_moment, shift

AT = datetime(2024, 2, 29, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("duration", "before", "after"),
    [
        ("P1D", "2024-02-28T23:30", "2024-03-01T23:30"),
        ("P1W", "2024-02-22T23:30", "2024-03-07T23:30"),
        ("P1M", "2024-01-29T23:30", "2024-03-29T23:30"),
        ("P1Y", "2023-02-28T23:30", "2025-02-28T23:30"),
        ("P14M", "2022-12-29T23:30", "2025-04-29T23:30"),
        ("P1DT1H30M15S", "2024-02-28T21:59:45", "2024-03-02T01:00:15"),
    ],
)
def test_durations_follow_the_calendar(duration: str, before: str, after: str) -> None:
    expected = (datetime.fromisoformat(before).replace(tzinfo=UTC), datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert (shift(AT, duration, -1), shift(AT, duration, 1)) == expected


def test_beyond_the_calendar_is_its_end() -> None:
    assert (shift(AT, "P9999Y", -1), shift(AT, "P9999Y", 1)) == (EARLIEST, LATEST)


@pytest.mark.parametrize(
    "text", ["2026-02-30", "2026-1-1", "2026-01-01T10:00:00", "2026-01-01T24:00:00Z", "2026-01-01 10:00Z", "٢٠٢٦-01-01", ""]
)
def test_what_is_no_moment(text: str) -> None:
    assert parse_moment(text) is None


def test_a_moment_is_absolute_or_counted_from_now() -> None:
    assert resolve_moment("2026-05-01", AT) == datetime(2026, 5, 1, tzinfo=UTC)
    assert resolve_moment("2026-05-01T01:30:00+02:00", AT) == datetime(2026, 4, 30, 23, 30, tzinfo=UTC)
    assert resolve_moment({"ago": "PT30M"}, AT) == datetime(2024, 2, 29, 23, tzinfo=UTC)
    assert resolve_moment({"ahead": "PT30M"}, AT) == datetime(2024, 3, 1, tzinfo=UTC)
