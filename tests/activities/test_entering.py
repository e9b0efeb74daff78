"""Who enters when, and which events count: routing with a database, and no workflows."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.contracts.control import Control, ControlledKind
from activities.control import ControlActivities
from models.domain.audit import Actor
from models.store import consents, entries, resumptions
from models.store.consents import NewConsent, Wish
from models.store.entries import Proposal
from models.tables.base import new_id, utc_now
from tests.activities.journeys import Journeys
from tests.activities.world import World

ORDERED = {"kind": "event", "event": "ordered", "key": "order"}
CANCELLED = {"name": "cancelled", "event": "cancelled", "where": {"field": "event.order", "is": "equals", "value": {"run": "order"}}}
SEGMENT = "019f0000-0000-7000-8000-000000000001"
PAID = {"name": "paid", "event": "paid"}


@pytest.fixture
def journeys(world: World) -> Journeys:
    return Journeys(world)


# --- What happens while somebody waits to be let in ---------------------------------------------------------------------


async def test_what_happens_while_a_journey_is_paused_ends_and_counts_those_who_enter_then(journeys: Journeys) -> None:
    journey = await journeys.publish({"entry": {"triggers": [ORDERED]}, "exits": [CANCELLED], "goals": [PAID]})
    leaver, stayer = await journeys.contact(), await journeys.contact()
    await journeys.pause(journey)
    for contact in (leaver, stayer):
        await journeys.say(contact, "cancelled", {"order": "7"})  # before the order: another's
        await journeys.say(contact, "ordered", {"order": "7"})
    await journeys.route()
    await journeys.say(leaver, "cancelled", {"order": "7"})
    await journeys.say(stayer, "cancelled", {"order": "8"})
    await journeys.say(stayer, "paid")
    await journeys.route()
    await journeys.resume(journey)
    await journeys.route()
    runs = {run["contact_id"]: run["exit_reason"] for run in await journeys.runs(journey)}
    assert runs == {leaver: "exit_rule:cancelled", stayer: None}
    assert await journeys.goals(journey) == 1
    assert sorted(await journeys.words()) == ["exit", "start"]


async def test_what_happens_while_the_hour_is_full_counts_too(journeys: Journeys) -> None:
    draft: dict[str, Any] = {"entry": {"triggers": [ORDERED], "per_hour": 1}, "goals": [{**PAID, "exit": True}]}
    journey = await journeys.publish(draft)
    first, second = await journeys.contact(), await journeys.contact()
    for contact in (first, second):
        await journeys.say(contact, "ordered", {"order": "7"})
    await journeys.say(second, "paid")
    await journeys.route()
    assert [run["contact_id"] for run in await journeys.runs(journey)] == [first]
    await journeys.world.sql("UPDATE runs SET created_at = now() - interval '2 hours' WHERE journey_id = :id", id=journey)
    await journeys.route()
    assert [(run["contact_id"], run["exit_reason"]) for run in await journeys.runs(journey)] == [(first, None), (second, "goal:paid")]
    assert await journeys.goals(journey) == 1


@pytest.mark.parametrize("late", [timedelta(0), timedelta(hours=1)])
async def test_who_leaves_while_a_journey_is_paused_has_left_since_their_run_was_to_begin(journeys: Journeys, late: timedelta) -> None:
    """By its event's time: it may be told late. `subscribe` asks."""
    journey = await journeys.publish({"entry": {"triggers": [ORDERED]}})
    leaver, before = await journeys.contact(consent=None), await journeys.contact(consent=None)
    await journeys.pause(journey)
    await leave(journeys.world, before, utc_now() - timedelta(days=1))
    if late:
        await leave(journeys.world, leaver, utc_now() - late / 2)
    for contact in (leaver, before):
        await journeys.say(contact, "ordered", {"order": "7"}, occurred_at=utc_now() - late)
    await journeys.route()
    if not late:
        await leave(journeys.world, leaver, None)
    await journeys.resume(journey)
    await journeys.route()
    wishes = [Wish(run["id"], run["contact_id"], journeys.world.topic_id, "email") for run in await journeys.runs(journey)]
    async with journeys.world.database.organization(journeys.world.organization_id) as session:
        facts = await consents.load_wish_facts(session, wishes)
    assert {wish.contact_id: facts[wish.run_id].withdrawn_since for wish in wishes} == {leaver: True, before: False}


