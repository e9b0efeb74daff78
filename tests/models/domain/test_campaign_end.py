import pytest

from models.domain.campaign_end import WORDS, why_nobody


@pytest.mark.parametrize(
    ("audience", "left_out", "why"),
    [
        (None, None, None),
        (3, {"excluded": 1}, None),
        (0, None, "nobody_fitted"),
        (0, {}, "nobody_fitted"),
        (0, {"entered_before": 2}, "everybody_left_out"),
    ],
)
def test_why_nobody_was_written_to(audience: int | None, left_out: dict[str, int] | None, why: str | None) -> None:
    assert why_nobody(audience, left_out) == why
    assert why is None or WORDS[why]
