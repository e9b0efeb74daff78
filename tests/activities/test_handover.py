"""Runs that change their version: what a crash or a word at any moment leaves."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities.contracts.journey import JourneyInput
from activities.contracts.moves import HandOver, MoveChoice, MoveOrder, PlanPage, PlanRef
from activities.handover import HandOverActivities
from activities.moves import MoveActivities
from activities.versions import Versions
from models.domain.findings import LOST
from models.domain.journey import workflow_id
from models.domain.journey.content_hash import stored
from models.domain.journey.definition import Definition
from models.domain.journey.run import ANY_STEP, RunState
from models.store import publish_plans, runs, timelines, triggers
from models.tables.base import new_id
from models.tables.journeys import JourneyVersion
from tests.activities import recorder
from tests.activities.world import Crash, World


def named(definition: Definition, name: str) -> dict[str, Any]:
    found = stored(definition)
    return {**found, "steps": {step_id: {**step, "name": f"{name} {step_id}"} for step_id, step in found["steps"].items()}}


class Handing:
    """A publish plan under way in a world: runs at `news` of the first version move to `receipt` of the second."""

    def __init__(self, world: World, temporal: Client) -> None:
        self.world = world
        self.temporal = temporal
        self.plan_id, self.version_id = new_id(), new_id()

    async def build(self, count: int = 3, **rules: Any) -> "Handing":
        """`rules`: of the second version."""
        world = self.world
        second = {**named(world.definition(), "second"), **rules}
        self.runs = await world.people(count)
        await world.sql("UPDATE runs SET step_id = 'news', status = 'waiting', sequence = 3")
        await world.sql(
            """INSERT INTO journey_versions (id, organization_id, journey_id, number, definition, content_hash)
               VALUES (:id, :o, :journey_id, 2, CAST(:definition AS jsonb), 'second')""",
            id=self.version_id,
            journey_id=world.journey_id,
            definition=json.dumps(second),
        )
        async with world.database.organization(world.organization_id) as session:
            version = JourneyVersion(
                id=self.version_id, organization_id=world.organization_id, journey_id=world.journey_id, number=2, content_hash="second"
            )
            await triggers.put_in_force(session, version, Definition.model_validate(second))
        step = {"version_id": str(world.version_id), "number": 1, "step_id": "news", "choice": "move", "to_step": "receipt"}
        choices = {"actor": {"kind": "user", "id": str(new_id())}, "steps": [step], "moved": {}, "exited_before": {}}
        await world.sql(
            """INSERT INTO publish_plans (id, organization_id, journey_id, revision, content_hash, preview, fingerprint, choices, status,
                                          version_id)
               VALUES (:id, :o, :journey_id, 1, 'second', '{}', '', CAST(:choices AS jsonb), 'executing', :version_id)""",
            id=self.plan_id,
            journey_id=world.journey_id,
            choices=json.dumps(choices),
            version_id=self.version_id,
        )
        return self

    @property
    def handed(self) -> HandOver:
        order = MoveOrder(plan_id=self.plan_id, version_id=self.version_id, choices={"news": MoveChoice(step_id="receipt")})
        states = [
            RunState(run_id=run, contact_id=self.world.contacts[run], step_id="receipt", sequence=3, moved=True, moves=1)
            for run in self.runs
        ]
        return HandOver(scope=self.world.scope, order=order, runs=states)

    @property
    def workflow_id(self) -> str:
        return workflow_id.moved_runs(self.world.organization_id, self.plan_id, self.runs[0])

    def activities(self, temporal: Any = None) -> HandOverActivities:
        return HandOverActivities(self.world.database, self.world.settings, Versions(), temporal or self.temporal)

    async def run(self, temporal: Any = None) -> None:
        await ActivityEnvironment().run(self.activities(temporal).hand_over_runs, self.handed)

    async def rows(self) -> Sequence[Any]:
        return await self.world.sql("SELECT * FROM runs ORDER BY id")

    async def tell(self, run_id: UUID, *kinds: tuple[str, str], visit: int = 1) -> None:
        """Each kind and step is a line of the run's record."""
        for sequence, (kind, step_id) in enumerate(kinds):
            await self.world.sql(
                """INSERT INTO run_events (id, organization_id, run_id, sequence, kind, step_id, visit, details, occurred_at)
                   VALUES (gen_random_uuid(), :o, :run_id, :sequence, :kind, :step_id, :visit,
                           '{"actor_kind": "system"}', clock_timestamp())""",
                run_id=run_id,
                sequence=sequence,
                kind=kind,
                step_id=step_id,
                visit=visit,
            )

    async def sentences(self, run_id: UUID) -> list[str]:
        async with self.world.database.organization(self.world.organization_id) as session:
            return [entry.sentence for entry in await timelines.read(session, await runs.get(session, run_id))]

    async def moved(self) -> int:
        async with self.world.database.organization(self.world.organization_id) as session:
            steps = await publish_plans.progress(session, await publish_plans.get(session, self.plan_id))
        return sum(step.moved for step in steps)

    async def progress(self) -> tuple[int, int, int]:
        """So many moved, remain, and lost their workflow."""
        async with self.world.database.organization(self.world.organization_id) as session:
            [step] = await publish_plans.progress(session, await publish_plans.get(session, self.plan_id))
        return step.moved, step.remaining, step.lost

    async def given(self) -> JourneyInput:
        return await recorder.given(self.temporal, self.workflow_id)

    async def said(self) -> list[str]:
        return await recorder.told(self.temporal, self.workflow_id)

    async def wait(self, run_id: UUID, version_id: UUID, step_id: str) -> None:
        await self.world.sql(
            """INSERT INTO waits (id, organization_id, run_id, version_id, contact_id, step_id, visit, round, state, has_condition)
               VALUES (gen_random_uuid(), :o, :run_id, :version_id, :contact_id, :step_id, 1, 0, 'open', false)""",
            run_id=run_id,
            version_id=version_id,
            contact_id=self.world.contacts[run_id],
            step_id=step_id,
        )

    async def waits(self) -> list[tuple[str, str]]:
        return [(row["step_id"], row["state"]) for row in await self.world.sql("SELECT * FROM waits ORDER BY step_id, state")]


