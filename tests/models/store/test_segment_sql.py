"""The compiled SQL against a second, naive reading of the language, on random contacts and rules."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from models.domain.audit import SYSTEM
from models.domain.errors import Invalid
from models.domain.segment import TEXT_FIELDS
from models.settings import Settings
from models.store import access, consents, topics
from models.store.consents import NewConsent
from models.store.segment_sql import compile_rule
from models.store.session import Database
from models.tables.base import new_id

NOW = datetime(2026, 3, 31, 12, 0, tzinfo=UTC)
TEXTS = ["a", "A", "ab", "B%", "_", "é", "Ab c"]
MOMENTS = [
    "2026-03-31",
    "2026-03-30",
    "2026-02-31",
    "2026-03-31T12:00:00Z",
    "2026-03-31T14:00:00+02:00",
    "2025-01-01T00:00:00Z",
    "nonsense",
]
KEYS = ["k1", "k2", "k3"]
_json = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 1.0, 2.5, -3]),
    st.sampled_from([*TEXTS, *MOMENTS]),
    st.lists(st.sampled_from(TEXTS), max_size=3),
)
_documents = st.dictionaries(st.sampled_from(KEYS), _json, max_size=3)
_texts = st.one_of(st.none(), st.sampled_from(TEXTS))
_columns = ("first_name", "region", "locale", "country")
_contacts = st.fixed_dictionaries(
    {
        "first_name": _texts,
        "region": _texts,
        "locale": st.one_of(st.none(), st.sampled_from(["en", "pt-BR"])),
        "country": st.one_of(st.none(), st.sampled_from(["US", "DE"])),
        "attributes": _documents,
        "tags": st.lists(st.sampled_from(["vip", "x", "y z"]), unique=True, max_size=2),
        "created_at": st.sampled_from([NOW, NOW - timedelta(days=7), NOW - timedelta(days=31), NOW + timedelta(hours=1)]),
        "variables": _documents,
        "consents": st.lists(
            st.tuples(st.sampled_from(["granted", "withdrawn"]), st.sampled_from(["email", "sms"]), st.integers(0, 3)), max_size=3
        ),
    }
)

_durations = st.sampled_from(["P7D", "P1M", "PT1H", "P1Y", "PT0S"])
_bounds = st.one_of(
    st.sampled_from([moment for moment in MOMENTS if moment not in ("2026-02-31", "nonsense")]),
    _durations.map(lambda duration: {"ago": duration}),
    _durations.map(lambda duration: {"ahead": duration}),
)
_text_fields = st.sampled_from(["first_name", "region", "locale", "country"])
_json_fields = st.sampled_from([f"{space}.{key}" for space in ("attributes", "run") for key in KEYS])
_scalars = st.one_of(st.sampled_from(TEXTS), st.sampled_from([0, 1, 2.5, True, False]))


def _rule(field: Any, operators: list[str], value: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda f, o, v: {"field": f, "is": o, "value": v}, field, st.sampled_from(operators), value)


_fields = st.one_of(_text_fields, _json_fields)
_leaves = st.one_of(
    st.builds(lambda f, o: {"field": f, "is": o}, st.one_of(_fields, st.just("created_at")), st.sampled_from(["exists", "missing"])),
    _rule(_text_fields, ["equals", "not_equals"], st.sampled_from([*TEXTS, "us", "PT-br"])),
    _rule(_text_fields, ["in", "not_in"], st.lists(st.sampled_from([*TEXTS, "us", "EN"]), min_size=1, max_size=3)),
    _rule(_json_fields, ["equals", "not_equals"], _scalars),
    _rule(_json_fields, ["in", "not_in"], st.lists(_scalars, min_size=1, max_size=3)),
    _rule(_fields, ["contains", "not_contains", "starts_with", "ends_with"], st.sampled_from(TEXTS)),
    _rule(_json_fields, ["greater", "less", "at_least", "at_most"], st.sampled_from([0, 1, 2.5])),
    _rule(st.one_of(_json_fields, st.just("created_at")), ["before", "after"], _bounds),
    _rule(st.one_of(_json_fields, st.just("created_at")), ["within_last", "not_within_last", "within_next"], _durations),
    st.sampled_from(["vip", "VIP", "y  z", "none"]).map(lambda tag: {"tag": tag}),
    st.builds(
        lambda channel, status: {"consent": {"topic": "news", "channel": channel, "status": status}},
        st.sampled_from(["email", "sms"]),
        st.sampled_from(["granted", "withdrawn", "none"]),
    ),
)
_rules = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=6,
)


def holds(rule: Mapping[str, Any], contact: Mapping[str, Any]) -> bool:
    """The language read naively."""
    if "all" in rule:
        return all(holds(part, contact) for part in rule["all"])
    if "any" in rule:
        return any(holds(part, contact) for part in rule["any"])
    if "not" in rule:
        return not holds(rule["not"], contact)
    if "tag" in rule:
        return " ".join(rule["tag"].lower().split()) in contact["tags"]
    if "consent" in rule:
        said = [line for line in contact["consents"] if line[1] == rule["consent"]["channel"]]
        latest = max(enumerate(said), key=lambda pair: (pair[1][2], pair[0]))[1][0] if said else "none"
        return bool(latest == rule["consent"]["status"])
    negative = {"not_equals": "equals", "not_in": "in", "not_contains": "contains", "not_within_last": "within_last", "missing": "exists"}
    operator = rule["is"]
    if operator in negative:
        return not _passes(rule["field"], negative[operator], rule.get("value"), contact)
    return _passes(rule["field"], operator, rule.get("value"), contact)


def _passes(field: str, operator: str, wanted: Any, contact: Mapping[str, Any]) -> bool:
    space, _, key = field.partition(".")
    found = contact[field] if not key else contact["attributes" if space == "attributes" else "variables"].get(key)
    if found is None:
        return False
    if operator == "exists":
        return True
    if operator in ("equals", "in"):
        choices = wanted if operator == "in" else [wanted]
        if field in ("locale", "country"):
            return found.lower() in [choice.lower() for choice in choices]
        return any(type(found) in _kin(choice) and found == choice for choice in choices)
    if operator in ("contains", "starts_with", "ends_with"):
        if isinstance(found, list):
            return operator == "contains" and wanted in found
        if not isinstance(found, str):
            return False
        mine, theirs = found.lower(), str(wanted).lower()
        return {"contains": theirs in mine, "starts_with": mine.startswith(theirs), "ends_with": mine.endswith(theirs)}[operator]
    if operator in ("greater", "less", "at_least", "at_most"):
        if isinstance(found, bool) or not isinstance(found, int | float):
            return False
        answers: dict[str, bool] = {
            "greater": found > wanted,
            "less": found < wanted,
            "at_least": found >= wanted,
            "at_most": found <= wanted,
        }
        return answers[operator]
    moment = found if isinstance(found, datetime) else _moment(found)
    if moment is None:
        return False
    if operator in ("before", "after"):
        bound = _bound(wanted)
        return moment < bound if operator == "before" else moment > bound
    return _shift(wanted, -1) <= moment <= NOW if operator == "within_last" else NOW <= moment <= _shift(wanted, 1)


def _kin(value: Any) -> tuple[type, ...]:
    return (bool,) if isinstance(value, bool) else (int, float) if isinstance(value, int | float) else (type(value),)


def _moment(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) and value[:2] == "20" else None
    except ValueError:
        return None
    return None if found is None else found if found.tzinfo else found.replace(tzinfo=UTC)


def _bound(wanted: Any) -> datetime:
    if isinstance(wanted, dict):
        return _shift(wanted["ago"], -1) if "ago" in wanted else _shift(wanted["ahead"], 1)
    found = _moment(wanted)
    assert found is not None
    return found


def _shift(duration: str, sign: int) -> datetime:
    """By hand: from 31 March 2026, noon UTC."""
    if duration == "P1M":
        return datetime(2026, 2, 28, 12, tzinfo=UTC) if sign < 0 else datetime(2026, 4, 30, 12, tzinfo=UTC)
    if duration == "P1Y":
        return NOW.replace(year=2026 + sign)
    return NOW + sign * {"P7D": timedelta(days=7), "PT1H": timedelta(hours=1), "PT0S": timedelta(0)}[duration]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def organization_id(database: Database) -> UUID:
    identifier = new_id()
    async with database.organization(identifier) as session:
        await access.insert_organization(session, "Segments", f"segments-{identifier}")
        await topics.create(session, "news", "News", "")
    return identifier


class _Undo(Exception):
    pass


async def select(database: Database, organization_id: UUID, people: list[dict[str, Any]], rules: list[dict[str, Any]]) -> list[list[bool]]:
    """For each rule, for each contact: does it hold? Leaves nothing behind."""
    answers: list[list[bool]] = []
    ids = [new_id() for _ in people]
    try:
        async with database.organization(organization_id) as session:
            rows = [
                {"id": str(i), "email": f"{i}@example.com", **p, "created_at": p["created_at"].isoformat()}
                for i, p in zip(ids, people, strict=True)
            ]
            for row in rows:
                row.pop("consents")
            source = (
                "SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS x"
                " (id uuid, email text, first_name text, region text, locale text, country text,"
                " attributes jsonb, variables jsonb, tags text[], created_at timestamptz)"
            )
            await session.execute(
                text(
                    "INSERT INTO contacts"
                    " (organization_id, id, email, first_name, region, locale, country, attributes, tags, created_at, updated_at)"
                    f" SELECT :o, id, email, first_name, region, locale, country, attributes, tags, created_at, now() FROM ({source}) AS x"
                ),
                {"o": organization_id, "rows": json.dumps(rows)},
            )
            topic = (await topics.find(session, ["news"], []))["news"].id
            lines = [
                NewConsent(i, topic, channel, status, "form", "test", {}, SYSTEM, NOW + timedelta(days=day))
                for i, person in zip(ids, people, strict=True)
                for status, channel, day in person["consents"]
            ]
            await consents.record(session, lines)
            for rule in rules:
                compiled = compile_rule(rule, NOW)
                query = f"SELECT c.id, ({compiled.sql}) FROM contacts c JOIN ({source}) AS r ON r.id = c.id"
                found = {row[0]: row[1] for row in await session.execute(text(query), {"rows": json.dumps(rows)} | compiled.parameters)}
                answers.append([found[i] for i in ids])
            raise _Undo
    except _Undo:
        return answers


@hypothesis_settings(max_examples=60, deadline=None)
@given(people=st.lists(_contacts, min_size=3, max_size=8), rules=st.lists(_rules, min_size=3, max_size=8))
async def test_sql_selects_what_a_naive_reading_selects(
    database: Database, organization_id: UUID, people: list[dict[str, Any]], rules: list[dict[str, Any]]
) -> None:
    answers = await select(database, organization_id, people, rules)
    assert answers == [[holds(rule, person) for person in people] for rule in rules]


PERSON: dict[str, Any] = {
    "first_name": None,
    "region": None,
    "locale": None,
    "country": "US",
    "attributes": {},
    "tags": [],
    "created_at": NOW,
    "variables": {},
    "consents": [],
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"field": "region", "is": "equals", "value": "NY"}, False),
        ({"field": "region", "is": "not_equals", "value": "NY"}, True),
        ({"not": {"field": "region", "is": "equals", "value": "NY"}}, True),
        ({"not": {"field": "attributes.k1", "is": "greater", "value": 1}}, True),
        ({"all": [{"field": "region", "is": "exists"}, {"field": "region", "is": "not_equals", "value": "NY"}]}, False),
        ({"all": []}, True),
        ({"not": {"any": [{"tag": "vip"}, {"field": "run.k1", "is": "before", "value": "2026-01-01"}]}}, True),
    ],
)
async def test_a_missing_value_fails_every_positive_test_and_passes_its_negation(
    database: Database, organization_id: UUID, rule: dict[str, Any], expected: bool
) -> None:
    assert await select(database, organization_id, [PERSON], [rule]) == [[expected]]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"field": "created_at", "is": "before", "value": "2026-03-31T12:00:00Z"}, False),
        ({"field": "created_at", "is": "after", "value": "2026-03-31T14:00:00+02:00"}, False),
        ({"field": "created_at", "is": "after", "value": {"ago": "PT1S"}}, True),
        ({"field": "created_at", "is": "within_last", "value": "PT0S"}, True),
        ({"field": "created_at", "is": "within_next", "value": "PT0S"}, True),
        ({"field": "attributes.k1", "is": "at_least", "value": 2}, True),
        ({"field": "attributes.k1", "is": "greater", "value": 2}, False),
        ({"field": "attributes.k1", "is": "at_most", "value": 2.0}, True),
        ({"field": "attributes.k1", "is": "less", "value": 2}, False),
        ({"field": "attributes.k2", "is": "after", "value": "2026-03-30"}, True),
        ({"field": "attributes.k2", "is": "after", "value": "2026-03-31"}, False),
        ({"consent": {"topic": "news", "channel": "email", "status": "withdrawn"}}, True),
        ({"consent": {"topic": "news", "channel": "sms", "status": "none"}}, True),
        ({"consent": {"topic_id": "019f0000-0000-7000-8000-000000000001", "channel": "email", "status": "none"}}, True),
    ],
)
async def test_boundaries_are_where_the_documentation_says(
    database: Database, organization_id: UUID, rule: dict[str, Any], expected: bool
) -> None:
    person = PERSON | {"attributes": {"k1": 2, "k2": "2026-03-31"}, "consents": [("granted", "email", 0), ("withdrawn", "email", 0)]}
    assert await select(database, organization_id, [person], [rule]) == [[expected]]


async def test_hostile_values_are_only_values(database: Database, organization_id: UUID) -> None:
    hostile = ["'; DROP TABLE contacts; --", "%", "\\", ":o", '"', "{}", "a' OR 'a'='a"]
    rules = [{"field": field, "is": "contains", "value": value} for value in hostile for field in ("first_name", "attributes.k1", "run.k1")]
    rules += [{"field": f"attributes.{value}", "is": "exists"} for value in hostile] + [{"tag": value} for value in hostile]
    assert await select(database, organization_id, [PERSON | {"first_name": "x"}], rules) == [[False]] * len(rules)
    mine = PERSON | {"first_name": "x'; DROP TABLE contacts; --"}
    assert await select(database, organization_id, [mine], rules[:1]) == [[True]]


def test_two_rules_in_one_statement_share_no_parameter() -> None:
    rules = [compile_rule({"tag": tag}, now) for tag in ("a", "b") for now in (NOW, NOW + timedelta(seconds=1))]
    names = [name for rule in rules for name in rule.parameters]
    assert len(set(names)) == len(names)


def test_no_value_reaches_the_sql_text() -> None:
    rule = {
        "all": [{"field": f, "is": "equals", "value": "needle"} for f in (*TEXT_FIELDS, "attributes.needle", "run.needle")]
        + [{"tag": "needle"}]
    }
    assert "needle" not in compile_rule(rule, NOW).sql


def test_a_malformed_rule_is_refused() -> None:
    with pytest.raises(Invalid):
        compile_rule({"field": "id; DROP TABLE contacts", "is": "exists"}, NOW)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crowded(database: Database, settings: Settings) -> UUID:
    """An organization with so many contacts that the planner cares."""
    identifier = new_id()
    async with database.organization(identifier) as session:
        await access.insert_organization(session, "Crowd", f"crowd-{identifier}")
        query = """
            INSERT INTO contacts (id, organization_id, email, external_id, phone, attributes, created_at, updated_at)
            SELECT gen_random_uuid(), :o, 'P' || n || '@example.com', 'x' || n, '+1212555' || n, '{}', now(), now()
            FROM generate_series(1000, 3000) AS n"""
        await session.execute(text(query), {"o": identifier})
    assert settings.owner_database_url is not None
    async with await psycopg.AsyncConnection.connect(settings.owner_database_url.get_secret_value(), autocommit=True) as owner:
        await owner.execute("ANALYZE contacts")
    return identifier


@pytest.mark.parametrize(
    ("field", "column", "value"),
    [("email", "email_key", "p1500@EXAMPLE.com"), ("external_id", "external_id", "x1500"), ("phone", "phone", "+12125551500")],
)
@pytest.mark.parametrize("operator", ["equals", "in"])
async def test_row_level_security_leaves_selective_rules_their_index(
    database: Database, crowded: UUID, field: str, column: str, value: str, operator: str
) -> None:
    compiled = compile_rule({"field": field, "is": operator, "value": [value] if operator == "in" else value}, NOW)
    async with database.organization(crowded) as session:
        query = f"SELECT c.id FROM contacts c WHERE c.organization_id = :o AND {compiled.sql}"
        parameters = {"o": crowded} | compiled.parameters
        plan = (await session.execute(text(f"EXPLAIN {query}"), parameters)).scalars().all()
        found = (await session.execute(text(query), parameters)).all()
    assert any("Index Cond" in line and column in line for line in plan), plan
    assert len(found) == 1
