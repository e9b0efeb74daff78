"""Whatever is killed whenever: no message twice, none lost, and doubt is called doubt."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import other_attempts
from activities.claiming import Claimer
from activities.contracts.sending import SendOutcome, SendResult
from activities.ledger import Ledger, Unwritable
from activities.lines import Lines
from activities.providers.port import OutgoingMessage, ProviderAnswer
from activities.send import SendActivities
from activities.versions import Versions
from models.domain.audit import SYSTEM, NewEntry
from models.store import audit, consents, deliveries, fence, suppressions
from models.store.consents import NewConsent
from models.store.deliveries import DeliveryRow, Settlement
from models.store.fence import Passage, Verdict, Word
from models.store.session import OrganizationSession
from models.store.suppressions import address_hash
from models.tables.base import new_id
from tests.activities.test_audit import happened, record
from tests.activities.test_lock_orders import take_both
from tests.activities.world import NOON, Crash, FakeProvider, World


async def send(world: World, provider: FakeProvider, run_ids: list[UUID], **asked: Any) -> list[SendResult]:
    """A fresh process's attempt."""
    sending = SendActivities(world.database, world.settings, Versions(), Lines(provider, world.settings.send_concurrency))
    return await ActivityEnvironment().run(sending.send_messages, world.batch(run_ids, **asked))


async def crash(_: OutgoingMessage) -> None:
    raise Crash


async def let_the_lease_pass(world: World) -> None:
    await world.sql("UPDATE deliveries SET transmitting_at = transmitting_at - interval '31 seconds' WHERE state = 'transmitting'")


async def test_killed_between_the_providers_yes_and_our_record_the_message_is_unknown_and_not_sent_again(
    world: World, provider: FakeProvider
) -> None:
    run = await world.contact()
    provider.after.append(crash)
    with pytest.raises(Crash):
        await send(world, provider, [run])
    provider.after.clear()
    assert (await world.delivery(run))["state"] == "transmitting"
    await let_the_lease_pass(world)
    for _ in range(2):
        (result,) = await send(world, provider, [run])
        assert (result.outcome, result.reason) == (SendOutcome.UNKNOWN, "attempt_lost")
    assert len(provider.called) == len(provider.accepted) == 1
    assert await world.actions("delivery.") == ["delivery.unknown"]


async def test_killed_between_claim_and_fence_the_message_is_sent_once(world: World, provider: FakeProvider) -> None:
    runs = await world.people(3)
    provider.before.append(crash)
    with pytest.raises(Crash):
        await send(world, provider, runs)
    provider.before.clear()
    assert {result.outcome for result in await send(world, provider, runs)} == {SendOutcome.ACCEPTED}
    assert len(provider.accepted) == 3


async def test_only_the_messages_in_the_air_are_in_doubt(world: World, provider: FakeProvider) -> None:
    runs = await world.people(30)

    async def crash_at_the_tenth(_: OutgoingMessage) -> None:
        if len(provider.accepted) >= 10:
            raise Crash

    provider.after.append(crash_at_the_tenth)
    with pytest.raises(Crash):
        await send(world, provider, runs)
    provider.after.clear()
    await what_was_begun_is_written(world)
    await let_the_lease_pass(world)
    results = await send(world, provider, runs)
    told = [result.outcome for result in results]
    assert set(told) == {SendOutcome.ACCEPTED, SendOutcome.UNKNOWN}
    assert len(provider.accepted) == len({message.delivery_id for message in provider.accepted}) == 30
    assert told.count(SendOutcome.UNKNOWN) == await world.one("SELECT count(*) FROM deliveries WHERE state = 'unknown'")


async def what_was_begun_is_written(world: World) -> None:
    """The first process's ledger has ended."""
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == f"ledger {world.organization_id}"))


async def test_two_attempts_at_once_send_each_message_once(world: World, provider: FakeProvider) -> None:
    runs = await world.people(60)

    async def dawdle(_: OutgoingMessage) -> None:
        await asyncio.sleep(0.005)

    provider.before.append(dawdle)
    first = asyncio.create_task(send(world, provider, runs))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(send(world, provider, runs))
    for results in await asyncio.gather(first, second):
        assert {result.outcome for result in results} == {SendOutcome.ACCEPTED}
    sent = [message.delivery_id for message in provider.accepted]
    assert len(sent) == len(set(sent)) == 60
    assert await world.actions("delivery.") == ["delivery.accepted"] * 60


