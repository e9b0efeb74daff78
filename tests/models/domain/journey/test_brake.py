import pytest
from pydantic import ValidationError

from models.domain.journey.brake import Brake, braking_words, counted


@pytest.mark.parametrize(
    ("attempted", "failed", "acts"),
    [(19, 19, False), (20, 7, True), (20, 6, False), (100, 35, True), (100, 34, False), (20, 0, False)],
)
def test_it_acts_at_its_share_of_enough_messages(attempted: int, failed: int, acts: bool) -> None:
    assert Brake().acts(attempted, failed) is acts


def test_one_that_is_switched_off_never_acts() -> None:
    assert not Brake(enabled=False).acts(1000, 1000)


@pytest.mark.parametrize("settings", [{"share": 0}, {"share": 1.1}, {"at_least": 0}, {"at_most": 3}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Brake.model_validate(settings)


@pytest.mark.parametrize(
    ("state", "outcome", "reason", "counts"),
    [
        ("accepted", "accepted", None, (1, 0)),
        ("failed", "recipient_permanent", None, (1, 1)),
        ("failed", "content_permanent", None, (1, 1)),
        ("failed", "gave_up", None, (1, 1)),
        ("unknown", "unknown", "connection_lost_after_data", (1, 1)),
        ("unknown", "unknown", "attempt_lost", (0, 0)),  # our own worker died
        ("failed", "opted_out", None, (0, 0)),  # the recipient's own word
        ("refused", "refused", None, (0, 0)),  # our own checks: never attempted
        ("claimed", "transient", None, (0, 0)),
    ],
)
def test_what_counts(state: str, outcome: str, reason: str | None, counts: tuple[int, int]) -> None:
    assert counted(state, outcome, reason) == counts


def test_it_says_why_with_its_numbers() -> None:
    facts = {"attempted": 25, "failed": 10, "share": 0.35, "failure": "mailbox_unknown"}
    assert braking_words("too_many_failures", facts) == (
        "too many of its messages failed for good, and somebody must look before it goes on (10 of the latest 25; the limit is 35 %)."
        " Most often: there is no such mailbox"
    )
    assert braking_words("first_failure", {"run_id": "x"}) == "a run failed for good, and the campaign was to pause at the first failure"
