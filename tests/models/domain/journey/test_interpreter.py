from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from models.domain.journey.definition import (
    BranchCondition,
    BranchStep,
    Definition,
    ExitStep,
    SendStep,
    Step,
    WaitForStep,
    WaitStep,
    targets,
)
from models.domain.journey.interpreter import (
    Progress,
    Question,
    Send,
    WaitUntil,
    answered,
    cancel_step,
    due_after_pause,
    enter,
    goes_on_at,
    held,
    jump,
    moving,
    next_command,
    not_sent,
    park,
    restore_step,
    resumed,
    retry,
    reviewed,
    sent,
    skip,
    stands_at,
    variables_changed,
    wake,
)
from models.domain.journey.run import FINISHED, Phase, RunState
from models.domain.journey.steps.base import Answer
from models.domain.journey.steps.wait_for import AwaitedCondition, AwaitedEvent
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
    names = tuple(f"s{number}" for number in range(draw(st.integers(1, 8))))
    return Definition(start=names[0], steps={name: draw(steps((*names, None))) for name in names}, max_visits=draw(st.integers(1, 5)))


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


# --- what operators say ---------------------------------------------------------------------------------------------

ASKED = "asked by phone"


def kinds(progress: Progress) -> list[str]:
    return [change.kind for change in progress.changes]


def test_a_waiting_and_a_held_run_leave_their_step_undone() -> None:
    waiting = enter(WAIT_FIRST, run_at("pause"), NOW).state
    skipped = skip(WAIT_FIRST, waiting, NOW, ASKED)
    assert (skipped.state.step_id, skipped.state.phase, skipped.state.wake_at) == ("mail", Phase.ACTIVE, None)
    assert [(change.kind, change.reason) for change in skipped.changes] == [("skipped", ASKED)]
    over = skip(WAIT_FIRST, held(skipped.state, NOW + DAY, "quiet_hours").state, NOW)
    assert (kinds(over), over.state.phase) == (["skipped", "completed"], Phase.COMPLETED)


def test_a_run_that_starts_later_leaves_its_first_step_undone_then() -> None:
    later = enter(WAIT_FIRST, replace(run_at("pause"), starts_at=NOW + DAY), NOW).state
    told = skip(WAIT_FIRST, later, NOW, ASKED)
    assert (kinds(told), told.state.phase, told.state.wake_at) == (["step_cancelled"], Phase.WAITING, NOW + DAY)
    started = wake(WAIT_FIRST, told.state, NOW + DAY)
    assert (kinds(started), started.state.step_id) == (["started", "skipped"], "mail")


def test_a_word_about_one_visit_is_not_about_another() -> None:
    state = enter(ROUND, run_at("mail"), NOW).state
    assert stands_at(state, "mail", None) and stands_at(state, "mail", 1)
    assert not stands_at(state, "mail", 2) and not stands_at(state, "pause", 1)
    assert not stands_at(replace(state, phase=Phase.EXITED), "mail", 1)


def test_a_jump_arrives_anew_and_what_follows_is_done_again() -> None:
    state = sent(ROUND, enter(ROUND, run_at("mail"), NOW).state, NOW, {}).state  # waits at pause
    back = jump(ROUND, state, "mail", NOW, ASKED)
    assert (back.state.step_id, back.state.visit, back.state.phase) == ("mail", 2, Phase.ACTIVE)
    assert [(change.kind, change.step_id, change.reason, change.details) for change in back.changes] == [
        ("jumped", "pause", ASKED, {"to": "mail"})
    ]
    again = sent(ROUND, back.state, NOW, {})
    assert (again.state.step_id, again.state.visit) == ("pause", 2)
    twice = jump(ROUND, jump(ROUND, again.state, "again", NOW).state, "again", NOW)
    assert (twice.state.step_id, twice.state.visit) == ("again", 4)


def test_no_visit_number_comes_twice_whatever_the_jumps() -> None:
    state, seen = enter(ROUND, run_at("mail"), NOW).state, set()
    for target in ("mail", "again", "mail", "mail", "pause", "again"):
        for _ in range(3):
            assert (state.step_id, state.visit) not in seen
            seen.add((state.step_id, state.visit))
            state = skip(ROUND, state, NOW).state if state.step_id != "again" else jump(ROUND, state, "mail", NOW).state
        state = jump(ROUND, state, target, NOW).state


def test_jumps_do_not_use_up_the_visits_of_a_loop() -> None:
    few = ROUND.model_copy(update={"max_visits": 2})
    state = enter(few, run_at("mail"), NOW).state
    for _ in range(10):
        state = jump(few, state, "mail", NOW).state
    assert (state.phase, state.visit) == (Phase.ACTIVE, 11)


def test_a_jump_starts_a_run_that_was_to_start_later() -> None:
    later = enter(WAIT_FIRST, replace(run_at("pause"), starts_at=NOW + DAY), NOW).state
    assert next_command(WAIT_FIRST, jump(WAIT_FIRST, later, "mail", NOW).state) == Send("mail", 2, 0)