async def test_a_claim_leaves_a_row_that_is_in_another_transactions_hands_to_that(world: World, provider: FakeProvider) -> None:
    """So that a claim and a ledger, which lock rows in different orders, never wait for each other."""
    runs = await world.people(3)
    provider.before.append(crash)
    with pytest.raises(Crash):
        await send(world, provider, runs)
    provider.before.clear()
    held = (await world.delivery(runs[1]))["id"]
    claimer = Claimer(world.database, Versions(), world.settings)
    async with world.database.organization(world.organization_id) as session:
        await deliveries.lock(session, [held])
        claimed = await claimer.claim(world.batch(runs), new_id(), NOON)  # would wait for ever for a row that it wanted to lock
    assert {one.run_id for one in claimed.others} == {runs[1]}
    assert {result.outcome for result in await send(world, provider, runs)} == {SendOutcome.ACCEPTED}
    assert len(provider.accepted) == 3


async def test_an_answer_heard_late_replaces_unknown(world: World, provider: FakeProvider) -> None:
    run = await world.contact()
    go_on = asyncio.Event()

    async def wait(_: OutgoingMessage) -> None:
        await go_on.wait()

    provider.after.append(wait)
    first = asyncio.create_task(send(world, provider, [run]))
    await provider.has_accepted(1)
    await let_the_lease_pass(world)
    (result,) = await send(world, provider, [run])
    assert result.outcome is SendOutcome.UNKNOWN
    go_on.set()
    assert (await first)[0].outcome is SendOutcome.ACCEPTED
    row = await world.delivery(run)
    assert (row["state"], row["attempts"]) == ("accepted", 1)
    assert await world.actions("delivery.") == ["delivery.unknown", "delivery.accepted"]
    assert len(provider.accepted) == 1


