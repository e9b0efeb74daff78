from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from models.domain.journey.definition import BranchCondition, BranchStep, Definition, ExitStep, SendStep, Step, WaitStep, targets
from models.domain.journey.interpreter import (
    Question,
    Send,
    WaitUntil,
    answered,
    enter,
    held,
    moving,
    next_command,
    not_sent,
    park,
    retry,
    reviewed,
    sent,
    skip,
    wake,
)
from models.domain.journey.run import FINISHED, Phase, RunState
from models.domain.journey.steps.base import Answer
from tests.models.domain.journey.drawing import steps

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def run_at(step_id: str) -> RunState:
    return RunState(run_id=uuid4(), contact_id=uuid4(), step_id=step_id)


def journey(start: str, **steps: Step) -> Definition:
    return Definition(start=start, steps=steps)


WAIT_FIRST = journey("pause", pause=WaitStep(duration=DAY, next="mail"), mail=SendStep(template_id=uuid4()))
ROUND = journey(
    "mail",
    mail=SendStep(template_id=uuid4(), next="pause"),
    pause=WaitStep(duration=DAY, next="again"),
    again=BranchStep(conditions=(BranchCondition(when={}, next="mail"),), otherwise="leave"),
    leave=ExitStep(reason="enough"),
)


def test_a_journey_may_begin_with_a_wait() -> None:
    entered = enter(WAIT_FIRST, run_at("pause"), NOW)
    assert [change.kind for change in entered.changes] == ["entered", "waiting"]
    assert next_command(WAIT_FIRST, entered.state) == WaitUntil(NOW + DAY)


def test_a_run_under_way_is_not_entered_again() -> None:
    state = replace(run_at("mail"), sequence=3)
    assert enter(WAIT_FIRST, state, NOW).state == state


def test_going_round_counts_the_visits_of_looping_steps_only() -> None:
    state = enter(ROUND, run_at("mail"), NOW).state
    assert next_command(ROUND, state) == Send("mail", 1, 0)
    state = sent(ROUND, state, NOW, {}).state
    state = wake(ROUND, state, NOW + DAY).state
    assert next_command(ROUND, state) == Question("choose_branches", "branch", "again", 1, 0)
    state = answered(ROUND, state, Answer(index=0), NOW + DAY).state
    assert next_command(ROUND, state) == Send("mail", 2, 0)
    assert set(state.visits) <= {"mail", "pause", "again"}
    assert enter(WAIT_FIRST, run_at("pause"), NOW).state.visits == {}


def test_a_hold_asks_in_a_new_round_of_the_same_visit() -> None:
    state = held(enter(ROUND, run_at("mail"), NOW).state, NOW + DAY, "quiet_hours").state
    assert (state.phase, next_command(ROUND, state)) == (Phase.HELD, WaitUntil(NOW + DAY))
    assert next_command(ROUND, wake(ROUND, state, NOW + DAY).state) == Send("mail", 1, 1)


def test_a_refusal_goes_on_or_exits_as_the_step_says() -> None:
    leaving = journey("mail", mail=SendStep(template_id=uuid4(), on_refused="exit", next="pause"), pause=WaitStep(duration=DAY))
    progress = not_sent(leaving, enter(leaving, run_at("mail"), NOW).state, NOW, "no_consent")
    assert (progress.state.phase, progress.state.reason) == (Phase.EXITED, "no_consent")
    assert not_sent(ROUND, enter(ROUND, run_at("mail"), NOW).state, NOW, "no_consent").state.phase is Phase.WAITING


def test_a_parked_run_keeps_its_place() -> None:
    parked = park(enter(ROUND, run_at("mail"), NOW).state, "missing_value").state
    assert next_command(ROUND, retry(parked).state) == Send("mail", 1, 1)
    assert skip(ROUND, parked, NOW).state.step_id == "pause"


def test_a_run_that_starts_later_waits_before_its_first_step() -> None:
    state = enter(WAIT_FIRST, replace(run_at("pause"), starts_at=NOW + DAY), NOW).state
    assert next_command(WAIT_FIRST, state) == WaitUntil(NOW + DAY)
    started = wake(WAIT_FIRST, state, NOW + DAY)
    assert [change.kind for change in started.changes] == ["started", "waiting"]
    assert next_command(WAIT_FIRST, started.state) == WaitUntil(NOW + 2 * DAY)


