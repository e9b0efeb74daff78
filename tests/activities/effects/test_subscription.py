import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.consent import ConsentActivities
from activities.contracts.sending import Judgement
from activities.versions import Versions
from api.inbound import unsubscribe
from models.domain.audit import Actor
from models.domain.decision import Outcome
from models.domain.unsubscribe import Unsubscribe
from models.settings import Settings
from models.store import audit, consents
from models.store.consents import NewConsent
from models.store.session import Database
from models.tables.base import new_id
from tests.activities.effects.world import EffectWorld, said
from tests.activities.world import Crash


@pytest.fixture
async def world(database: Database, settings: Settings) -> EffectWorld:
    made = EffectWorld(database, settings)
    topic = {"topic_id": str(made.topic_id)}
    return await made.found(
        join={"kind": "subscribe", **topic, "evidence": "ticked the box at checkout"},
        leave={"kind": "unsubscribe", **topic, "evidence": "asked the shop"},
        news={"kind": "send", "template_id": str(made.template_id), "template_version_id": str(made.template_version_id), **topic},
    )


async def lines(world: EffectWorld) -> list[Any]:
    return list(await world.sql("SELECT * FROM consents ORDER BY id"))


async def may_send(world: EffectWorld, run: Any, round: int = 0) -> Judgement:
    checking = ConsentActivities(world.database, world.settings, Versions())
    (judgement,) = await ActivityEnvironment().run(checking.check_consent, world.batch([run], "news", round=round))
    return judgement


async def test_subscribing_writes_a_line_with_its_evidence(world: EffectWorld) -> None:
    run = await world.contact(consent=None)
    assert said(await world.perform([run], "join")) == [("done", None)]
    (line,) = await lines(world)
    assert (line["status"], line["method"], line["channel"]) == ("granted", "journey", "email")
    assert (line["actor_kind"], line["actor_id"]) == ("system", None)
    assert line["source"] == 'journey "Welcome", version 1'
    assert line["evidence"] == {
        "step": "join",
        "text": "ticked the box at checkout",
        "journey_id": str(world.journey_id),
        "version_id": str(world.version_id),
        "run_id": str(run),
    }
    assert await world.actions("consent.") == ["consent.granted"]
    assert (await may_send(world, run)).verdict is Outcome.SEND


async def test_unsubscribing_withdraws(world: EffectWorld) -> None:
    run = await world.contact()
    now = datetime.now(UTC) + timedelta(days=400)  # virtual time runs ahead; the line does not
    assert said(await world.perform([run], "leave", now=now)) == [("done", None)]
    assert [line["status"] for line in await lines(world)] == ["granted", "withdrawn"]
    assert (await lines(world))[1]["occurred_at"] < now - timedelta(days=300)
    judgement = await may_send(world, run)
    assert (judgement.verdict, judgement.reason) == (Outcome.REFUSE, "consent_withdrawn")


async def test_unsubscribing_withdraws_what_a_host_that_is_ahead_has_granted(world: EffectWorld) -> None:
    run = await world.contact()
    await record(world, replace(left(world, run), status="granted", method="form", occurred_at=datetime.now(UTC) + timedelta(seconds=50)))
    assert said(await world.perform([run], "leave")) == [("done", None)]
    assert (await may_send(world, run)).reason == "consent_withdrawn"


async def test_a_suppressed_address_stays_suppressed(world: EffectWorld) -> None:
    run = await world.contact(consent=None)
    await world.suppress(run)
    assert said(await world.perform([run], "join")) == [("done", None)]
    judgement = await may_send(world, run)
    assert (judgement.verdict, judgement.reason) == (Outcome.REFUSE, "suppressed")


async def test_who_is_leaving_at_this_moment_is_not_subscribed_again(world: EffectWorld) -> None:
    run = await world.contact()
    async with world.database.organization(world.organization_id) as leaving:
        await consents.record(leaving, [left(world, run)])
        joining = asyncio.ensure_future(world.perform([run], "join"))
        waiting = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))")
        async with asyncio.timeout(60):
            while not joining.done() and not await leaving.scalar(waiting):
                await asyncio.sleep(0.01)
    assert said(await joining) == [("refused", "consent_withdrawn")]
    assert [line["status"] for line in await lines(world)] == ["granted", "withdrawn"]


def left(world: EffectWorld, run: UUID) -> NewConsent:
    contact = world.contacts[run]
    return NewConsent(contact, world.topic_id, "email", "withdrawn", "one_click", "unsubscribe_link", {}, Actor("recipient", contact), None)


async def test_who_has_left_since_the_run_began_is_not_subscribed_again(world: EffectWorld) -> None:
    run, other = await world.people(2)
    await world.consent(run, "withdrawn")
    now = datetime.now(UTC) + timedelta(minutes=1)
    assert said(await world.perform([run, other], "join", now=now)) == [("refused", "consent_withdrawn"), ("done", None)]
    assert (await may_send(world, run)).reason == "consent_withdrawn"