@pytest_asyncio.fixture(loop_scope="session")
async def handing(world: World, temporal: Client) -> Handing:
    return await Handing(world, temporal).build()


async def test_whom_a_rule_of_the_new_version_about_contacts_ends_already_arrives_and_leaves(world: World, temporal: Client) -> None:
    handing = await Handing(world, temporal).build(2, exits=[{"name": "customer", "when": {"tag": "customer"}}])
    customer, reader = handing.runs
    await world.sql("UPDATE contacts SET tags = '{customer}' WHERE id = :id", id=world.contacts[customer])
    await world.sql("DELETE FROM contact_changes")  # as routing does, which finds no such rule for runs of the first version
    await handing.run()
    leaving = {state.run_id: state.leaving for state in (await handing.given()).runs}
    assert leaving == {customer: "exit_rule:customer", reader: None}


async def test_rows_and_workflow_are_the_new_versions(handing: Handing) -> None:
    await handing.run()
    assert {(row["version_id"], row["workflow_id"]) for row in await handing.rows()} == {(handing.version_id, handing.workflow_id)}
    given = await handing.given()
    assert given.scope.version_id == handing.version_id and given.scope.journey_id == handing.world.journey_id
    assert [state.run_id for state in given.runs] == handing.runs
    assert {(state.step_id, state.moved, state.leaving) for state in given.runs} == {("receipt", True, None)}
    assert (given.held_by, given.cancelled, await handing.said(), await handing.moved()) == ([], False, [], 3)


