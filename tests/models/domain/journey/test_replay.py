from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.journey.definition import BranchCondition, BranchStep, Definition, ExitStep, SendStep, Step, WaitStep
from models.domain.journey.interpreter import enter, jump, next_command, sent, wake
from models.domain.journey.replay import (
    Act,
    Arrival,
    Begun,
    Deed,
    Past,
    Place,
    Remark,
    Standing,
    Trip,
    begin_at,
    better,
    counts,
    forecast,
    on_every_way,
    steps_ahead,
)
from models.domain.journey.run import ANY_STEP, FINISHED, Phase, RunState
from models.domain.journey.steps.update_contact import UpdateContactStep
from tests.models.domain.journey.drawing import steps

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def mail(next: str | None = None, **fields: object) -> SendStep:
    return SendStep.model_validate({"template_id": uuid4(), "next": next, **fields})


def journey(start: str, **steps: Step) -> Definition:
    return Definition(start=start, steps=steps)


LINE = journey("one", one=mail("two"), two=mail("three"), three=mail())
LOOP = journey(
    "mail",
    mail=mail("pause"),
    pause=WaitStep(duration=timedelta(days=1), next="again"),
    again=BranchStep(conditions=(BranchCondition(when={}, next="mail"),), otherwise="last"),
    last=mail(),
)
FORK = journey(
    "which",
    which=BranchStep(conditions=(BranchCondition(when={}, next="left"),), otherwise="right"),
    left=mail("both"),
    right=mail("both"),
    both=mail("end"),
    end=ExitStep(reason="done"),
)


def trip(*places: Place, begins_with: dict[str, int] | None = None, remarks: tuple[Remark, ...] = ()) -> Trip:
    """Its arrivals are numbered 10, 20, …"""
    arrivals = [Arrival(step, visit, 10 * number) for number, (step, visit) in enumerate(places, 1)]
    return Trip(uuid4(), Begun(begins_with or {}), arrivals, remarks)


def visits_before(chain: list[Trip], step_id: str, looping: frozenset[str]) -> dict[str, int]:
    return {step: count for step, count in begin_at(chain, step_id, looping).visits.items() if step != ANY_STEP}


ROUNDS: tuple[Place, ...] = tuple((step, visit) for visit in (1, 2, 3) for step in ("mail", "pause", "again"))


@pytest.mark.parametrize(
    ("step_id", "expected"),
    [
        ("mail", {"mail": 2, "pause": 2, "again": 2}),  # as before its third round
        ("pause", {"mail": 3, "pause": 2, "again": 2}),
        ("again", {"mail": 3, "pause": 3, "again": 2}),
        ("last", {"mail": 3, "pause": 3, "again": 3}),  # where it has never been
    ],
)
def test_a_replay_counts_as_the_run_did_when_it_last_came_there(step_id: str, expected: dict[str, int]) -> None:
    assert visits_before([trip(*ROUNDS)], step_id, LOOP.looping) == expected


def test_a_replay_of_a_replay_goes_on_counting() -> None:
    again = trip(("mail", 3), ("pause", 3), ("again", 3), ("mail", 4), begins_with={"mail": 2, "pause": 2, "again": 2})
    assert visits_before([again, trip(*ROUNDS)], "mail", LOOP.looping) == {"mail": 3, "pause": 3, "again": 3}


def test_where_only_an_earlier_run_of_the_chain_has_been_its_counts_hold() -> None:
    later = trip(("three", 1))
    assert visits_before([later, trip(("one", 1), ("two", 1), ("three", 1))], "one", LINE.looping) == {}
    assert visits_before([later, trip(*ROUNDS)], "pause", LOOP.looping) == {"mail": 3, "pause": 2, "again": 2}


def test_another_order_of_steps_repeats_nothing() -> None:
    """In the version that it goes on, what came before comes after."""
    assert visits_before([trip(("one", 1), ("two", 1), ("three", 1))], "three", LINE.looping) == {}


def test_a_replay_from_where_a_run_stood_still_does_there_what_was_not_done_yet() -> None:
    """Beneath a pause it had come to the message again, by its round or a jump; its record tells of that visit nothing yet."""
    in_third_round = trip(*ROUNDS[:6])
    assert begin_at([in_third_round], "mail", LOOP.looping, named=False).next_visit("mail") == 3
    assert begin_at([in_third_round], "mail", LOOP.looping).next_visit("mail") == 2  # somebody wants it as it last was
    jumped = trip(("one", 1), ("two", 1), remarks=(Remark("jumped", 25, "two"),))
    for step_id in ("one", "two"):
        assert begin_at([jumped], step_id, LINE.looping, named=False).next_visit(step_id) == 2
    assert begin_at([trip(("one", 1), ("two", 1))], "two", LINE.looping, named=False).next_visit("two") == 1


JUMPED = trip(("one", 1), ("two", 1), ("one", 2), ("two", 2), remarks=(Remark("jumped", 21, "one"),))


