import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy.exc import TimeoutError as PoolTimeout

from activities.contracts.sending import MAXIMUM_TRIES, SendOutcome
from activities.effects import effect
from activities.lines import Lines
from activities.providers.port import OutgoingMessage, ProviderAnswer
from activities.providers.registry import Providers
from activities.watch import Watch
from api.commands.connections import create_sandbox_connection
from models.domain.audit import SYSTEM
from models.settings import Settings
from models.store import access, connections, sandbox
from models.store.sandbox import MessageFilter
from models.store.session import Database
from models.tables.base import new_id
from tests.activities.effects.world import EffectWorld, said
from tests.activities.world import NOON, Crash, FakeProvider
from tests.inbox import serving


def notify(*members: UUID, **fields: Any) -> dict[str, Any]:
    texts = {
        "subject": "Order of {{ contact.first_name }}",
        "text": "{{ contact.first_name }} waits. Plan: {{ run.plan | default: 'none' }}",
    }
    return {"kind": "notify_team", "members": [str(member) for member in members], **texts, **fields}


@pytest.fixture
def members() -> list[UUID]:
    return [new_id() for _ in range(3)]


async def enroll(world: EffectWorld, members: Sequence[UUID]) -> None:
    async with world.database.organization(world.organization_id) as session:
        for member in members:
            await access.insert_user(session, member, f"{member}@team.example.com", "hash")
            await access.insert_membership(session, member, "support", "")


@pytest.fixture
async def world(database: Database, settings: Settings, provider: FakeProvider, members: list[UUID]) -> EffectWorld:
    made = await EffectWorld(database, settings, providers=provider).found(
        one=notify(members[0]), all=notify(*members), wrong=notify(members[0], text="{{ run.missing }}")
    )
    await enroll(made, members)
    return made


def recipients(messages: Sequence[OutgoingMessage]) -> list[str]:
    return sorted(message.recipient for message in messages)


def address(member: UUID) -> str:
    return f"{member}@team.example.com"


# --- what they get ----------------------------------------------------------------------------------------------------


async def test_each_member_gets_a_mail_about_the_contact(world: EffectWorld, provider: FakeProvider, members: list[UUID]) -> None:
    run = await world.contact(first_name="Zoë")
    await world.variables(run, plan="gold")
    (answer,) = await world.perform([run], "all")
    assert said([answer]) == [("done", None)]
    assert sorted(answer.details["told"]) == sorted(map(str, members))
    assert recipients(provider.accepted) == sorted(map(address, members))
    mail = provider.accepted[0]
    assert (mail.subject, mail.text, mail.html) == ("Order of Zoë", "Zoë waits. Plan: gold", "")
    assert (mail.purpose, mail.unsubscribe_url) == ("transactional", None)
    assert len({each.delivery_id for each in provider.accepted}) == 3
    assert await world.actions("effect.") == ["effect.done"]
    assert "Zoë" not in str(answer) and "team.example.com" not in str(answer)


async def test_who_is_no_member_any_more_or_locked_out_gets_nothing(
    world: EffectWorld, provider: FakeProvider, members: list[UUID]
) -> None:
    run, other = await world.people(2)
    await world.sql("UPDATE users SET disabled_at = now() WHERE id = :id", id=members[2])
    await world.sql("DELETE FROM memberships WHERE user_id = :id", id=members[0])
    assert said(await world.perform([run], "all")) == [("done", None)]
    assert recipients(provider.accepted) == [address(members[1])]
    assert said(await world.perform([other], "one")) == [("refused", "no_members")]


async def test_a_connection_carries_no_more_than_it_may_whoever_asks(world: EffectWorld, provider: FakeProvider) -> None:
    """Two activities of one process, as a send and a mail to the team are."""
    in_the_air: set[UUID] = set()
    most = 0

    async def rise(message: OutgoingMessage) -> None:
        nonlocal most
        in_the_air.add(message.delivery_id)
        most = max(most, len(in_the_air))
        await asyncio.sleep(0.01)

    async def land(message: OutgoingMessage) -> None:
        in_the_air.remove(message.delivery_id)

    provider.before.append(rise)
    provider.after.append(land)
    world.lines = Lines(provider, 1)
    one, other = await world.people(2)
    await asyncio.gather(world.perform([one], "all"), world.perform([other], "all"))
    assert (len(provider.accepted), most) == (6, 1)


async def test_somebody_of_another_organization_gets_nothing(
    database: Database, settings: Settings, world: EffectWorld, provider: FakeProvider, members: list[UUID]
) -> None:
    other = await EffectWorld(database, settings, providers=provider).found(one=notify(members[0]))
    assert said(await other.perform([await other.contact()], "one")) == [("refused", "no_members")]
    assert provider.called == []


