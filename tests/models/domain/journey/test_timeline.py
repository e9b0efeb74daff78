from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.domain.decision import Reason
from models.domain.journey.happening import Happening, Names, moment
from models.domain.journey.sentences import _TELLERS, sentence
from models.domain.journey.timeline import Decided, Delivered, Event, Reached, timeline

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NAMES = Names(steps={"welcome": "Welcome mail"}, topics={"t1": "Product news"}, actors={"u1": "Alice"})
WITHDRAWN = {
    "channel": "email",
    "purpose": "marketing",
    "topic_id": "t1",
    "consent": {"status": "withdrawn", "occurred_at": "2026-11-03T10:14:00+00:00"},
}
QUIET = {"zone": "Europe/Berlin", "zone_of": "contact", "contact_zone": "given", "window": {"start": "21:00", "end": "08:00"}}

KEPT_WELCOME = 'Kept "Welcome mail": sent on 23 Nov 2026 12:00 UTC, and not repeated'


def say(kind: str, reason: str | None = None, **fields: Any) -> str:
    return sentence(Happening(kind, NAMES, reason=reason, **fields))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (say("entered", step_id="welcome"), 'Entered the journey at "Welcome mail"'),
        (say("entered", step_id="other", details={"actor_kind": "user", "actor_id": "u1"}), 'Entered the journey at "other" by Alice'),
        (say("step_entered", step_id="welcome", visit=2), 'Came to "Welcome mail" for the 2nd time'),
        (say("sent", step_id="welcome"), 'Sent "Welcome mail": the provider accepted the message'),
        (
            say("not_sent", "consent_withdrawn", inputs=WITHDRAWN),
            "Not sent: the contact withdrew consent for Product news on 3 Nov 2026 10:14 UTC",
        ),
        (say("not_sent", "no_consent", inputs=WITHDRAWN), "Not sent: the contact never agreed to Product news by email"),
        (say("not_sent", "topic_archived", inputs=WITHDRAWN), "Not sent: the topic Product news is archived"),
        (say("not_sent", "topic_archived", inputs={"topic_id": "gone"}), "Not sent: this topic is archived"),
        (say("not_sent", "no_address", inputs={"channel": "sms"}), "Not sent: the contact has no phone number"),
        (say("not_sent", "recipient_permanent"), "Not sent: the provider says that this address cannot receive messages"),
        (
            say("held", "quiet_hours", until=datetime(2026, 11, 24, 7, 0, tzinfo=UTC), inputs=QUIET),
            "Held until 24 Nov 2026 08:00 in Europe/Berlin: quiet hours 21:00-08:00",
        ),
        (
            say("held", "quiet_hours", until=NOON, inputs={**QUIET, "zone": "UTC", "zone_of": "organization", "contact_zone": "invalid"}),
            "Held until 23 Nov 2026 12:00 UTC: quiet hours 21:00-08:00 (by the organization, as the contact has no valid time zone)",
        ),
        (say("held", "throttled", until=NOON), "Held until 23 Nov 2026 12:00 UTC: the provider asked us to slow down"),
        (say("waiting", step_id="welcome", until=NOON), 'Waits until 23 Nov 2026 12:00 UTC at "Welcome mail"'),
        (
            say("waiting", step_id="x", until=NOON, details={"zone": "Asia/Tokyo", "zone_of": "contact"}),
            'Waits until 23 Nov 2026 21:00 in Asia/Tokyo at "x"',
        ),
        (
            say("rescheduled", step_id="x", until=NOON, details={"zone": "Asia/Tokyo", "zone_of": "contact"}),
            'Waits now until 23 Nov 2026 21:00 in Asia/Tokyo at "x"',
        ),
        (
            say("held", "run_left", until=NOON),
            "Not sent: the run was ended by a rule of the journey, by its replay, or by a resumption without it",
        ),
        (say("held", "run_cancelled", until=NOON), "Not sent: the run is being cancelled"),
        (
            say("parked", "missing_value:run.cart_id", step_id="welcome"),
            'Needs attention at "Welcome mail": the template prints run.cart_id, a variable that this run does not have',
        ),
        (say("chose", step_id="x", details={"index": 0, "name": "customers"}), 'Took the way "customers" at "x"'),
        (say("chose", step_id="x", details={"index": 1, "name": ""}), 'Took the way of condition 2 at "x"'),
        (say("chose", step_id="x", details={"index": None}), 'No condition held at "x": took the way for all others'),
        (
            say("parked", "missing_value:contact.first_name", step_id="welcome"),
            'Needs attention at "Welcome mail": the template prints contact.first_name, which this contact does not have',
        ),
        (say("paused", "asked by_phone", details={"actor_kind": "user", "actor_id": "u1"}), "Paused by Alice: asked by_phone"),
        (
            say("paused", "wrong price", details={"with": "journey", "actor_kind": "user", "actor_id": "u1"}),
            "Paused with the journey by Alice: wrong price",
        ),
        (
            say("paused", "too_many_failures", details={"with": "campaign", "actor_kind": "system"}),
            "Paused with the campaign: too many of its messages failed for good, and somebody must look before it goes on",
        ),
        (
            say("resumed", details={"with": "journey", "actor_kind": "user", "actor_id": "u1", "why": "corrected"}),
            "Resumed with the journey by Alice: corrected",
        ),
        (say("cancelled", details={"actor_kind": "api_key", "actor_id": "k9"}), "Cancelled by an API key"),
        (say("held", "rcpt_450"), "Held: the mail server answered 450 to this recipient; it was certainly not sent"),
        (
            say("parked", "gave_up:connect_421", step_id="x"),
            'Needs attention at "x": it could not be sent after many tries (connect_421); it was certainly not sent',
        ),
        (say("not_sent", "mailbox_unknown"), "Not sent: there is no such mailbox"),
        (say("exited", "already_customer"), "Left the journey: already customer"),
        (say("completed"), "Completed the journey"),
        (say("cancelled", "campaign_cancelled"), "Cancelled: the campaign was cancelled"),
        (say("cancelled", "changed", details={"actor_kind": "user", "actor_id": "u1"}), "Cancelled by Alice: changed"),
        (say("cancel_requested", "wrong list", details={"actor_kind": "user", "actor_id": "u1"}), "Asked to cancel by Alice: wrong list"),
        (say("waiting", "starts_later", step_id="welcome", until=NOON), "Waits until 23 Nov 2026 12:00 UTC: the campaign starts then"),
        (say("started", step_id="welcome"), "Its time to start has come"),
        (say("not_waited", "date_passed", step_id="x"), 'Did not wait at "x": the date has passed already'),
        (say("rescheduled", step_id="x", until=NOON), 'Waits now until 23 Nov 2026 12:00 UTC at "x"'),
        (say("rescheduled", step_id="x"), 'Waits now for something else at "x"'),
        (
            say("matched", step_id="x", details={"index": 0, "name": "bought", "event": "order.placed"}),
            'What it waited for at "x" has happened: took the way "bought", by the event order.placed',
        ),
        (say("matched", step_id="x", details={"index": 1}), 'What it waited for at "x" has happened: took the way of condition 2'),
        (
            say("matched", step_id="x", details={"index": 1, "condition": 0, "name": ""}),
            'What it waited for at "x" has happened: took the way of condition 1',
        ),
        (
            say("matched", step_id="x", details={"index": 0, "name": "", "event": "order.placed"}),
            'What it waited for at "x" has happened: the event order.placed',
        ),
        (say("matched", step_id="x"), 'What it waited for at "x" has happened'),
        (say("timed_out", step_id="x"), 'Waited in vain at "x"'),
        (say("split", step_id="x", details={"index": 0, "name": "A"}), 'Went the way "A" of the split at "x"'),
        (say("split", step_id="x", details={"index": 2, "name": ""}), 'Went way 3 of the split at "x"'),
        (say("split", step_id="x", details={"index": 1, "name": "B", "holdout": True}), 'Is held out by the split at "x" (way "B")'),
        (say("contact_updated", step_id="x"), 'Changed the contact at "x"'),
        (say("contact_updated", step_id="x", details={"fields": ["tags", "plan"]}), 'Changed the contact at "x": tags, plan'),
        (say("subscribed", step_id="x", details={"topic_id": "t1"}), 'Subscribed the contact to Product news at "x"'),
        (say("unsubscribed", step_id="x"), 'Unsubscribed the contact from this topic at "x"'),
        (say("called_webhook", step_id="x", details={"status": 202}), 'Called the webhook of "x", which answered 202'),
        (say("team_notified", step_id="x"), 'Told the team at "x"'),
        (say("entered_journey", step_id="x"), 'Asked another journey to take the contact in at "x"'),
        (say("not_done", "under_way", step_id="x"), 'Did nothing at "x": the contact is under way in this journey already'),
        (
            say("skip_missed", step_id="y", details={"to": "x", "actor_kind": "user", "actor_id": "u1"}),
            'Did not skip "x", as was asked by Alice: the run had left it by then',
        ),
        (say("jump_missed", step_id="y", details={"to": "x"}), 'Did not jump to "x", as was asked: the run was over by then'),
        (say("review_asked", step_id="x", until=NOON), 'Asked for a review at "x", until 23 Nov 2026 12:00 UTC'),
        (say("review_approved", step_id="x", details={"actor_kind": "user", "actor_id": "u1"}), 'Approved at "x" by Alice'),
        (
            say("review_rejected", "too early", step_id="x", details={"actor_kind": "user", "actor_id": "u1"}),
            'Rejected at "x" by Alice: too early',
        ),
        (say("moved", step_id="welcome"), 'Moved to another version of the journey at "Welcome mail"'),
        (
            say("moved", step_id="welcome", details={"version": 3, "actor_kind": "user", "actor_id": "u1"}),
            'Moved to version 3 of the journey at "Welcome mail" by Alice',
        ),
        (say("sent", step_id="welcome", details={"kept_at": NOON.isoformat()}), KEPT_WELCOME),
        (say("goal_reached", details={"goal": "bought"}), "Reached the goal bought"),
        (say("exited", "goal:bought"), "Left the journey: the goal bought was reached"),
        (say("exited", "exit_rule:left_trial"), "Left the journey: the journey's exit rule left_trial applied"),
        (say("moved_to_version", "new_policy"), "Moved to version: new policy"),
        (say(""), "Something happened"),
    ],
)
def test_sentences(told: str, expected: str) -> None:
    assert told == expected