def test_after_a_jump_everything_is_counted_on() -> None:
    """A person had the run do it once more: what it did after that is what a replay meets."""
    begun = begin_at([JUMPED], "two", LINE.looping)
    assert (begun.visits_before, begun.next_visit("two"), begun.next_visit("three")) == (1, 2, 2)


def test_who_begins_before_a_jump_meets_what_was_done_after_it() -> None:
    """`two` was passed over to `three`, which counts as its second visit; a replay of `two` comes to it for the first time."""
    forward = trip(("one", 1), ("two", 1), ("three", 2), remarks=(Remark("jumped", 21, "three"),))
    begun = begin_at([forward], "two", LINE.looping)
    assert begun.next_visit("three") == 1
    found = forecast(LINE, "two", begun, sends({("three", 2): past(), ("two", 1): past(Deed.NOT_DONE)}))
    assert [(each.step_id, each.standing) for each in found] == [("two", Standing.TO_DO), ("three", Standing.KEPT)]


def test_a_visit_of_a_loop_that_is_known_to_have_failed_is_not_taken_for_a_later_one() -> None:
    pasts = {("mail", 3): past(Deed.NOT_DONE), ("mail", 4): past()}
    assert standings(LOOP, "mail", pasts)[0] == ("mail", 3, Standing.TO_DO)


def test_a_cancelled_step_stays_cancelled_but_for_where_the_replay_begins() -> None:
    said = (Remark("step_cancelled", 11, "three"), Remark("step_cancelled", 12, "two"), Remark("skipped", 20, "two"))
    run = trip(("one", 1), ("two", 1), remarks=said)
    assert begin_at([run], "one", LINE.looping).skips == ("three", "two")
    assert begin_at([run], "two", LINE.looping).skips == ("three",)
    assert begin_at([run], "two", LINE.looping, named=False).skips == ("three", "two")
    assert [each.step_id for each in forecast(LINE, "one", begin_at([run], "one", LINE.looping), {})] == ["one"]


def test_a_step_that_was_restored_or_left_undone_before_is_done() -> None:
    said = (Remark("step_cancelled", 1, "one"), Remark("skipped", 10, "one"), Remark("step_cancelled", 12, "three"))
    run = trip(("one", 1), ("two", 1), remarks=(*said, Remark("step_restored", 25, "three")))
    assert begin_at([run], "two", LINE.looping).skips == ()
    later = Trip(uuid4(), Begun(), (), (Remark("step_cancelled", 5, "three"),))
    assert begin_at([later, run], "two", LINE.looping).skips == ("three",)


def test_a_chain_that_has_recorded_nothing_counts_nothing() -> None:
    assert visits_before([Trip(uuid4())], "one", LINE.looping) == visits_before([], "one", LINE.looping) == {}


def past(deed: Deed = Deed.DONE, at: datetime = NOW) -> Past:
    return Past(uuid4(), deed, at)


def standings(definition: Definition, step_id: str, pasts: dict[Place, Past], resend: frozenset[str] = frozenset()) -> list[object]:
    visits = dict.fromkeys(definition.looping, 2)
    return [(each.step_id, each.visit, each.standing) for each in forecast(definition, step_id, Begun(visits), sends(pasts), resend)]


def sends(pasts: dict[Place, Past]) -> dict[Act, Past]:
    return {("send", *place): past for place, past in pasts.items()}


def test_what_was_done_is_kept_what_may_have_been_is_uncertain_and_the_rest_is_to_do() -> None:
    found = standings(LINE, "one", {("one", 1): past(), ("two", 1): past(Deed.UNCERTAIN)})
    assert found == [("one", 1, Standing.KEPT), ("two", 1, Standing.UNCERTAIN), ("three", 1, Standing.TO_DO)]


def test_what_is_asked_for_once_more_is_done_once_more_if_it_was_done_at_all() -> None:
    found = standings(LINE, "one", {("one", 1): past(), ("two", 1): past(Deed.UNCERTAIN)}, frozenset({"one", "two", "three"}))
    assert found == [("one", 1, Standing.RESENT), ("two", 1, Standing.RESENT), ("three", 1, Standing.TO_DO)]


def test_what_lies_on_one_of_several_ways_is_possible() -> None:
    assert on_every_way(FORK, "which") == {"which", "both", "end"}
    found = standings(FORK, "which", {})
    assert found == [("left", 1, Standing.POSSIBLE), ("right", 1, Standing.POSSIBLE), ("both", 1, Standing.TO_DO)]


def test_of_a_loop_the_visits_that_were_done_are_kept_and_the_next_is_possible() -> None:
    found = standings(LOOP, "mail", {("mail", 3): past(), ("mail", 4): past()})
    kept, possible = Standing.KEPT, Standing.POSSIBLE
    assert found == [("mail", 3, kept), ("mail", 4, kept), ("mail", 5, possible), ("last", 1, Standing.TO_DO)]


UPDATED = journey("one", one=UpdateContactStep(add_tags=("seen",), next="two"), two=mail())