async def leave(world: World, contact_id: UUID, at: datetime | None) -> None:
    line = NewConsent(contact_id, world.topic_id, "email", "withdrawn", "one_click", "link", {}, Actor("recipient", contact_id), at)
    async with world.database.organization(world.organization_id) as session:
        await consents.record(session, [line])


async def test_what_happens_after_a_contact_fits_a_segment_counts_although_it_enters_later(journeys: Journeys) -> None:
    fits = {"kind": "segment_entered", "segment_id": SEGMENT, "rule": {"tag": "vip"}}
    journey = await journeys.publish({"entry": {"triggers": [fits]}, "exits": [{"name": "paid", "event": "paid"}]})
    before, after = await journeys.contact(), await journeys.contact()
    await journeys.pause(journey)
    await journeys.say(before, "paid")
    await journeys.route()
    for contact in (before, after):
        await journeys.tag(contact, "vip")
    await journeys.route()
    await journeys.say(after, "paid")
    await journeys.route()
    await journeys.resume(journey)
    await journeys.route()
    runs = {run["contact_id"]: run["exit_reason"] for run in await journeys.runs(journey)}
    assert runs == {before: None, after: "exit_rule:paid"}


# --- How often ----------------------------------------------------------------------------------------------------------


async def lead(journeys: Journeys, journey: UUID, contact: UUID, key: str | None = None) -> None:
    """A step of another journey leads the contact here."""
    newest = await journeys.world.one("SELECT id FROM journey_versions WHERE journey_id = :id ORDER BY number DESC", id=journey)
    parent = await journeys.world.contact()
    await journeys.world.sql("UPDATE runs SET variables = jsonb_build_object('key', CAST(:key AS text)) WHERE id = :id", id=parent, key=key)
    async with journeys.world.database.organization(journeys.world.organization_id) as session:
        await entries.propose(session, [Proposal(journey, newest, contact, "journey", new_id(), key="key", parent_run_id=parent)])


async def test_journeys_that_lead_into_each_other_come_to_an_end(journeys: Journeys) -> None:
    journey = await journeys.publish({})
    contact, other = await journeys.contact(), await journeys.contact()
    for _ in range(3):
        for _ in range(4):
            await lead(journeys, journey, contact)
        await journeys.route()
    assert await journeys.outcomes(journey) == [("entered", None)] * 10 + [("refused", "entered_too_often")] * 2
    await lead(journeys, journey, contact, "another key")
    await lead(journeys, journey, other)
    await journeys.route()
    assert len(await journeys.runs(journey)) == 12
    await journeys.world.sql("UPDATE runs SET created_at = now() - interval '61 minutes' WHERE journey_id = :id", id=journey)
    await lead(journeys, journey, contact)
    await journeys.route()
    assert len(await journeys.runs(journey)) == 13


async def test_a_contact_that_goes_in_and_out_of_a_segment_enters_ten_times_an_hour_and_by_events_as_often_as_they_come(
    journeys: Journeys,
) -> None:
    fits = {"kind": "segment_entered", "segment_id": SEGMENT, "rule": {"tag": "vip"}}
    journey = await journeys.publish({"entry": {"triggers": [fits, {"kind": "event", "event": "ordered"}]}})
    contact = await journeys.contact()
    for _ in range(11):
        await journeys.tag(contact, "vip")
        await journeys.route()
        await journeys.tag(contact)
        await journeys.say(contact, "ordered")
        await journeys.route()
    assert [run["entry_source"] for run in await journeys.runs(journey)] == ["segment", "event"] * 10 + ["event"]
    assert (await journeys.outcomes(journey))[-2:] == [("refused", "entered_too_often"), ("entered", None)]


# --- By which version and trigger ---------------------------------------------------------------------------------------


