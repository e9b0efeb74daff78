from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.journey.definition import (
    BranchCondition,
    BranchStep,
    Definition,
    ExitStep,
    ReviewStep,
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
    matched,
    moving,
    next_command,
    not_sent,
    park,
    phase_on_record,
    reconsidered,
    remarked,
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
from models.domain.journey.steps.wait import UntilDate, UntilTime
from models.domain.journey.steps.wait_for import AwaitedCondition, AwaitedEvent
from models.domain.wait_time import Place, plan
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


def test_a_review_that_is_left_out_is_not_an_approval() -> None:
    """Neither when it is skipped nor when it was cancelled before: that takes another permission than to decide."""
    ends: dict[str, Step] = {"mail": SendStep(template_id=uuid4()), "no": ExitStep(reason="no")}
    definition = journey("look", look=ReviewStep(approved="mail", rejected="no"), **ends)
    skipped = skip(definition, enter(definition, run_at("look"), NOW).state, NOW)
    spared = enter(definition, replace(run_at("look"), skips=("look",)), NOW)
    assert [(each.state.step_id, each.state.phase) for each in (skipped, spared)] == [("no", Phase.EXITED)] * 2


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
    told = variables_changed(waiting, state, ["order"], NOW, ASKED)
    assert (told.state.phase, told.state.round, kinds(told)) == (Phase.ACTIVE, state.round + 1, ["variables_changed"])
    assert told.changes[0].details == {"names": ["order"], "why": ASKED}
    asked = answered(waiting, told.state, Answer(), NOW + DAY / 2)
    assert (asked.state.wake_at, asked.changes) == (NOW + DAY, ())  # the deadline is the old one
    plain = enter(WAIT_FIRST, run_at("pause"), NOW).state
    assert variables_changed(WAIT_FIRST, plain, ["order"], NOW).state == plain


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
    states = [enter(WAIT_FIRST, run_at(step), NOW).state for step in ("pause", "mail")]
    waiting, sending = (resumed(state, NOW, timedelta(minutes=10), uuid4(), 0.5) for state in states)  # none of them at once
    overdue = replace(waiting, wake_at=NOW - DAY)
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


# --- what happens to a wait whose moment has come, and to a paused run ----------------------------------------------

AT_SIX = UntilTime(time="18:00")
SIX = NOW.replace(hour=18)
BERLIN, NEW_YORK = Place("Europe/Berlin", "UTC"), Place("America/New_York", "UTC")


def planned(definition: Definition, state: RunState, now: datetime, place: Place, value: str | None = None) -> Progress:
    """The run asks when its wait ends, and hears it."""
    step = definition.steps[state.step_id or ""]
    assert isinstance(step, WaitStep) and isinstance(next_command(definition, state), Question)
    found = plan(step, place, value, state.asks_from or now)
    return answered(definition, state, Answer(until=found.until, reason=found.reason, details=found.details), now)


@pytest.mark.parametrize("late", [timedelta(0), timedelta(minutes=1), timedelta(hours=2), DAY])
@pytest.mark.parametrize("spread", [None, timedelta(hours=3)])
@pytest.mark.parametrize(
    ("step", "value"),
    [
        (WaitStep(until=AT_SIX, next="mail"), None),
        (WaitStep(date=UntilDate(field="attributes.when", passed="exit"), next="mail"), SIX.isoformat()),
    ],
)
def test_what_changes_once_the_moment_has_come_does_not_begin_the_wait_anew(
    step: WaitStep, value: str | None, spread: timedelta | None, late: timedelta
) -> None:
    """While a pause or the spread keeps the run: an event that has nothing to do with it looked for the next day's moment."""
    there = journey("pause", pause=step.model_copy(update={"spread": spread}), mail=SendStep(template_id=uuid4()))
    waiting = planned(there, enter(there, run_at("pause"), NOW).state, NOW, Place(None, "UTC"), value).state
    again = planned(there, reconsidered(there, waiting, SIX + late), SIX + late, Place(None, "UTC"), value)
    assert (again.state.phase, again.state.wake_at, again.changes) == (Phase.WAITING, waiting.wake_at, ())


def test_a_question_that_a_pause_keeps_back_is_answered_for_the_moment_it_arose() -> None:
    there = journey("pause", pause=WaitStep(until=AT_SIX, next="mail"), mail=SendStep(template_id=uuid4()))
    waiting = planned(there, enter(there, run_at("pause"), NOW).state, NOW, Place(None, "UTC")).state
    asked = reconsidered(there, waiting, SIX - DAY / 24)
    assert planned(there, asked, SIX + DAY / 2, Place(None, "UTC")).state.wake_at == SIX


def test_a_zone_or_date_that_changes_while_the_run_is_kept_counts() -> None:
    there = journey("pause", pause=WaitStep(until=AT_SIX, next="mail"), mail=SendStep(template_id=uuid4()))
    waiting = planned(there, enter(there, run_at("pause"), NOW).state, NOW, BERLIN).state
    moved = planned(there, reconsidered(there, waiting, NOW + DAY / 4), NOW + DAY / 4, NEW_YORK)
    assert (moved.state.wake_at, kinds(moved)) == (SIX + timedelta(hours=5), ["rescheduled"])
    dated = journey("pause", pause=WaitStep(date=UntilDate(field="attributes.when", passed="exit"), next="mail"), mail=there.steps["mail"])
    waiting = planned(dated, enter(dated, run_at("pause"), NOW).state, NOW, BERLIN, SIX.isoformat()).state
    asked = reconsidered(dated, waiting, SIX + DAY)
    assert planned(dated, asked, SIX + DAY, BERLIN, (SIX + 9 * DAY).isoformat()).state.wake_at == SIX + 9 * DAY
    assert kinds(planned(dated, asked, SIX + DAY, BERLIN, (SIX - DAY).isoformat())) == ["exited"]


def test_a_run_that_asks_anew_still_waits_as_people_see_it() -> None:
    there = journey("pause", pause=WaitStep(until=AT_SIX, next="mail"), mail=SendStep(template_id=uuid4()))
    waiting = planned(there, enter(there, run_at("pause"), NOW).state, NOW, BERLIN).state
    asking = reconsidered(there, waiting, NOW)
    assert (asking.phase, phase_on_record(asking), asking.wake_at) == (Phase.ACTIVE, Phase.WAITING, waiting.wake_at)
    assert {change.phase for change in remarked(asking, "resumed", None, {}).changes} == {Phase.WAITING}


def test_a_turn_that_the_record_names_is_followed_by_the_end_of_the_wait() -> None:
    """Else the run would seem to be overdue since its turn."""
    there = journey("pause", pause=WaitStep(until=AT_SIX, next="mail"), mail=SendStep(template_id=uuid4()))
    waiting = planned(there, enter(there, run_at("pause"), NOW).state, NOW, Place(None, "UTC")).state
    turn = resumed(reconsidered(there, waiting, NOW), NOW + DAY / 48, DAY / 24, uuid4(), 0.5)
    assert kinds(planned(there, turn, NOW + DAY / 24, Place(None, "UTC"))) == ["rescheduled"]


def test_what_a_paused_run_waited_for_lets_it_go_on_when_the_pause_is_over() -> None:
    event = WaitForStep(events=(AwaitedEvent(event="paid", next="leave"),), timeout=DAY)
    there = journey("event", event=event, leave=ExitStep(reason="paid"))
    waiting = answered(there, enter(there, run_at("event"), NOW).state, Answer(), NOW).state
    heard = matched(there, waiting, NOW, "event", 1, Answer(index=0), paused=True)
    assert heard is not None
    assert (heard.state.step_id, phase_on_record(heard.state), heard.changes) == ("event", Phase.WAITING, ())
    asks = next_command(there, heard.state)
    assert asks == Question("open_waits", "wait_for", "event", 1, waiting.round)  # of the same round: the wait that is over answers
    gone = answered(there, heard.state, Answer(index=0), NOW + DAY)
    assert kinds(gone) == ["matched", "exited"]


@pytest.mark.parametrize(("approved", "line"), [(True, "review_approved"), (False, "review_rejected")])
def test_a_review_of_a_paused_run_stands_until_the_pause_is_over(approved: bool, line: str) -> None:
    there = journey(
        "look",
        look=ReviewStep(approved="yes", rejected="no", timeout=DAY),
        yes=ExitStep(reason="review_approved"),
        no=ExitStep(reason="review_rejected"),
    )
    waiting = enter(there, run_at("look"), NOW).state
    said = reviewed(there, waiting, NOW + DAY / 2, approved, paused=True)
    assert said is not None and (kinds(said), said.state.step_id, said.state.phase) == ([line], "look", Phase.WAITING)
    assert reviewed(there, said.state, NOW + DAY / 2, not approved, paused=True) is None  # it has been decided
    assert next_command(there, said.state) == WaitUntil(NOW + DAY / 2)
    gone = wake(there, said.state, NOW + 2 * DAY)  # the timeout has passed, too
    assert (kinds(gone), gone.state.reason) == (["exited"], line)


def test_what_was_waited_for_is_told_by_the_events_name_or_the_conditions_number() -> None:
    step = WaitForStep(events=(AwaitedEvent(event="paid"),), conditions=(AwaitedCondition(when={"tag": "vip"}),))
    waiting = journey("either", either=step)
    asking = enter(waiting, run_at("either"), NOW).state
    ways: tuple[dict[str, Any], ...] = ({"event": "paid"}, {"condition": 0})
    for index, which in enumerate(ways):
        told = answered(waiting, asking, Answer(index=index, details={"event_id": "e1"}), NOW).changes[0]
        assert (told.kind, told.details) == ("matched", {"index": index, "name": "", "next": None, "event_id": "e1", **which})
