"""When too much of a journey or campaign fails: the pause in the settling transaction, and what follows it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio.testing import ActivityEnvironment

from activities.audit import AuditActivities
from activities.braking import MOST_TRIES, BrakingActivities, BrakingStarter
from activities.contracts.braking import BrakingRef
from activities.contracts.control import Control, ControlledKind
from activities.contracts.recording import AuditBatch, Transition
from activities.contracts.sending import SendOutcome
from activities.control import ControlActivities
from activities.lines import Lines
from activities.providers.port import OutgoingMessage, ProviderAnswer
from activities.send import SendActivities
from activities.versions import Versions
from models.domain.audit import SYSTEM
from models.store import brakes, connections, controls
from models.store.deliveries import Settled
from models.tables.base import new_id, utc_now
from tests.activities.test_audit import happened
from tests.activities.world import NOON, FakeProvider, World

REFUSED = ProviderAnswer(SendOutcome.RECIPIENT_PERMANENT, "mailbox_unknown")
CONTENT = ProviderAnswer(SendOutcome.CONTENT_PERMANENT, "policy_refused")
YES = ProviderAnswer(SendOutcome.ACCEPTED, None, None, "id-1")


async def send(sending: SendActivities, world: World, run_ids: Sequence[UUID], **asked: Any) -> list[SendOutcome]:
    return [result.outcome for result in await ActivityEnvironment().run(sending.send_messages, world.batch(run_ids, **asked))]


async def brake(world: World, **settings: Any) -> None:
    given = ", ".join(f"'{name}', CAST(:{name} AS text)::numeric" for name in settings)
    values = {name: str(value) for name, value in settings.items()}
    await world.sql(f"UPDATE journeys SET brake = jsonb_build_object({given}) WHERE id = :id", id=world.journey_id, **values)


async def paused(world: World) -> tuple[bool, bool]:
    """The journey, the campaign."""
    journey = await world.one("SELECT paused_at IS NOT NULL FROM journeys WHERE id = :id", id=world.journey_id)
    campaign = await world.sql("SELECT paused_at IS NOT NULL AS paused FROM campaigns WHERE id = :id", id=world.campaign_id)
    return journey, bool(campaign and campaign[0]["paused"])


async def test_the_message_that_crosses_the_share_is_the_last_one(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    provider.answer = REFUSED
    results = await send(sending, world, await world.people(60))
    failed, held = results.count(SendOutcome.RECIPIENT_PERMANENT), results.count(SendOutcome.PAUSED)
    assert failed + held == 60 and 20 <= failed <= 20 + 2 * world.settings.send_concurrency
    assert await paused(world) == (True, False)
    (row,) = await world.sql("SELECT * FROM brakings")
    assert (row["subject_kind"], row["subject_id"], row["reason"]) == ("journey", world.journey_id, "too_many_failures")
    assert row["facts"]["failed"] == row["facts"]["attempted"] >= 20 and row["facts"]["failure"] == "mailbox_unknown"
    assert await world.actions("journey.") == ["journey.paused"]


async def test_what_is_not_delivered_for_other_reasons_does_not_brake(
    world: World, sending: SendActivities, provider: FakeProvider
) -> None:
    await brake(world, at_least=1, share=0.01)
    unwilling = [await world.contact(consent="withdrawn") for _ in range(3)] + [await world.contact(email=None)]
    await send(sending, world, unwilling)
    for outcome in (SendOutcome.OPTED_OUT, SendOutcome.TRANSIENT, SendOutcome.CONNECTION_BROKEN):
        provider.answer = ProviderAnswer(outcome, "rcpt_450" if outcome is SendOutcome.TRANSIENT else None)
        await send(sending, world, await world.people(3))
    assert await paused(world) == (False, False) and await world.sql("SELECT * FROM brakings") == []


async def test_a_campaigns_messages_count_for_the_campaign_alone(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    await brake(world, at_least=2, share=1)
    provider.answer = CONTENT
    await send(sending, world, await world.people(1))
    await world.campaign(status="running")
    await send(sending, world, await world.people(1))
    assert await paused(world) == (False, False)
    await send(sending, world, await world.people(1))
    assert await paused(world) == (False, True)


async def test_only_the_latest_messages_count(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    await brake(world, at_least=2, share=0.5)  # windows of ten
    for _ in range(4):
        await send(sending, world, await world.people(10))
    provider.answer = REFUSED
    for _ in range(9):
        await send(sending, world, await world.people(1))
    assert await paused(world) == (False, False)
    await send(sending, world, await world.people(1))  # ten of the latest twenty
    assert await paused(world) == (True, False)
    assert (await world.one("SELECT facts FROM brakings"))["attempted"] == 20


async def test_a_journey_whose_brake_is_off_goes_on(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    await world.sql("""UPDATE journeys SET brake = '{"enabled": false}'""")
    provider.answer = CONTENT
    assert set(await send(sending, world, await world.people(30))) == {SendOutcome.CONTENT_PERMANENT}
    assert await paused(world) == (False, False)


async def test_a_message_that_was_lost_counts_once_its_answer_is_heard(world: World) -> None:
    def settled(state: str) -> Settled:
        return Settled(new_id(), new_id(), new_id(), "news", 1, state, state, "attempt_lost", world.journey_id, None)

    async with world.database.organization(world.organization_id) as session:
        assert await brakes.count(session, [settled("unknown")]) == []
        await brakes.count(session, [replace(settled("accepted"), reason=None)])
    (row,) = await world.sql("SELECT attempted, failed FROM brake_counts")
    assert (row["attempted"], row["failed"]) == (1, 0)


async def test_resuming_counts_anew_and_lifts_the_braking(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    await brake(world, at_least=2, share=1)
    provider.answer = CONTENT
    await send(sending, world, await world.people(2))
    async with world.database.organization(world.organization_id) as session:
        assert await controls.apply(session, "journey", world.journey_id, "resume", SYSTEM, 0) is False  # it knew of no pause
    assert (await paused(world))[0]
    async with world.database.organization(world.organization_id) as session:
        assert await controls.apply(session, "journey", world.journey_id, "resume", SYSTEM, 1)
        assert await brakes.in_force(session, [world.journey_id]) == {}
    await send(sending, world, await world.people(1))
    assert not (await paused(world))[0]
    await send(sending, world, await world.people(1))
    assert (await paused(world))[0] and await world.one("SELECT count(*) FROM brakings") == 2


@pytest.mark.parametrize(
    ("on_error", "answer", "pauses"),
    [("pause", CONTENT, True), ("pause", REFUSED, False), ("park", CONTENT, False), ("skip", CONTENT, False)],
)
async def test_a_campaign_pauses_at_the_first_run_that_stops_where_it_is_to(
    world: World, sending: SendActivities, provider: FakeProvider, on_error: str, answer: ProviderAnswer, pauses: bool
) -> None:
    await world.campaign(status="running")
    await world.sql("UPDATE campaigns SET on_error = :on_error", on_error=on_error)
    first, *others = await world.people(4)
    provider.answer = answer
    await send(sending, world, [first])
    provider.answer = YES
    assert set(await send(sending, world, others)) == {SendOutcome.PAUSED if pauses else SendOutcome.ACCEPTED}
    assert (await paused(world))[1] is pauses
    if pauses:
        (row,) = await world.sql("SELECT reason, facts FROM brakings")
        assert (row["reason"], row["facts"]) == ("first_failure", {"run_id": str(first)})


async def test_a_step_of_another_kind_that_fails_pauses_such_a_campaign_too(world: World) -> None:
    await world.campaign(status="running")
    await world.sql("UPDATE campaigns SET on_error = 'pause'")
    told: list[tuple[UUID, Sequence[UUID]]] = []

    async def tell(organization_id: UUID, braking_ids: Sequence[UUID]) -> None:
        told.append((organization_id, braking_ids))

    run = await world.contact()
    parked: Transition = happened(run, 1, "parked", "needs_attention", step_id="call", reason="webhook_answered_404")
    for _ in range(2):
        await ActivityEnvironment().run(
            AuditActivities(world.database, tell).record_audit, AuditBatch(scope=world.scope, transitions=[parked])
        )
    assert (await paused(world))[1]
    (row,) = await world.sql("SELECT id FROM brakings")
    assert told == [(world.organization_id, [row["id"]])]
    assert await world.actions("run.") + await world.actions("campaign.") == ["run.parked", "campaign.paused"]


async def test_the_workflow_of_a_braking_is_started_when_it_is_committed(world: World, provider: FakeProvider) -> None:
    told: asyncio.Future[Sequence[UUID]] = asyncio.get_running_loop().create_future()

    async def tell(organization_id: UUID, braking_ids: Sequence[UUID]) -> None:
        assert await world.one("SELECT id FROM brakings") == braking_ids[0]
        told.set_result(braking_ids)

    await brake(world, at_least=1, share=1)
    provider.answer = CONTENT
    sending = SendActivities(world.database, world.settings, Versions(), Lines(provider, world.settings.send_concurrency), tell)
    await send(sending, world, await world.people(1))
    async with asyncio.timeout(60):
        assert len(await told) == 1


# --- what follows -----------------------------------------------------------------------------------------------------


class Temporal:
    """Remembers what was started, and with which word."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.started: list[tuple[str, str, Any]] = []
        self.fault = fault

    async def start_workflow(self, workflow: str, argument: Any = None, **options: Any) -> None:
        if self.fault is not None:
            raise self.fault
        self.started.append((workflow, options["id"], argument or options["start_signal_args"][0]))