async def test_the_timeline_tells_each_part_in_the_names_of_its_version_and_who_chose_the_move(handing: Handing) -> None:
    run = handing.runs[0]
    await handing.run()
    await handing.tell(run, ("entered", "news"), ("moved", "receipt"), ("woke", "news"))
    moved = 'Moved to version 2 of the journey at "second receipt" by a user'
    assert await handing.sentences(run) == ['Entered the journey at "news"', moved, 'The wait is over at "second news"']
    await handing.world.sql("UPDATE runs SET earlier_versions = '{}'")  # as before they were kept
    assert (await handing.sentences(run))[:2] == ['Entered the journey at "second news"', moved]


async def test_the_timeline_tells_of_goals_that_end_nothing(handing: Handing) -> None:
    run = handing.runs[0]
    await handing.tell(run, ("entered", "news"))
    await handing.world.sql(
        """INSERT INTO goal_hits (id, organization_id, run_id, journey_id, version_id, goal, occurred_at)
           VALUES (gen_random_uuid(), :o, :run_id, :journey_id, :version_id, 'bought', clock_timestamp())""",
        run_id=run,
        journey_id=handing.world.journey_id,
        version_id=handing.world.version_id,
    )
    assert (await handing.sentences(run))[-1] == "Reached the goal bought"


class DiesWhenItStarts:
    """The worker is gone between the rows and the workflow."""

    async def start_workflow(self, *_: Any, **__: Any) -> None:
        raise Crash


async def test_a_crash_between_the_rows_and_the_workflow_loses_and_doubles_nothing(handing: Handing) -> None:
    await handing.wait(handing.runs[0], handing.world.version_id, "news")
    with pytest.raises(Crash):
        await handing.run(DiesWhenItStarts())
    assert {row["version_id"] for row in await handing.rows()} == {handing.version_id}
    for _ in range(2):  # the retry, and one whose answer was lost
        await handing.run()
    assert [state.run_id for state in (await handing.given()).runs] == handing.runs
    assert (await handing.moved(), await handing.waits()) == (3, [("news", "closed")])


async def test_a_retry_leaves_what_the_new_workflow_waits_for(handing: Handing) -> None:
    await handing.wait(handing.runs[0], handing.world.version_id, "news")
    await handing.run()
    await handing.wait(handing.runs[0], handing.version_id, "answer")
    await handing.run()
    assert await handing.waits() == [("answer", "open"), ("news", "closed")]


async def test_an_event_that_ended_the_old_wait_is_free_again_unless_the_run_went_by_it(handing: Handing) -> None:
    stays, goes = handing.runs[:2]
    for run in (stays, goes):
        await handing.wait(run, handing.world.version_id, "news")
    await handing.world.sql("UPDATE waits SET state = 'matched', way = 0, event_id = gen_random_uuid()")
    await handing.tell(goes, ("matched", "news"))
    await handing.run()
    rows = await handing.world.sql("SELECT run_id, state, event_id IS NULL AS free FROM waits")
    assert {row["run_id"]: (row["state"], row["free"]) for row in rows} == {stays: ("closed", True), goes: ("matched", False)}


async def test_a_retry_does_not_take_back_a_run_that_has_moved_on(handing: Handing) -> None:
    await handing.run()
    await handing.world.sql("UPDATE runs SET workflow_id = 'third' WHERE id = :id", id=handing.runs[0])
    await handing.run()
    assert [row["workflow_id"] for row in await handing.rows() if row["id"] == handing.runs[0]] == ["third"]


async def test_pauses_and_exits_said_before_are_in_the_new_workflows_input(handing: Handing) -> None:
    await handing.world.sql("UPDATE journeys SET paused_at = now()")
    await handing.world.sql("UPDATE runs SET exit_requested_at = now(), exit_reason = 'bought' WHERE id = :id", id=handing.runs[1])
    await handing.run()
    given = await handing.given()
    assert given.held_by == ["journey"]
    assert [state.leaving for state in given.runs] == [None, "bought", None]