def test_a_cancelled_step_is_skipped_once_and_then_done_again() -> None:
    state = cancel_step(enter(ROUND, run_at("mail"), NOW).state, "pause", ASKED).state
    spared = sent(ROUND, state, NOW, {})
    assert (kinds(spared), spared.state.step_id, spared.state.skips) == (["sent", "skipped"], "again", ())
    assert spared.changes[1].reason == "step_cancelled"
    round_again = answered(ROUND, spared.state, Answer(index=0), NOW).state
    assert kinds(sent(ROUND, round_again, NOW, {})) == ["sent", "waiting"]


def test_a_cancelled_step_can_be_restored_and_leaves_the_reason_as_it_is() -> None:
    state = held(enter(ROUND, run_at("mail"), NOW).state, NOW + DAY, "connection_broken").state
    told = cancel_step(state, "pause", ASKED)
    [change] = told.changes
    assert (change.reason, change.wake_at, change.details) == ("connection_broken", NOW + DAY, {"to": "pause", "why": ASKED})
    assert restore_step(told.state, "pause").state == state


def test_every_step_of_a_loop_may_be_cancelled() -> None:
    state = enter(ROUND, run_at("mail"), NOW).state
    for step_id in ("pause", "again"):
        state = cancel_step(state, step_id).state
    assert (kinds(sent(ROUND, state, NOW, {})), Phase.EXITED) == (["sent", "skipped", "skipped", "exited"], Phase.EXITED)


def test_changed_variables_make_a_wait_for_something_ask_anew() -> None:
    waiting = journey("event", event=WaitForStep(events=(AwaitedEvent(event="paid", next=None),), timeout=DAY))
    state = answered(waiting, enter(waiting, run_at("event"), NOW).state, Answer(), NOW).state
    told = variables_changed(waiting, state, ["order"], ASKED)
    assert (told.state.phase, told.state.round, kinds(told)) == (Phase.ACTIVE, state.round + 1, ["variables_changed"])
    assert told.changes[0].details == {"names": ["order"], "why": ASKED}
    asked = answered(waiting, told.state, Answer(), NOW + DAY / 2)
    assert (asked.state.wake_at, asked.changes) == (NOW + DAY, ())  # the deadline is the old one
    plain = enter(WAIT_FIRST, run_at("pause"), NOW).state
    assert variables_changed(WAIT_FIRST, plain, ["order"]).state == plain


def test_a_spread_gives_each_run_a_moment_of_its_own_and_the_last_word_decides() -> None:
    states = [enter(WAIT_FIRST, run_at("mail"), NOW).state for _ in range(2_000)]
    minutes, word = 10, uuid4()
    spread = [resumed(state, NOW, timedelta(minutes=minutes), word) for state in states]
    assert len({state.not_before for state in spread}) == 20  # shared, for waking costs by the moment
    moments = [goes_on_at(Send("mail", 1, 0), state) for state in spread]
    assert moments == [resumed(state, NOW, timedelta(minutes=minutes), word).not_before for state in states]
    per_minute = Counter(int((moment - NOW) / timedelta(minutes=1)) for moment in moments if moment is not None)
    assert set(per_minute) == set(range(minutes)) and all(abs(count - 200) < 75 for count in per_minute.values())  # 5.6 sigma
    assert all(resumed(state, NOW, None, uuid4()).not_before is None for state in spread)


def test_a_run_that_waits_for_its_turn_says_when_that_is() -> None:
    waiting = resumed(enter(WAIT_FIRST, run_at("pause"), NOW).state, NOW, timedelta(minutes=10), uuid4())
    overdue = replace(waiting, wake_at=NOW - DAY)
    sending = resumed(enter(WAIT_FIRST, run_at("mail"), NOW).state, NOW, timedelta(minutes=10), uuid4())
    turn = overdue.not_before
    assert turn is not None and turn > NOW
    assert (due_after_pause(overdue, NOW), due_after_pause(sending, NOW)) == (turn, sending.not_before)
    assert due_after_pause(replace(waiting, wake_at=NOW + DAY), NOW) == NOW + DAY
    assert due_after_pause(replace(waiting, wake_at=None), NOW) is None  # it waits for an event
    assert due_after_pause(replace(overdue, phase=Phase.NEEDS_ATTENTION, wake_at=None), NOW) is None
    assert due_after_pause(overdue, turn) == NOW - DAY  # its turn has come


def test_a_wait_that_ends_later_than_its_runs_moment_keeps_its_end() -> None:
    state = resumed(enter(WAIT_FIRST, run_at("pause"), NOW).state, NOW, timedelta(minutes=10), uuid4())
    assert goes_on_at(WaitUntil(NOW + DAY), state) == NOW + DAY
    assert goes_on_at(WaitUntil(NOW), state) == state.not_before


def test_what_was_waited_for_is_told_by_the_events_name_or_the_conditions_number() -> None:
    step = WaitForStep(events=(AwaitedEvent(event="paid"),), conditions=(AwaitedCondition(when={"tag": "vip"}),))
    waiting = journey("either", either=step)
    asking = enter(waiting, run_at("either"), NOW).state
    ways: tuple[dict[str, Any], ...] = ({"event": "paid"}, {"condition": 0})
    for index, which in enumerate(ways):
        told = answered(waiting, asking, Answer(index=index, details={"event_id": "e1"}), NOW).changes[0]
        assert (told.kind, told.details) == ("matched", {"index": index, "name": "", "next": None, "event_id": "e1", **which})
