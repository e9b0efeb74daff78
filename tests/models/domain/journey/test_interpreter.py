from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from models.domain.journey.definition import BranchCondition, BranchStep, Definition, ExitStep, SendStep, Step, WaitStep, targets
from models.domain.journey.interpreter import (
    Choose,
    Send,
    WaitUntil,
    chose,
    enter,
    held,
    next_command,
    not_sent,
    park,
    retry,
    sent,
    skip,
    wake,
)
from models.domain.journey.run import FINISHED, Phase, RunState

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
    state = run_at("mail").model_copy(update={"sequence": 3})
    assert enter(WAIT_FIRST, state, NOW).state == state


def test_going_round_counts_the_visits_of_looping_steps_only() -> None:
    state = enter(ROUND, run_at("mail"), NOW).state
    assert next_command(ROUND, state) == Send("mail", 1, 0)
    state = sent(ROUND, state, NOW, {}).state
    state = wake(ROUND, state, NOW + DAY).state
    assert next_command(ROUND, state) == Choose("again", 1)
    state = chose(ROUND, state, NOW + DAY, 0).state
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


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    names = [f"s{number}" for number in range(draw(st.integers(1, 8)))]
    onward = st.sampled_from([*names, None])

    def step(_: str) -> Step:
        kind = draw(st.sampled_from(["send", "wait", "branch", "exit"]))
        if kind == "send":
            return SendStep(template_id=uuid4(), next=draw(onward), on_refused=draw(st.sampled_from(["continue", "exit"])))
        if kind == "wait":
            return WaitStep(duration=timedelta(hours=draw(st.integers(1, 99))), next=draw(onward))
        if kind == "branch":
            return BranchStep(conditions=(BranchCondition(when={}, next=draw(onward)),), otherwise=draw(onward))
        return ExitStep()

    return Definition(start=names[0], steps={name: step(name) for name in names})


@given(definitions(), st.lists(st.integers(0, 3), max_size=40))
def test_any_walk_stays_in_the_definition_counts_its_visits_and_never_rests_active(definition: Definition, choices: list[int]) -> None:
    state, now = enter(definition, run_at(definition.start), NOW).state, NOW
    arrivals: dict[str, int] = {}
    place: tuple[str | None, int] | None = None
    for choice in choices:
        if (state.step_id, state.visit) != place and state.step_id is not None:
            place = (state.step_id, state.visit)
            arrivals[state.step_id] = arrivals.get(state.step_id, 0) + 1
            assert state.visit == arrivals[state.step_id]
        command = next_command(definition, state)
        if command is None:
            break
        match command:
            case Send():
                state = (sent(definition, state, now, {}) if choice % 2 else not_sent(definition, state, now, "no_consent")).state
            case Choose():
                state = chose(definition, state, now, None if choice % 2 else 0).state
            case WaitUntil(at=at):
                now = at
                state = wake(definition, state, now).state
        assert state.step_id in definition.steps
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