@pytest.mark.parametrize("deed", [Deed.DONE, Deed.UNCERTAIN])
def test_what_another_kind_of_step_did_at_a_place_is_not_done(deed: Deed) -> None:
    """In another version a step of the same name may do something else."""
    pasts: dict[Act, Past] = {("send", "one", 1): past(deed), ("update_contact", "two", 1): past(deed), ("send", "two", 1): past()}
    found = [(each.step_id, each.standing) for each in forecast(UPDATED, "one", Begun(), pasts)]
    assert found == [("one", Standing.TO_DO), ("two", Standing.KEPT)]


@pytest.mark.parametrize(
    ("begun", "step_id", "expected"),
    [
        (Begun({"mail": 3}), "mail", [("mail", 4, Standing.TO_DO), ("last", 1, Standing.TO_DO)]),
        (Begun({"mail": 4}), "mail", []),  # the run exits as it comes there
        (Begun({"mail": 4}), "pause", [("last", 1, Standing.POSSIBLE)]),  # the way round ends
        (Begun({"again": 4}), "mail", [("mail", 1, Standing.TO_DO)]),  # nothing comes behind what the run cannot pass
        (Begun({"mail": 8}, 5), "mail", [("mail", 9, Standing.TO_DO), ("last", 6, Standing.TO_DO)]),  # counted from the last jump on
        (Begun({"mail": 9}, 5), "mail", []),
    ],
)
def test_nothing_is_done_where_the_run_has_been_as_often_as_the_journey_allows(begun: Begun, step_id: str, expected: list[object]) -> None:
    loop = LOOP.model_copy(update={"max_visits": 4})
    assert [(each.step_id, each.visit, each.standing) for each in forecast(loop, step_id, begun, {})] == expected
    state = RunState(run_id=uuid4(), contact_id=uuid4(), step_id=step_id, visits=begun.visits, visits_before=begun.visits_before)
    entered = enter(loop, state, NOW).state
    assert (entered.phase in FINISHED) == (expected == []) and (entered.phase is not Phase.EXITED or entered.reason == "loop_limit")


def test_of_what_was_done_in_a_loop_as_often_as_it_may_be_nothing_follows() -> None:
    loop = LOOP.model_copy(update={"max_visits": 2})
    found = forecast(loop, "mail", Begun(), sends({("mail", 1): past(), ("mail", 2): past()}))
    assert [(each.step_id, each.visit, each.standing) for each in found][:2] == [("mail", 1, Standing.KEPT), ("mail", 2, Standing.KEPT)]
    assert [each.step_id for each in found] == ["mail", "mail", "last"]


def test_a_jump_in_a_replay_does_anew_what_any_run_of_the_chain_has_done() -> None:
    """The first run jumped back to `two` and did it twice; its replays begin before that jump."""
    first = trip(("one", 1), ("two", 1), ("two", 2), remarks=(Remark("jumped", 21, "two"),))
    again = trip(("one", 1), ("two", 3), begins_with={ANY_STEP: 2}, remarks=(Remark("jumped", 11, "two"),))
    for chain, visit in (([first], 3), ([again, first], 4)):
        begun = begin_at(chain, "one", LINE.looping)
        assert begun.next_visit("one") == begun.next_visit("two") == 1
        state = RunState(run_id=uuid4(), contact_id=uuid4(), step_id="one", visits=begun.visits, visits_before=begun.visits_before)
        assert jump(LINE, enter(LINE, state, NOW).state, "two", NOW).state.visit == visit


def test_numbers_name_every_standing() -> None:
    ahead = forecast(LINE, "two", Begun(), sends({("two", 1): past()}))
    assert counts(ahead) == {"kept": 1, "resent": 0, "to_do": 1, "possible": 0, "uncertain": 0}


def test_certainty_counts_more_than_age_and_the_first_deed_more_than_the_second() -> None:
    doubt, first, second = past(Deed.UNCERTAIN, NOW - timedelta(days=1)), past(at=NOW), past(at=NOW + timedelta(days=1))
    assert better(better(better(None, doubt), second), first) is first and better(first, doubt) is first


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    names = tuple(f"s{number}" for number in range(draw(st.integers(1, 6))))
    return Definition(start=names[0], steps={name: draw(steps((*names, None))) for name in names})


@given(definitions())
def test_whatever_is_on_every_way_is_ahead_and_the_step_itself_always_is(definition: Definition) -> None:
    for step_id in definition.steps:
        assert {step_id} <= on_every_way(definition, step_id) <= set(steps_ahead(definition, step_id))


def test_the_interpreter_comes_to_the_visits_that_were_counted() -> None:
    state = RunState(run_id=uuid4(), contact_id=uuid4(), step_id="mail", visits={"mail": 2, "pause": 2, "again": 2})
    state = enter(LOOP, state, NOW).state
    assert state.visit == 3 and next_command(LOOP, state) is not None
    state = wake(LOOP, sent(LOOP, state, NOW, {}).state, NOW + timedelta(days=2)).state
    assert (state.step_id, state.visit) == ("again", 3)
