"""What stands in the outbox is told, whichever workflows cannot be told, and wherever an attempt breaks off."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast
from uuid import UUID

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import GrpcStatus
from temporalio.api.enums.v1 import ResourceExhaustedCause
from temporalio.api.errordetails.v1 import ResourceExhaustedFailure
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities import routing
from activities.contracts.control import Control, ControlledKind, ControlTargets
from activities.contracts.journey import JourneyInput
from activities.contracts.routing import Routed
from activities.control import ControlActivities
from activities.routing import RoutingActivities
from activities.signals import refuses_one
from activities.starting import start_journey
from activities.versions import Versions
from models.settings import Settings
from models.store import outbox
from models.store.outbox import OutboxMessage, PendingMessage
from tests.activities import recorder
from tests.activities.world import Crash, World


class Telling:
    """Workflows that answer, but for those of `silent` runs."""

    def __init__(self, silent: Sequence[UUID]) -> None:
        self.silent = silent
        self.heard: list[UUID] = []

    async def tell(self, organization_id: UUID, waiting: Sequence[PendingMessage]) -> list[UUID]:
        told = [message for message in waiting if message.run_id not in self.silent]
        self.heard += [message.run_id for message in told]
        return [message.id for message in told]


async def test_words_that_cannot_be_told_yet_keep_nobody_elses_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the pages of a large campaign are being started."""
    monkeypatch.setattr(routing, "MESSAGES_AT_ONCE", 2)
    silent, others = await world.people(5), await world.people(3)
    async with world.database.organization(world.organization_id) as session:
        await outbox.add(session, [OutboxMessage(run, "reconsider") for run in (*silent, *others)])
    activities = RoutingActivities(world.database, world.settings, Versions(), cast(Any, None))
    telling = Telling(silent)
    monkeypatch.setattr(activities, "delivery", telling)
    assert await activities._tell(world.organization_id) == Routed(more=True, stuck=True)
    assert telling.heard == others
    assert await world.one("SELECT count(*) FROM run_messages") == 5
    assert await activities._tell(world.organization_id) == Routed(more=False, stuck=True)
    telling.silent = ()
    assert await activities._tell(world.organization_id) == Routed(more=True, stuck=False)
    while (await activities._tell(world.organization_id)).more:
        pass
    assert await world.one("SELECT count(*) FROM run_messages") == 0


# --- Workflows for which Temporal takes nothing -------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict(settings: Settings) -> AsyncIterator[Client]:
    """A Temporal that takes two signals for each workflow, where others take ten thousand."""
    async with recorder.recording(settings, "history.maximumSignalsPerExecution=2") as client:
        yield client


def delivering(world: World, temporal: Any) -> RoutingActivities:
    return RoutingActivities(world.database, world.settings, Versions(), temporal)


async def write(world: World, *messages: OutboxMessage) -> None:
    async with world.database.organization(world.organization_id) as session:
        await outbox.add(session, messages)


async def unsaid(world: World) -> list[tuple[UUID, str]]:
    return [(row["run_id"], row["kind"]) for row in await world.sql("SELECT run_id, kind FROM run_messages ORDER BY id")]


def workflow_of(run_id: UUID) -> str:
    return f"test/{run_id}"


async def start(world: World, temporal: Client, *run_ids: UUID) -> None:
    for run_id in run_ids:
        given = JourneyInput(scope=world.scope, definition=world.definition(), runs=[])
        await start_journey(temporal, world.settings.task_queue, workflow_of(run_id), given)


async def fill(world: World, temporal: Client, run_id: UUID) -> None:
    """The workflow has had as many signals as it may have."""
    for _ in range(2):
        word = Control(organization_id=world.organization_id, kind=ControlledKind.JOURNEY, id=world.journey_id, command="resume")
        await temporal.get_workflow_handle(workflow_of(run_id)).signal("control", word)


async def test_a_workflow_that_takes_no_signal_any_more_keeps_nobody_elses_word_back(
    world: World, strict: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "MESSAGES_AT_ONCE", 2)
    deaf, other = await world.people(2)
    late = await world.contact()
    await start(world, strict, deaf, other)
    await fill(world, strict, deaf)
    many = [OutboxMessage(deaf, "exit", {"reason": str(number)}) for number in range(12)]  # more than the pages of one round hold
    await write(world, *many, OutboxMessage(other, "exit", {"reason": "bought"}), OutboxMessage(late, "start"))
    assert (await delivering(world, strict)._tell(world.organization_id)).stuck
    assert await recorder.told(strict, workflow_of(other)) == ["exit bought"]
    assert [state.run_id for state in (await recorder.given(strict, workflow_of(late))).runs] == [late]
    assert await unsaid(world) == [(deaf, "exit")] * 12
    assert await recorder.told(strict, workflow_of(deaf)) == ["resume journey"] * 2