async def brakes_down(world: World, provider: FakeProvider, sending: SendActivities) -> BrakingRef:
    await brake(world, at_least=1, share=1)
    provider.answer = CONTENT
    await send(sending, world, await world.people(1))
    provider.answer = YES
    provider.called.clear()
    braking_id = await world.one("SELECT id FROM brakings")
    return BrakingRef(organization_id=world.organization_id, braking_id=braking_id, now=NOON)


def braking(world: World, provider: FakeProvider, temporal: Any = None) -> BrakingActivities:
    speaking: Any = temporal or Temporal()
    return BrakingActivities(world.database, world.settings, speaking, Lines(provider, world.settings.send_concurrency))


async def notify(world: World, provider: FakeProvider, ref: BrakingRef) -> Any:
    """When it is tried again, and how the notice stands."""
    notice = await ActivityEnvironment().run(braking(world, provider).notify_of_braking, ref)
    return notice.look_at, await world.one("SELECT notice FROM brakings")


async def person(world: World, role: str) -> UUID:
    user_id = new_id()
    await world.sql(
        "INSERT INTO users (id, email, password_hash) VALUES (:id, :email, '')", id=user_id, email=f"{role}-{user_id}@example.com"
    )
    await world.sql(
        "INSERT INTO memberships (id, organization_id, user_id, name, role) VALUES (:id, :o, :user, '', :role)",
        id=new_id(),
        user=user_id,
        role=role,
    )
    return user_id


