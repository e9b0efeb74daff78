from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event
from temporalio.testing import ActivityEnvironment

from activities.branches import BranchActivities
from activities.consent import ConsentActivities
from activities.contracts.sending import Judgement
from activities.quiet_hours import QuietHoursActivities
from activities.versions import Versions
from models.domain.decision import Outcome
from models.domain.journey.interpreter import ROUNDS_PER_VERSION
from models.settings import Settings
from models.store.session import Database
from tests.activities.world import NOON, World

NIGHT = {"email": {"start": "21:00", "end": "08:00"}}


async def check_consent(world: World, run_ids: list[UUID], **asked: Any) -> list[Judgement]:
    checking = ConsentActivities(world.database, world.settings, Versions())
    return await ActivityEnvironment().run(checking.check_consent, world.batch(run_ids, **asked))


async def check_quiet_hours(world: World, run_ids: list[UUID], **asked: Any) -> list[Judgement]:
    checking = QuietHoursActivities(world.database, Versions())
    return await ActivityEnvironment().run(checking.check_quiet_hours, world.batch(run_ids, **asked))


def said(judgements: list[Judgement]) -> list[tuple[Outcome, str | None]]:
    return [(judgement.verdict, judgement.reason) for judgement in judgements]


async def test_each_refusal_has_its_reason_its_record_and_its_audit_entry(world: World) -> None:
    willing = await world.contact()
    never = await world.contact(consent=None)
    left = await world.contact()
    await world.consent(left, "withdrawn")
    blocked = await world.contact()
    await world.suppress(blocked)
    unreachable = await world.contact(email=None)
    gone = await world.contact(consent=None)
    await world.forget(gone)
    runs = [willing, never, left, blocked, unreachable, gone]
    judgements = await check_consent(world, runs)
    assert [judgement.run_id for judgement in judgements] == runs
    assert said(judgements) == [
        (Outcome.SEND, None),
        (Outcome.REFUSE, "no_consent"),
        (Outcome.REFUSE, "consent_withdrawn"),
        (Outcome.REFUSE, "suppressed"),
        (Outcome.REFUSE, "no_address"),
        (Outcome.REFUSE, "contact_gone"),
    ]
    rows = await world.sql("SELECT * FROM decisions WHERE \"check\" = 'consent'")
    assert len(rows) == 6
    inputs = {row["run_id"]: row["inputs"] for row in rows}
    assert inputs[left]["consent"]["status"] == "withdrawn"
    assert inputs[blocked]["suppression_id"] is not None
    assert {row["decided_at"] for row in rows} == {NOON}
    assert await world.actions("message.") == ["message.refused"] * 5


async def test_consent_given_again_counts_and_of_two_at_once_the_later_line(world: World) -> None:
    run = await world.contact()
    await world.consent(run, "withdrawn")
    await world.consent(run, "granted")
    assert said(await check_consent(world, [run])) == [(Outcome.SEND, None)]


async def test_consent_for_another_topic_or_channel_does_not_count(world: World) -> None:
    run = await world.contact(consent=None)
    other = await world.one(
        "INSERT INTO topics (id, organization_id, key, name, description) VALUES (gen_random_uuid(), :o, 'x', 'X', '') RETURNING id"
    )
    for topic_id, channel in ((other, "email"), (world.topic_id, "sms")):
        await world.sql(
            """INSERT INTO consents (id, organization_id, contact_id, topic_id, channel, status, method, source, evidence, actor_kind,
                                     occurred_at)
               VALUES (gen_random_uuid(), :o, :contact_id, :topic_id, :channel, 'granted', 'form', '', '{}', 'user', now())""",
            contact_id=world.contacts[run],
            topic_id=topic_id,
            channel=channel,
        )
    assert said(await check_consent(world, [run])) == [(Outcome.REFUSE, "no_consent")]


async def test_transactional_mail_needs_no_consent_but_obeys_suppressions(world: World) -> None:
    unasked, blocked = await world.contact(consent=None), await world.contact()
    await world.suppress(blocked)
    judgements = await check_consent(world, [unasked, blocked], step_id="receipt")
    assert said(judgements) == [(Outcome.SEND, None), (Outcome.REFUSE, "suppressed")]


async def test_an_archived_topic_refuses(world: World) -> None:
    run = await world.contact()
    await world.sql("UPDATE topics SET archived_at = now()")
    assert said(await check_consent(world, [run])) == [(Outcome.REFUSE, "topic_archived")]


async def test_a_suspended_organizations_messages_wait_and_leave_once_that_is_over(world: World) -> None:
    run = await world.contact()
    await world.sql("UPDATE organizations SET status = 'suspended'")
    [held] = await check_consent(world, [run])
    assert said([held]) == [(Outcome.HOLD, "organization_suspended")]
    assert held.hold_until is not None and NOON < held.hold_until <= NOON + timedelta(minutes=2)
    assert await world.actions("message.") == ["message.held"]
    await world.sql("UPDATE organizations SET status = 'active'")
    assert said(await check_consent(world, [run], round=1)) == [(Outcome.SEND, None)]