async def test_a_value_that_is_missing_parks_the_run_and_a_retry_sends(world: EffectWorld, provider: FakeProvider) -> None:
    run = await world.contact()
    assert said(await world.perform([run], "wrong")) == [("failed", "missing_value:run.missing")]
    await world.variables(run, missing="here")
    assert said(await world.perform([run], "wrong", round=1)) == [("done", None)]
    assert len(provider.accepted) == 1


async def test_a_contact_that_is_gone_is_not_written_about(world: EffectWorld, provider: FakeProvider) -> None:
    gone, here = await world.contact(consent=None), await world.contact()
    await world.forget(gone)
    assert said(await world.perform([gone, here], "one")) == [("refused", "contact_gone"), ("done", None)]
    assert len(provider.accepted) == 1


# --- at most once -----------------------------------------------------------------------------------------------------


async def test_what_is_done_is_not_done_again(world: EffectWorld, provider: FakeProvider) -> None:
    runs = await world.people(45)
    first = await world.perform(runs, "one")
    assert await world.perform(runs, "one") == first
    assert len(provider.called) == 45


async def test_killed_between_the_servers_yes_and_our_record_a_person_decides(world: EffectWorld, provider: FakeProvider) -> None:
    run, other = await world.people(2)

    async def crash(_: OutgoingMessage) -> None:
        raise Crash

    provider.after.append(crash)
    with pytest.raises(Crash):
        await world.perform([run], "one")
    provider.after.clear()
    assert (await world.effect(run))["state"] == "transmitting"
    for round in range(2):
        assert said(await world.perform([run, other], "one", round=round)) == [("failed", "attempt_lost"), ("done", None)]
    assert len(provider.accepted) == 2
    assert await world.actions("effect.") == ["effect.unknown", "effect.done"]


async def test_killed_before_a_server_could_accept_it_the_mail_is_sent_once(world: EffectWorld, provider: FakeProvider) -> None:
    run = await world.contact()

    async def crash(_: OutgoingMessage) -> None:
        raise Crash

    provider.before.append(crash)
    with pytest.raises(Crash):
        await world.perform([run], "one")
    provider.before.clear()
    assert said(await world.perform([run], "one")) == [("done", None)]
    assert len(provider.accepted) == 1


async def test_an_attempt_that_was_overtaken_before_the_point_of_no_return_sends_nothing(
    world: EffectWorld, provider: FakeProvider
) -> None:
    run = await world.contact()
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def dawdle_once(_: OutgoingMessage) -> None:
        if len(provider.called) == 1:
            waiting.set()
            await go_on.wait()

    provider.before.append(dawdle_once)
    slow = asyncio.create_task(world.perform([run], "one"))
    await waiting.wait()
    assert said(await world.perform([run], "one")) == [("done", None)]
    go_on.set()
    await slow
    assert len(provider.accepted) == 1
    assert (await world.effect(run))["state"] == "done"


async def test_an_answer_heard_late_replaces_unknown(world: EffectWorld, provider: FakeProvider) -> None:
    run = await world.contact()
    go_on = asyncio.Event()

    async def wait(_: OutgoingMessage) -> None:
        await go_on.wait()

    provider.after.append(wait)
    slow = asyncio.create_task(world.perform([run], "one"))
    await provider.has_accepted(1)
    assert said(await world.perform([run], "one")) == [("failed", "attempt_lost")]
    go_on.set()
    assert said(await slow) == [("done", None)]
    assert said(await world.perform([run], "one", round=1)) == [("done", None)]  # the person retries: it was done
    assert len(provider.accepted) == 1


async def test_a_doubt_of_the_provider_is_one_of_ours(world: EffectWorld, provider: FakeProvider, members: list[UUID]) -> None:
    run = await world.contact()

    def answer(message: OutgoingMessage) -> ProviderAnswer:
        return ProviderAnswer(SendOutcome.UNKNOWN if message.recipient == address(members[1]) else SendOutcome.ACCEPTED, "no_answer")

    provider.answer = answer
    (told,) = await world.perform([run], "all")
    assert said([told]) == [("failed", "no_answer")]
    assert told.details["not_told"] == {str(members[1]): "no_answer"}
    assert said(await world.perform([run], "all", round=1)) == [("failed", "no_answer")]
    assert len(provider.called) == 3


# --- again ------------------------------------------------------------------------------------------------------------