class SaysSomething:
    """Between the rows and the workflow's start an operator speaks, and a rule lets a run go."""

    def __init__(self, handing: Handing, *statements: str) -> None:
        self.handing = handing
        self.statements = statements

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handing.temporal, name)

    async def start_workflow(self, *given: Any, **options: Any) -> None:
        for statement in self.statements:
            await self.handing.world.sql(statement)
        await self.handing.temporal.start_workflow(*given, **options)


async def test_what_is_said_in_between_is_told_afterwards(handing: Handing) -> None:
    pause = "UPDATE journeys SET paused_at = now()"
    leave = "UPDATE runs SET exit_requested_at = now(), exit_reason = 'bought' WHERE id = (SELECT min(id::text)::uuid FROM runs)"
    await handing.run(SaysSomething(handing, pause, leave))
    assert (await handing.given()).held_by == []
    assert sorted(await handing.said()) == ["exit bought", "pause journey"]


async def test_runs_of_a_cancelled_campaign_are_handed_over_as_such(world: World, temporal: Client) -> None:
    await world.campaign()
    handing = await Handing(world, temporal).build()
    await world.sql("UPDATE campaigns SET cancelled_at = now(), paused_at = now()")
    await handing.run()
    given = await handing.given()
    assert (given.scope.campaign_id, given.held_by, given.cancelled) == (world.campaign_id, ["campaign"], True)
    await handing.run()  # an attempt that finds the workflow started does not know what it was told
    assert await handing.said() == ["cancel campaign"]  # whether they are held does not matter any more


CANCEL = "UPDATE journeys SET runs_cancelled_at = clock_timestamp()"


async def test_runs_that_were_cancelled_with_their_journey_before_they_moved_are_handed_over_as_such(handing: Handing) -> None:
    await handing.world.sql(CANCEL)
    await handing.run()
    given = await handing.given()
    assert (given.scope.campaign_id, given.held_by, given.cancelled, await handing.said()) == (None, [], True, [])


async def test_a_cancellation_of_their_journey_that_falls_between_the_rows_and_the_start_is_told_afterwards(handing: Handing) -> None:
    await handing.run(SaysSomething(handing, CANCEL))
    assert ((await handing.given()).cancelled, await handing.said()) == (False, ["cancel journey"])


async def test_replays_are_cancelled_with_their_journey_although_their_campaign_has_ended(world: World, temporal: Client) -> None:
    await world.campaign(status="completed")
    handing = await Handing(world, temporal).build()
    await world.sql("UPDATE runs SET replay_of = gen_random_uuid()")
    await handing.run(SaysSomething(handing, CANCEL))
    assert await handing.said() == ["cancel campaign"]


async def test_what_came_after_the_journeys_cancellation_or_belongs_to_a_campaign_goes_on(world: World, temporal: Client) -> None:
    await world.sql(CANCEL)
    later = await Handing(world, temporal).build()
    await later.run()
    await later.run()  # an attempt that does not know what was told
    assert ((await later.given()).cancelled, await later.said()) == (False, ["resume journey"])
    await world.campaign()
    await world.sql("UPDATE runs SET campaign_id = :id", id=world.campaign_id)
    await world.sql(CANCEL)
    await later.run()
    assert "cancel campaign" not in await later.said()


class DiesOnceItHasStarted(SaysSomething):
    """The worker is gone between the workflow's start and the telling."""

    async def start_workflow(self, *given: Any, **options: Any) -> None:
        await super().start_workflow(*given, **options)
        raise Crash


async def test_a_resume_that_falls_between_the_start_and_a_crash_is_told_by_the_next_attempt(handing: Handing) -> None:
    await handing.world.sql("UPDATE journeys SET paused_at = now()")
    with pytest.raises(Crash):
        await handing.run(DiesOnceItHasStarted(handing, "UPDATE journeys SET paused_at = NULL"))
    assert ((await handing.given()).held_by, await handing.said()) == (["journey"], [])
    await handing.run()
    assert await handing.said() == ["resume journey"]


