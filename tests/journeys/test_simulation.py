"""What the simulator predicts is what Temporal then does: the same contacts, the same events at the same virtual times."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization
from tests.journeys.test_entry_scenarios import all_routed

OPENS_AFTER, BUYS_AFTER = timedelta(hours=5), timedelta(days=1)
PATIENCE = timedelta(minutes=10)  # what a busy machine may take, from the setting up on; a simulation takes nothing. Waits are longer
DATED = ("morning", "remind")  # where a wait ends by the calendar and not by when it began
LINK = re.compile(r"https?://\S+")


async def prepared(acme: Organization, now: datetime) -> tuple[str, dict[str, str]]:
    """A journey with every kind of surprise, and people who meet them.

    What is due by a clock on a wall is hours away from whatever else happens, on every day of the year: in quiet hours is, at the hours
    that are chosen here, only the reminder of those in UTC. Berlin's clocks are up to two hours ahead, New York's four or five behind.
    """
    quiet = {"start": f"{now + timedelta(hours=2, minutes=30):%H:%M}", "end": f"{now + timedelta(hours=6):%H:%M}"}
    morning = (now + OPENS_AFTER + timedelta(hours=4)).astimezone(ZoneInfo("Europe/Berlin"))
    schema = {"stage": {"type": "string"}}
    await acme.call("PATCH", "/organization", {"quiet_hours": {"email": quiet}, "timezone": "UTC", "attribute_schema": schema})
    topic = await acme.topic()
    people = {
        "opens": await acme.contact(first_name="Ann", timezone="Europe/Berlin"),
        "sleeps": await acme.contact(first_name="Bob", timezone="UTC"),
        "never agreed": await acme.contact(first_name="Cem", timezone="UTC"),
        "buys": await acme.contact(first_name="Dot", timezone="America/New_York"),
        "left": await acme.contact(first_name="Eva", timezone="UTC"),
    }
    await acme.consent([id for name, id in people.items() if name != "never agreed"], topic)
    await acme.consent([people["left"]], topic, "withdrawn")
    mail = {"kind": "send", "topic_id": topic}
    stage = {"field": "attributes.stage", "is": "equals", "value": "new"}
    first = {"field": "event.mail", "is": "equals", "value": 1}
    steps: Document = {
        "hello": {**mail, "template_id": await acme.template("Hello {{ contact.first_name }}"), "next": "mark"},
        "mark": {"kind": "update_contact", "attributes": {"stage": "new"}, "add_tags": ["seen"], "next": "opened"},
        "opened": {
            "kind": "wait_for",
            "events": [{"name": "opened", "event": "opened", "where": first, "next": "morning"}],
            "timeout": "P2D",
            "timeout_next": "later",
        },
        "morning": {"kind": "wait", "until": {"time": f"{morning:%H:%M}"}, "next": "which"},
        "which": {"kind": "branch", "conditions": [{"name": "new", "when": stage, "next": "halves"}], "otherwise": None},
        "halves": {"kind": "split", "arms": [{"name": "a", "weight": 1, "next": "short"}, {"name": "b", "weight": 1, "next": "long"}]},
        "short": {"kind": "wait", "duration": "PT1H", "next": "offer"},
        "long": {"kind": "wait", "duration": "P1D", "next": "offer"},
        "offer": {**mail, "template_id": await acme.template("Offer", "For {{ contact.attributes.stage }}: {{ unsubscribe_url }}")},
        "later": {"kind": "wait", "duration": "PT3H", "next": "remind"},
        "remind": {**mail, "template_id": await acme.template("Still there, {{ contact.first_name }}?")},
    }
    return await acme.publish("hello", steps, exits=[{"name": "bought", "event": "bought"}]), people


async def predicted(acme: Organization, journey: str, contact: str, now: datetime, script: Sequence[Document]) -> Document:
    body = {"version": 1, "start": now.isoformat(), "contact_ids": [contact], "script": list(script)}
    [trip] = (await acme.post(f"/journeys/{journey}/simulations", body))["contacts"]
    return dict(trip)


async def travelled(stack: Stack, acme: Organization, run: str, script: Sequence[tuple[timedelta, Document]]) -> None:
    """The run is over; the events were sent when so much of its virtual time had passed."""
    handle = stack.services.temporal.get_workflow_handle(f"{acme.id}/run/{run}")
    passed = timedelta(0)
    for after, event in script:
        await stack.temporal.fast_forward(handle, after - passed)
        passed = after
        await acme.post("/events", event)
        await all_routed(acme)
        await acme.until(lambda: acme.run(run), lambda found: found["step_id"] != "opened" or found["finished_at"] is not None)
    await stack.forward(handle)
    await acme.until_run(run, "completed", "exited")


async def test_the_simulator_predicts_what_temporal_then_does(stack: Stack, acme: Organization) -> None:
    now = datetime.now(UTC)
    journey, people = await prepared(acme, now)
    opened = {"name": "opened", "properties": {"mail": 1}}
    scripts: dict[str, list[tuple[timedelta, Document]]] = {"opens": [(OPENS_AFTER, opened)], "buys": [(BUYS_AFTER, {"name": "bought"})]}
    told: dict[str, Document] = {}
    for name, contact in people.items():
        happens = [{"after": after.total_seconds(), "event": event} for after, event in scripts.get(name, [])]
        told[name] = await predicted(acme, journey, contact, now, happens)
    assert not await acme.mails()  # nothing was sent
    runs: dict[str, str] = {}
    async with stack.working():
        with stack.temporal.with_time_skipping_disabled():
            for name, contact in people.items():
                runs[name] = await acme.start_run(journey, contact)
            for run in runs.values():
                await acme.until_run(run, "waiting")
        for name, run in runs.items():
            sent = [(after, {**event, "contact_id": people[name]}) for after, event in scripts.get(name, [])]
            await travelled(stack, acme, run, sent)
    for name, run in runs.items():
        await agree(acme, name, told[name], run)
    assert {name: (trip["status"], trip["reason"], len(trip["messages"])) for name, trip in told.items()} == {
        "opens": ("completed", None, 2),
        "sleeps": ("completed", None, 2),
        "never agreed": ("completed", None, 0),
        "buys": ("exited", "exit_rule:bought", 1),
        "left": ("completed", None, 0),
    }
    assert "held" in [entry["kind"] for entry in told["sleeps"]["path"]]


async def agree(acme: Organization, name: str, told: Document, run: str) -> None:
    happened = await acme.run(run)
    assert (happened["status"], happened["reason"]) == (told["status"], told["reason"]), name
    real = [entry for entry in await acme.timeline(run) if entry["source"] == "event"]
    mine = [entry for entry in told["path"] if entry["source"] == "event"]
    kinds = [[(entry["kind"], entry["step_id"], entry["visit"], entry["reason"]) for entry in path] for path in (mine, real)]
    assert kinds[0] == kinds[1], name
    for one, other in zip(mine, real, strict=True):
        _same_time(name, one, other)
        if one["reason"] is not None:
            assert one["sentence"] == other["sentence"], name
    decided = [{**entry["decision"], "step_id": entry["step_id"]} for entry in await acme.timeline(run) if entry["decision"]]
    assert _judged(told["decisions"]) == _judged(decided), name
    await _same_messages(acme, name, told, happened)


def _same_time(name: str, mine: Document, real: Document) -> None:
    at = [datetime.fromisoformat(entry["at"]) for entry in (mine, real)]
    assert abs(at[0] - at[1]) < PATIENCE, (name, mine["kind"], at)
    if mine["until"] is None:
        assert real["until"] is None, (name, mine["kind"])
        return
    until = [datetime.fromisoformat(entry["until"]) for entry in (mine, real)]
    if mine["step_id"] in DATED:
        assert until[0] == until[1], (name, mine["kind"])
    else:  # as long, to the second; a wait for events is counted from the arrival, and said only when it has been opened
        late = PATIENCE if mine["step_id"] == "opened" else timedelta(seconds=1)
        assert abs((until[0] - at[0]) - (until[1] - at[1])) < late, (name, mine["kind"])


def _judged(decisions: Sequence[Document]) -> list[tuple[str, str, str, str | None]]:
    return sorted((one["check"], one["step_id"], one["outcome"], one["reason"]) for one in decisions)


async def _same_messages(acme: Organization, name: str, told: Document, run: Document) -> None:
    address = await acme.address(run)
    heads = [head for head in await acme.every("/sandbox/messages") if head["recipient"] == address]
    mails = [await acme.get(f"/sandbox/messages/{head['id']}") for head in heads]
    real = [(mail["subject"], LINK.sub("link", mail["text"]).strip(), LINK.sub("link", mail["html"]).strip()) for mail in mails]
    mine = [(one["subject"], LINK.sub("link", one["text"]).strip(), LINK.sub("link", one["html"]).strip()) for one in told["messages"]]
    assert real == mine, name