async def test_an_attempt_that_holds_messages_and_does_nothing_is_left_to_the_next_one(
    world: World, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.contact()

    async def lose_it(_: OutgoingMessage) -> None:
        await world.sql("UPDATE deliveries SET attempt = gen_random_uuid()")

    provider.before.append(lose_it)
    monkeypatch.setattr(other_attempts, "PATIENCE", 0.1)
    with pytest.raises(ApplicationError, match="another attempt holds 1 message"):
        await send(world, provider, [run])
    provider.before.clear()
    assert (await send(world, provider, [run]))[0].outcome is SendOutcome.ACCEPTED
    assert len(provider.accepted) == 1


# --- between the check and the fence -----------------------------------------------------------------------------------


async def test_consent_withdrawn_meanwhile_refuses(world: World, provider: FakeProvider) -> None:
    run, other = await world.people(2)
    provider.before.append(once(lambda: world.consent(run, "withdrawn"), world.contacts[run]))
    results = await send(world, provider, [run, other])
    assert (results[0].outcome, results[0].reason) == (SendOutcome.REFUSED, "consent_withdrawn")
    assert results[1].outcome is SendOutcome.ACCEPTED
    assert (await world.delivery(run))["state"] == "refused"
    assert sorted(await world.actions("delivery.")) == ["delivery.accepted", "delivery.refused"]


async def test_a_suppression_added_meanwhile_refuses_even_transactional_mail(world: World, provider: FakeProvider) -> None:
    run = await world.contact()
    provider.before.append(once(lambda: world.suppress(run), world.contacts[run]))
    (result,) = await send(world, provider, [run], step_id="receipt")
    assert (result.outcome, result.reason) == (SendOutcome.REFUSED, "suppressed")
    assert provider.accepted == []


async def test_never_consented_is_refused_at_the_fence_too(world: World, provider: FakeProvider) -> None:
    (result,) = await send(world, provider, [await world.contact(consent=None)])
    assert (result.outcome, result.reason) == (SendOutcome.REFUSED, "no_consent")


@pytest.mark.parametrize(
    ("change", "undo", "reason"),
    [
        ("UPDATE campaigns SET paused_at = now()", "UPDATE campaigns SET paused_at = NULL", "campaign_paused"),
        ("UPDATE journeys SET paused_at = now()", "UPDATE journeys SET paused_at = NULL", "journey_paused"),
        ("UPDATE campaigns SET cancelled_at = now()", "UPDATE campaigns SET cancelled_at = NULL", "campaign_cancelled"),
        ("UPDATE organizations SET status = 'suspended'", "UPDATE organizations SET status = 'active'", "organization_suspended"),
    ],
)
async def test_a_pause_stops_the_batch_and_resuming_sends_the_rest_once(
    world: World, provider: FakeProvider, change: str, undo: str, reason: str
) -> None:
    await world.campaign()
    runs = await world.people(40)

    changed = asyncio.Event()

    async def pause_at_five(message: OutgoingMessage) -> None:
        """Those that leave meanwhile keep their places until it stands: how many there are does not depend on how long that takes."""
        before = provider.accepted.index(message)
        if before == 4:
            await world.sql(change)
            changed.set()
        elif before > 4:
            await changed.wait()

    provider.after.append(pause_at_five)
    results = await send(world, provider, runs)
    paused = [result for result in results if result.outcome is SendOutcome.PAUSED]
    accepted = [result for result in results if result.outcome is SendOutcome.ACCEPTED]
    assert {result.reason for result in paused} == {reason}
    assert len(accepted) == len(provider.accepted) <= 5 + 2 * world.settings.send_concurrency
    assert len(accepted) + len(paused) == 40
    assert len(provider.called) < 40
    provider.after.clear()
    await world.sql(undo)
    assert {result.outcome for result in await send(world, provider, runs, round=1)} == {SendOutcome.ACCEPTED}
    assert len({message.delivery_id for message in provider.accepted}) == len(provider.accepted) == 40


async def test_a_batch_that_waits_for_its_rate_hears_of_a_pause_within_seconds(world: World, provider: FakeProvider) -> None:
    await world.campaign()
    await world.sql("UPDATE connections SET rate_per_second = 0.06")
    runs = await world.people(3)
    sending = asyncio.create_task(send(world, provider, runs))
    await provider.has_accepted(1)
    await world.sql("UPDATE campaigns SET paused_at = now()")
    results = await sending
    assert [result.outcome for result in results] == [SendOutcome.ACCEPTED, SendOutcome.PAUSED, SendOutcome.PAUSED]
    assert len(provider.called) == 1  # the next one's slot was 16 seconds away: there it would have heard at the fence


@pytest.mark.parametrize(
    ("change", "undo", "reason"),
    [
        ("UPDATE runs SET status = 'paused' WHERE id = :id", "UPDATE runs SET status = 'active' WHERE id = :id", "run_paused"),
        ("UPDATE runs SET status = 'cancelled' WHERE id = :id", None, "run_cancelled"),
        ("UPDATE runs SET cancel_requested_at = now() WHERE id = :id", None, "run_cancelled"),
        (
            """WITH old AS (UPDATE runs SET created_at = created_at - interval '1 day' WHERE id = :id RETURNING journey_id, created_at)
               UPDATE journeys j SET runs_cancelled_at = old.created_at FROM old WHERE j.id = old.journey_id""",
            None,
            "run_cancelled",  # with its journey, before the others were there
        ),
    ],
)
async def test_a_run_that_is_paused_or_cancelled_meanwhile_is_held_alone(
    world: World, provider: FakeProvider, change: str, undo: str | None, reason: str
) -> None:
    runs = await world.people(12)
    provider.before.append(once(lambda: world.sql(change, id=runs[3]), world.contacts[runs[3]]))
    results = await send(world, provider, runs)
    held = results.pop(3)
    assert (held.outcome, held.reason) == (SendOutcome.PAUSED, reason)
    assert {result.outcome for result in results} == {SendOutcome.ACCEPTED}
    row = await world.delivery(runs[3])
    assert (row["state"], row["attempt"], row["attempts"]) == ("claimed", None, 0)
    provider.before.clear()
    if undo is not None:
        await world.sql(undo, id=runs[3])
        assert (await send(world, provider, [runs[3]], round=1))[0].outcome is SendOutcome.ACCEPTED
    assert len(provider.accepted) == (12 if undo else 11)


async def test_a_topic_archived_meanwhile_refuses_marketing_only(world: World, provider: FakeProvider) -> None:
    run = await world.contact()

    async def archive(_: OutgoingMessage) -> None:
        await world.sql("UPDATE topics SET archived_at = now()")

    provider.before.append(archive)
    (result,) = await send(world, provider, [run])
    assert (result.outcome, result.reason) == (SendOutcome.REFUSED, "topic_archived")
    assert provider.accepted == []
    assert (await send(world, provider, [run], step_id="receipt"))[0].outcome is SendOutcome.ACCEPTED


QUIET = """UPDATE organizations SET quiet_hours = '{"email": {"start": "11:00", "end": "13:00"}}'"""


@pytest.mark.parametrize(
    "change",
    [QUIET, "UPDATE organizations SET timezone = 'Asia/Tokyo'", "UPDATE contacts SET timezone = 'Asia/Tokyo' WHERE id = :id"],
)
async def test_hours_that_change_meanwhile_are_judged_anew(world: World, provider: FakeProvider, change: str) -> None:
    before, after = await world.people(2)
    values = {"id": world.contacts[after]} if ":id" in change else {}
    assert (await send(world, provider, [before]))[0].outcome is SendOutcome.ACCEPTED
    provider.before = [once(lambda: world.sql(change, **values), world.contacts[after])]
    (result,) = await send(world, provider, [after])
    assert (result.outcome, result.reason) == (SendOutcome.PAUSED, "changed")
    row = await world.delivery(after)
    assert (row["state"], row["attempt"], row["attempts"]) == ("claimed", None, 0)
    provider.before.clear()
    (again,) = await send(world, provider, [after], round=1)
    assert (again.outcome, again.reason) == ((SendOutcome.PAUSED, "quiet_hours") if change == QUIET else (SendOutcome.ACCEPTED, None))
    assert len(provider.accepted) == (1 if change == QUIET else 2)


async def test_hours_that_have_changed_since_they_were_asked_about_hold_for_what_is_not_exempt(
    world: World, provider: FakeProvider
) -> None:
    run = await world.contact()
    await world.sql(QUIET)  # its visit was told that it may leave at any time
    (result,) = await send(world, provider, [run])
    assert (result.outcome, result.reason) == (SendOutcome.PAUSED, "quiet_hours")
    assert provider.called == []
    receipt = await world.contact()
    provider.before = [once(lambda: world.sql("UPDATE organizations SET quiet_hours = '{}'"), world.contacts[receipt])]
    assert (await send(world, provider, [receipt], step_id="receipt"))[0].outcome is SendOutcome.ACCEPTED


async def moved_to_another_version(world: World, provider: FakeProvider, first: dict[str, Any], second: dict[str, Any]) -> UUID:
    """A run that a pause has kept back at the fence, at `news` of a version where that step is `first`; it is on another one by now,
    where that is `second`, and on its first visit again. Its journey goes on."""
    run = await world.contact()
    for number, step in ((2, first), (3, second)):
        if number == 3:
            await world.sql("UPDATE journeys SET paused_at = now()")
            (result,) = await send(world, provider, [run])
            assert (result.outcome, result.reason) == (SendOutcome.PAUSED, "journey_paused")
            await world.sql("UPDATE journeys SET paused_at = NULL")
        definition = json.loads(world.definition().model_dump_json())
        definition["steps"]["news"] |= step
        world.version_id = new_id()
        await world.sql(
            """INSERT INTO journey_versions (id, organization_id, journey_id, number, definition, content_hash)
               VALUES (:id, :o, :journey_id, :number, CAST(:definition AS jsonb), '')""",
            id=world.version_id,
            journey_id=world.journey_id,
            number=number,
            definition=json.dumps(definition),
        )
    return run


@pytest.mark.parametrize("before", ["transactional", "another topic"])
async def test_a_row_of_an_earlier_version_is_judged_by_what_is_asked_now(world: World, provider: FakeProvider, before: str) -> None:
    other = await another_topic(world)
    first = {"purpose": "transactional", "topic_id": None} if before == "transactional" else {"topic_id": str(world.topic_id)}
    run = await moved_to_another_version(world, provider, first, {"purpose": "marketing", "topic_id": str(other)})
    await consent_to(world, run, other, "granted")
    provider.before = [once(lambda: consent_to(world, run, other, "withdrawn"), world.contacts[run])]
    (result,) = await send(world, provider, [run], round=1)
    assert (result.outcome, result.reason) == (SendOutcome.REFUSED, "consent_withdrawn")
    assert provider.accepted == []


async def test_a_topic_that_an_earlier_version_named_stands_in_no_ones_way(world: World, provider: FakeProvider) -> None:
    other, template = await another_topic(world), new_id()
    await world.sql(
        """INSERT INTO template_versions (id, organization_id, template_id, number, subject, html, text, variables, content_hash)
           SELECT :id, organization_id, template_id, 2, 'Second', html, text, variables, '' FROM template_versions""",
        id=template,
    )
    second = {"purpose": "marketing", "topic_id": str(other), "template_version_id": str(template)}
    run = await moved_to_another_version(world, provider, {}, second)
    await consent_to(world, run, other, "granted")
    await world.sql("UPDATE topics SET archived_at = now() WHERE id = :id", id=world.topic_id)
    assert (await send(world, provider, [run], round=1))[0].outcome is SendOutcome.ACCEPTED
    row = await world.delivery(run)
    assert (row["version_id"], row["template_version_id"], row["topic_id"]) == (world.version_id, template, other)


async def test_what_was_refused_at_the_fence_is_asked_anew_in_a_later_round(world: World, provider: FakeProvider) -> None:
    """The run was moved to the step anew, and its contact has agreed meanwhile; a repetition of the first asking changes nothing."""
    run = await world.contact()
    provider.before = [once(lambda: world.consent(run, "withdrawn"), world.contacts[run])]
    assert (await send(world, provider, [run]))[0].outcome is SendOutcome.REFUSED
    provider.before = []
    await world.consent(run, "granted")
    (again,) = await send(world, provider, [run])
    assert (again.outcome, again.reason, provider.accepted) == (SendOutcome.REFUSED, "consent_withdrawn", [])
    assert (await send(world, provider, [run], round=1000))[0].outcome is SendOutcome.ACCEPTED
    assert (await world.delivery(run))["state"] == "accepted" and len(provider.accepted) == 1


@pytest.mark.parametrize("end", ["cancelled", "exited"])
async def test_what_was_claimed_for_a_run_that_ends_is_settled(world: World, provider: FakeProvider, end: str) -> None:
    """Held and then over. What may have been handed over is left as it is, and so is what another run waits to send."""
    over, handed, other = await world.people(3)
    await world.sql("UPDATE runs SET status = 'paused' WHERE id <> :id", id=handed)
    provider.after = [crash]
    with pytest.raises(Crash):
        await send(world, provider, [handed, over, other])
    assert [(await world.delivery(run))["state"] for run in (over, handed, other)] == ["claimed", "transmitting", "claimed"]
    for _ in range(2):
        await record(world, *(happened(run, 9, end, end, step_id="news", visit=1) for run in (over, handed)))
    rows = [await world.delivery(run) for run in (over, handed, other)]
    assert [(row["state"], row["reason"]) for row in rows] == [("refused", "run_ended"), ("transmitting", None), ("claimed", "run_paused")]
    assert await world.actions("delivery.") == ["delivery.refused"]


async def test_an_attempt_neither_sends_nor_settles_what_its_run_ended_before(world: World, provider: FakeProvider) -> None:
    run = await world.contact()
    end = happened(run, 9, "cancelled", "cancelled", step_id="news", visit=1)
    provider.before = [once(lambda: record(world, end), world.contacts[run])]
    (result,) = await send(world, provider, [run])
    assert (result.outcome, result.reason, provider.accepted) == (SendOutcome.REFUSED, "run_ended", [])
    assert await world.actions("delivery.") == ["delivery.refused"]


async def another_topic(world: World) -> UUID:
    topic_id = new_id()
    insert = "INSERT INTO topics (id, organization_id, key, name, description) VALUES (:id, :o, 'tips', 'Tips', '')"
    await world.sql(insert, id=topic_id)
    return topic_id


async def consent_to(world: World, run_id: UUID, topic_id: UUID, status: Any) -> None:
    async with world.database.organization(world.organization_id) as session:
        line = NewConsent(world.contacts[run_id], topic_id, "email", status, "form", "test", {}, SYSTEM, datetime.now(UTC))
        await consents.record(session, [line])


async def test_an_address_changed_meanwhile_is_not_written_to_and_the_next_attempt_writes_to_the_new_one(
    world: World, provider: FakeProvider
) -> None:
    run, other = await world.people(2)
    change = "UPDATE contacts SET email = 'Änne@example.com' WHERE id = :id"
    provider.before.append(once(lambda: world.sql(change, id=world.contacts[run]), world.contacts[run]))
    results = await send(world, provider, [run, other])
    assert (results[0].outcome, results[0].reason) == (SendOutcome.PAUSED, "contact_changed")
    assert results[1].outcome is SendOutcome.ACCEPTED
    assert (await world.delivery(run))["state"] == "claimed"
    assert (await send(world, provider, [run], round=1))[0].outcome is SendOutcome.ACCEPTED
    assert [message.recipient for message in provider.accepted[1:]] == ["Änne@example.com"]


async def test_a_contact_erased_meanwhile_is_not_written_to(world: World, provider: FakeProvider) -> None:
    run = await world.contact()
    erase = "UPDATE contacts SET email = NULL WHERE id = :id"
    provider.before.append(once(lambda: world.sql(erase, id=world.contacts[run]), world.contacts[run]))
    assert (await send(world, provider, [run]))[0].reason == "contact_changed"
    assert (await send(world, provider, [run], round=1))[0].reason == "no_address"
    assert provider.accepted == []


async def test_rows_are_locked_in_one_order_whatever_order_they_are_asked_in(world: World, provider: FakeProvider) -> None:
    await send(world, provider, await world.people(2))
    low, high = (row["id"] for row in await world.sql("SELECT id FROM deliveries ORDER BY id"))
    passages = [Passage(id, new_id(), "email", b"", "") for id in (high, low)]
    settlements = [Settlement(id, new_id(), "accepted", "accepted") for id in (high, low)]
    lost = [DeliveryRow(id, new_id(), "transmitting", None, None, new_id(), 0, True) for id in (high, low)]
    for statement in (
        lambda session: fence.let_pass(session, passages),
        lambda session: deliveries.settle(session, settlements),
        lambda session: deliveries.abandon(session, lost, timedelta(0)),
    ):
        await waits_without_the_higher_row(world, low, high, statement)


async def waits_without_the_higher_row(world: World, low: UUID, high: UUID, statement: Callable[[Any], Awaitable[Any]]) -> None:
    async def run() -> None:
        async with world.database.organization(world.organization_id) as session:
            await statement(session)

    lock = "SELECT 1 FROM deliveries WHERE organization_id = :o AND id = :{} FOR UPDATE NOWAIT"
    await take_both(world, lock.format("low"), run, lock.format("high"), low=low, high=high)


# --- the worker goes away ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["cancel", "worker_shutdown"])
async def test_a_worker_that_goes_away_finishes_what_is_in_the_air_and_begins_nothing(
    world: World, provider: FakeProvider, way: str
) -> None:
    runs = await world.people(40)
    go_on = asyncio.Event()

    async def wait(_: OutgoingMessage) -> None:
        await go_on.wait()

    provider.after.append(wait)
    sending = SendActivities(world.database, world.settings, Versions(), Lines(provider, world.settings.send_concurrency))
    environment = ActivityEnvironment()
    running = asyncio.create_task(environment.run(sending.send_messages, world.batch(runs)))
    await provider.has_accepted(world.settings.send_concurrency)
    environment.cancel() if way == "cancel" else environment.worker_shutdown()
    for _ in range(100):  # turns of the loop, not time: whoever is to hear of it has heard
        await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError if way == "cancel" else ApplicationError):
        await running
    assert len(provider.accepted) == world.settings.send_concurrency
    states = [row["state"] for row in await world.sql("SELECT state FROM deliveries")]
    assert states.count("accepted") == len(provider.accepted)
    assert states.count("claimed") == 40 - len(provider.accepted)
    assert {result.outcome for result in await send(world, provider, runs)} == {SendOutcome.ACCEPTED}
    assert len({message.delivery_id for message in provider.accepted}) == len(provider.accepted) == 40