async def test_only_those_who_were_certainly_not_told_are_told_again(
    world: EffectWorld, provider: FakeProvider, members: list[UUID]
) -> None:
    run = await world.contact()
    busy = {address(members[0]), address(members[2])}

    def answer(message: OutgoingMessage) -> ProviderAnswer:
        later = ProviderAnswer(SendOutcome.TRANSIENT, "rcpt_450", timedelta(minutes=2))
        return later if message.recipient in busy else ProviderAnswer(SendOutcome.ACCEPTED)

    provider.answer = answer
    (told,) = await world.perform([run], "all")
    assert said([told]) == [("again", "rcpt_450")]
    assert told.retry_at >= NOON + timedelta(minutes=2)
    busy.clear()
    assert said(await world.perform([run], "all", round=1)) == [("done", None)]
    assert recipients(provider.accepted) == sorted(map(address, members))


@pytest.mark.parametrize(("hook", "end"), [("before", "again"), ("after", "failed")])
async def test_a_provider_that_raises_at_the_second_mail_is_judged_by_how_far_that_one_came(
    world: EffectWorld, provider: FakeProvider, members: list[UUID], hook: str, end: str
) -> None:
    run = await world.contact()

    async def fault(message: OutgoingMessage) -> None:
        if message.recipient == address(members[1]):
            raise RuntimeError("a bug")

    getattr(provider, hook).append(fault)
    assert said(await world.perform([run], "all")) == [(end, "provider_raised:RuntimeError")]
    getattr(provider, hook).clear()
    await world.perform([run], "all", round=1)
    assert recipients(provider.called).count(address(members[1])) == (2 if hook == "before" else 1)


async def test_after_enough_tries_it_gives_up_unless_somebody_was_told(
    world: EffectWorld, provider: FakeProvider, members: list[UUID]
) -> None:
    run, other = await world.people(2)
    provider.answer = ProviderAnswer(SendOutcome.TRANSIENT, "unreachable")
    answers = [(await world.perform([run], "one", round=round))[0] for round in range(MAXIMUM_TRIES)]
    assert said(answers)[-2:] == [("again", "unreachable"), ("failed", "gave_up:unreachable")]

    def answer(message: OutgoingMessage) -> ProviderAnswer:
        return ProviderAnswer(SendOutcome.ACCEPTED if message.recipient == address(members[1]) else SendOutcome.TRANSIENT, "x")

    provider.answer = answer
    answers = [(await world.perform([other], "all", round=round))[0] for round in range(MAXIMUM_TRIES)]
    assert said(answers)[-2:] == [("again", "x"), ("done", None)]
    assert answers[-1].details == {"told": [str(members[1])], "not_told": {str(members[0]): "x", str(members[2]): "x"}}
    assert len(provider.accepted) == 1


async def test_an_address_that_takes_nothing_fails(world: EffectWorld, provider: FakeProvider) -> None:
    run = await world.contact()
    provider.answer = ProviderAnswer(SendOutcome.RECIPIENT_PERMANENT, "mailbox_unknown")
    assert said(await world.perform([run], "one")) == [("failed", "mailbox_unknown")]


async def test_a_broken_connection_is_waited_for_however_long_and_not_called(world: EffectWorld, provider: FakeProvider) -> None:
    run = await world.contact()
    provider.answer = ProviderAnswer(SendOutcome.CONNECTION_BROKEN, "auth_refused")
    assert said(await world.perform([run], "one")) == [("again", "auth_refused")]
    assert await world.actions("connection.broken") == ["connection.broken"]
    for round in range(MAXIMUM_TRIES + 2):
        (answer,) = await world.perform([run], "one", round=round)
        assert said([answer]) == [("again", "auth_refused")]
        assert answer.retry_at <= NOON + timedelta(minutes=31)
    assert len(provider.called) == 1
    await world.sql("UPDATE connections SET status = 'active'")
    provider.answer = ProviderAnswer(SendOutcome.ACCEPTED)
    assert said(await world.perform([run], "one")) == [("done", None)]


async def test_an_answer_to_an_old_password_breaks_no_connection_that_was_mended_meanwhile(
    world: EffectWorld, provider: FakeProvider
) -> None:
    async def mend(_: OutgoingMessage) -> None:
        provider.before.clear()
        await world.change_connection()

    run = await world.contact()
    provider.before.append(mend)
    provider.answer = ProviderAnswer(SendOutcome.CONNECTION_BROKEN, "auth_refused")
    (answer,) = await world.perform([run], "one")
    assert said([answer]) == [("again", "connection_changed")]
    assert answer.retry_at < NOON + timedelta(minutes=1)
    assert (await world.one("SELECT status FROM connections"), await world.actions("connection.")) == ("active", [])


