"""Whoever locks the same rows locks them in one order: a second transaction that holds the first of them, and has another one wait for
that, can always take the next."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, cast
from unittest.mock import AsyncMock

from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.contracts.control import Control, ControlledKind
from activities.contracts.operations import OperationPage, OperationRef
from activities.control import ControlActivities
from activities.operations import OperationActivities
from models.domain.audit import SYSTEM
from models.domain.journey.operations import RunSelection
from models.settings import Settings
from models.store import run_operations, run_selection
from models.store.run_selection import RunQuery
from models.store.session import Database
from models.tables.base import new_id
from tests.activities.test_audit import happened, record
from tests.activities.test_replays import Replaying, judged, leave, replay
from tests.activities.world import World

AUDIT_CHAIN = "SELECT 1 FROM audit_heads WHERE organization_id = :o FOR UPDATE NOWAIT"


async def take_both(world: World, first: str, act: Callable[[], Awaitable[Any]], second: str, **values: Any) -> None:
    """While `first` is held, `act` comes to wait for that; then `second` is free. Raises what PostgreSQL says if it is not."""
    given = {"o": world.organization_id, **values}
    async with world.database.organization(world.organization_id) as session:
        assert (await session.execute(text(first), given)).all() != []
        acting = asyncio.ensure_future(act())
        waits = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))")
        try:
            async with asyncio.timeout(60):
                while not await session.scalar(waits):
                    assert not acting.done(), "it did not wait"
                    await asyncio.sleep(0.01)
            assert (await session.execute(text(second), given)).all() != []
        except BaseException:
            acting.cancel()
            raise
    await acting


async def test_the_record_of_runs_and_whoever_claims_their_effects(world: World) -> None:
    first, second = sorted(await world.people(2))
    told = [happened(second, 1, "entered", "active", step_id="news"), happened(first, 2, "entered", "active", step_id="news")]
    lock = "SELECT 1 FROM runs WHERE organization_id = :o AND id = :{} FOR KEY SHARE NOWAIT"
    await take_both(world, lock.format("lower"), lambda: record(world, *told), lock.format("higher"), lower=first, higher=second)
    assert await world.one("SELECT count(*) FROM runs WHERE id IN (:first, :second) AND sequence > 0", first=first, second=second) == 2


async def test_a_run_that_parks_and_messages_that_are_counted_brake_the_same_campaign(world: World) -> None:
    campaign = await world.campaign(status="running")
    await world.sql("UPDATE campaigns SET on_error = 'pause' WHERE id = :id", id=campaign)
    await world.sql(
        """INSERT INTO brake_counts (organization_id, subject_id, subject_kind, window_size, attempted, failed, earlier_attempted,
             earlier_failed) VALUES (:o, :id, 'campaign', 100, 1, 0, 0, 0)""",
        id=campaign,
    )
    parked = happened(await world.contact(), 1, "parked", "needs_attention", step_id="news", reason="missing_value")
    await take_both(
        world,
        "SELECT 1 FROM brake_counts WHERE organization_id = :o AND subject_id = :id FOR UPDATE",
        lambda: record(world, parked),
        "SELECT 1 FROM campaigns WHERE organization_id = :o AND id = :id FOR UPDATE NOWAIT",
        id=campaign,
    )
    assert await world.one("SELECT paused_at IS NOT NULL FROM campaigns WHERE id = :id", id=campaign)


async def test_a_page_of_new_variables_and_the_cancellation_of_its_operation(world: World) -> None:
    run = await world.contact()
    async with world.database.organization(world.organization_id) as session:
        wanted = RunQuery("set_variables", RunSelection(run_ids=[run]), {"variables": {"order": "A-1"}})
        operation = await run_operations.add(session, wanted, await run_selection.bound(session, wanted), 1, None)
        await run_operations.execute(session, operation, SYSTEM, "asked")
    activities = OperationActivities(world.database, cast(Any, AsyncMock()))
    page = OperationPage(operation=OperationRef(organization_id=world.organization_id, operation_id=operation.id, command="set_variables"))
    await take_both(
        world,
        "SELECT 1 FROM run_operations WHERE organization_id = :o AND id = :id FOR UPDATE",
        lambda: ActivityEnvironment().run(activities.set_variables_page, page),
        AUDIT_CHAIN,
        id=operation.id,
    )
    assert await world.one("SELECT variables FROM runs WHERE id = :id", id=run) == {"order": "A-1"}


async def test_a_resumption_that_leaves_some_out_and_whoever_lets_contacts_enter(world: World) -> None:
    run = await world.contact()
    await world.sql("UPDATE journeys SET paused_at = now() - interval '1 hour' WHERE id = :id", id=world.journey_id)
    word = Control(
        organization_id=world.organization_id,
        kind=ControlledKind.JOURNEY,
        id=world.journey_id,
        command="resume",
        drop_older_than=timedelta(minutes=1),
    )
    activities = ControlActivities(world.database, cast(Any, AsyncMock()))
    await take_both(
        world,
        "SELECT 1 FROM journeys WHERE organization_id = :o AND id = :id FOR NO KEY UPDATE",
        lambda: ActivityEnvironment().run(activities.apply_control, word),
        AUDIT_CHAIN,
        id=world.journey_id,
    )
    assert await world.one("SELECT exit_reason FROM runs WHERE id = :id", id=run) == "overdue"
    assert (await world.actions("journey."))[-2:] == ["journey.resumed", "journey.runs_left_out"]


async def test_replays_that_ask_about_their_chains_and_whoever_ends_the_old_runs(database: Database, settings: Settings) -> None:
    """What was accepted while they waited is not taken from its run."""
    world = await Replaying(database, settings).build()
    runs, (lower, higher) = sorted(await world.people(2)), sorted([new_id(), new_id()])
    for run, delivery in zip(runs, (higher, lower), strict=True):
        await leave(world, run, "claimed", id=delivery)
    new = await replay(world, runs)
    await take_both(
        world,
        "UPDATE deliveries SET state = 'accepted', outcome = 'accepted', settled_at = now() WHERE organization_id = :o AND id = :lower "
        "RETURNING id",
        lambda: judged(world, new),
        "SELECT 1 FROM deliveries WHERE organization_id = :o AND id = :higher FOR UPDATE NOWAIT",
        lower=lower,
        higher=higher,
    )
    assert [(await world.delivery(run))["state"] for run in runs] == ["failed", "accepted"]