async def test_a_pause_by_the_brake_is_not_obeyed_after_a_resume(world: World, provider: FakeProvider, sending: SendActivities) -> None:
    ref, temporal = await brakes_down(world, provider, sending), Temporal()
    await ActivityEnvironment().run(braking(world, provider, temporal).hold_braked, ref)
    [(workflow, name, word)] = temporal.started
    assert (workflow, word.command, word.actor_kind, word.reason) == ("ControlWorkflow", "pause", "system", "too_many_failures")
    assert name == f"{world.organization_id}/control/journey/{world.journey_id}"
    obeying = ControlActivities(world.database, Temporal())  # type: ignore[arg-type]
    assert await ActivityEnvironment().run(obeying.apply_control, word)
    resume = Control(organization_id=world.organization_id, kind=ControlledKind.JOURNEY, id=world.journey_id, command="resume")
    await ActivityEnvironment().run(obeying.apply_control, resume)
    assert await ActivityEnvironment().run(obeying.apply_control, word) is False
    assert await paused(world) == (False, False)
    await ActivityEnvironment().run(braking(world, provider, temporal).hold_braked, ref)
    assert len(temporal.started) == 1


async def test_a_workflow_that_cannot_be_started_is_left_to_upkeep(world: World, caplog: pytest.LogCaptureFixture) -> None:
    temporal, brakings = Temporal(RuntimeError("away")), [new_id(), new_id()]
    starter = BrakingStarter(temporal, "queue")  # type: ignore[arg-type]
    await starter(world.organization_id, brakings)
    assert [(record.getMessage(), record.__dict__["error"]) for record in caplog.records] == [
        ("a braking's workflow could not be started", "RuntimeError")
    ] * 2
    assert temporal.started == []
    temporal.fault = None
    await starter(world.organization_id, brakings)
    assert [word.braking_id for _, _, word in temporal.started] == brakings