def test_a_run_that_is_moved_to_the_same_wait_keeps_the_time_it_has_waited() -> None:
    waited = replace(enter(WAIT_FIRST, run_at("pause"), NOW).state, sequence=2)
    longer = journey("pause", pause=WaitStep(duration=5 * DAY, next="mail"), mail=SendStep(template_id=uuid4()))
    arrived = enter(longer, moving(waited, "pause"), NOW + DAY)
    assert [change.kind for change in arrived.changes] == ["moved", "waiting"]
    assert arrived.state.wake_at == NOW + 5 * DAY
    assert enter(longer, moving(waited, "mail"), NOW).state.round == 1_000  # asks anew


def test_a_run_leaves_a_journey_that_has_ended_where_it_says_so() -> None:
    ending = WAIT_FIRST.model_copy(update={"ends_at": NOW, "at_end": "exit"})
    assert (state := enter(ending, run_at("pause"), NOW).state).phase is Phase.EXITED and state.reason == "journey_ended"
    assert enter(ending.model_copy(update={"at_end": "finish"}), run_at("pause"), NOW).state.phase is Phase.WAITING


def test_a_loop_ends_at_its_bound() -> None:
    bounded = ROUND.model_copy(update={"max_visits": 3})
    state, now = enter(bounded, run_at("mail"), NOW).state, NOW
    mails = 0
    while (command := next_command(bounded, state)) is not None:
        match command:
            case Send():
                mails, state = mails + 1, sent(bounded, state, now, {}).state
            case Question():
                state = answered(bounded, state, Answer(index=0), now).state
            case WaitUntil():
                now += DAY
                state = wake(bounded, state, now).state
    assert (mails, state.phase, state.reason) == (3, Phase.EXITED, "loop_limit")


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    names = [f"s{number}" for number in range(draw(st.integers(1, 8)))]
    return Definition(start=names[0], steps={name: draw(steps([*names, None])) for name in names}, max_visits=draw(st.integers(1, 5)))


@given(definitions(), st.lists(st.integers(0, 3), max_size=60))
def test_any_walk_stays_in_the_definition_counts_its_visits_and_never_rests_active(definition: Definition, choices: list[int]) -> None:
    state, now = enter(definition, run_at(definition.start), NOW).state, NOW
    for choice in choices:
        command = next_command(definition, state)
        if command is None:
            break
        before = state
        match command:
            case Send():
                state = (sent(definition, state, now, {}) if choice % 2 else not_sent(definition, state, now, "no_consent")).state
            case Question(name="open_waits" | "close_waits" | "choose_branches"):
                state = answered(definition, state, Answer(index=0 if choice % 2 else None), now).state
            case Question(name="plan_waits"):
                state = answered(definition, state, Answer(until=now + choice * DAY if choice else None), now).state
            case Question():
                state = answered(definition, state, Answer(refused=choice == 0), now).state
            case WaitUntil(at=None):
                state = (reviewed(definition, state, now, bool(choice % 2)) or skip(definition, state, now)).state
            case WaitUntil(at=at):
                now = max(now, at or now)
                state = wake(definition, state, now).state
        assert state.step_id in definition.steps
        assert state.visit <= definition.max_visits or state.reason == "loop_limit"
        assert all(state.visits.get(step_id, 0) >= visits for step_id, visits in before.visits.items())
        assert (state.phase in (Phase.WAITING, Phase.HELD)) or state.wake_at is None or state.phase is Phase.ACTIVE
    assert (next_command(definition, state) is None) == (state.phase in FINISHED)


@given(definitions())
def test_a_step_that_can_be_reached_from_itself_is_looping(definition: Definition) -> None:
    for start in definition.steps:
        seen, ahead = set(), [start]
        while ahead:
            onward = [target for target in targets(definition.steps[ahead.pop()]) if target not in seen]
            seen.update(onward)
            ahead += onward
        assert start not in seen or start in definition.looping