async def test_who_left_before_the_run_began_or_by_a_step_may_be_subscribed(world: EffectWorld) -> None:
    back, wavering = await world.contact(consent="withdrawn"), await world.contact()
    await world.sql("UPDATE runs SET created_at = clock_timestamp() WHERE id = :id", id=back)
    assert said(await world.perform([wavering], "leave", now=datetime.now(UTC))) == [("done", None)]
    assert said(await world.perform([back, wavering], "join", now=datetime.now(UTC))) == [("done", None)] * 2
    for run in (back, wavering):
        assert (await may_send(world, run)).verdict is Outcome.SEND


async def test_what_steps_say_does_not_hide_that_the_contact_has_left(world: EffectWorld) -> None:
    run, back = await world.people(2)
    for each in (run, back):
        await record(world, left(world, each))
    await record(world, replace(left(world, back), status="granted", method="form"))
    assert said(await world.perform([run, back], "leave")) == [("done", None)] * 2
    assert said(await world.perform([run, back], "join")) == [("refused", "consent_withdrawn"), ("done", None)]
    assert (await may_send(world, run)).reason == "consent_withdrawn"


async def test_who_says_again_that_they_have_left_is_not_subscribed(world: EffectWorld) -> None:
    """They had left before their run began, or a step had withdrawn for them."""
    before, by_step = await world.contact(consent="withdrawn"), await world.contact()
    await world.sql("UPDATE runs SET created_at = clock_timestamp() WHERE id = :id", id=before)
    await world.perform([by_step], "leave")
    for run in (before, by_step):
        asked = Unsubscribe(world.organization_id, world.contacts[run], world.topic_id, "email", new_id())
        async with world.database.organization(world.organization_id) as session:
            await unsubscribe._withdraw(session, asked)
    assert said(await world.perform([before, by_step], "join")) == [("refused", "consent_withdrawn")] * 2


async def test_a_way_that_others_call_as_ours_is_another_way(world: EffectWorld) -> None:
    run = await world.contact()
    await record(world, replace(left(world, run), method="journey"))
    assert said(await world.perform([run], "join")) == [("refused", "consent_withdrawn")]


async def record(world: EffectWorld, *said: NewConsent) -> None:
    async with world.database.organization(world.organization_id) as session:
        await consents.record(session, said)


async def test_what_the_contact_says_after_the_workflow_asked_stands(world: EffectWorld) -> None:
    run = await world.contact(consent=None)
    asked = datetime.now(UTC) - timedelta(minutes=10)
    await world.sql("UPDATE runs SET created_at = now()")
    await world.perform([run], "join", now=asked)
    await world.consent(run, "withdrawn")
    await world.perform([run], "join", now=asked, visit=2)
    assert (await may_send(world, run)).reason == "consent_withdrawn"


async def test_an_archived_topic_takes_no_new_consent_but_lets_go(world: EffectWorld) -> None:
    run = await world.contact()
    await world.sql("UPDATE topics SET archived_at = now()")
    assert said(await world.perform([run], "join")) == [("refused", "topic_archived")]
    assert said(await world.perform([run], "leave", now=datetime.now(UTC))) == [("done", None)]


async def test_a_contact_that_is_gone_is_refused(world: EffectWorld) -> None:
    gone, here = await world.contact(consent=None), await world.contact(consent=None)
    await world.forget(gone)
    assert said(await world.perform([gone, here], "join")) == [("refused", "contact_gone"), ("done", None)]


async def test_the_same_visit_writes_one_line_and_the_next_visit_another(world: EffectWorld) -> None:
    run = await world.contact(consent=None)
    for _ in range(2):
        assert said(await world.perform([run], "join")) == [("done", None)]
    assert len(await lines(world)) == 1
    await world.perform([run], "join", visit=2)
    assert len(await lines(world)) == 2


async def test_killed_before_the_commit_and_asked_three_times_at_once_there_is_one_line_each(
    world: EffectWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [await world.contact(consent=None) for _ in range(20)]

    async def crash(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(audit, "append", crash)
        await world.perform(runs, "join")
    assert await lines(world) == [] and await world.sql("SELECT * FROM effects") == []
    for answers in await asyncio.gather(*(world.perform(runs, "join") for _ in range(3))):
        assert said(answers) == [("done", None)] * 20
    assert len(await lines(world)) == 20
    assert await world.actions("consent.") == ["consent.granted"] * 20


async def test_what_another_kind_of_step_of_that_name_did_counts_for_nothing(world: EffectWorld) -> None:
    """A publish plan moves runs to a step of the same name, which does something else in the new version."""
    run = await world.contact(consent=None)
    assert said(await world.perform([run], "join")) == [("done", None)]
    world.steps["join"] = {"kind": "update_contact", "add_tags": ["joined"]}
    world.version_id = new_id()
    await world.sql(
        """INSERT INTO journey_versions (id, organization_id, journey_id, number, definition, content_hash)
           VALUES (:id, :o, :journey, 2, CAST(:new AS jsonb), '')""",
        id=world.version_id,
        o=world.organization_id,
        journey=world.journey_id,
        new=world.definition().model_dump_json(),
    )
    for _ in range(2):
        assert said(await world.perform([run], "join")) == [("done", None)]
    assert (await world.person(run))["tags"] == ["joined"]
    assert len(await world.entries("contact.changed")) == 1
    assert [row["kind"] for row in await world.sql("SELECT kind FROM effects ORDER BY kind")] == ["subscribe", "update_contact"]
