"""Random steps, for properties."""

from datetime import timedelta
from functools import cache
from uuid import uuid4

from hypothesis import strategies as st

from models.domain.journey.definition import (
    BranchCondition,
    BranchStep,
    CallWebhookStep,
    ExitStep,
    ReviewStep,
    SendStep,
    SplitStep,
    Step,
    UpdateContactStep,
    WaitForStep,
    WaitStep,
)
from models.domain.journey.steps.split import Arm
from models.domain.journey.steps.wait import UntilTime
from models.domain.journey.steps.wait_for import AwaitedCondition, AwaitedEvent

HOURS = st.integers(1, 99).map(lambda hours: timedelta(hours=hours))


@cache  # made once: that takes longer than to draw from it
def steps(onward: tuple[str | None, ...]) -> st.SearchStrategy[Step]:
    """Any kind of step, leading to any of these."""
    to = st.sampled_from(onward)
    refusals = st.sampled_from(["continue", "exit", "path"])
    sends = st.builds(SendStep, template_id=st.builds(uuid4), on_refused=refusals, next=to, not_sent=to)
    waits = st.builds(WaitStep, duration=HOURS, spread=st.none() | HOURS, next=to)
    mornings = st.builds(WaitStep, until=st.just(UntilTime(time="09:00")), next=to)
    branches = st.builds(BranchStep, conditions=st.tuples(st.builds(BranchCondition, when=st.just({}), next=to)), otherwise=to)
    splits = st.builds(SplitStep, arms=st.tuples(*(st.builds(Arm, weight=st.integers(1, 9), next=to) for _ in range(2))))
    awaited = st.builds(
        WaitForStep,
        events=st.tuples(st.builds(AwaitedEvent, event=st.sampled_from(["bought", "opened"]), next=to)),
        conditions=st.just(()) | st.tuples(st.builds(AwaitedCondition, when=st.just({}), next=to)),
        timeout=HOURS,
        timeout_next=to,
    )
    effects = st.builds(UpdateContactStep, add_tags=st.just(("seen",)), next=to) | st.builds(
        CallWebhookStep, url=st.just("https://example.com/hook"), next=to
    )
    reviews = st.builds(ReviewStep, approved=to, rejected=to, timeout=st.none() | HOURS, timeout_next=to)
    exits = st.builds(ExitStep, reason=st.just("enough"))
    return st.one_of(sends, waits, mornings, branches, splits, awaited, effects, reviews, exits)