async def test_who_waits_enters_by_the_version_that_was_published_meanwhile(journeys: Journeys) -> None:
    mended: dict[str, Any] = {"start": "y", "steps": {"y": {"kind": "exit", "reason": "y"}}}
    large = {"field": "event.total", "is": "greater", "value": 10}
    journey = await journeys.publish({"entry": {"triggers": [ORDERED, {"kind": "event", "event": "called"}]}})
    big, small, caller, led, gone = [await journeys.contact(consent=None) for _ in range(5)]
    await journeys.pause(journey)
    await journeys.say(big, "ordered", {"order": "A", "number": 12, "total": 20})
    await journeys.say(small, "ordered", {"order": "B", "number": 13, "total": 5})
    await journeys.say(caller, "called")
    await journeys.say(gone, "called")
    await lead(journeys, journey, led)
    await journeys.route()
    trigger = {"kind": "event", "event": "ordered", "where": large, "key": "number"}
    await journeys.publish({**mended, "entry": {"triggers": [trigger]}}, journey)
    await journeys.world.sql("DELETE FROM events WHERE contact_id = :id", id=gone)
    await journeys.world.sql("DELETE FROM contacts WHERE id = :id", id=gone)
    await journeys.resume(journey)
    await journeys.route()
    runs = await journeys.runs(journey)
    assert [(run["contact_id"], run["number"], run["step_id"], run["entry_key"]) for run in runs] == [
        (big, 2, "y", "12"),
        (led, 2, "y", None),
    ]
    assert sorted(reason for outcome, reason in await journeys.outcomes(journey) if outcome == "refused" and reason) == [
        "contact_gone",
        "trigger_gone",
        "trigger_gone",
    ]


async def test_who_waits_by_a_segment_enters_if_the_newest_version_is_still_about_it(journeys: Journeys) -> None:
    def fits(rule: dict[str, Any], segment: str = SEGMENT, kind: str = "segment_entered") -> dict[str, Any]:
        return {"entry": {"triggers": [{"kind": kind, "segment_id": segment, "rule": rule}]}}

    vip, gold = {"tag": "vip"}, {"tag": "gold"}
    same = await journeys.publish(fits(vip))
    changed = await journeys.publish(fits(vip))
    other = await journeys.publish(fits(vip))
    turned = await journeys.publish(fits(vip))
    one, both = await journeys.contact(), await journeys.contact()
    for journey in (same, changed, other, turned):
        await journeys.pause(journey)
    await journeys.tag(one, "vip")
    await journeys.tag(both, "vip", "gold")
    await journeys.route()
    await journeys.tag(one)  # the others' rule still is about how it was
    await journeys.publish(fits(vip), same)
    await journeys.publish(fits(gold), changed)
    await journeys.publish(fits(vip, str(new_id())), other)
    await journeys.publish(fits(vip, kind="segment_left"), turned)
    for journey in (same, changed, other, turned):
        await journeys.resume(journey)
    await journeys.route()

    async def entered(journey: UUID) -> list[UUID]:
        return [run["contact_id"] for run in await journeys.runs(journey) if run["number"] == 2]

    assert sorted(await entered(same)) == sorted([one, both])
    assert (await entered(changed), await entered(other), await entered(turned)) == ([both], [], [])