async def test_a_word_that_one_workflow_does_not_take_is_told_to_the_others_and_to_that_one_later(world: World, strict: Client) -> None:
    deaf, other = await world.people(2)
    await world.sql("UPDATE runs SET sequence = 3")
    await start(world, strict, deaf, other)
    await fill(world, strict, deaf)
    await world.sql("UPDATE journeys SET paused_at = now()")
    word = Control(organization_id=world.organization_id, kind=ControlledKind.JOURNEY, id=world.journey_id, command="pause")
    targets = ControlTargets(control=word, workflow_ids=[workflow_of(deaf), workflow_of(other)])
    await ActivityEnvironment().run(ControlActivities(world.database, strict).signal_workflows, targets)
    assert await recorder.told(strict, workflow_of(other)) == ["pause journey"]
    assert await unsaid(world) == [(deaf, "start")]
    assert await delivering(world, strict)._tell(world.organization_id) == Routed(stuck=True)
    assert await unsaid(world) == [(deaf, "start")]
    await strict.get_workflow_handle(workflow_of(deaf)).terminate()
    await strict.start_workflow(  # as after it has continued as new
        recorder.Recorder.run,
        JourneyInput(scope=world.scope, definition=world.definition(), runs=[]),
        id=workflow_of(deaf),
        task_queue=world.settings.task_queue,
    )
    assert await delivering(world, strict)._tell(world.organization_id) == Routed()
    assert await recorder.told(strict, workflow_of(deaf)) == ["pause journey"]
    assert await unsaid(world) == []


async def test_what_is_to_be_told_later_is_told_while_the_workflow_carries_anybody(world: World) -> None:
    first, second = sorted(await world.people(2))
    await world.sql("UPDATE runs SET workflow_id = 'both'")
    async with world.database.organization(world.organization_id) as session:
        await outbox.tell_later(session, ["both", "nobody"])
    await world.sql("UPDATE runs SET finished_at = now(), status = 'exited' WHERE id = :id", id=first)
    async with world.database.organization(world.organization_id) as session:
        assert [(one.run_id, one.workflow_id, one.finished) for one in await outbox.pending(session, 9)] == [(first, "both", False)]
    await world.sql("UPDATE runs SET workflow_id = 'moved' WHERE id = :id", id=second)
    async with world.database.organization(world.organization_id) as session:
        assert [(one.workflow_id, one.finished) for one in await outbox.pending(session, 9)] == [("both", True)]


def exhausted(cause: ResourceExhaustedCause.ValueType) -> bytes:
    status = GrpcStatus(code=RPCStatusCode.RESOURCE_EXHAUSTED.value)
    status.details.add().Pack(ResourceExhaustedFailure(cause=cause))
    return status.SerializeToString()


@pytest.mark.parametrize(
    ("status", "raw", "one"),
    [
        (RPCStatusCode.INVALID_ARGUMENT, b"", True),
        (RPCStatusCode.FAILED_PRECONDITION, b"", True),
        (RPCStatusCode.INTERNAL, b"", True),
        (RPCStatusCode.RESOURCE_EXHAUSTED, exhausted(ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW), True),
        (RPCStatusCode.RESOURCE_EXHAUSTED, exhausted(ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT), False),
        (RPCStatusCode.RESOURCE_EXHAUSTED, b"", False),
        (RPCStatusCode.UNAVAILABLE, b"", False),
        (RPCStatusCode.DEADLINE_EXCEEDED, b"", False),
        (RPCStatusCode.CANCELLED, b"", False),
        (RPCStatusCode.PERMISSION_DENIED, b"", False),
    ],
)
def test_which_answers_are_about_one_workflow(status: RPCStatusCode, raw: bytes, one: bool) -> None:
    assert refuses_one(RPCError("no", status, raw), "name") is one


async def test_while_temporal_is_away_nothing_counts_as_told(world: World) -> None:
    class Away:
        def get_workflow_handle(self, name: str) -> "Away":
            return self

        async def signal(self, *_: Any) -> None:
            raise RPCError("connection refused", RPCStatusCode.UNAVAILABLE, b"")

    [run] = await world.people(1)
    await write(world, OutboxMessage(run, "exit"))
    with pytest.raises(RPCError):
        await delivering(world, Away())._tell(world.organization_id)
    assert await unsaid(world) == [(run, "exit")]