# --- the database goes away ----------------------------------------------------------------------------------------------


def away(*_: Any, **__: Any) -> Any:
    raise OperationalError("", {}, Exception("the server closed the connection"))


async def test_a_heard_answer_outlives_an_absent_database(world: World, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = await world.people(4)
    tries = 0
    really = deliveries.settle

    async def settle(*given: Any) -> Any:
        nonlocal tries
        tries += 1
        return away() if tries < 5 else await really(*given)

    monkeypatch.setattr(deliveries, "settle", settle)
    assert {result.outcome for result in await send(world, provider, runs)} == {SendOutcome.ACCEPTED}
    assert tries >= 5
    assert await world.actions("delivery.") == ["delivery.accepted"] * 4


async def test_an_opt_out_and_its_suppression_are_written_together_or_not_at_all(
    world: World, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.contact()
    provider.answer = ProviderAnswer(SendOutcome.OPTED_OUT, "stop")
    states: list[str] = []
    really = suppressions.add

    async def fails_once(*given: Any) -> Any:
        states.append((await world.delivery(run))["state"])
        return away() if len(states) == 1 else await really(*given)

    monkeypatch.setattr(suppressions, "add", fails_once)
    assert (await send(world, provider, [run]))[0].outcome is SendOutcome.OPTED_OUT
    assert states == ["transmitting", "transmitting"]
    assert (await world.delivery(run))["state"] == "failed"
    assert await world.one("SELECT count(*) FROM suppressions") == 1
    assert sorted(await world.actions("suppression.") + await world.actions("delivery.")) == ["delivery.failed", "suppression.added"]


async def test_an_opt_out_holds_for_what_is_about_to_pass_in_the_same_transaction(world: World, provider: FakeProvider) -> None:
    left, asking = await world.people(2)
    hashed = address_hash(world.settings.derive_key("suppressions"), "email", address := f"{world.contacts[asking]}@example.com")
    provider.before.append(crash)
    with pytest.raises(Crash):
        await send(world, provider, [left, asking])
    rows = {run: await world.delivery(run) for run in (left, asking)}
    book = Ledger(world.database)
    told = Settlement(rows[left]["id"], rows[left]["attempt"], "failed", "opted_out", suppress=("email", hashed))
    done = book.settle(world.organization_id, told)
    passage = Passage(rows[asking]["id"], rows[asking]["attempt"], "email", hashed, address)
    verdict = await book.fence(world.organization_id, passage)
    await done
    assert verdict == Verdict(Word.REFUSED, "suppressed")


@pytest.mark.parametrize("change", ["withdrawal", "pause"])
async def test_who_leaves_while_an_answer_waits_for_the_audit_chain_is_not_written_to(
    world: World, provider: FakeProvider, change: str
) -> None:
    """An answer is settled, and another message asks the fence, in the same turn; the chain's head is held by what the fence must obey."""
    done, asking = await world.people(2)
    provider.before.append(crash)
    with pytest.raises(Crash):
        await send(world, provider, [done, asking])
    rows = {run: await world.delivery(run) for run in (done, asking)}
    book = Ledger(world.database)
    passage = Passage(rows[asking]["id"], rows[asking]["attempt"], "email", b"", f"{world.contacts[asking]}@example.com")
    async with world.database.organization(world.organization_id) as leaving:
        if change == "pause":
            await leaving.execute(text("UPDATE journeys SET paused_at = now() WHERE id = :id"), {"id": world.journey_id})
            await audit.append(leaving, [NewEntry("journey.paused", "journey", str(world.journey_id))])
        else:
            left = NewConsent(world.contacts[asking], world.topic_id, "email", "withdrawn", "one_click", "link", {}, SYSTEM, None)
            await consents.record(leaving, [left])
        settling = book.settle(world.organization_id, Settlement(rows[done]["id"], rows[done]["attempt"], "accepted", "accepted"))
        fenced = asyncio.ensure_future(book.fence(world.organization_id, passage))
        waiting = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))")
        async with asyncio.timeout(60):
            while not fenced.done() and not await leaving.scalar(waiting):
                await asyncio.sleep(0.01)
    await settling
    expected = Verdict(Word.PAUSED, "journey_paused") if change == "pause" else Verdict(Word.REFUSED, "consent_withdrawn")
    assert await fenced == expected
    assert ((await world.delivery(done))["state"], (await world.delivery(asking))["state"]) == ("accepted", "claimed")