async def test_the_owner_is_told_once_in_words(world: World, provider: FakeProvider, sending: SendActivities) -> None:
    await person(world, "admin")
    owner = await person(world, "viewer")
    await world.sql("UPDATE journeys SET owner_id = :owner", owner=owner)
    ref = await brakes_down(world, provider, sending)
    assert await notify(world, provider, ref) == (None, "told")
    assert await notify(world, provider, ref) == (None, "told")
    [mail] = provider.accepted
    assert mail.recipient == f"viewer-{owner}@example.com" and mail.purpose == "transactional" and mail.subject == "Paused: Welcome"
    assert "1 of the latest 1; the limit is 100 %" in mail.text and str(world.journey_id) in mail.text
    assert await world.one("SELECT notified_user_id FROM brakings") == owner
    assert "journey.braking_notified" in await world.actions("journey.")


async def test_who_cannot_be_told_is_passed_over_in_order(world: World, provider: FakeProvider, sending: SendActivities) -> None:
    owner, creator, admin, disabled = [await person(world, role) for role in ("viewer", "designer", "admin", "owner")]
    await world.sql("UPDATE users SET disabled_at = now() WHERE id = :id", id=disabled)
    await world.sql("UPDATE journeys SET owner_id = :owner", owner=owner)
    await world.sql(
        """INSERT INTO draft_revisions (id, organization_id, journey_id, revision, name, draft, saved_by, origin)
           VALUES (:id, :o, :journey, 1, '', '{}', :by, 'edit')""",
        id=new_id(),
        journey=world.journey_id,
        by=creator,
    )
    ref = await brakes_down(world, provider, sending)
    provider.answer = REFUSED
    for _ in (owner, creator, admin):
        assert await notify(world, provider, ref) == (NOON, "waiting")
    assert await notify(world, provider, ref) == (None, "nobody")
    assert [mail.recipient for mail in provider.called] == [
        f"{role}-{id}@example.com" for role, id in (("viewer", owner), ("designer", creator), ("admin", admin))
    ]


async def test_a_provider_that_takes_nothing_is_asked_again_later_and_not_for_ever(
    world: World, provider: FakeProvider, sending: SendActivities
) -> None:
    await person(world, "admin")
    ref = await brakes_down(world, provider, sending)
    provider.answer = CONTENT
    look_at, notice = await notify(world, provider, ref)
    assert look_at > NOON and notice == "waiting"
    await world.sql("UPDATE connections SET status = 'broken', broken_reason = 'auth_refused'")
    assert (await notify(world, provider, ref.model_copy(update={"tries": 5})))[0] > look_at
    assert await notify(world, provider, ref.model_copy(update={"tries": MOST_TRIES})) == (None, "nobody")
    assert len(provider.called) == 1


async def test_a_sandbox_connection_that_broke_when_the_sandbox_moved_mends_itself(
    world: World, provider: FakeProvider, sending: SendActivities
) -> None:
    await person(world, "admin")
    ref = await brakes_down(world, provider, sending)
    await world.sql(
        """UPDATE connections SET provider = 'smtp', status = 'broken', broken_reason = 'address_not_allowed',
           config = config || jsonb_build_object('username', CAST(:o AS text))"""
    )
    assert await notify(world, provider, ref) == (None, "told")
    assert await world.actions("connection.") == ["connection.mended"]