async def test_a_run_that_is_over_is_left_alone(handing: Handing) -> None:
    await handing.world.sql("UPDATE runs SET finished_at = now(), status = 'cancelled' WHERE id = :id", id=handing.runs[2])
    await handing.run()
    assert [row["version_id"] == handing.version_id for row in await handing.rows() if row["id"] == handing.runs[2]] == [False]
    assert await handing.moved() == 2


# --- telling ---------------------------------------------------------------------------------------------------------


class Switchboard:
    """Stands where the client stands: keeps who was told what; `troubles` are raised by workflow id."""

    def __init__(self) -> None:
        self.told: list[tuple[str, MoveOrder, str]] = []
        self.troubles: dict[str, Exception] = {}

    def get_workflow_handle(self, name: str) -> Any:
        board = self

        class Handle:
            async def execute_update(self, update: str, order: MoveOrder, *, id: str, **_: Any) -> None:
                assert update == "move_runs"
                if name in board.troubles:
                    raise board.troubles[name]
                board.told.append((name, order, id))

        return Handle()


def moves(handing: Handing, board: Switchboard, page_size: int) -> MoveActivities:
    settings = handing.world.settings.model_copy(update={"move_page_size": page_size})
    return MoveActivities(handing.world.database, settings, cast(Client, board))


async def tell(handing: Handing, board: Switchboard, after: str | None = None, page_size: int = 2, by: str = "first") -> str | None:
    """`by`: the Temporal run of the plan's workflow."""
    plan = PlanRef(organization_id=handing.world.organization_id, plan_id=handing.plan_id, passes=7)
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_run_id=by)
    told = await environment.run(moves(handing, board, page_size).tell_moves, PlanPage(plan=plan, after=after))
    return told.after


async def test_every_workflow_with_runs_there_is_told_once_per_pass(handing: Handing) -> None:
    board, names = Switchboard(), sorted(f"test/{run}" for run in handing.runs)
    after = await tell(handing, board)
    assert after == names[1]
    assert await tell(handing, board, after) is None
    assert [(name, id) for name, _, id in board.told] == [(name, f"{handing.plan_id}/first/7/{name}") for name in names]
    assert {(order.version_id, order.choices["news"].step_id) for _, order, _ in board.told} == {(handing.version_id, "receipt")}


async def test_a_plan_that_begins_anew_is_not_taken_for_what_was_said_before(handing: Handing) -> None:
    """It counts its passes anew, and a workflow answers a word that it has heard without obeying it again."""
    board = Switchboard()
    for by in ("first", "first", "second"):
        await tell(handing, board, page_size=10, by=by)
    said = [id for name, _, id in board.told if name == f"test/{handing.runs[0]}"]
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("silence", [WorkflowUpdateRPCTimeoutOrCancelledError(), RPCError("slow", RPCStatusCode.DEADLINE_EXCEEDED, b"")])
async def test_one_that_is_closed_missing_or_silent_keeps_nobody_waiting(handing: Handing, silence: Exception) -> None:
    board = Switchboard()
    gone, silent = (f"test/{run}" for run in handing.runs[:2])
    board.troubles = {gone: RPCError("not found", RPCStatusCode.NOT_FOUND, b""), silent: silence}
    assert await tell(handing, board, page_size=10) is None
    assert [name for name, _, _ in board.told] == [f"test/{handing.runs[2]}"]


async def test_when_temporal_is_away_the_page_is_tried_again(handing: Handing) -> None:
    board = Switchboard()
    board.troubles = {f"test/{handing.runs[0]}": RPCError("away", RPCStatusCode.UNAVAILABLE, b"")}
    with pytest.raises(RPCError):
        await tell(handing, board)


