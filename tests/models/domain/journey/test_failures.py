from uuid import UUID, uuid4

import pytest

from models.domain.journey.failures import ADVICE, MEANINGS, FailureClass, classify, failure, provider_code
from tests.models.domain.journey.test_reasons import CODES

JOURNEY = UUID(int=1)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("missing_value:contact.first_name", "data"),
        ("mailbox_unknown", "data"),
        ("policy_refused", "content"),
        ("rendering_failed:html", "content"),
        ("gave_up:connect_421", "provider_outage"),
        ("gave_up:webhook_answered_500", "other_system"),
        ("webhook_answered_404", "other_system"),
        ("blocked_destination", "configuration"),
        ("secret_unreadable", "configuration"),
        ("step_failed:NotFound", "configuration"),
        ("step_failed:KeyError", "programming"),
        ("gave_up:provider_raised:ValueError", "programming"),
        ("provider_raised:ValueError", "uncertain_outcome"),
        ("answer_421", "uncertain_outcome"),
        ("attempt_lost", "uncertain_outcome"),
        ("workflow_lost", "workflow_lost"),
        ("never_heard_of", "other"),
    ],
)
def test_a_reason_has_one_class(reason: str, expected: str) -> None:
    assert classify(reason) == expected


def test_every_class_says_what_it_means_and_what_to_do() -> None:
    assert set(MEANINGS) == set(ADVICE) == set(FailureClass)


# How a run can park: by what a message's or a step's outcome is called. The others hold, refuse or end it.
PARKING = [code for code in CODES if code.partition(":")[0] in ("gave_up", "missing_value", "rendering_failed", "step_failed")] + [
    *("unknown", "attempt_lost", "connection_lost_after_data", "content_permanent", "policy_refused", "content_refused", "too_large"),
    *("malformed", "header_line_break", "body_empty", "no_template", "unsupported_channel", "webhook_answered_299", "malformed_request"),
]


@pytest.mark.parametrize("code", PARKING)
def test_no_code_that_parks_a_run_is_of_the_class_other(code: str) -> None:
    assert classify(code) is not FailureClass.OTHER


def test_the_same_cause_has_the_same_fingerprint_and_another_has_another() -> None:
    mine = failure(JOURNEY, "welcome", "gave_up:connect_421")
    assert mine == failure(JOURNEY, "welcome", "gave_up:connect_421")
    assert len(mine.fingerprint) == 32 and mine.provider_code == "421"
    others = [
        failure(uuid4(), "welcome", "gave_up:connect_421"),
        failure(JOURNEY, "reminder", "gave_up:connect_421"),
        failure(JOURNEY, "welcome", "gave_up:connect_450"),
        failure(JOURNEY, "welcome", None),
    ]
    assert len({mine.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(("reason", "code"), [("webhook_answered_503", "503"), ("gave_up:body_451", "451"), ("policy_refused", None)])
def test_the_providers_code_is_read_off_the_reason(reason: str, code: str | None) -> None:
    assert provider_code(reason) == code