KINDS = [*_TELLERS, "something_new"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reason", [None, "", "never_heard_of", "step_failed:Timeout", "a:b:c", *Reason])
def test_every_kind_with_every_reason_gives_a_sentence(kind: str, reason: str | None) -> None:
    bare = sentence(Happening(kind, Names(), reason=reason))
    strange = sentence(
        Happening(
            kind,
            NAMES,
            "x",
            3,
            reason,
            NOON,
            {"index": "?", "fields": 3, "actor_id": "u2"},
            {"consent": 3, "window": [], "zone": "Mars/Base"},
        )
    )
    assert bare[0].isupper()
    assert strange[0].isupper()
    assert not strange.endswith((".", ": "))


def test_every_reason_to_refuse_has_words_of_its_own() -> None:
    told = {say("not_sent", reason, inputs=WITHDRAWN) for reason in Reason}
    assert len(told) == len(Reason)
    assert not any("_" in one for one in told)


def test_a_moment_in_an_unknown_zone_is_told_in_utc() -> None:
    assert moment(NOON, "Mars/Base") == "23 Nov 2026 12:00 UTC"


def decided(outcome: str, reason: str | None = None, **fields: Any) -> Decided:
    base: dict[str, Any] = {"check": "consent", "decided_at": NOON, "step_id": "welcome", "visit": 1}
    return Decided(outcome=outcome, reason=reason, **(base | fields))


def event(sequence: int, kind: str, **fields: Any) -> Event:
    base: dict[str, Any] = {"occurred_at": NOON + timedelta(seconds=sequence), "step_id": "welcome", "visit": 1}
    return Event(sequence, kind, **(base | fields))


def test_a_refusal_is_told_once_with_the_decision_behind_it() -> None:
    refusal = decided("refuse", "consent_withdrawn", inputs=WITHDRAWN)
    events = [event(1, "entered"), event(2, "not_sent", details={"reason": "consent_withdrawn"}), event(3, "completed")]
    entries = timeline(events, [refusal], [], NAMES)
    assert [entry.kind for entry in entries] == ["entered", "not_sent", "completed"]
    assert entries[1].decision is refusal
    assert "3 Nov 2026 10:14 UTC" in entries[1].sentence


def test_repeated_holds_each_tell_their_own_decision() -> None:
    first = decided("hold", "quiet_hours", check="quiet_hours", hold_until=NOON + timedelta(hours=1), inputs=QUIET)
    second = decided("hold", "quiet_hours", check="quiet_hours", round=1, hold_until=NOON + timedelta(hours=2), inputs=QUIET)
    events = [event(n, "held", details={"reason": "quiet_hours"}) for n in (1, 2)]
    entries = timeline(events, [second, first], [], NAMES)
    assert [entry.decision for entry in entries] == [first, second]
    assert [entry.until for entry in entries] == [first.hold_until, second.hold_until]


def test_permissions_to_send_stand_before_the_sending_they_allowed() -> None:
    granted = {**WITHDRAWN, "consent": {"status": "granted", "occurred_at": "2026-11-03T10:14:00+00:00"}}
    delivery = Delivered("d1", "accepted", NOON + timedelta(seconds=2), "welcome", 1, "accepted")
    entries = timeline([event(2, "sent", occurred_at=NOON)], [decided("send", inputs=granted)], [delivery], NAMES)
    assert [entry.kind for entry in entries] == ["decision", "sent"]
    assert (
        entries[0].sentence
        == 'Consent checked for "Welcome mail": may be sent, as the contact agreed to Product news on 3 Nov 2026 10:14 UTC'
    )
    assert entries[1].delivery is delivery


def story(*events: Event, decisions: Sequence[Decided] = (), deliveries: Sequence[Delivered] = ()) -> list[str]:
    """Each line's kind and step, in order."""
    return [f"{entry.kind} {entry.step_id}" for entry in timeline(events, decisions, deliveries, NAMES)]


def at(second: int, kind: str, step_id: str, phase: str = "active", **fields: Any) -> Event:
    return event(
        fields.pop("sequence"), kind, step_id=step_id, details={"phase": phase}, occurred_at=NOON + timedelta(seconds=second), **fields
    )


def test_what_is_decided_for_a_step_stands_between_what_led_there_and_what_it_led_to() -> None:
    """Everything at one instant, as it is for a run that nothing holds up."""
    entries = story(
        at(0, "entered", "first", sequence=1, visit=None),
        at(0, "sent", "first", sequence=2),
        at(0, "something_new", "way", sequence=3),
        at(0, "sent", "second", sequence=4),
        at(0, "completed", "second", "completed", sequence=5),
        decisions=[decided("send", step_id=step, check=check) for step in ("second", "first") for check in ("consent", "quiet_hours")],
        deliveries=[Delivered("d1", "unknown", NOON, "way", 1)],
    )
    assert entries == [
        "entered first",
        *["decision first"] * 2,
        "sent first",
        "delivery way",
        "something_new way",
        *["decision second"] * 2,
        "sent second",
        "completed second",
    ]


def test_what_is_asked_again_stands_behind_the_event_that_ended_the_rest() -> None:
    later = NOON + timedelta(seconds=9)
    first, again = decided("send", step_id="first"), decided("send", step_id="first", round=1, decided_at=later)
    so_far = [at(0, "sent", "before", sequence=1), at(0, "held", "first", "held", sequence=2), at(9, "anything", "first", sequence=3)]
    assert story(*so_far, decisions=[again, first]) == ["sent before", "decision first", "held first", "anything first", "decision first"]
    assert story(*so_far, at(9, "sent", "first", sequence=4), decisions=[again, first])[-2:] == ["decision first", "sent first"]


def test_what_is_asked_when_a_pause_is_lifted_on_the_way_stands_behind_it() -> None:
    events = [at(0, "sent", "first", "paused", sequence=1), at(5, "resumed", "second", sequence=2), at(5, "sent", "second", sequence=3)]
    decision = decided("send", step_id="second", decided_at=NOON + timedelta(seconds=5))
    assert story(*events, decisions=[decision]) == ["sent first", "resumed second", "decision second", "sent second"]


def test_what_is_decided_on_another_visit_stands_with_that_visit() -> None:
    events = [at(0, "sent", "first", sequence=n, visit=n) for n in (1, 2, 3)]
    decisions = [decided("send", step_id="first", visit=visit) for visit in (3, 2, 1)]
    assert [entry.visit for entry in timeline(events, decisions, [], NAMES)] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("off", [timedelta(days=-1), timedelta(0), timedelta(days=1)])
def test_a_clock_that_is_wrong_puts_nothing_before_the_way_to_its_step(off: timedelta) -> None:
    events = [at(0, "sent", "first", sequence=1), at(0, "held", "second", "held", sequence=2)]
    entries = story(*events, deliveries=[Delivered("d1", "claimed", NOON + off, "second", 1)])
    assert entries.index("delivery second") > entries.index("sent first")


def test_a_delivery_under_way_has_a_line_of_its_own() -> None:
    entries = timeline([event(1, "entered")], [], [Delivered("d1", "transmitting", NOON + timedelta(hours=1), "welcome", 1)], NAMES)
    assert [entry.sentence for entry in entries][1:] == ['Handing "Welcome mail" to the provider']


def test_events_keep_their_sequence_whatever_the_clocks_say() -> None:
    events = [event(2, "completed", occurred_at=NOON - timedelta(days=1)), event(1, "entered", occurred_at=NOON)]
    assert [entry.kind for entry in timeline(events, [], [], NAMES)] == ["entered", "completed"]


def test_what_happened_before_a_move_is_told_in_the_names_of_the_version_then() -> None:
    names = Names(steps={"welcome": "Third"}, by_move=[{"welcome": "First"}, {}, {"welcome": "Third"}])
    events = [event(n, kind) for n, kind in enumerate(("entered", "moved", "woke", "moved", "waiting"))]
    decisions = [decided("send", decided_at=NOON + timedelta(seconds=second)) for second in (0.5, 1.5, 3.5)]
    entries = timeline(events, decisions, [], names)
    called = {"First", "welcome", "Third"}
    told = [(entry.kind, next(name for name in called if f'"{name}"' in entry.sentence)) for entry in entries]
    assert told == [
        ("entered", "First"),
        ("decision", "First"),
        ("moved", "welcome"),
        ("decision", "welcome"),
        ("woke", "welcome"),
        ("moved", "Third"),
        ("decision", "Third"),
        ("waiting", "Third"),
    ]


def test_what_a_run_that_was_moved_back_has_done_is_told_as_kept() -> None:
    events = [
        event(0, "sent", details={"delivery_id": "d1"}),
        event(1, "moved", visit=1),
        event(2, "sent", details={"delivery_id": "d1"}),
        event(3, "sent", visit=2),  # another visit is another message
    ]
    entries = timeline(events, [], [Delivered("d1", "accepted", NOON, "welcome", 1, "accepted")], NAMES)
    assert [entry.sentence for entry in entries if entry.kind == "sent"] == [
        'Sent "Welcome mail": the provider accepted the message',
        KEPT_WELCOME,
        'Sent "Welcome mail": the provider accepted the message',
    ]


def test_a_goal_has_a_line_at_its_time_unless_the_exit_tells_of_it() -> None:
    events = [event(0, "entered"), event(2, "exited", step_id=None, visit=None, details={"reason": "goal:bought"})]
    goals = [Reached("seen", NOON + timedelta(seconds=1), "e1"), Reached("bought", NOON + timedelta(seconds=2), "e2")]
    entries = timeline(events, [], [], NAMES, goals)
    assert [entry.sentence for entry in entries] == [
        'Entered the journey at "Welcome mail"',
        "Reached the goal seen",
        "Left the journey: the goal bought was reached",
    ]
    assert (entries[1].source, entries[1].details) == ("goal", {"goal": "seen", "event_id": "e1"})
