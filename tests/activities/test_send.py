import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError
from temporalio.testing import ActivityEnvironment

from activities import dispatch, pace
from activities.clock import Clock
from activities.contracts.sending import MAXIMUM_TRIES, SendOutcome, SendResult
from activities.lines import Lines
from activities.providers.port import OutgoingMessage, ProviderAnswer
from activities.send import SendActivities
from activities.versions import Versions
from models.settings import Settings
from models.store import connections, fence
from models.store.fence import Passage
from models.store.session import Database, OrganizationSession
from tests.activities.world import NOON, FakeProvider, World


async def send(sending: SendActivities, world: World, run_ids: list[UUID], **asked: Any) -> list[SendResult]:
    return await ActivityEnvironment().run(sending.send_messages, world.batch(run_ids, **asked))


def outcomes(results: list[SendResult]) -> list[tuple[SendOutcome, str | None]]:
    return [(result.outcome, result.reason) for result in results]


class StandingClock:
    """The workflow's clock, as activities read it: time passes only when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = timedelta(0)
        monkeypatch.setattr(Clock, "now", lambda clock: clock._start + self.passed)


async def test_every_message_is_claimed_sent_settled_and_audited(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    runs = await world.people(25)
    results = await send(sending, world, runs)
    assert [result.run_id for result in results] == runs
    assert {result.outcome for result in results} == {SendOutcome.ACCEPTED}
    assert len(provider.accepted) == 25
    row = await world.delivery(runs[0])
    assert (row["state"], row["outcome"], row["provider_message_id"]) == ("accepted", "accepted", "id-1")
    assert (row["connection_id"], row["template_version_id"]) == (world.connection_id, world.template_version_id)
    assert row["claimed_at"] <= row["transmitting_at"] <= row["settled_at"]
    assert row["id"] == results[0].delivery_id
    assert await world.actions("delivery.") == ["delivery.accepted"] * 25


async def test_a_message_carries_its_content_and_a_one_click_link(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    await send(sending, world, [await world.contact(first_name="Grace <3")])
    (mail,) = provider.accepted
    assert mail.html == "<p>Hello Grace &lt;3</p>"
    assert mail.sender.address == "hello@acme.example"
    assert mail.unsubscribe_url is not None and mail.unsubscribe_url.startswith("http://127.0.0.1:8000/u/")


async def test_transactional_mail_carries_no_link_and_needs_no_consent(
    world: World, sending: SendActivities, provider: FakeProvider
) -> None:
    run = await world.contact(consent=None)
    assert outcomes(await send(sending, world, [run], step_id="receipt")) == [(SendOutcome.ACCEPTED, None)]
    assert provider.accepted[0].unsubscribe_url is None


async def test_a_second_execution_answers_from_the_ledger(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    runs = await world.people(5)
    first = await send(sending, world, runs)
    assert await send(sending, world, runs) == first
    assert len(provider.called) == 5


async def test_a_missing_value_names_its_field_and_sends_nothing(database: Database, settings: Settings, provider: FakeProvider) -> None:
    world = await World(database, settings).build(html="<p>{{ contact.attributes.plan }}</p>")
    sending = SendActivities(database, settings, Versions(), Lines(provider, settings.send_concurrency))
    runs = [await world.contact(), await world.contact(attributes={"plan": "gold"})]
    results = await send(sending, world, runs)
    assert outcomes(results) == [
        (SendOutcome.CONTENT_PERMANENT, "missing_value:contact.attributes.plan"),
        (SendOutcome.ACCEPTED, None),
    ]
    assert (await world.delivery(runs[0]))["state"] == "failed"
    assert len(provider.called) == 1


async def test_a_contact_without_address_is_refused(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    run = await world.contact(email=None)
    assert outcomes(await send(sending, world, [run])) == [(SendOutcome.REFUSED, "no_address")]
    assert (await world.delivery(run))["state"] == "refused"
    assert provider.called == []


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (SendOutcome.RECIPIENT_PERMANENT, "failed"),
        (SendOutcome.CONTENT_PERMANENT, "failed"),
        (SendOutcome.UNKNOWN, "unknown"),
    ],
)
async def test_a_final_answer_is_settled_and_never_asked_again(
    world: World, sending: SendActivities, provider: FakeProvider, answer: SendOutcome, state: str
) -> None:
    provider.answer = ProviderAnswer(answer, "code_1")
    run = await world.contact()
    for _ in range(2):
        assert outcomes(await send(sending, world, [run])) == [(answer, "code_1")]
    row = await world.delivery(run)
    assert (row["state"], row["outcome"], row["reason"], row["attempts"]) == (state, answer, "code_1", 1)
    assert len(provider.called) == 1
    assert await world.actions("delivery.") == [f"delivery.{state}"]


async def test_an_opt_out_at_the_provider_suppresses_the_address(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    provider.answer = ProviderAnswer(SendOutcome.OPTED_OUT, "opted_out")
    run = await world.contact()
    await send(sending, world, [run])
    assert await world.one("SELECT count(*) FROM suppressions") == 1
    assert outcomes(await send(sending, world, [run], step_id="receipt")) == [(SendOutcome.REFUSED, "suppressed")]


async def test_a_transient_answer_is_retried_and_then_given_up(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    provider.answer = ProviderAnswer(SendOutcome.TRANSIENT, "greylisted")
    run = await world.contact()
    for tries in range(1, MAXIMUM_TRIES):
        (result,) = await send(sending, world, [run], round=tries - 1)
        assert (result.outcome, result.reason) == (SendOutcome.TRANSIENT, "greylisted")
        assert result.retry_at is not None and result.retry_at >= NOON + min(
            timedelta(seconds=15) * 2 ** (tries - 1), timedelta(minutes=15)
        )
        row = await world.delivery(run)
        assert (row["state"], row["attempts"], row["attempt"]) == ("claimed", tries, None)
    assert outcomes(await send(sending, world, [run], round=8)) == [(SendOutcome.GAVE_UP, "gave_up:greylisted")]
    assert len(provider.called) == MAXIMUM_TRIES == (await world.delivery(run))["attempts"]
    assert await world.actions("delivery.") == ["delivery.failed"]


async def test_a_person_may_retry_what_has_failed_but_never_what_is_unknown(
    world: World, sending: SendActivities, provider: FakeProvider
) -> None:
    failed, unknown = await world.people(2)
    for run, answer in ((failed, SendOutcome.CONTENT_PERMANENT), (unknown, SendOutcome.UNKNOWN)):
        provider.answer = ProviderAnswer(answer, "x")
        await send(sending, world, [run])
    provider.answer = ProviderAnswer(SendOutcome.ACCEPTED)
    results = await send(sending, world, [failed, unknown], round=1)
    assert [result.outcome for result in results] == [SendOutcome.ACCEPTED, SendOutcome.UNKNOWN]
    assert len(provider.called) == 3


async def test_a_throttled_message_waits_as_long_as_the_provider_says(
    world: World, sending: SendActivities, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    StandingClock(monkeypatch)
    provider.answer = ProviderAnswer(SendOutcome.THROTTLED, "slow_down", timedelta(minutes=7))
    (result,) = await send(sending, world, [await world.contact()])
    assert result.outcome is SendOutcome.THROTTLED
    assert result.retry_at is not None
    assert NOON + timedelta(minutes=7) <= result.retry_at <= NOON + timedelta(minutes=7, seconds=15)


async def test_a_broken_connection_stops_the_batch_and_is_marked_once(
    world: World, sending: SendActivities, provider: FakeProvider
) -> None:
    sending.lines._concurrency = 2
    provider.answer = ProviderAnswer(SendOutcome.CONNECTION_BROKEN, "auth_535")
    runs = await world.people(20)
    results = await send(sending, world, runs)
    assert outcomes(results) == [(SendOutcome.CONNECTION_BROKEN, "auth_535")] * 20
    assert len(provider.called) <= 4
    assert await world.actions("connection.") == ["connection.broken"]
    assert {row["state"] for row in await world.sql("SELECT state FROM deliveries")} == {"claimed"}
    called = len(provider.called)
    assert (await send(sending, world, runs, round=1))[0].outcome is SendOutcome.CONNECTION_BROKEN
    assert len(provider.called) == called
    await world.sql("UPDATE connections SET status = 'active', broken_reason = NULL")
    provider.answer = ProviderAnswer(SendOutcome.ACCEPTED)
    assert {result.outcome for result in await send(sending, world, runs, round=2)} == {SendOutcome.ACCEPTED}


async def test_an_answer_to_an_old_password_breaks_no_connection_that_was_mended_meanwhile(
    world: World, sending: SendActivities, provider: FakeProvider
) -> None:
    async def mend(_: OutgoingMessage) -> None:
        provider.before.clear()
        await world.change_connection()

    sending.lines._concurrency = 1
    provider.before.append(mend)
    provider.answer = ProviderAnswer(SendOutcome.CONNECTION_BROKEN, "authentication_failed")
    runs = await world.people(3)
    results = await send(sending, world, runs)
    assert outcomes(results) == [(SendOutcome.PAUSED, "connection_changed")] * 3
    assert all(result.retry_at is not None and result.retry_at < NOON + timedelta(minutes=1) for result in results)
    assert await world.one("SELECT status FROM connections") == "active"
    assert await world.actions("connection.") == []
    provider.answer = ProviderAnswer(SendOutcome.ACCEPTED)
    assert {result.outcome for result in await send(sending, world, runs, round=1)} == {SendOutcome.ACCEPTED}


async def test_a_batch_that_waits_goes_on_by_no_connection_that_has_been_changed(
    world: World, sending: SendActivities, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def change(_: OutgoingMessage) -> None:
        provider.before.clear()
        await world.change_connection(sender_address="new@acme.example")

    monkeypatch.setattr(dispatch, "LOOK_EVERY", 0.0)
    sending.lines._concurrency = 1
    provider.before.append(change)
    runs = await world.people(3)
    results = await send(sending, world, runs)
    assert outcomes(results) == [(SendOutcome.ACCEPTED, None)] + [(SendOutcome.PAUSED, "connection_changed")] * 2
    assert all(result.retry_at is not None and result.retry_at < NOON + timedelta(minutes=1) for result in results[1:])
    assert {row["state"] for row in await world.sql("SELECT state FROM deliveries WHERE attempt IS NULL")} == {"claimed"}
    assert {result.outcome for result in await send(sending, world, runs, round=1)} == {SendOutcome.ACCEPTED}
    assert [mail.sender.address for mail in provider.accepted] == ["hello@acme.example"] + ["new@acme.example"] * 2


async def test_a_sandbox_connection_that_broke_when_the_sandbox_moved_mends_itself(world: World, sending: SendActivities) -> None:
    run = await world.contact()
    broken = "UPDATE connections SET provider = 'smtp', status = 'broken', broken_reason = 'address_not_allowed'"
    await world.sql(broken)
    assert outcomes(await send(sending, world, [run])) == [(SendOutcome.CONNECTION_BROKEN, "address_not_allowed")]  # not the sandbox's
    await world.sql(f"{broken}, config = config || jsonb_build_object('username', CAST(:o AS text))")
    assert outcomes(await send(sending, world, [run], round=1)) == [(SendOutcome.ACCEPTED, None)]
    assert await world.one("SELECT status FROM connections") == "active"
    assert await world.actions("connection.") == ["connection.mended"]


async def test_a_connection_is_mended_while_no_other_transaction_is_open(
    world: World, sending: SendActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.contact()
    await world.sql(
        """UPDATE connections SET provider = 'smtp', status = 'broken', broken_reason = 'address_not_allowed',
           config = config || jsonb_build_object('username', CAST(:o AS text))"""
    )
    held: list[int] = []
    really = connections.mark_active

    async def mark_active(*given: Any) -> bool:
        pool: Any = world.database.engine.pool
        held.append(pool.checkedout())
        return await really(*given)

    monkeypatch.setattr(connections, "mark_active", mark_active)
    await send(sending, world, [run])
    assert held == [1]


async def test_without_a_connection_runs_wait_and_nothing_is_claimed(world: World, sending: SendActivities) -> None:
    await world.sql("UPDATE connections SET is_default = false")
    run = await world.contact()
    assert outcomes(await send(sending, world, [run])) == [(SendOutcome.CONNECTION_BROKEN, "no_connection")]
    assert await world.one("SELECT count(*) FROM deliveries") == 0


async def test_no_more_messages_than_permitted_are_in_the_air(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    in_the_air = most = 0
    all_there = asyncio.Event()

    async def rise(_: Any) -> None:
        nonlocal in_the_air, most
        in_the_air += 1
        most = max(most, in_the_air)
        if in_the_air == world.settings.send_concurrency:
            all_there.set()
        await all_there.wait()
        await asyncio.sleep(0.01)  # for one too many to come

    async def land(_: Any) -> None:
        nonlocal in_the_air
        in_the_air -= 1

    provider.before.append(rise)
    provider.after.append(land)
    first, second = await world.people(20), await world.people(20)
    await asyncio.gather(send(sending, world, first), send(sending, world, second))
    assert most == world.settings.send_concurrency


async def test_the_rate_of_a_connection_is_kept(database: Database, settings: Settings, provider: FakeProvider) -> None:
    world = await World(database, settings).build(rate=20)
    sending = SendActivities(database, settings, Versions(), Lines(provider, settings.send_concurrency))
    loop = asyncio.get_running_loop()
    began = loop.time()
    results = await send(sending, world, await world.people(50))
    assert {result.outcome for result in results} == {SendOutcome.ACCEPTED}
    assert loop.time() - began > 1.2  # a burst of one second's worth, then 20 a second


async def test_another_organizations_version_is_not_found(
    world: World, sending: SendActivities, database: Database, settings: Settings
) -> None:
    other = await World(database, settings).build()
    run = await other.contact()
    batch = other.batch([run])
    foreign = batch.model_copy(update={"scope": batch.scope.model_copy(update={"organization_id": world.organization_id})})
    with pytest.raises(Exception, match="There is no version"):
        await ActivityEnvironment().run(sending.send_messages, foreign)


async def test_a_message_still_queued_when_quiet_hours_begin_asks_again(
    world: World, sending: SendActivities, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued, late, early = await world.people(3)
    batch = world.batch([queued, late, early])
    until = {queued: NOON, late: NOON + timedelta(seconds=2), early: NOON + timedelta(hours=9)}
    visits = [replace(visit, allowed_until=until[visit.run_id]) for visit in batch.visits]
    time = StandingClock(monkeypatch)

    async def dawdle(message: OutgoingMessage) -> None:
        if message.recipient.startswith(str(world.contacts[late])):
            time.passed = timedelta(seconds=2)

    provider.before.append(dawdle)
    results = await ActivityEnvironment().run(sending.send_messages, batch.model_copy(update={"visits": visits}))
    assert outcomes(results) == [(SendOutcome.PAUSED, "quiet_hours")] * 2 + [(SendOutcome.ACCEPTED, None)]
    assert results[0].retry_at is not None and results[0].retry_at < NOON + timedelta(minutes=1)
    assert len(provider.called) == 2
    assert (await world.delivery(late))["state"] == "claimed"


async def test_the_time_in_the_queue_and_in_earlier_attempts_counts_towards_quiet_hours(
    world: World, sending: SendActivities, provider: FakeProvider
) -> None:
    late, early = await world.people(2)
    batch = world.batch([late, early])
    until = {late: NOON + timedelta(minutes=9), early: NOON + timedelta(minutes=11)}
    visits = [replace(visit, allowed_until=until[visit.run_id]) for visit in batch.visits]
    environment = ActivityEnvironment()
    asked = environment.info.scheduled_time
    environment.info = replace(environment.info, attempt=3, started_time=asked + timedelta(minutes=10))
    results = await environment.run(sending.send_messages, batch.model_copy(update={"visits": visits}))
    assert outcomes(results) == [(SendOutcome.PAUSED, "quiet_hours"), (SendOutcome.ACCEPTED, None)]
    assert results[0].retry_at is not None
    assert NOON + timedelta(minutes=10) <= results[0].retry_at < NOON + timedelta(minutes=11)


async def test_a_message_whose_hours_end_while_the_fence_is_asked_is_given_back(
    world: World, sending: SendActivities, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.contact()
    batch = world.batch([run])
    visits = [replace(visit, allowed_until=NOON + timedelta(seconds=2)) for visit in batch.visits]
    really = fence.let_pass
    time = StandingClock(monkeypatch)

    async def answers_late(*given: Any) -> Any:
        verdicts = await really(*given)
        time.passed = timedelta(seconds=2)
        return verdicts

    monkeypatch.setattr(fence, "let_pass", answers_late)
    results = await ActivityEnvironment().run(sending.send_messages, batch.model_copy(update={"visits": visits}))
    assert outcomes(results) == [(SendOutcome.PAUSED, "quiet_hours")]
    assert len(provider.called) == 1 and provider.accepted == []
    row = await world.delivery(run)
    assert (row["state"], row["attempt"], row["transmitting_at"]) == ("claimed", None, None)


def kept_waiting(provider: FakeProvider, time: StandingClock, seconds: float, meanwhile: Callable[[], Awaitable[Any]]) -> None:
    """The provider takes so long to let the first byte come, once."""

    async def keep(_: OutgoingMessage) -> None:
        provider.keeping.clear()
        time.passed += timedelta(seconds=seconds)
        await meanwhile()

    provider.keeping.append(keep)


def fence_counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each question to the fence was about."""
    asked: list[int] = []
    really = fence.let_pass

    async def let_pass(session: OrganizationSession, passages: Sequence[Passage]) -> Any:
        asked.append(len(passages))
        return await really(session, passages)

    monkeypatch.setattr(fence, "let_pass", let_pass)
    return asked