@pytest.mark.parametrize(("hook", "notice"), [("before", "waiting"), ("after", "unknown")])
async def test_a_provider_that_raises_is_judged_by_how_far_it_came(
    world: World, provider: FakeProvider, sending: SendActivities, caplog: pytest.LogCaptureFixture, hook: str, notice: str
) -> None:
    await person(world, "admin")
    ref = await brakes_down(world, provider, sending)

    async def fault(message: OutgoingMessage) -> None:
        raise RuntimeError(f"cannot write to {message.recipient}")

    getattr(provider, hook).append(fault)
    assert (await notify(world, provider, ref))[1] == notice
    [logged] = [vars(record) for record in caplog.records if record.name == "activities.lines"]
    assert logged["delivery_id"] == str(provider.called[0].delivery_id) and provider.called[0].recipient not in str(logged)


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(hours=1)])
async def test_the_connections_rate_is_obeyed_by_a_worker_whose_clock_is_wrong(
    world: World, provider: FakeProvider, sending: SendActivities, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    await person(world, "admin")
    ref = await brakes_down(world, provider, sending)
    await world.sql("UPDATE connections SET rate_per_second = 1")
    monkeypatch.setattr("activities.braking.utc_now", lambda: utc_now() + skew)
    began = asyncio.get_running_loop().time()
    await world.sql("UPDATE connection_rates SET next_slot_at = clock_timestamp() + interval '2 seconds'")
    async with asyncio.timeout(60):
        assert await notify(world, provider, ref) == (None, "told")
    assert asyncio.get_running_loop().time() - began > 1


async def test_a_notice_that_has_waited_for_its_slot_leaves_by_no_connection_that_has_been_changed(
    world: World, provider: FakeProvider, sending: SendActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    await person(world, "admin")
    ref = await brakes_down(world, provider, sending)
    called, really = len(provider.called), connections.reserve_slots

    async def changed_meanwhile(*given: Any) -> Any:
        monkeypatch.setattr(connections, "reserve_slots", really)
        await world.change_connection(sender_address="new@acme.example")
        return await really(*given)

    monkeypatch.setattr(connections, "reserve_slots", changed_meanwhile)
    assert (await notify(world, provider, ref))[1] == "waiting"
    assert len(provider.called) == called
    assert (await notify(world, provider, ref))[1] == "told"
    assert provider.called[-1].sender.address == "new@acme.example"


async def test_a_notice_that_is_kept_waiting_until_somebody_has_resumed_does_not_leave(
    world: World, provider: FakeProvider, sending: SendActivities
) -> None:
    await person(world, "admin")
    ref = await brakes_down(world, provider, sending)
    accepted = len(provider.accepted)

    async def resume(_: OutgoingMessage) -> None:
        async with world.database.organization(world.organization_id) as session:
            await controls.apply(session, "journey", world.journey_id, "resume", SYSTEM)

    provider.keeping.append(resume)
    assert (await notify(world, provider, ref))[1] == "waiting"
    assert (await notify(world, provider, ref), len(provider.accepted)) == ((None, "lifted"), accepted)


async def test_a_mail_that_may_have_left_is_not_written_again(world: World, provider: FakeProvider, sending: SendActivities) -> None:
    await person(world, "admin")
    ref = await brakes_down(world, provider, sending)

    async def dies(message: OutgoingMessage) -> None:
        raise asyncio.CancelledError

    provider.after.append(dies)
    with pytest.raises(asyncio.CancelledError):
        await notify(world, provider, ref)
    provider.after.clear()
    assert await notify(world, provider, ref) == (None, "unknown")
    assert len(provider.called) == 1


async def test_nobody_is_told_of_what_has_been_resumed(world: World, provider: FakeProvider, sending: SendActivities) -> None:
    await person(world, "admin")
    ref = await brakes_down(world, provider, sending)
    async with world.database.organization(world.organization_id) as session:
        await controls.apply(session, "journey", world.journey_id, "resume", SYSTEM)
    assert await notify(world, provider, ref) == (None, "lifted")
    assert provider.called == []
