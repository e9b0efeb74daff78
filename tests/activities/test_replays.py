"""Of two runs of one chain never both do the same, however the old one's last breath falls together with the replay."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast
from unittest.mock import AsyncMock
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.consent import ConsentActivities
from activities.contracts.operations import OperationPage, OperationRef
from activities.contracts.payload import Scope
from activities.contracts.sending import SendOutcome, SendResult
from activities.lines import Lines
from activities.replaying import ReplayActivities
from activities.send import SendActivities
from activities.versions import Versions
from models.domain.audit import Actor
from models.domain.journey.operations import RunSelection
from models.domain.journey.run import Phase
from models.settings import Settings
from models.store import audit, journeys, replay_plans, replays, run_operations, run_selection
from models.store.replay_plans import Plan, Refusal, ReplayOptions
from models.store.replays import Made
from models.store.session import Database
from models.tables.base import new_id
from tests.activities.effects.world import EffectWorld, said
from tests.activities.world import FakeProvider, World

ALICE = Actor("user", UUID(int=7))


async def replay(world: World, runs: Sequence[UUID], **asked: Any) -> list[UUID]:
    """The runs, parked, are replayed together; the world knows the new ones, and asks as they would."""
    await world.sql("UPDATE runs SET status = 'needs_attention', step_id = coalesce(step_id, 'news') WHERE replay_of IS NULL")
    wanted = ReplayOptions(reason="outage", **asked)
    async with world.database.organization(world.organization_id) as session:
        plans = await replay_plans.plan(session, await replay_plans.load(session, runs, lock=True), wanted)
        assert all(isinstance(plan, Plan) for plan in plans), plans
        made, entries = await replays.make(session, [plan for plan in plans if isinstance(plan, Plan)], wanted, ALICE)
        await audit.append(session, entries)
    world.contacts |= {one.id: world.contacts[one.old_id] for one in made}
    return _in_order(made, runs)


def _in_order(made: Sequence[Made], runs: Sequence[UUID]) -> list[UUID]:
    by_old = {one.old_id: one.id for one in made}
    return [by_old[run] for run in runs]


class Replaying(World):
    @property
    def scope(self) -> Scope:
        return super().scope.model_copy(update={"replay": True})


class ReplayingEffects(EffectWorld):
    @property
    def scope(self) -> Scope:
        return super().scope.model_copy(update={"replay": True})


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    return await Replaying(database, settings).build()


async def send(sending: SendActivities, world: World, run_ids: Sequence[UUID], **asked: Any) -> list[SendResult]:
    return await ActivityEnvironment().run(sending.send_messages, world.batch(run_ids, **asked))


async def judged(world: World, run_ids: Sequence[UUID]) -> dict[UUID, SendOutcome | None]:
    """What the consent check says that there is nothing to ask about."""
    checks = ConsentActivities(world.database, world.settings, Versions())
    answers = await ActivityEnvironment().run(checks.check_consent, world.batch(run_ids))
    return {answer.run_id: answer.kept.outcome if answer.kept else None for answer in answers}


async def leave(world: World, run_id: UUID, state: str, age: str = "1 second", **values: Any) -> None:
    """A delivery of the run as an attempt left it."""
    await world.sql(
        """INSERT INTO deliveries (id, organization_id, run_id, journey_id, version_id, contact_id, step_id, visit, channel, purpose, state,
             attempt, attempts, transmitting_at)
           VALUES (:id, :o, :run, :journey, :version, :contact, 'news', 1, 'email', 'marketing', :state, :attempt, 0,
             clock_timestamp() - CAST(:age AS interval))""",
        id=values.get("id", new_id()),
        run=run_id,
        journey=world.journey_id,
        version=world.version_id,
        contact=world.contacts[run_id],
        state=state,
        attempt=values.get("attempt"),
        age=age,
    )


async def test_a_batch_of_replays_keeps_leaves_in_doubt_and_sends(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    runs = await world.people(5)
    for run, state, age in zip(runs, ("accepted", "unknown", "transmitting", "transmitting"), ("1 s", "1 s", "1 s", "1 h"), strict=False):
        await leave(world, run, state, age)
    new = await replay(world, runs)
    results = {result.run_id: result for result in await send(sending, world, new)}
    assert [results[run].outcome for run in new] == [
        *(SendOutcome.ACCEPTED, SendOutcome.UNKNOWN, SendOutcome.TRANSIENT, SendOutcome.UNKNOWN, SendOutcome.ACCEPTED)
    ]
    assert [results[run].kept_from for run in new] == [*runs[:4], None]
    assert (results[new[2]].reason, results[new[2]].retry_at is not None, results[new[3]].reason) == ("being_sent", True, "attempt_lost")
    assert len(provider.called) == 1
    assert list((await judged(world, new)).values()).count(None) == 1
    decided = await world.one("SELECT count(*) FROM decisions WHERE run_id = ANY(:ids)", ids=new)
    assert decided == 1  # about what is kept nothing is decided


async def test_a_batch_of_other_runs_asks_nothing_about_chains(database: Database, settings: Settings, provider: FakeProvider) -> None:
    plain = await World(database, settings).build()
    sending = SendActivities(database, settings, Versions(), Lines(provider, settings.send_concurrency))
    old = await plain.contact()
    await leave(plain, old, "accepted")
    [new] = await replay(plain, [old])
    assert not plain.scope.replay  # a wrong scope: only to show that it is the scope that makes the difference
    [result] = await send(sending, plain, [new])
    assert (result.outcome, result.kept_from) == (SendOutcome.ACCEPTED, None) and len(provider.accepted) == 1


async def test_what_the_old_run_had_only_claimed_is_taken_from_it(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    """Its attempt stands at the fence while the run is replayed, and the replay sends."""
    run = await world.contact()
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hesitate(message: object) -> None:
        if not arrived.is_set():
            arrived.set()
            await go.wait()

    provider.before.append(hesitate)
    last_breath = asyncio.create_task(send(sending, world, [run]))
    await arrived.wait()
    [new] = await replay(world, [run])
    [result] = await send(sending, world, [new])
    go.set()
    [late] = await last_breath
    assert (result.outcome, len(provider.accepted)) == (SendOutcome.ACCEPTED, 1)
    assert late.outcome is not SendOutcome.ACCEPTED
    row = await world.delivery(run)
    assert (row["state"], row["reason"]) == ("failed", "replayed")
    assert await world.actions("delivery.") == ["delivery.failed", "delivery.accepted"]


async def test_a_replayed_run_passes_no_fence_and_claims_no_effect(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    run = await world.contact()
    await replay(world, [run])
    [result] = await send(sending, world, [run])
    assert (result.outcome, result.reason, provider.accepted) == (SendOutcome.PAUSED, "run_left", [])


@pytest.mark.parametrize("resend", [False, True])
async def test_a_message_is_sent_once_more_only_where_that_is_asked_for(
    world: World, sending: SendActivities, provider: FakeProvider, resend: bool
) -> None:
    run = await world.contact()
    await send(sending, world, [run])
    [new] = await replay(world, [run], resend=frozenset({"news"} if resend else ()))
    await send(sending, world, [new])
    assert len(provider.accepted) == (2 if resend else 1)
    [again] = await replay_finished(world, new)
    [result] = await send(sending, world, [again])
    assert (result.kept_from, len(provider.accepted)) == (run, 2 if resend else 1)  # asked for once, done once


async def replay_finished(world: World, run_id: UUID, **asked: Any) -> list[UUID]:
    await world.sql("UPDATE runs SET status = 'completed', finished_at = clock_timestamp() WHERE id = :id", id=run_id)
    return await replay(world, [run_id], **asked)


UPDATE: dict[str, Any] = {"kind": "update_contact", "attributes": {"plan": "gold"}}


@pytest.fixture
async def effects(database: Database, settings: Settings) -> EffectWorld:
    return await ReplayingEffects(database, settings).found(news=UPDATE)


async def test_an_effect_is_kept_through_a_chain_and_says_whose_it_was(effects: EffectWorld) -> None:
    run = await effects.contact()
    await effects.perform([run], "news")
    await effects.sql("UPDATE contacts SET attributes = '{}'")
    [new] = await replay(effects, [run])
    [kept] = await effects.perform([new], "news")
    [newer] = await replay_finished(effects, new)
    [kept_again] = await effects.perform([newer], "news")
    assert (await effects.person(run))["attributes"] == {}
    assert [answer.details["kept_from"] for answer in (kept, kept_again)] == [str(run), str(run)]
    assert kept.details["kept_at"] == kept_again.details["kept_at"]


@pytest.mark.parametrize("state", ["done", "unknown"])
async def test_what_another_kind_of_step_did_is_neither_kept_nor_in_doubt_and_the_dry_run_says_so(effects: EffectWorld, state: str) -> None:
    """In the version that the old run was on, the step of this name did something else."""
    runs = await effects.people(2)
    await effects.perform(runs[:1], "news")
    await leave(effects, runs[1], {"done": "accepted"}.get(state, state))
    await effects.sql("UPDATE effects SET kind = 'subscribe', state = :state", state=state)
    await effects.sql("UPDATE contacts SET attributes = '{}'")
    await effects.sql("UPDATE runs SET status = 'needs_attention', step_id = 'news'")
    async with effects.database.organization(effects.organization_id) as session:
        seen = await replay_plans.dry_run(session, runs, ReplayOptions())
    assert {name: count for name, count in seen.numbers.items() if count} == {"to_do": 2}
    new = await replay(effects, runs)
    assert said(await effects.perform(new, "news")) == [("done", None)] * 2
    assert [(await effects.person(run))["attributes"] for run in runs] == [{"plan": "gold"}] * 2


async def test_an_effect_in_doubt_is_left_to_a_person_until_more_is_known(effects: EffectWorld) -> None:
    run = await effects.contact()
    await effects.perform([run], "news")
    await effects.sql("UPDATE effects SET state = 'unknown', reason = 'attempt_lost'")
    [new] = await replay(effects, [run])
    assert said(await effects.perform([new], "news")) == [("failed", "attempt_lost")]
    await effects.sql("UPDATE effects SET state = 'done', reason = NULL WHERE run_id = :id", id=run)
    assert said(await effects.perform([new], "news", round=1)) == [("done", None)]


async def test_an_effect_that_the_old_run_failed_or_only_claimed_is_done(effects: EffectWorld) -> None:
    runs = [await effects.contact() for _ in range(2)]
    await effects.perform(runs, "news")
    await effects.sql("UPDATE contacts SET attributes = '{}'")
    for run, state in zip(runs, ("failed", "claimed"), strict=True):
        await effects.sql("UPDATE effects SET state = :state WHERE run_id = :id", state=state, id=run)
    new = await replay(effects, runs)
    assert said(await effects.perform(new, "news")) == [("done", None)] * 2
    assert [(await effects.person(run))["attributes"] for run in runs] == [{"plan": "gold"}] * 2
    assert said(await effects.perform(runs, "news")) == [("failed", None), ("failed", "replayed")]  # the old ones: never again


async def test_a_replay_waits_for_what_the_old_run_is_just_doing(effects: EffectWorld) -> None:
    """Both would otherwise do it: one in a transaction that the other cannot see yet."""
    run = await effects.contact()
    await effects.sql("UPDATE runs SET status = 'needs_attention', step_id = 'news'")
    doing = asyncio.create_task(effects.perform([run], "news"))
    [new], [answer] = await asyncio.gather(replay(effects, [run]), doing)
    [kept] = await effects.perform([new], "news")
    was_first = "kept_from" in kept.details
    assert (answer.refused, was_first) in ((False, True), (True, False))
    assert await effects.one("SELECT count(*) FROM audit_entries WHERE action = 'contact.changed'") == 1


@pytest.mark.parametrize(
    ("ending", "code"),
    [("exit_requested_at = now(), exit_reason = 'goal:bought'", "run_left"), ("cancel_requested_at = now()", "run_cancelled")],
)
async def test_a_run_that_is_ending_is_not_replayed_in_its_last_moment(world: World, ending: str, code: str) -> None:
    """Its workflow has not said so yet, or is gone: what was to end it would not end the replay."""
    run = await world.contact()
    await world.sql(f"UPDATE runs SET status = 'needs_attention', step_id = 'news', {ending}")
    async with world.database.organization(world.organization_id) as session:
        wanted = run_selection.RunQuery("replay", RunSelection(run_ids=[run]), {})
        [refusal] = await replay_plans.plan(session, await replay_plans.load(session, [run], lock=True), ReplayOptions())
        counted = await run_selection.count(session, wanted)
    assert isinstance(refusal, Refusal) and refusal.code == code
    assert [(each.why_not, each.runs) for each in counted] == [(code, 1)]
    await world.sql("UPDATE runs SET status = 'exited', finished_at = now()")
    async with world.database.organization(world.organization_id) as session:
        [plan] = await replay_plans.plan(session, await replay_plans.load(session, [run], lock=True), ReplayOptions())
    assert isinstance(plan, Plan)  # somebody asks for exactly this


async def test_a_replay_waits_for_the_cancellation_of_its_journey_that_is_not_committed_yet(world: World) -> None:
    """Made before that is seen, it would count as one that came later, and send."""
    run = await world.contact()
    await world.sql("UPDATE runs SET status = 'needs_attention', step_id = 'news', campaign_id = NULL")

    async def plan() -> Plan | Refusal:
        async with world.database.organization(world.organization_id) as session:
            [found] = await replay_plans.plan(session, await replay_plans.load(session, [run], lock=True), ReplayOptions())
            return found

    async with world.database.organization(world.organization_id) as session:
        journey = await journeys.get(session, world.journey_id, lock=True)
        await journeys.cancel_runs(session, journey, new_id())
        planning = asyncio.ensure_future(plan())
        waits = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))")
        async with asyncio.timeout(60):
            while not await session.scalar(waits):
                assert not planning.done(), "it did not wait"
                await asyncio.sleep(0.01)
    refusal = await planning
    assert isinstance(refusal, Refusal) and refusal.code == "run_cancelled"
    async with world.database.organization(world.organization_id) as session:
        counted = await run_selection.count(session, run_selection.RunQuery("replay", RunSelection(run_ids=[run]), {}))
    assert [(each.why_not, each.runs) for each in counted] == [("run_cancelled", 1)]


async def test_a_run_without_the_step_that_is_to_be_done_again_is_refused_also_when_its_turn_comes(world: World) -> None:
    """A newer version may have been published since the preview counted."""
    run = await world.contact()
    await world.sql("UPDATE runs SET status = 'needs_attention', step_id = 'news'")
    async with world.database.organization(world.organization_id) as session:
        wanted = replay_plans.wanted_of({"resend": ["news", "gone"]}, "outage", {})
        [refusal] = await replay_plans.plan(session, await replay_plans.load(session, [run], lock=True), wanted)
    assert isinstance(refusal, Refusal) and (refusal.code, refusal.step) == ("unknown_resend", "gone")


async def test_a_replay_of_many_leaves_those_alone_that_have_ended_since_they_were_taken(world: World) -> None:
    failed, bought = await world.people(2)
    await world.sql("UPDATE runs SET status = 'needs_attention', step_id = 'news'")
    async with world.database.organization(world.organization_id) as session:
        wanted = run_selection.RunQuery("replay", RunSelection(statuses=[Phase.NEEDS_ATTENTION]), {})
        operation = await run_operations.add(session, wanted, await run_selection.bound(session, wanted), 2, None)
        await run_operations.execute(session, operation, ALICE, "the mail server is back")
    await world.sql("UPDATE runs SET status = 'exited', reason = 'goal:bought', finished_at = now() WHERE id = :id", id=bought)
    ref = OperationRef(organization_id=world.organization_id, operation_id=operation.id, command="replay")
    activities = ReplayActivities(world.database, cast(Any, AsyncMock()))
    await ActivityEnvironment().run(activities.replay_page, OperationPage(operation=ref))
    items = await world.sql("SELECT run_id, result, why, status FROM run_operation_items ORDER BY run_id")
    assert [(one["run_id"], one["result"], one["why"], one["status"]) for one in items] == [
        (failed, "done", None, None),
        (bought, "unchanged", "wrong_phase", "exited"),
    ]
    assert [row["replay_of"] for row in await world.sql("SELECT replay_of FROM runs WHERE replay_of IS NOT NULL")] == [failed]


async def test_two_hundred_runs_share_a_workflow(world: World) -> None:
    runs = await world.people(205)
    new = await replay(world, runs)
    names = await world.sql("SELECT workflow_id, count(*) AS runs FROM runs WHERE id = ANY(:ids) GROUP BY 1 ORDER BY 2", ids=new)
    assert [row["runs"] for row in names] == [5, 200]
    assert await world.actions("run.") == ["run.replayed", "run.started"] * 205


async def test_what_was_done_for_a_later_visit_after_a_jump_is_kept(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    run = await world.contact()
    await leave(world, run, "accepted")
    await world.sql("UPDATE deliveries SET visit = 2")
    [new] = await replay(world, [run])
    [result] = await send(sending, world, [new])
    assert (result.kept_from, provider.called) == (run, [])


async def test_a_replay_takes_no_consent_from_somebody_who_left_while_the_old_run_was_under_way(
    database: Database, settings: Settings
) -> None:
    world = ReplayingEffects(database, settings)
    await world.found(news={"kind": "subscribe", "topic_id": str(world.topic_id), "evidence": "asked for it"})
    run = await world.contact(consent="granted")
    await world.sql("UPDATE runs SET created_at = created_at - interval '1 day'")
    await world.consent(run, "withdrawn")
    [new] = await replay(world, [run])
    assert said(await world.perform([new], "news")) == [("refused", "consent_withdrawn")]


async def test_a_run_that_was_replayed_takes_nothing_from_its_replay(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    """Its workflow may linger: what it asks then must not disturb the run that goes on."""
    run = await world.contact()
    [second] = await replay(world, [run])
    [third] = await replay_finished(world, second)
    await leave(world, third, "claimed")
    await send(sending, world, [second])
    assert (await world.delivery(third))["state"] == "claimed" and provider.accepted == []