async def test_without_the_database_nothing_passes_the_fence(world: World, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = await world.people(20)
    really = fence.let_pass

    async def commits_unheard(*given: Any) -> Any:
        """The worst case: the row says `transmitting`, and nobody hears it."""
        verdicts = await really(*given)
        session = given[0]
        await session.commit()
        away()
        return verdicts

    monkeypatch.setattr(fence, "let_pass", commits_unheard)
    with pytest.raises(ApplicationError, match="halted"):
        await send(world, provider, runs)
    assert provider.accepted == []
    assert {row["state"] for row in await world.sql("SELECT state FROM deliveries")} == {"claimed"}
    monkeypatch.setattr(fence, "let_pass", really)
    assert {result.outcome for result in await send(world, provider, runs)} == {SendOutcome.ACCEPTED}


async def test_an_answer_is_given_up_after_its_patience(world: World, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await world.contact()
    sending = SendActivities(world.database, world.settings, Versions(), Lines(provider, world.settings.send_concurrency))
    sending.tools = replace(sending.tools, ledger=Ledger(world.database, patience=0.2))
    monkeypatch.setattr(deliveries, "settle", away)
    with pytest.raises(Exception, match="did not answer"):
        await ActivityEnvironment().run(sending.send_messages, world.batch([run]))
    assert (await world.delivery(run))["state"] == "transmitting"


async def test_an_answer_that_cannot_be_written_takes_no_other_with_it(
    world: World, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *good = runs = await world.people(4)
    really = deliveries.settle

    async def settle(session: OrganizationSession, settlements: Sequence[Settlement]) -> Any:
        if (await world.delivery(bad))["id"] in {one.id for one in settlements}:
            await session.execute(text("SELECT 1 / 0"))
        return await really(session, settlements)

    monkeypatch.setattr(deliveries, "settle", settle)
    with pytest.raises(Unwritable, match="DataError"):
        await send(world, provider, runs)
    assert {(await world.delivery(run))["state"] for run in good} == {"accepted"}
    assert (await world.delivery(bad))["state"] == "transmitting"
    assert await world.actions("delivery.") == ["delivery.accepted"] * 3


async def test_a_message_whose_row_cannot_be_written_is_not_sent_and_keeps_no_other_from_it(
    world: World, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *_ = runs = await world.people(4)
    really = fence.let_pass

    async def let_pass(session: OrganizationSession, passages: Sequence[Passage]) -> Any:
        if any(one.address.startswith(str(world.contacts[bad])) for one in passages):
            await session.execute(text("SELECT 1 / 0"))
        return await really(session, passages)

    monkeypatch.setattr(fence, "let_pass", let_pass)
    results = await send(world, provider, runs)
    assert [result.outcome for result in results] == [SendOutcome.TRANSIENT, *[SendOutcome.ACCEPTED] * 3]
    assert len(provider.accepted) == 3


async def test_a_database_that_takes_no_writes_is_waited_for(world: World, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await world.contact()
    tries = 0
    really = deliveries.settle

    async def settle(session: OrganizationSession, settlements: Sequence[Settlement]) -> Any:
        nonlocal tries
        tries += 1
        if tries < 3:
            await session.execute(text("SET TRANSACTION READ ONLY"))
        return await really(session, settlements)

    monkeypatch.setattr(deliveries, "settle", settle)
    assert [result.outcome for result in await send(world, provider, [run])] == [SendOutcome.ACCEPTED]
    assert tries == 3


@pytest.mark.parametrize(("hook", "outcome"), [("before", SendOutcome.TRANSIENT), ("after", SendOutcome.UNKNOWN)])
async def test_a_provider_that_raises_is_judged_by_how_far_it_came(
    world: World, provider: FakeProvider, hook: str, outcome: SendOutcome
) -> None:
    async def fault(_: OutgoingMessage) -> None:
        raise RuntimeError("a bug")

    getattr(provider, hook).append(fault)
    (result,) = await send(world, provider, [await world.contact()])
    assert (result.outcome, result.reason) == (outcome, "provider_raised:RuntimeError")


async def test_what_a_provider_raised_is_logged_without_what_it_says(
    world: World, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    async def fault(message: OutgoingMessage) -> None:
        raise RuntimeError(f"cannot write to {message.recipient}")

    provider.after.append(fault)
    (result,) = await send(world, provider, [await world.contact()])
    (record,) = [record for record in caplog.records if record.name == "activities.lines"]
    logged = vars(record)
    assert (logged["error"], logged["provider"], logged["delivery_id"]) == ("RuntimeError", "fake", str(result.delivery_id))
    assert record.exc_info is None
    assert provider.called[0].recipient not in str(logged)


def once(act: Any, contact_id: UUID) -> Any:
    """Acts before the fence of this contact's message. Addresses are made of contact ids."""

    async def step(message: OutgoingMessage) -> None:
        if message.recipient.startswith(str(contact_id)):
            await act()

    return step
