"""Rules judged in memory against the same rules judged by the database, on random contacts, events and runs."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from models.domain.segment_memory import Happened, Subject, events_asked, holds, turns
from models.store import topics
from models.store.segment_sql import compile_rule
from models.store.session import Database
from models.tables.base import new_id
from tests.models.store import test_segment_sql as drawn
from tests.models.store.test_segment_sql import NOW, PERSON
from tests.models.store.test_segment_sql import organization_id as organization_id  # a fixture

_events = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["bought", "opened"]),
        "occurred_at": st.sampled_from([NOW, NOW - timedelta(days=6), NOW - timedelta(days=8), NOW + timedelta(minutes=1)]),
        "properties": drawn._documents,
    }
)
_people = st.builds(
    lambda person, events, entry: {**person, "events": events, "entry": entry},
    drawn._contacts,
    st.lists(_events, max_size=4),
    st.integers(0, 4),
)
_event_fields = st.sampled_from([f"event.{key}" for key in drawn.KEYS])
_of_an_event = st.one_of(
    drawn._rule(_event_fields, ["equals", "not_equals"], drawn._scalars),
    drawn._rule(_event_fields, ["equals", "not_equals"], st.sampled_from(drawn.KEYS).map(lambda key: {"run": key})),
    drawn._rule(_event_fields, ["greater", "at_most"], st.sampled_from([0, 1, 2.5])),
    drawn._rule(_event_fields, ["within_last"], drawn._durations),
)
_happened = st.builds(
    lambda name, at_least, extra, where: {"event": {"name": name, "at_least": at_least, **extra, **({"where": where} if where else {})}},
    st.sampled_from(["bought", "opened"]),
    st.integers(1, 3),
    st.sampled_from([{}, {"within": "P7D"}, {"within": "P1M"}, {"since": "entry"}]),
    st.none() | _of_an_event | drawn._rules,
)
_compared = drawn._rule(drawn._json_fields, ["equals", "not_equals"], st.sampled_from(drawn.KEYS).map(lambda key: {"run": key}))
_rules = st.one_of(
    drawn._rules,
    _happened,
    _compared,
    st.lists(st.one_of(drawn._rules, _happened, _compared), min_size=1, max_size=3).map(lambda parts: {"any": parts}),
    _happened.map(lambda part: {"not": part}),
)


class _Undo(Exception):
    pass


async def select(
    database: Database, organization_id: UUID, people: Sequence[dict[str, Any]], rules: Sequence[dict[str, Any]], now: datetime = NOW
) -> list[list[bool]]:
    """For each rule, for each contact: what the database says. Leaves nothing behind."""
    ids = [new_id() for _ in people]
    answers: list[list[bool]] = []
    rows = [
        {"id": str(i), "email": f"{i}@example.com", **person, "created_at": person["created_at"].isoformat()}
        for i, person in zip(ids, people, strict=True)
    ]
    for row in rows:
        row["events"] = [{**event, "occurred_at": event["occurred_at"].isoformat()} for event in row["events"]]
    people_of = (
        "SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS x (id uuid, email text, first_name text, region text, locale text,"
        " country text, attributes jsonb, variables jsonb, tags text[], created_at timestamptz, events jsonb, entry int)"
    )
    insert_events = f"""INSERT INTO events (id, organization_id, contact_id, name, properties, occurred_at)
        SELECT gen_random_uuid(), :o, p.id, e.value ->> 'name', e.value -> 'properties', CAST(e.value ->> 'occurred_at' AS timestamptz)
        FROM ({people_of}) p, jsonb_array_elements(p.events) WITH ORDINALITY e ORDER BY p.id, e.ordinality"""
    insert_people = f"""INSERT INTO contacts
        (organization_id, id, email, first_name, region, locale, country, attributes, tags, created_at, updated_at)
        SELECT :o, id, email, first_name, region, locale, country, attributes, tags, created_at, now() FROM ({people_of}) AS x"""
    insert_consents = """INSERT INTO consents (id, organization_id, contact_id, topic_id, channel, status, method, source, evidence,
          actor_kind, occurred_at)
        SELECT a.id, :o, a.contact_id, a.topic_id, a.channel, a.status, 'form', 'test', '{}', 'system', a.occurred_at
        FROM jsonb_to_recordset(CAST(:lines AS jsonb)) AS a(id uuid, contact_id uuid, topic_id uuid, channel text, status text,
          occurred_at timestamptz)"""
    try:
        async with database.organization(organization_id) as session:
            bound = {"o": organization_id, "rows": json.dumps(rows)}
            await session.execute(text(insert_people), bound)
            await session.execute(text(insert_events), bound)
            topic = (await topics.find(session, ["news"], []))["news"].id
            lines = [
                {"id": str(new_id()), "contact_id": str(i), "topic_id": str(topic), "channel": channel, "status": status,
                 "occurred_at": (NOW + timedelta(days=day)).isoformat()}
                for i, person in zip(ids, people, strict=True) for status, channel, day in person["consents"]
            ]  # fmt: skip
            await session.execute(text(insert_consents), {"o": organization_id, "lines": json.dumps(lines)})
            # `entry`: how many of the contact's events came before its run.
            runs = f"""SELECT x.id, x.variables, now() AS created_at,
                coalesce((SELECT max(n.seq) FROM (SELECT e.seq FROM events e WHERE e.contact_id = x.id ORDER BY e.seq LIMIT x.entry) n), 0)
                AS entry_seq FROM ({people_of}) x"""
            for rule in rules:
                compiled = compile_rule(rule, now)
                query = f"SELECT c.id, ({compiled.sql}) FROM contacts c JOIN ({runs}) AS r ON r.id = c.id"
                found = {row[0]: row[1] for row in await session.execute(text(query), bound | compiled.parameters)}
                answers.append([found[i] for i in ids])
            raise _Undo
    except _Undo:
        return answers


def subject(person: dict[str, Any], topic_id: UUID) -> Subject:
    consents: dict[tuple[UUID, str], str] = {}
    for status, channel, _ in sorted(person["consents"], key=lambda line: line[2]):
        consents[topic_id, channel] = status
    events = [
        Happened(number, event["name"], NOW, event["occurred_at"], event["properties"]) for number, event in enumerate(person["events"])
    ]
    columns = {name: person[name] for name in ("first_name", "region", "locale", "country", "created_at")}
    return Subject(
        fields=columns,
        attributes=person["attributes"],
        tags=person["tags"],
        consents=consents,
        topics={"news": topic_id},
        events=events,
        variables=person["variables"],
        began=lambda event: event.number >= person["entry"],
    )


@hypothesis_settings(max_examples=60, deadline=None)
@given(people=st.lists(_people, min_size=3, max_size=8), rules=st.lists(_rules, min_size=3, max_size=8))
async def test_memory_judges_as_the_database_does(
    database: Database, organization_id: UUID, people: list[dict[str, Any]], rules: list[dict[str, Any]]
) -> None:
    answers = await select(database, organization_id, people, rules)
    topic_id = new_id()
    assert [[holds(rule, subject(person, topic_id), NOW) for person in people] for rule in rules] == answers


@hypothesis_settings(max_examples=150, deadline=None)
@given(person=_people, rule=_rules)
def test_between_two_changes_a_rule_stays_as_it_is(person: dict[str, Any], rule: dict[str, Any]) -> None:
    """Looked at every few hours for ten weeks: whoever looks only at its `turns` has missed nothing."""
    someone = subject(person, new_id())
    told, ahead = holds(rule, someone, NOW), sorted(turn for turn in turns(rule, someone) if turn > NOW)
    for hours in range(0, 70 * 24, 7):
        moment = NOW + timedelta(hours=hours)
        while ahead and ahead[0] <= moment:
            told = holds(rule, someone, ahead.pop(0))
        assert holds(rule, someone, moment) == told, moment


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"field": "attributes.k1", "is": "equals", "value": 1}, False),  # true is not 1
        ({"field": "attributes.k2", "is": "equals", "value": 1}, True),  # but 1.0 is
        ({"field": "attributes.k3", "is": "missing"}, True),  # null is no value
    ],
)
def test_values_are_compared_as_json(rule: dict[str, Any], expected: bool) -> None:
    person = {**PERSON, "attributes": {"k1": True, "k2": 1.0, "k3": None}, "events": [], "entry": 0}
    assert holds(rule, subject(person, new_id()), NOW) is expected


@pytest.mark.parametrize(("operator", "expected"), [("equals", [False, True, False]), ("not_equals", [True, False, True])])
async def test_null_equals_nothing_not_even_null(database: Database, organization_id: UUID, operator: str, expected: list[bool]) -> None:
    rules = [{"field": f"attributes.{key}", "is": operator, "value": {"run": key}} for key in ("k1", "k2", "k3")]
    values = {"k1": None, "k2": [None]}
    person = {**PERSON, "attributes": values, "variables": values, "events": [], "entry": 0}
    assert [holds(rule, subject(person, new_id()), NOW) for rule in rules] == expected
    assert await select(database, organization_id, [person], rules) == [[each] for each in expected]


def test_the_events_that_a_rule_asks_about_are_found_at_any_depth() -> None:
    inner = {"event": {"name": "opened", "where": {"not": {"event": {"name": "paid"}}}}}
    assert events_asked({"any": [{"tag": "vip"}, {"not": {"all": [inner]}}]}) == {"opened", "paid"}


async def test_both_read_dates_at_the_ends_of_the_calendar_alike(database: Database, organization_id: UUID) -> None:
    """Other systems write them for "nothing" and "never"; the database's calendar is longer than ours, and no rule raises in either."""
    values = ["0000-01-01", "0001-01-01", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"]
    values += ["9999-12-31", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-14:00"]
    bounds = ["0001-01-01", "9999-12-31T23:59:59.999999Z", {"ago": "P9999Y"}, {"ahead": "P9999Y"}, {"ago": "P1D"}]
    rules = [{"field": "attributes.due", "is": operator, "value": bound} for operator in ("before", "after") for bound in bounds]
    rules += [
        {"field": "attributes.due", "is": operator, "value": duration}
        for operator in ("within_last", "not_within_last", "within_next")
        for duration in ("P7D", "P9999Y")
    ]
    people = [{**PERSON, "attributes": {"due": value}, "events": [], "entry": 0} for value in values]
    expected = [[holds(rule, subject(person, new_id()), NOW) for person in people] for rule in rules]
    assert await select(database, organization_id, people, rules) == expected
    assert any(map(any, expected)) and not all(map(all, expected))