# --- Attempts that break off --------------------------------------------------------------------------------------------


class SaysSomething:
    """While a workflow starts, too early to be signalled to it, an operator speaks."""

    def __init__(self, world: World, temporal: Client, *statements: str) -> None:
        self.world = world
        self.temporal = temporal
        self.statements = statements

    def __getattr__(self, name: str) -> Any:
        return getattr(self.temporal, name)

    async def start_workflow(self, *given: Any, **options: Any) -> None:
        for statement in self.statements:
            await self.world.sql(statement)
        await self.temporal.start_workflow(*given, **options)


class DiesOnceItHasStarted(SaysSomething):
    """The worker is gone between a workflow's start and the telling; meanwhile the workflow has recorded something, an operator spoke."""

    async def start_workflow(self, *given: Any, **options: Any) -> None:
        await super().start_workflow(*given, **options)
        raise Crash


async def test_a_resume_that_falls_between_the_start_and_a_crash_is_told_by_the_next_attempt(world: World, temporal: Client) -> None:
    [run] = await world.people(1)
    await world.sql("UPDATE journeys SET paused_at = now()")
    await write(world, OutboxMessage(run, "start"))
    happens = ("UPDATE journeys SET paused_at = NULL", "UPDATE runs SET sequence = 2, status = 'paused'")
    with pytest.raises(Crash):
        await delivering(world, DiesOnceItHasStarted(world, temporal, *happens))._tell(world.organization_id)
    assert (await recorder.given(temporal, workflow_of(run))).held_by == ["journey"]
    await delivering(world, temporal)._tell(world.organization_id)
    assert await recorder.told(temporal, workflow_of(run)) == ["resume journey"]
    assert await unsaid(world) == []


# --- Cancelled with their journey ---------------------------------------------------------------------------------------

CANCEL = "UPDATE journeys SET runs_cancelled_at = clock_timestamp()"
REPLAYS = """UPDATE runs SET replay_of = gen_random_uuid(), step_id = 'news',
  replay = '{"from_step": "news", "visits": {}, "visits_before": 0, "skips": []}'"""
kinds = pytest.mark.parametrize("made", ["UPDATE runs SET step_id = 'news'", REPLAYS], ids=["entered", "replays"])


@kinds
async def test_runs_that_are_cancelled_before_their_workflow_starts_are_cancelled_in_it(world: World, temporal: Client, made: str) -> None:
    [run] = await world.people(1)
    await world.sql(made)
    await write(world, OutboxMessage(run, "start"))
    await world.sql(CANCEL)
    await delivering(world, temporal)._tell(world.organization_id)
    given = await recorder.given(temporal, workflow_of(run))
    assert (given.cancelled, await recorder.told(temporal, workflow_of(run))) == (True, [])


@kinds
async def test_runs_that_are_cancelled_while_their_workflow_starts_are_told_afterwards(world: World, temporal: Client, made: str) -> None:
    [run] = await world.people(1)
    await world.sql(made)
    await write(world, OutboxMessage(run, "start"))
    await delivering(world, SaysSomething(world, temporal, CANCEL))._tell(world.organization_id)
    given = await recorder.given(temporal, workflow_of(run))
    assert (given.cancelled, await recorder.told(temporal, workflow_of(run))) == (False, ["cancel journey"])


@kinds
async def test_who_comes_after_a_cancellation_of_the_journey_is_not_cancelled(world: World, temporal: Client, made: str) -> None:
    await world.sql(CANCEL)
    [run] = await world.people(1)
    await world.sql(made)
    await write(world, OutboxMessage(run, "start"))
    await delivering(world, temporal)._tell(world.organization_id)
    given = await recorder.given(temporal, workflow_of(run))
    assert (given.cancelled, await recorder.told(temporal, workflow_of(run))) == (False, [])


async def test_runs_that_a_rule_has_ended_before_their_workflow_starts_leave_by_that_rule(world: World, temporal: Client) -> None:
    [run] = await world.people(1)
    await world.sql("UPDATE runs SET exit_requested_at = now(), exit_reason = 'goal:bought'")
    await write(world, OutboxMessage(run, "start"))
    await delivering(world, temporal)._tell(world.organization_id)
    given = await recorder.given(temporal, workflow_of(run))
    assert (given.cancelled, [state.leaving for state in given.runs]) == (False, ["goal:bought"])