async def test_a_mail_that_has_waited_for_its_slot_leaves_by_no_connection_that_has_been_changed(
    world: EffectWorld, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.contact()
    await world.sql("UPDATE connections SET rate_per_second = 100")
    really = connections.reserve_slots

    async def changed_meanwhile(*given: Any) -> Any:
        monkeypatch.setattr(connections, "reserve_slots", really)
        await world.change_connection(sender_address="new@acme.example")
        return await really(*given)

    monkeypatch.setattr(connections, "reserve_slots", changed_meanwhile)
    assert said(await world.perform([run], "one")) == [("again", "connection_changed")]
    assert provider.called == []
    assert said(await world.perform([run], "one", round=1)) == [("done", None)]
    assert [mail.sender.address for mail in provider.accepted] == ["new@acme.example"]


async def test_a_sandbox_connection_that_broke_when_the_sandbox_moved_mends_itself(world: EffectWorld, provider: FakeProvider) -> None:
    run = await world.contact()
    await world.sql(
        """UPDATE connections SET provider = 'smtp', status = 'broken', broken_reason = 'address_not_allowed',
           config = config || jsonb_build_object('username', CAST(:o AS text))"""
    )
    assert said(await world.perform([run], "one")) == [("done", None)]
    assert await world.actions("connection.") == ["connection.mended"]


async def test_the_connections_rate_is_obeyed(world: EffectWorld, provider: FakeProvider) -> None:
    runs = await world.people(3)
    await world.sql("UPDATE connections SET rate_per_second = 0.01")
    assert sorted(said(await world.perform(runs, "one"))) == [("again", "rate_limited")] * 2 + [("done", None)]
    assert len(provider.called) == 1


async def test_nothing_leaves_while_the_campaign_is_paused(world: EffectWorld, provider: FakeProvider) -> None:
    await world.campaign()
    run = await world.contact()
    await world.sql("UPDATE campaigns SET paused_at = now()")
    assert said(await world.perform([run], "one")) == [("again", "campaign_paused")]
    assert provider.called == []


async def test_who_was_not_told_before_a_pause_is_told_after_it(
    world: EffectWorld, provider: FakeProvider, members: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effect, "LOOK_EVERY", 0.1)
    run = await world.contact()

    async def pause_the_journey(_: OutgoingMessage) -> None:
        await world.sql("UPDATE journeys SET paused_at = now()")
        await asyncio.sleep(0.2)  # a look is due

    provider.after = [pause_the_journey]
    for _ in range(2):
        assert said(await world.perform([run], "all")) == [("again", "journey_paused")]
        assert len(provider.called) == 1
    provider.after = []
    await world.sql("UPDATE journeys SET paused_at = NULL")
    assert said(await world.perform([run], "all")) == [("done", None)]
    assert recipients(provider.accepted) == sorted(map(address, members))


async def test_who_was_told_is_kept_when_the_database_does_not_answer_before_the_next_mail(
    world: EffectWorld, provider: FakeProvider, members: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effect, "LOOK_EVERY", 0.0)
    run = await world.contact()
    looks = 0

    async def look(*given: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 3:  # two before the first mail
            raise PoolTimeout
        return await really(*given)

    really = Watch.look
    monkeypatch.setattr(Watch, "look", look)
    answers = [said(await world.perform([run], "all")) for _ in range(2)]
    assert answers == [[("again", "database_unavailable")], [("done", None)]]
    assert recipients(provider.accepted) == sorted(map(address, members))


# --- over the wire ----------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(settings: Settings) -> AsyncIterator[Settings]:
    async with serving(settings) as running:
        yield running


async def test_the_mail_arrives_over_smtp_without_a_way_to_unsubscribe(database: Database, served: Settings, members: list[UUID]) -> None:
    providers = Providers(served)
    world = await EffectWorld(database, served, providers=providers).found(all=notify(*members))
    await enroll(world, members)
    async with database.organization(world.organization_id) as session:
        await create_sandbox_connection(session, served, SYSTEM)
    try:
        runs = await world.people(4)
        assert said(await world.perform(runs, "all")) == [("done", None)] * 4
    finally:
        await providers.close()
    async with database.organization(world.organization_id) as session:
        received = list(await sandbox.list_messages(session, MessageFilter(), 100, None))
    assert sorted(message.recipient for message in received) == sorted([address(member) for member in members] * 4)
    assert {message.subject for message in received} == {"Order of Ada"}
    assert not any(name.lower().startswith("list-unsubscribe") for message in received for name in message.headers)