# --- Checked again at the end of a pause --------------------------------------------------------------------------------


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is there to be poked: `route` looks instead."""

    async def poke(*_: object) -> None: ...

    monkeypatch.setattr("activities.control.poke", poke)


async def resume_and_look(journeys: Journeys, journey: UUID, *, recheck_entry: bool = True) -> int:
    """How many the dialog says would be refused, before the pause is lifted in this manner."""
    async with journeys.world.database.organization(journeys.world.organization_id) as session:
        unfit = await resumptions.count_unfit_entries(session, journey, utc_now())
    control = Control(
        organization_id=journeys.world.organization_id,
        kind=ControlledKind.JOURNEY,
        id=journey,
        command="resume",
        recheck_entry=recheck_entry,
    )
    activities = ControlActivities(journeys.world.database, cast(Client, None))
    for _ in range(2):  # safe to run twice
        await ActivityEnvironment().run(activities.apply_control, control)
    await journeys.route()
    return unfit


@pytest.mark.parametrize("recheck_entry", [True, False])
@pytest.mark.usefixtures("unheard")
async def test_who_waits_by_a_segment_that_it_does_not_fit_any_more_enters_only_if_that_is_not_checked_again(
    journeys: Journeys, recheck_entry: bool
) -> None:
    fits = {"kind": "segment_entered", "segment_id": SEGMENT, "rule": {"tag": "vip"}}
    left = {"kind": "segment_left", "segment_id": str(new_id()), "rule": {"tag": "trial"}}
    journey = await journeys.publish({"entry": {"triggers": [ORDERED, fits, left]}})
    stays, goes, orders = await journeys.contact(), await journeys.contact(), await journeys.contact()
    away, back = await journeys.contact(tags=["trial"]), await journeys.contact(tags=["trial"])
    await journeys.route()
    await journeys.pause(journey)
    for contact, tags in ((stays, ["vip"]), (goes, ["vip"]), (away, []), (back, [])):
        await journeys.tag(contact, *tags)
    await journeys.say(orders, "ordered", {"order": "7"})
    await journeys.route()
    await journeys.tag(goes)
    await journeys.tag(back, "trial")
    assert await resume_and_look(journeys, journey, recheck_entry=recheck_entry) == 2
    refused = {goes, back} if recheck_entry else set()
    assert {run["contact_id"] for run in await journeys.runs(journey)} == {stays, goes, orders, away, back} - refused
    entered = await journeys.world.sql("SELECT contact_id, outcome, reason FROM entries WHERE journey_id = :id", id=journey)
    assert {(row["contact_id"], row["reason"]) for row in entered if row["outcome"] == "refused"} == {
        (contact, "no_longer_fits") for contact in refused
    }
    details = await journeys.world.sql("SELECT details FROM audit_entries WHERE action = 'journey.runs_left_out'")
    assert [row["details"] for row in details] == ([{"entries_no_longer_fit": 2}] if recheck_entry else [])


@pytest.mark.usefixtures("unheard")
async def test_who_waits_is_checked_again_by_the_newest_versions_rule_of_its_segment(journeys: Journeys) -> None:
    def fits(rule: dict[str, Any], segment: str = SEGMENT) -> dict[str, Any]:
        return {"entry": {"triggers": [{"kind": "segment_entered", "segment_id": segment, "rule": rule}]}}

    changed, other = await journeys.publish(fits({"tag": "vip"})), await journeys.publish(fits({"tag": "vip"}))
    vip, gold = await journeys.contact(), await journeys.contact()
    for journey in (changed, other):
        await journeys.pause(journey)
    for contact in (vip, gold):
        await journeys.tag(contact, "vip")
    await journeys.route()
    await journeys.tag(gold, "gold")
    await journeys.publish(fits({"tag": "gold"}), changed)
    await journeys.publish(fits({"tag": "gold"}, str(new_id())), other)
    assert [await resume_and_look(journeys, journey) for journey in (changed, other)] == [1, 0]
    assert [run["contact_id"] for run in await journeys.runs(changed)] == [gold]
    assert sorted(await journeys.outcomes(changed), key=str) == [("entered", None), ("refused", "no_longer_fits")]
    assert await journeys.outcomes(other) == [("refused", "trigger_gone")] * 2


async def test_the_hour_of_a_version_that_is_not_the_newest_holds_nobody(journeys: Journeys) -> None:
    journey = await journeys.publish({"entry": {"triggers": [ORDERED], "per_hour": 1}})
    for number in range(3):
        await journeys.say(await journeys.contact(), "ordered", {"order": str(number)})
    await journeys.route()
    assert [run["number"] for run in await journeys.runs(journey)] == [1]
    await journeys.publish({"entry": {"triggers": [ORDERED]}}, journey)
    await journeys.route()
    assert [run["number"] for run in await journeys.runs(journey)] == [1, 2, 2]


async def test_one_event_enters_a_journey_once_by_the_first_trigger_that_fits(journeys: Journeys) -> None:
    total = {"kind": "event", "event": "ordered", "where": {"field": "event.total", "is": "greater", "value": 1}, "key": "total"}
    journey = await journeys.publish({"entry": {"triggers": [total, ORDERED, ORDERED]}})
    other = await journeys.publish({"entry": {"triggers": [ORDERED]}})
    contact = await journeys.contact()
    for amount in (5, 0):
        await journeys.say(contact, "ordered", {"order": "A", "total": amount})
    await journeys.route()
    assert [run["entry_key"] for run in await journeys.runs(journey)] == ["5", "A"]
    assert [run["entry_key"] for run in await journeys.runs(other)] == ["A", "A"]


# --- Goals --------------------------------------------------------------------------------------------------------------


async def test_a_goal_is_not_reached_by_what_happened_before_the_entry(journeys: Journeys) -> None:
    journey = await journeys.publish({"entry": {"triggers": [ORDERED]}, "goals": [{**PAID, "window": "P1D", "exit": True}]})
    now = utc_now()
    long_ago, promptly, early, led = [await journeys.contact() for _ in range(4)]
    await journeys.say(long_ago, "ordered", {"order": "A"})
    await journeys.say(promptly, "ordered", {"order": "A"}, occurred_at=now - timedelta(hours=2))  # told late, as is what follows it
    await journeys.say(early, "ordered", {"order": "A"}, occurred_at=now - timedelta(hours=2))
    await lead(journeys, journey, led)
    await journeys.route()
    await journeys.say(long_ago, "paid", occurred_at=datetime(2020, 1, 1, tzinfo=UTC))
    await journeys.say(promptly, "paid", occurred_at=now - timedelta(hours=1))
    await journeys.say(early, "paid", occurred_at=now - timedelta(hours=3))
    await journeys.say(led, "paid", occurred_at=now - timedelta(hours=1))
    await journeys.route()
    ended = {run["contact_id"]: run["exit_reason"] for run in await journeys.runs(journey)}
    assert ended == {long_ago: None, promptly: "goal:paid", early: None, led: None}
    assert await journeys.goals(journey) == 1
    for contact in (long_ago, led):
        await journeys.say(contact, "paid")
    await journeys.route()
    assert await journeys.goals(journey) == 3


# --- Segments, version by version ---------------------------------------------------------------------------------------


def about(rule: dict[str, Any], *, existing: bool = False, kind: str = "segment_entered", **draft: Any) -> dict[str, Any]:
    trigger = {"kind": kind, "segment_id": SEGMENT, "rule": rule, "include_existing": existing}
    return {**draft, "entry": {"triggers": [trigger]}}


VIP, GOLD = {"tag": "vip"}, {"tag": "gold"}


async def test_existing_members_enter_once_however_often_it_is_published(journeys: Journeys) -> None:
    """And who joins between two versions enters once, too."""
    member, joining, later = [await journeys.contact(tags=["vip"]), await journeys.contact(), await journeys.contact()]
    await journeys.contact(tags=["gold"])
    journey = await journeys.publish(about(VIP, existing=True))
    await journeys.route(timed=True)
    await journeys.tag(joining, "vip")
    for _ in range(2):  # at once, before anybody looks
        await journeys.publish(about(VIP, existing=True, max_visits=7), journey)
    await journeys.route(timed=True)
    await journeys.publish(about(VIP, max_visits=8), journey)
    await journeys.publish(about(VIP, existing=True), journey)
    await journeys.tag(later, "vip")
    await journeys.route(timed=True)
    await journeys.route(timed=True)
    assert [run["contact_id"] for run in await journeys.runs(journey)] == [member, joining, later]


async def test_the_first_version_that_includes_existing_members_lets_all_of_them_in(journeys: Journeys) -> None:
    member, joined = await journeys.contact(tags=["vip"]), await journeys.contact()
    journey = await journeys.publish(about(VIP))
    await journeys.route(timed=True)
    await journeys.tag(joined, "vip")
    await journeys.route()
    assert [run["contact_id"] for run in await journeys.runs(journey)] == [joined]
    await journeys.publish(about(VIP, existing=True), journey)
    await journeys.route(timed=True)
    assert sorted(run["contact_id"] for run in await journeys.runs(journey) if run["number"] == 2) == sorted([member, joined])


async def test_with_another_rule_existing_members_who_were_not_let_in_yet_are(journeys: Journeys) -> None:
    both, gold = await journeys.contact(tags=["vip", "gold"]), await journeys.contact(tags=["gold"])
    journey = await journeys.publish(about(VIP, existing=True))
    unasked = await journeys.publish(about(VIP))
    await journeys.route(timed=True)
    await journeys.publish(about(GOLD, existing=True), journey)
    await journeys.publish(about(GOLD), unasked)
    await journeys.route(timed=True)
    await journeys.route(timed=True)
    assert [run["contact_id"] for run in await journeys.runs(journey)] == [both, gold]
    assert await journeys.runs(unasked) == []


async def test_nobody_is_overlooked_who_joins_or_leaves_just_before_a_version_is_published(journeys: Journeys) -> None:
    joining, leaving = await journeys.contact(), await journeys.contact(tags=["vip"])
    entered, left = await journeys.publish(about(VIP)), await journeys.publish(about(VIP, kind="segment_left"))
    await journeys.route(timed=True)
    await journeys.tag(joining, "vip")
    await journeys.tag(leaving)
    await journeys.publish(about(VIP), entered)
    await journeys.publish(about(VIP, kind="segment_left"), left)
    for _ in range(2):
        await journeys.route(timed=True)
    assert [run["contact_id"] for run in await journeys.runs(entered)] == [joining]
    assert [run["contact_id"] for run in await journeys.runs(left)] == [leaving]
