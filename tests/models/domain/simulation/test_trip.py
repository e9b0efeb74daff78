"""What the simulator answers in the world's place."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from models.domain.simulation.report import Summary
from tests.models.domain.simulation.builders import OTHER, SEND, START, TOPIC, after, kinds, person, reasons, surroundings, trip

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
BYE = {"kind": "exit", "reason": "bye"}
WAIT = {"kind": "wait", "duration": "P30D", "next": "bye"}
CALL = {"kind": "call_webhook", "url": "https://example.com/x"}


def event(name: str, after: str = "P1D", **properties: Any) -> dict[str, Any]:
    return {"after": after, "event": {"name": name, "properties": properties}}


# --- how many went which way --------------------------------------------------------------------------------------------

EITHER = {"kind": "wait_for", "events": [{"event": "a"}]}


@pytest.mark.parametrize(
    ("way", "step", "script"),
    [
        ("arms[1].next", {"kind": "split", "arms": [{"weight": 0, "next": "bye"}, {"weight": 1, "next": "bye"}]}, []),
        ("conditions[1].next", {"kind": "branch", "conditions": [{"when": {"tag": tag}, "next": "bye"} for tag in ("no", "yes")]}, []),
        ("otherwise", {"kind": "branch", "conditions": [{"when": {"tag": "no"}, "next": "bye"}], "otherwise": "bye"}, []),
        ("events[1].next", {"kind": "wait_for", "events": [{"event": name, "next": "bye"} for name in ("a", "b")]}, ["b"]),
        ("conditions[0].next", {**EITHER, "conditions": [{"when": {"tag": "yes"}, "next": "bye"}]}, []),
        ("timeout_next", {**EITHER, "timeout": "P2D", "timeout_next": "bye"}, []),
    ],
)
def test_two_ways_to_the_same_step_are_counted_apart(way: str, step: dict[str, Any], script: list[str]) -> None:
    summary, who = Summary(), person()
    who.tags = ["yes"]
    summary.add(trip({"which": step, "bye": BYE}, *map(event, script), who=who))
    assert summary.steps["which"].exits == {way: 1} and summary.steps["which"].ways == {"bye": 1}


# --- waits for events ---------------------------------------------------------------------------------------------------


def awaiting(**fields: Any) -> dict[str, Any]:
    wait = {"kind": "wait_for", "events": [{"event": "paid", "next": "bye"}], "timeout": "P2D", "timeout_next": None, **fields}
    return {"wait": wait, "bye": BYE}


def test_an_event_ends_a_wait_when_it_comes() -> None:
    found = trip(awaiting(), event("paid"))
    assert kinds(found) == ["entered", "waiting", "matched", "exited"] and after(found, "matched") == DAY


def test_an_event_that_comes_too_late_ends_nothing() -> None:
    found = trip(awaiting(), event("paid", "P2DT1S"))
    assert kinds(found) == ["entered", "waiting", "timed_out", "completed"] and after(found, "timed_out") == 2 * DAY


def test_an_event_that_came_early_is_found_once() -> None:
    wait = awaiting()["wait"]
    steps = {"pause": {"kind": "wait", "duration": "P1D", "next": "wait"}, "wait": {**wait, "events": [{"event": "paid", "next": "again"}]}}
    found = trip({**steps, "again": wait, "bye": BYE}, event("paid", "PT1H"))
    assert kinds(found) == ["entered", "waiting", "woke", "matched", "waiting", "timed_out", "completed"]


def test_an_event_is_matched_with_the_runs_own_order() -> None:
    mine = {"field": "event.order", "is": "equals", "value": {"run": "order"}}
    steps = awaiting(events=[{"event": "paid", "where": mine, "next": "bye"}])
    found = trip(steps, event("paid", "PT1H", order="B2"), event("paid", "PT2H", order="A1"), world={"variables": {"order": "A1"}})
    assert after(found, "matched") == 2 * HOUR


def test_what_happened_before_the_run_does_not_count() -> None:
    who = person()
    who.meet("paid", {}, START - HOUR)
    assert kinds(trip(awaiting(), who=who))[-2:] == ["timed_out", "completed"]
    rule = {"event": {"name": "paid", "within": "P7D"}}  # but for rules that ask for the past, it does
    assert kinds(trip(awaiting(events=[], conditions=[{"when": rule, "next": "bye"}]), who=who))[-2:] == ["matched", "exited"]


def test_a_condition_ends_a_wait_when_the_contact_comes_to_fit() -> None:
    steps = awaiting(events=[], conditions=[{"when": {"tag": "vip"}, "next": "bye"}])
    found = trip(steps, {"after": "PT5H", "change": {"add_tags": ["VIP"]}})
    assert after(found, "matched") == 5 * HOUR


def test_the_passing_of_time_alone_makes_a_condition_true() -> None:
    who = person(created_at=START - 6 * DAY)
    old = {"field": "created_at", "is": "before", "value": {"ago": "P7D"}}
    found = trip(awaiting(events=[], conditions=[{"when": old, "next": "bye"}]), who=who)
    assert after(found, "matched") == DAY + timedelta(microseconds=1)


def test_a_long_past_under_a_rule_about_it_is_no_endless_journey() -> None:
    who = person()
    for hours in range(900, 0, -1):
        who.meet("opened", {}, START - hours * HOUR)
    lapsed = {"name": "lapsed", "when": {"not": {"event": {"name": "opened", "within": "P60D"}}}}
    found = trip({"wait": {**WAIT, "duration": "P90D"}, "bye": BYE}, who=who, exits=[lapsed])
    assert (found.cut, found.reason) == (False, "exit_rule:lapsed")
    assert timedelta(0) < found.ended_at - (START - HOUR + 60 * DAY) <= timedelta(microseconds=1)


# --- other waits --------------------------------------------------------------------------------------------------------


def test_a_split_is_told() -> None:
    steps = {"halves": {"kind": "split", "seed": "s", "arms": [{"weight": 1}, {"weight": 1}]}}
    assert kinds(trip(steps)) == ["entered", "split", "completed"]


def test_a_date_is_read_again_when_the_contact_changes() -> None:
    steps = {"due": {"kind": "wait", "date": {"field": "attributes.due", "offset": "-P1D"}, "next": None}}
    who = person()
    who.attributes = {"due": "2026-03-20"}
    found = trip(steps, {"after": "P2D", "change": {"attributes": {"due": "2026-03-10"}}}, who=who)
    assert kinds(found) == ["entered", "waiting", "rescheduled", "woke", "completed"]
    assert [wake.isoformat() for wake in found.wakes] == ["2026-03-09T00:00:00+00:00"]
    assert reasons(trip(steps)) == ["no_date"]


def test_a_wait_without_end_is_where_it_stands() -> None:
    found = trip({"look": {"kind": "review", "approved": None, "rejected": "bye"}, "bye": BYE})
    assert (found.status, found.state.step_id, found.ended_at) == ("waiting", "look", START)


def test_a_review_is_decided_when_somebody_looks() -> None:
    steps = {"look": {"kind": "review", "approved": None, "rejected": "bye", "timeout": "P9D", "timeout_next": None}, "bye": BYE}
    assert kinds(trip(steps, {"after": "P3D", "review": "rejected"}))[-2:] == ["review_rejected", "exited"]
    assert kinds(trip(steps, {"after": "P10D", "review": "rejected"}))[-2:] == ["timed_out", "completed"]


@pytest.mark.parametrize("rests", [{"kind": "wait", "duration": "P9D"}, {"kind": "review", "approved": None, "rejected": "bye"}])
def test_support_may_skip_a_step_at_which_a_run_rests(rests: dict[str, Any]) -> None:
    steps = {"rest": {**rests, **({"next": "bye"} if rests["kind"] == "wait" else {})}, "bye": {"kind": "exit", "reason": "enough"}}
    skipped = trip(steps, {"after": "P1D", "control": "skip"})
    assert kinds(skipped)[-2:] == ["skipped", "exited"]
    assert after(skipped, "skipped") == timedelta(days=1)


def test_nothing_is_looked_at_after_the_end() -> None:
    found = trip({"wait": WAIT, "bye": BYE}, until=10 * DAY)
    assert (found.status, found.state.wake_at) == ("waiting", START + 30 * DAY)


def test_a_journey_without_end_is_cut_off() -> None:
    steps = {"a": {"kind": "wait", "duration": "PT1H", "next": "a"}}
    found = trip(steps, max_commands=50, max_visits=1_000)
    assert found.cut and found.commands == 50


# --- messages -----------------------------------------------------------------------------------------------------------


def test_quiet_hours_hold_a_message_until_the_morning_where_the_contact_is() -> None:
    around = surroundings(quiet_hours={"email": {"start": "21:00", "end": "08:00"}})
    found = trip({"mail": SEND}, who=person(timezone="America/Los_Angeles"), around=around)  # one in the morning there
    assert kinds(found) == ["entered", "held", "woke", "sent", "completed"] and after(found, "sent") == 7 * HOUR
    assert [(one.check, one.decision.reason) for one in found.decisions] == [
        ("consent", None), ("quiet_hours", "quiet_hours"), ("consent", None), ("quiet_hours", None),
    ]  # fmt: skip


def test_who_leaves_while_a_message_is_held_gets_nothing() -> None:
    around = surroundings(quiet_hours={"email": {"start": "08:00", "end": "21:00"}})
    found = trip({"mail": SEND}, {"after": "PT1H", "consent": {"topic": "news", "status": "withdrawn"}}, around=around)
    assert kinds(found)[-3:] == ["woke", "not_sent", "completed"] and reasons(found)[-1] == "consent_withdrawn" and not found.messages


@pytest.mark.parametrize(
    ("outcome", "ends"),
    [
        ("accepted", ("completed", None)),
        ("bounced", ("completed", None)),
        ("content_refused", ("needs_attention", "content_refused")),
        ("gave_up", ("needs_attention", "gave_up:transient")),
        ("unknown", ("needs_attention", "unknown")),
    ],
)
def test_the_provider_says_what_the_scenario_says(outcome: str, ends: tuple[str, str | None]) -> None:
    found = trip({"mail": SEND}, world={"sends": {"mail": outcome}})
    assert (found.status, found.reason) == ends and [sent.outcome for sent in found.messages] == [outcome]


def test_who_opts_out_at_the_provider_is_suppressed_from_then_on() -> None:
    found = trip({"mail": {**SEND, "next": "more"}, "more": SEND}, world={"sends": {"mail": "opted_out"}})
    assert reasons(found) == ["opted_out", "suppressed"] and len(found.messages) == 1


def test_a_value_that_is_missing_parks_the_run_and_support_may_go_on() -> None:
    steps = {"mail": SEND}
    assert (trip(steps, who=person(first_name=None)).reason) == "missing_value:contact.first_name"
    repaired: list[dict[str, Any]] = [{"after": "PT1H", "change": {"first_name": "Ann"}}, {"after": "PT2H", "control": "retry"}]
    assert kinds(trip(steps, *repaired, who=person(first_name=None))) == ["entered", "parked", "retried", "sent", "completed"]
    assert kinds(trip(steps, {"control": "skip"}, who=person(first_name=None)))[-2:] == ["skipped", "completed"]
    assert kinds(trip(steps, {"control": "cancel"}, who=person(first_name=None)))[-1] == "cancelled"


# --- effects ------------------------------------------------------------------------------------------------------------


def test_what_a_step_changes_the_next_one_sees() -> None:
    gold = {"all": [{"tag": "seen"}, {"field": "attributes.plan", "is": "equals", "value": "gold"}]}
    steps = {
        "mark": {"kind": "update_contact", "attributes": {"plan": {"run": "plan"}}, "add_tags": ["Seen"], "next": "who"},
        "who": {"kind": "branch", "conditions": [{"when": gold, "next": "bye"}]},
        "bye": BYE,
    }
    assert kinds(trip(steps, world={"variables": {"plan": "gold"}})) == ["entered", "contact_updated", "chose", "exited"]
    assert reasons(trip(steps)) == ["no_variable:plan"]  # and goes on


def test_consent_is_taken_but_not_from_who_has_just_left() -> None:
    join = {"kind": "subscribe", "topic_id": str(TOPIC), "evidence": "ticked", "next": "mail"}
    assert kinds(trip({"join": join, "mail": SEND}, who=person(agreed=False))) == ["entered", "subscribed", "sent", "completed"]
    steps = {"wait": {"kind": "wait", "duration": "P1D", "next": "join"}, "join": join, "mail": SEND}
    left = {"after": "PT1H", "consent": {"topic": "news", "status": "withdrawn"}}
    assert reasons(trip(steps, left)) == ["consent_withdrawn", "consent_withdrawn"]
    leave = {"kind": "unsubscribe", "topic_id": str(TOPIC), "next": "join"}
    steps = {"wait": {"kind": "wait", "duration": "P1D", "next": "leave"}, "leave": leave, "join": join, "mail": SEND}
    assert "consent_withdrawn" in reasons(trip(steps, left))  # what the step withdrew hides nothing
    assert kinds(trip({"leave": leave, "join": join, "mail": SEND}))[1:4] == ["unsubscribed", "subscribed", "sent"]
    assert reasons(trip({"join": {**join, "topic_id": str(OTHER), "next": None}})) == ["topic_archived"]


def test_another_system_is_tried_again_and_what_it_answers_is_kept() -> None:
    save = {"order": {"path": "order.id", "type": "string"}, "total": {"path": "total", "type": "number"}}
    answers = [{"status": 503}, {"status": 429}, {"status": 200, "body": {"order": {"id": "A1"}}}]
    found = trip({"call": {**CALL, "save": save, "next": "mail"}, "mail": SEND}, world={"webhooks": {"call": answers}})
    assert kinds(found) == ["entered", "held", "woke", "held", "woke", "called_webhook", "sent", "completed"]
    assert after(found, "called_webhook") == timedelta(minutes=2.5) and found.messages[0].message.text == "A1"
    [called] = [line.change for line in found.lines if line.change.kind == "called_webhook"]
    assert called.details == {"status": 200, "saved": ["order"], "not_saved": {"total": "absent"}}


@pytest.mark.parametrize(("status", "reason"), [(404, "webhook_answered_404"), (500, "gave_up:webhook_answered_500")])
def test_another_system_that_never_answers_well_parks_the_run_or_takes_its_way(status: int, reason: str) -> None:
    world = {"webhooks": {"call": [{"status": status}]}}
    assert trip({"call": CALL}, world=world).reason == reason
    found = trip({"call": {**CALL, "on_failure": "path", "failed": "bye"}, "bye": BYE}, world=world)
    assert kinds(found)[-2:] == ["not_done", "exited"]


def test_a_call_without_an_answer_in_the_scenario_is_taken_to_succeed_and_said_so() -> None:
    assert trip({"call": CALL}).assumed == {"call"}


def test_who_is_no_colleague_and_what_is_unpublished_is_refused() -> None:
    tell = {"kind": "notify_team", "members": [str(uuid4())], "subject": "x", "text": "y", "next": "enter"}
    enter = {"kind": "enter_journey", "journey_id": str(uuid4())}
    assert reasons(trip({"tell": tell, "enter": enter})) == ["no_members", "journey_unpublished"]


# --- exits, goals, entry ------------------------------------------------------------------------------------------------


def test_exits_act_in_the_middle_of_a_wait() -> None:
    steps = {"wait": WAIT, "bye": BYE}
    big = {"name": "bought", "event": "bought", "where": {"field": "event.total", "is": "greater", "value": 10}}
    found = trip(steps, event("bought", total=5), event("bought", "P2D", total=50), exits=[big])
    assert (found.reason, found.ended_at) == ("exit_rule:bought", START + 2 * DAY)
    left = {"name": "left", "when": {"not": {"tag": "trial"}}}
    who = person()
    who.tags = ["trial"]
    assert trip(steps, {"after": "P3D", "change": {"remove_tags": ["trial"]}}, who=who, exits=[left]).ended_at == START + 3 * DAY
    assert kinds(trip(steps, exits=[left])) == ["entered", "waiting", "exited"]  # who fits it on entering leaves at once


def test_goals_are_counted_once_within_their_window() -> None:
    steps = {"wait": {**WAIT, "duration": "P2D", "next": None}}
    goal = {"name": "purchase", "event": "bought", "window": "P5D"}
    found = trip(steps, event("bought"), event("bought", "P2D"), goals=[goal])
    assert found.goals == {"purchase": START + DAY} and found.status == "completed"
    assert trip(steps, event("bought", "P4D"), goals=[goal]).goals == {"purchase": START + 4 * DAY}  # after the end
    assert trip(steps, event("bought", "P6D"), goals=[goal]).goals == {}
    assert trip(steps, event("bought"), goals=[{**goal, "exit": True}]).reason == "goal:purchase"


def test_entering_by_an_event_makes_variables_of_its_properties() -> None:
    entry = {"triggers": [{"kind": "event", "event": "ordered", "where": {"field": "event.total", "is": "greater", "value": 10}}]}
    ordered = {"event": {"name": "ordered", "properties": {"order": "A1", "total": 20, "Not A Name": 1}}}
    found = trip({"mail": SEND}, world=ordered, entry=entry)
    assert found.messages[0].message.text == "A1"
    small = {"event": {"name": "ordered", "properties": {"total": 5}}}
    assert (trip({"mail": SEND}, world=small, entry=entry).status, trip({"mail": SEND}, world=small, entry=entry).reason) == (
        "not_entered",
        "no_trigger",
    )
    own = awaiting(events=[{"event": "ordered", "next": "bye"}])  # the event that began it does not end its wait
    assert kinds(trip(own, world=ordered, entry=entry))[-2:] == ["timed_out", "completed"]


def test_nobody_enters_a_journey_that_has_ended() -> None:
    found = trip({"mail": SEND}, ends_at="2026-03-01T00:00:00Z")
    assert (found.status, found.reason, found.lines) == ("not_entered", "journey_ended", [])