@pytest.mark.parametrize("moves", [0, 1, 2])
async def test_who_was_moved_while_its_organization_is_suspended_asks_again_soon(world: World, moves: int) -> None:
    run = await world.contact()
    await world.sql("UPDATE organizations SET status = 'suspended'")
    for asked, at_most in enumerate((2, 4, 8)):
        [held] = await check_consent(world, [run], round=moves * ROUNDS_PER_VERSION + asked)
        assert held.hold_until is not None and NOON < held.hold_until <= NOON + timedelta(minutes=at_most)


async def test_a_hold_that_goes_on_is_kept_each_time_and_enters_the_audit_chain_once(world: World) -> None:
    lasting, left = await world.people(2)
    await world.sql("UPDATE organizations SET status = 'suspended'")
    for round in range(3):
        await check_consent(world, [lasting], round=round)
    assert [row["outcome"] for row in await world.sql("SELECT outcome FROM decisions")] == ["hold"] * 3
    assert await world.actions("message.") == ["message.held"]
    await check_consent(world, [lasting, left], round=3)  # new to one of them
    assert await world.actions("message.") == ["message.held"] * 2
    await world.sql("UPDATE organizations SET status = 'active'")
    await check_consent(world, [lasting], round=4)
    await world.sql("UPDATE organizations SET status = 'suspended'")
    await check_consent(world, [lasting], round=5)  # and new again after it might have left
    assert await world.actions("message.") == ["message.held"] * 3


async def test_the_first_answer_stands_and_another_round_asks_anew(world: World) -> None:
    run, new = await world.people(2)
    assert said(await check_consent(world, [run])) == [(Outcome.SEND, None)]
    await world.consent(run, "withdrawn")
    assert said(await check_consent(world, [run, new])) == [(Outcome.SEND, None)] * 2
    assert said(await check_consent(world, [run], round=1)) == [(Outcome.REFUSE, "consent_withdrawn")]
    assert await world.actions("message.") == ["message.refused"]


async def test_a_batch_over_five_zones_is_held_until_each_ones_morning(database: Database, settings: Settings) -> None:
    world = await World(database, settings).build(quiet_hours=NIGHT, timezone="Europe/Berlin")
    zones = ["Asia/Tokyo", "America/New_York", "Mars/Olympus", None, "Pacific/Apia"]
    runs = [await world.contact(timezone=zone) for zone in zones]
    at = datetime(2026, 7, 1, 21, 30, tzinfo=UTC)  # 06:30 in Tokyo, 17:30 in New York, 23:30 in Berlin, 10:30 in Apia
    judgements = await check_quiet_hours(world, runs, now=at)
    assert [judgement.hold_until for judgement in judgements] == [
        datetime(2026, 7, 1, 23, tzinfo=UTC),
        None,
        datetime(2026, 7, 2, 6, tzinfo=UTC),
        datetime(2026, 7, 2, 6, tzinfo=UTC),
        None,
    ]
    assert judgements[1].allowed_until == datetime(2026, 7, 2, 1, tzinfo=UTC)
    inputs = {row["run_id"]: row["inputs"] for row in await world.sql("SELECT run_id, inputs FROM decisions")}
    assert [(inputs[run]["zone_of"], inputs[run]["contact_zone"]) for run in runs[:4]] == [
        ("contact", "given"),
        ("contact", "given"),
        ("organization", "invalid"),
        ("organization", "missing"),
    ]
    assert "Mars" not in str(inputs)
    assert await world.actions("message.") == ["message.held"] * 3
    assert await check_quiet_hours(world, runs, now=at + timedelta(hours=12)) == judgements  # asked before: the first answer stands


async def test_transactional_mail_leaves_at_night(database: Database, settings: Settings) -> None:
    world = await World(database, settings).build(quiet_hours=NIGHT)
    run = await world.contact()
    at_night = NOON.replace(hour=23)
    assert said(await check_quiet_hours(world, [run], step_id="receipt", now=at_night)) == [(Outcome.SEND, None)]
    assert said(await check_quiet_hours(world, [run], now=at_night)) == [(Outcome.HOLD, "quiet_hours")]


async def test_each_run_takes_its_first_true_branch(world: World) -> None:
    german_gold = await world.contact(country="DE", attributes={"plan": "gold"})
    gold = await world.contact(attributes={"plan": "gold"})
    other = await world.contact()
    gone = await world.contact(consent=None, country="DE")
    await world.forget(gone)
    choosing = BranchActivities(world.database, Versions())
    choices = await ActivityEnvironment().run(choosing.choose_branches, world.batch([german_gold, gold, other, gone], "split"))
    assert [choice.index for choice in choices] == [0, 1, None, None]


@pytest.mark.parametrize("check", [check_consent, check_quiet_hours])
async def test_the_number_of_statements_does_not_grow_with_the_batch(world: World, check: Any) -> None:
    statements: list[str] = []

    def count(*given: Any) -> None:
        statements.append(given[2])

    few, many = [await world.contact(consent=None) for _ in range(2)], [await world.contact(consent=None) for _ in range(40)]
    event.listen(world.database.engine.sync_engine, "before_cursor_execute", count)
    try:
        await check(world, few)
        first = len(statements)
        await check(world, many)
    finally:
        event.remove(world.database.engine.sync_engine, "before_cursor_execute", count)
    assert len(statements) - first <= first
