"""Where a wait for a date ends, for whatever date a contact may carry."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.journey.happening import moment
from models.domain.journey.run import Phase, RunState
from models.domain.journey.steps.base import Answer, Rest
from models.domain.journey.steps.wait import WEEKDAYS, UntilDate, UntilTime, WaitStep
from models.domain.segment_memory import Subject, holds, turns
from models.domain.segment_values import EARLIEST, LATEST, at_zone, moved, parse_moment
from models.domain.wait_time import Place, date_moment, next_local_time, plan
from models.tables.base import new_id

NOW = datetime(2026, 11, 25, 16, tzinfo=UTC)
ZONES = sorted(available_timezones() - {"localtime", "Factory", "posixrules"})
ENDS = ["0001-01-01", "0001-01-02", "9999-12-30", "9999-12-31", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
ENDS += ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "0000-01-01", "0000-12-31T00:00:00Z"]

_offsets_of_zones = st.integers(-14 * 60 + 1, 14 * 60 - 1).map(
    lambda minutes: f"{'+-'[minutes < 0]}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
)
_values = st.one_of(
    st.sampled_from(ENDS),
    st.dates().map(date.isoformat),
    st.builds(lambda at, zone: at.isoformat() + zone, st.datetimes(), _offsets_of_zones),
)
_moments = st.one_of(st.sampled_from([EARLIEST, LATEST]), st.datetimes(timezones=st.just(UTC)))
_offsets = st.one_of(st.just(timedelta(0)), st.timedeltas(timedelta(days=-366), timedelta(days=366)), st.timedeltas())
_times = st.none() | st.times().map(lambda at: f"{at:%H:%M}")
_zones = st.sampled_from(ZONES).map(ZoneInfo)


def waiting(value: str, offset: timedelta = timedelta(0), at: str | None = None, zone: str = "UTC") -> str | None:
    """Why the run does not wait; None: it does."""
    found = plan(WaitStep(date=UntilDate(field="attributes.due", offset=offset, time=at)), Place(zone, "UTC"), value, NOW)
    assert (found.until is None) != (found.reason is None)
    return found.reason


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("value", ["0001-01-01", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"])
@pytest.mark.parametrize("at", [None, "10:00"])
@pytest.mark.parametrize("days", [-366, -7, 0, 1])
def test_the_empty_date_of_other_systems_has_passed(value: str, zone: str, at: str | None, days: int) -> None:
    assert waiting(value, timedelta(days=days), at, zone) == "date_passed"


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("value", ["9999-12-31", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize("at", [None, "10:00"])
@pytest.mark.parametrize("days", [-1, 0, 1, 366])
def test_what_lies_beyond_the_calendar_is_as_far_ahead_as_can_be(value: str, zone: str, at: str | None, days: int) -> None:
    assert waiting(value, timedelta(days=days), at, zone) is None


@given(value=_values, offset=_offsets, at=_times, zone=_zones)
def test_no_date_that_a_contact_carries_raises(value: str, offset: timedelta, at: str | None, zone: ZoneInfo) -> None:
    wanted = UntilDate(field="attributes.due", offset=offset, time=at)
    found = date_moment(wanted, value, zone)
    parsed = parse_moment(value)
    assert (found is None) == (parsed is None)
    if found is None or parsed is None:
        return
    assert EARLIEST <= found <= LATEST
    assert abs(found - moved(parsed, offset)) <= timedelta(days=2)  # another clock, another time of day: never another end


@given(at=_moments, by=_offsets, zone=_zones)
def test_a_moment_that_is_moved_or_read_elsewhere_stays_in_the_calendar(at: datetime, by: timedelta, zone: ZoneInfo) -> None:
    assert EARLIEST <= moved(at, by) <= LATEST
    assert abs(at_zone(at, zone).replace(tzinfo=UTC) - at) <= timedelta(days=1)
    assert moment(at, zone.key)


@given(now=st.integers(600_000_000, 7_000_000_000).map(lambda at: datetime.fromtimestamp(at, UTC)), at=st.times(), zone=_zones)
def test_the_next_local_time_is_found_everywhere(now: datetime, at: time, zone: ZoneInfo) -> None:
    found = next_local_time(now, UntilTime(time=f"{at:%H:%M}", weekdays=WEEKDAYS[:1]), zone)
    assert now < found <= now + timedelta(days=15)


@given(
    value=_values, operator=st.sampled_from(["within_last", "within_next", "before", "after"]), duration=st.sampled_from(["P1D", "P9999Y"])
)
def test_no_rule_about_such_a_date_raises(value: str, operator: str, duration: str) -> None:
    bound = duration if operator.startswith("within") else {"ago": duration}
    rule = {"field": "attributes.due", "is": operator, "value": bound}
    subject = Subject(fields={}, attributes={"due": value})
    assert holds(rule, subject, NOW) in (True, False)
    assert all(EARLIEST <= turn <= LATEST for turn in turns(rule, subject))


def test_a_spread_ends_with_the_calendar() -> None:
    step = WaitStep(date=UntilDate(field="attributes.due"), spread=timedelta(days=7))
    state = RunState(run_id=new_id(), contact_id=new_id(), step_id="due", phase=Phase.ACTIVE)
    outcome = step.answered(state, Answer(until=LATEST), NOW)
    assert isinstance(outcome, Rest) and outcome.until == LATEST
