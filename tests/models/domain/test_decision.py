from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import uuid4

import pytest

from models.domain.decision import EXPLANATIONS, ConsentFacts, ConsentLine, HourFacts, Outcome, Reason, decide_consent, decide_hours
from models.domain.quiet_hours import QuietHours, choose_zone

GRANTED = ConsentLine(uuid4(), "granted", datetime(2026, 1, 1, tzinfo=UTC))
WITHDRAWN = ConsentLine(uuid4(), "withdrawn", datetime(2026, 1, 2, tzinfo=UTC))
NIGHT = QuietHours(time(21), time(8))
AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
AT_NIGHT = datetime(2026, 1, 15, 22, tzinfo=UTC)


def facts(**changes: Any) -> ConsentFacts:
    usual: dict[str, Any] = {
        "channel": "email",
        "purpose": "marketing",
        "topic_id": uuid4(),
        "organization_status": "active",
        "contact_exists": True,
        "has_address": True,
        "topic_exists": True,
        "consent": GRANTED,
    }
    return ConsentFacts(**{**usual, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"consent": None}, Reason.NO_CONSENT),
        ({"consent": WITHDRAWN}, Reason.CONSENT_WITHDRAWN),
        ({"suppression_id": uuid4()}, Reason.SUPPRESSED),
        ({"has_address": False}, Reason.NO_ADDRESS),
        ({"contact_exists": False, "has_address": False}, Reason.CONTACT_GONE),
        ({"topic_exists": False, "topic_id": None}, Reason.NO_TOPIC),
        ({"topic_archived": True}, Reason.TOPIC_ARCHIVED),
        ({"purpose": "transactional", "consent": None, "topic_id": None, "topic_exists": False}, None),
        ({"purpose": "transactional", "consent": WITHDRAWN}, None),
        ({"purpose": "transactional", "topic_archived": True}, None),
        ({"purpose": "transactional", "suppression_id": uuid4()}, Reason.SUPPRESSED),
    ],
)
def test_a_message_leaves_only_where_nothing_speaks_against_it(changes: dict[str, Any], reason: Reason | None) -> None:
    decision = decide_consent(facts(**changes), AT)
    assert decision.reason == reason
    assert decision.outcome == (Outcome.SEND if reason is None else Outcome.REFUSE)


@pytest.mark.parametrize(("asked", "minutes"), [(0, 1), (1, 2), (4, 16), (5, 32), (7, 120), (1_000, 120)])
def test_a_suspended_organizations_messages_wait_whatever_speaks_against_them(asked: int, minutes: int) -> None:
    for changes in ({}, {"purpose": "transactional"}, {"consent": WITHDRAWN}):
        decision = decide_consent(facts(organization_status="suspended", **changes), AT, asked)
        assert (decision.outcome, decision.reason) == (Outcome.HOLD, Reason.ORGANIZATION_SUSPENDED)
        assert decision.hold_until == AT + timedelta(minutes=minutes)


def test_the_inputs_name_the_ledger_line_that_decided() -> None:
    assert decide_consent(facts(consent=WITHDRAWN), AT).inputs["consent"] == {
        "id": str(WITHDRAWN.id),
        "status": "withdrawn",
        "occurred_at": "2026-01-02T00:00:00+00:00",
    }


def test_every_reason_is_explained_in_a_sentence() -> None:
    assert set(EXPLANATIONS) == set(Reason)
    assert all(sentence.endswith(".") for sentence in EXPLANATIONS.values())


def hours(purpose: Any = "marketing", window: QuietHours | None = NIGHT, channel: str = "email") -> HourFacts:
    return HourFacts(channel, purpose, window, choose_zone("nowhere", "UTC"))


def test_marketing_waits_for_the_morning_and_says_whose_zone_decided() -> None:
    decision = decide_hours(hours(), AT_NIGHT)
    assert (decision.outcome, decision.reason) == (Outcome.HOLD, Reason.QUIET_HOURS)
    assert decision.hold_until == datetime(2026, 1, 16, 8, tzinfo=UTC)
    assert decision.inputs["zone_of"] == "organization"
    assert decision.inputs["contact_zone"] == "invalid"


def test_transactional_mail_does_not_wait_but_transactional_sms_does() -> None:
    assert decide_hours(hours("transactional"), AT_NIGHT).outcome == Outcome.SEND
    assert decide_hours(hours("transactional", channel="sms"), AT_NIGHT).outcome == Outcome.HOLD


def test_a_permitted_hour_says_when_it_ends() -> None:
    at_noon = datetime(2026, 1, 15, 12, tzinfo=UTC)
    assert decide_hours(hours(), at_noon).allowed_until == datetime(2026, 1, 15, 21, tzinfo=UTC)
    assert decide_hours(hours("transactional"), at_noon).allowed_until is None


def test_no_window_means_no_quiet_hours() -> None:
    assert decide_hours(hours(window=None), AT_NIGHT).outcome == Outcome.SEND


def test_a_window_that_never_ends_refuses() -> None:
    assert decide_hours(hours(window=QuietHours(time(9), time(9))), AT_NIGHT).reason == Reason.ALWAYS_QUIET