async def nothing() -> None:
    return None


async def test_a_message_is_asked_about_again_only_when_the_provider_keeps_it_waiting(
    world: World, sending: SendActivities, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, asked = StandingClock(monkeypatch), fence_counted(monkeypatch)
    for seconds, questions in ((4.9, 1), (5, 2)):
        kept_waiting(provider, time, seconds, nothing)
        run = await world.contact()
        assert outcomes(await send(sending, world, [run])) == [(SendOutcome.ACCEPTED, None)]
        assert (sum(asked), (await world.delivery(run))["attempts"]) == (questions, 1)
        asked.clear()


async def test_consent_withdrawn_while_the_provider_keeps_a_message_waiting_refuses_it(
    world: World, sending: SendActivities, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.contact()
    kept_waiting(provider, StandingClock(monkeypatch), 20, lambda: world.consent(run, "withdrawn"))
    assert outcomes(await send(sending, world, [run])) == [(SendOutcome.REFUSED, "consent_withdrawn")]
    assert (await world.delivery(run))["state"] == "refused"
    assert (provider.accepted, await world.actions("delivery.")) == ([], ["delivery.refused"])


async def test_a_pause_while_the_provider_keeps_a_message_waiting_gives_it_back(
    world: World, sending: SendActivities, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.contact()
    kept_waiting(provider, StandingClock(monkeypatch), 20, lambda: world.sql("UPDATE journeys SET paused_at = now()"))
    assert outcomes(await send(sending, world, [run])) == [(SendOutcome.PAUSED, "journey_paused")]
    row = await world.delivery(run)
    assert (row["state"], row["attempt"], row["transmitting_at"], provider.accepted) == ("claimed", None, None, [])
    await world.sql("UPDATE journeys SET paused_at = NULL")
    assert outcomes(await send(sending, world, [run], round=1)) == [(SendOutcome.ACCEPTED, None)]


async def test_a_message_whose_hours_end_while_the_provider_keeps_it_waiting_is_given_back(
    world: World, sending: SendActivities, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.contact()
    batch = world.batch([run])
    visits = [replace(visit, allowed_until=NOON + timedelta(seconds=2)) for visit in batch.visits]
    kept_waiting(provider, StandingClock(monkeypatch), 2, nothing)
    results = await ActivityEnvironment().run(sending.send_messages, batch.model_copy(update={"visits": visits}))
    assert outcomes(results) == [(SendOutcome.PAUSED, "quiet_hours")]
    row = await world.delivery(run)
    assert (row["state"], row["attempt"], row["transmitting_at"], provider.accepted) == ("claimed", None, None, [])


async def test_the_database_goes_away_while_the_provider_keeps_a_message_waiting_and_nothing_is_in_doubt(
    world: World, sending: SendActivities, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.contact()
    really = fence.let_pass

    async def away(*_: Any) -> Any:
        monkeypatch.setattr(fence, "let_pass", really)
        raise OperationalError("", {}, Exception("the server closed the connection"))

    async def goes_away() -> None:
        monkeypatch.setattr(fence, "let_pass", away)

    kept_waiting(provider, StandingClock(monkeypatch), 20, goes_away)
    (result,) = await send(sending, world, [run])
    assert (result.outcome, result.reason) == (SendOutcome.TRANSIENT, "database_unavailable")
    assert ((await world.delivery(run))["state"], provider.accepted) == ("claimed", [])
    assert outcomes(await send(sending, world, [run], round=1)) == [(SendOutcome.ACCEPTED, None)]


async def test_a_batch_does_not_wait_for_slots_that_are_far_away(world: World, sending: SendActivities, provider: FakeProvider) -> None:
    await world.sql("UPDATE connections SET rate_per_second = 0.01")
    runs = await world.people(4)
    for turn in range(3):
        async with asyncio.timeout(60):  # the next slot is 100 seconds away
            results = await send(sending, world, runs[turn:], round=turn)
        assert outcomes(results) == [(SendOutcome.ACCEPTED, None)] + [(SendOutcome.THROTTLED, "rate_limited")] * (3 - turn)
        (back_at,) = {result.retry_at for result in results[1:]}
        assert back_at is not None and NOON + timedelta(seconds=95) < back_at <= NOON + timedelta(seconds=160)
        await world.sql("UPDATE connection_rates SET next_slot_at = next_slot_at - interval '100 seconds'")
    assert len(provider.accepted) == 3
    row = await world.delivery(runs[3])
    assert (row["state"], row["attempt"], row["attempts"]) == ("claimed", None, 0)


async def test_of_many_batches_over_a_slow_connection_few_wait_and_the_others_come_back_later(
    world: World, sending: SendActivities, provider: FakeProvider
) -> None:
    await world.sql("UPDATE connections SET rate_per_second = 0.1")  # ten seconds apart: one is near, for long
    batches = [await world.people(4) for _ in range(4)]
    await world.sql("UPDATE connection_rates SET next_slot_at = now() + interval '19 seconds'")
    sends = [asyncio.create_task(send(sending, world, runs, round=5 * number)) for number, runs in enumerate(batches)]
    async with asyncio.timeout(60):
        while sum(task.done() for task in sends) < 3:
            await asyncio.sleep(0.05)
    done, waiting = [task for task in sends if task.done()], [task for task in sends if not task.done()]
    assert len(waiting) == 1  # the first one's slot is all that is near
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert {outcome for task in done for outcome in outcomes(task.result())} == {(SendOutcome.THROTTLED, "rate_limited")}
    back_at = {result.retry_at for task in done for result in task.result()}
    assert len(back_at) == 3 and all(at is not None and at > NOON + timedelta(seconds=20) for at in back_at)
    assert provider.accepted == []


async def test_a_batch_that_has_been_here_long_makes_room_for_others_but_goes_on_alone(
    world: World, sending: SendActivities, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "HORIZON", timedelta(seconds=1))
    monkeypatch.setattr(pace, "SLOTS_AHEAD", timedelta(seconds=0.5))
    await world.sql("UPDATE connections SET rate_per_second = 4")
    alone = await send(sending, world, await world.people(12))
    assert {result.outcome for result in alone} == {SendOutcome.ACCEPTED}
    batches = [await world.people(12) for _ in range(3)]
    results = await asyncio.gather(*(send(sending, world, runs) for runs in batches))
    told = [outcome for result in results for outcome in outcomes(result)]
    assert set(told) == {(SendOutcome.ACCEPTED, None), (SendOutcome.THROTTLED, "rate_limited")}
    assert sum(all(result.outcome is SendOutcome.ACCEPTED for result in batch) for batch in results) <= 1
