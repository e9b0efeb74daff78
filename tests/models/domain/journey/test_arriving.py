"""As which visit a run arrives that a publish plan moves: what it has done it meets, and what lies ahead is new."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from models.domain.journey.arriving import NOWHERE, Way, arriving
from models.domain.journey.definition import Definition
from models.domain.journey.interpreter import enter, jump, moving, next_command, park, sent, wake
from models.domain.journey.replay import Arrival, Begun
from models.domain.journey.run import Phase, RunState

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SEND = {"kind": "send", "template_id": str(uuid4()), "purpose": "transactional"}
PAUSE = {"kind": "wait", "duration": "P1D"}
ROUND = ("welcome", "mail", "pause")


def definition(loops: bool, max_visits: int = 3) -> Definition:
    pause = PAUSE | ({"next": "mail"} if loops else {})
    steps = {"welcome": {**SEND, "next": "mail"}, "mail": {**SEND, "next": "pause"}, "pause": pause}
    return Definition.model_validate({"start": "welcome", "max_visits": max_visits, "steps": steps})


LOOP, LINE = definition(True), definition(False)


class Traveller:
    """A run, and the arrivals that its record would tell of."""

    def __init__(self, definition: Definition = LOOP) -> None:
        self.definition = definition
        self.state = replace(enter(definition, RunState(run_id=uuid4(), contact_id=uuid4(), step_id="welcome"), NOW).state, sequence=1)
        self.arrivals: list[Arrival] = []

    def go(self, steps: int) -> "Traveller":
        """It does what so many of its steps say."""
        for _ in range(steps):
            self.tell()
            waits = self.state.phase is Phase.WAITING
            self.state = (wake(self.definition, self.state, NOW) if waits else sent(self.definition, self.state, NOW, {})).state
        return self

    def tell(self) -> None:
        assert self.state.step_id is not None
        self.arrivals.append(Arrival(self.state.step_id, self.state.visit, len(self.arrivals)))

    def park(self) -> "Traveller":
        self.tell()
        self.state = park(self.state, "attempt_lost").state
        return self

    def move(self, definition: Definition, step_id: str) -> "Traveller":
        left, moved = self.state.step_id, moving(self.state, step_id)
        self.definition = definition
        self.state = enter(definition, arriving(definition, moved, Way(left, Begun(), self.arrivals)), NOW).state
        return self

    @property
    def place(self) -> tuple[str | None, int]:
        return self.state.step_id, self.state.visit


def test_at_the_step_where_it_stands_it_arrives_as_the_visit_that_it_is() -> None:
    for new in (LOOP, LINE):
        for rounds in range(3):
            parked = Traveller().go(1 + 2 * rounds).park()
            assert parked.place == ("mail", 1 + rounds)
            assert parked.move(new, "mail").place == ("mail", 1 + rounds)
            assert parked.state.phase is Phase.ACTIVE and parked.move(LOOP, "mail").place == ("mail", 1 + rounds)


def test_moving_again_and_again_uses_no_visit_up() -> None:
    waiting = Traveller().go(6)
    assert waiting.place == ("pause", 3)  # the last that the journey allows
    for _ in range(3):
        assert waiting.move(definition(True), "pause").place == ("pause", 3) and waiting.state.phase is Phase.WAITING
    assert waiting.go(1).state.reason == "loop_limit"


def test_behind_the_step_where_it_stands_what_comes_is_new() -> None:
    run = Traveller().go(4).move(LOOP, "pause")
    assert run.place == ("pause", 2) and run.go(1).place == ("mail", 3)


def test_a_step_that_it_has_left_is_met_as_it_last_was_and_then_comes_what_is_new() -> None:
    run = Traveller().go(4)
    assert run.place == ("pause", 2) and run.move(LOOP, "mail").place == ("mail", 2)
    assert run.go(1).place == ("pause", 2) and run.go(1).place == ("mail", 3)
    back = Traveller().go(4).move(LOOP, "welcome")
    assert [(back.place, back.go(1).place, back.go(2).place)] == [(("welcome", 1), ("mail", 1), ("mail", 2))]
    assert back.go(2).place == ("mail", 3)


def test_a_loop_that_is_new_brings_what_is_new() -> None:
    """Otherwise what was done in the old version would pass for what the loop is to do."""
    run = Traveller(LINE).go(2).move(LOOP, "pause")
    assert run.place == ("pause", 1) and run.go(1).place == ("mail", 2)


def test_where_the_loop_is_gone_nothing_is_done_again_by_moving() -> None:
    assert Traveller().go(4).move(LINE, "mail").place == ("mail", 2)
    assert Traveller().go(4).move(LINE, "welcome").go(1).place == ("mail", 1)


def test_a_step_where_it_has_not_been_is_new() -> None:
    assert Traveller().go(1).move(LOOP, "pause").place == ("pause", 1)


def test_a_jump_afterwards_counts_on_from_the_highest_visit() -> None:
    for new in (LOOP, LINE):
        for target in ROUND:
            run = Traveller().go(3).park().move(new, target)
            assert jump(new, run.state, "mail", NOW).state.visit == 3
            again = Traveller().go(3).park().move(new, target).move(LOOP, "pause")
            assert jump(LOOP, again.state, "mail", NOW).state.visit == 3


def test_what_was_done_before_a_jump_does_not_count() -> None:
    run = Traveller().go(4)
    run.state = jump(LOOP, run.state, "mail", NOW).state
    assert run.place == ("mail", 3)
    assert run.park().move(LOOP, "mail").place == ("mail", 3)
    assert run.move(LOOP, "pause").place == ("pause", 3) and run.go(1).place == ("mail", 4)


def test_a_visit_of_which_nothing_is_on_record_is_still_that_at_which_it_stands() -> None:
    """A pause may keep it from asking anything."""
    run = Traveller().go(3)
    assert run.place == ("mail", 2) and run.move(LOOP, "mail").place == ("mail", 2)


def test_of_a_run_without_a_record_nothing_is_met() -> None:
    state = replace(Traveller().state, visits={})
    assert enter(LINE, arriving(LINE, moving(state, "mail"), NOWHERE), NOW).state.visit == 1


def test_a_replay_goes_on_from_what_it_began_with() -> None:
    begun = Begun({"mail": 1, "pause": 1})
    state = replace(enter(LOOP, RunState(run_id=uuid4(), contact_id=uuid4(), step_id="mail", visits=begun.visits), NOW).state, sequence=1)
    arrived = arriving(LOOP, moving(state, "mail"), Way("mail", begun, [Arrival("mail", 2, 1)]))
    assert enter(LOOP, arrived, NOW).state.visit == 2
    assert enter(LOOP, arriving(LOOP, moving(state, "pause"), Way("mail", begun, [Arrival("mail", 2, 1)])), NOW).state.visit == 2


def test_who_starts_later_has_been_nowhere() -> None:
    state = RunState(run_id=uuid4(), contact_id=uuid4(), step_id="mail", starts_at=NOW + timedelta(days=1), sequence=1)
    moved = moving(state, "mail")
    assert arriving(LOOP, moved, Way("mail", Begun(), [Arrival("mail", 1, 0)])) == moved
    assert next_command(LOOP, enter(LOOP, moved, NOW).state) is not None