async def test_a_plan_is_completed_once_when_nobody_stands_there(handing: Handing) -> None:
    plan = PlanRef(organization_id=handing.world.organization_id, plan_id=handing.plan_id)
    finish = moves(handing, Switchboard(), 2).finish_plan
    assert (await ActivityEnvironment().run(finish, plan)).finished is False
    await handing.run()
    for _ in range(2):
        assert (await ActivityEnvironment().run(finish, plan)).finished is True
    assert await handing.world.actions("journey.publish_plan") == ["journey.publish_plan_completed"]
    assert await handing.moved() == 3  # kept as it was at the end


async def test_a_run_whose_workflow_is_gone_keeps_no_plan_under_way_and_is_not_told(handing: Handing) -> None:
    """Nobody can move it: the next plan must not wait for somebody who cancels or replays it."""
    lost, *_ = handing.runs
    await handing.world.sql(
        "UPDATE runs SET status = 'needs_attention', reason = :lost, workflow_id = 'gone' WHERE id = :id", lost=LOST, id=lost
    )
    plan = PlanRef(organization_id=handing.world.organization_id, plan_id=handing.plan_id)
    switchboard = Switchboard()
    await ActivityEnvironment().run(moves(handing, switchboard, 9).tell_moves, PlanPage(plan=plan))
    assert {name for name, *_ in switchboard.told} == {row["workflow_id"] for row in await handing.rows()} - {"gone"}
    await handing.world.sql("UPDATE runs SET status = 'needs_attention', reason = 'attempt_lost' WHERE id <> :id", id=lost)
    assert await handing.progress() == (0, 2, 1)  # who needs attention otherwise can move
    await handing.world.sql("UPDATE runs SET version_id = :new WHERE id <> :id", new=handing.version_id, id=lost)
    assert (await ActivityEnvironment().run(moves(handing, switchboard, 9).finish_plan, plan)).finished is True
    assert await handing.progress() == (0, 0, 1)


async def test_who_leaves_is_told_by_the_outbox_where_temporal_takes_nothing_for_the_workflow(handing: Handing) -> None:
    class Refuses(SaysSomething):
        def get_workflow_handle(self, name: str) -> Any:
            return self

        async def signal(self, *_: Any) -> None:
            raise RPCError("exceeded workflow execution limit for signal events", RPCStatusCode.INVALID_ARGUMENT, b"")

    leave = "UPDATE runs SET exit_requested_at = now(), exit_reason = 'bought' WHERE id = (SELECT min(id::text)::uuid FROM runs)"
    await handing.run(Refuses(handing, leave, "UPDATE journeys SET paused_at = now()"))
    rows = await handing.world.sql("SELECT kind, body FROM run_messages ORDER BY id")
    assert [(row["kind"], row["body"]) for row in rows] == [
        ("exit", {"reason": "bought"}),
        ("start", {"workflow_id": handing.workflow_id}),
    ]


async def test_a_run_is_handed_over_as_its_record_says_that_it_has_been_there(handing: Handing) -> None:
    """The step that it leaves, and those that it has left, count as when it last was there; read by its row, each run for itself."""
    been, new, there = handing.runs
    await handing.tell(been, ("sent", "receipt"), ("waiting", "news"), visit=3)
    await handing.world.sql("UPDATE runs SET step_id = 'receipt' WHERE id = :id", id=there)
    handed = handing.handed
    at = [replace(run, visit=2 if run.run_id == there else 1) for run in handed.runs]
    await ActivityEnvironment().run(handing.activities().hand_over_runs, handed.model_copy(update={"runs": at}))
    visits = {run.run_id: run.visits for run in (await handing.given()).runs}
    assert visits == {been: {"receipt": 2, ANY_STEP: 3}, new: {ANY_STEP: 1}, there: {"receipt": 1, ANY_STEP: 2}}
