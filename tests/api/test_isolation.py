"""The first wall: every route of the application, asked by Charlie of Crow about what belongs to Acme.

`ROUTES` has one line per route. A route without a line fails `test_every_route_has_a_line`, which names it. Tables are
proved in tests/models/store/test_row_level_security.py, likewise all of them.

Adding a route: `Stranger()` when its path names something (Charlie must get 404, Alice must not); `Own()` when it does
not (Charlie must see nothing of Acme); `Public(reason)` when it needs no login. `body` is a valid one, in which
"{contact_id}" and the like stand for Acme's ids; `refused` are bodies that name something of Acme's (404 or 422).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from httpx2 import AsyncClient, Response
from sqlalchemy import text
from sqlmodel import SQLModel

from api.app import create_app
from api.dependencies import Services
from models.domain.permissions import Role
from models.settings import Settings
from models.store.session import Database
from tests.api import world as worlds
from tests.api.conftest import PASSWORD, Person, anonymous, enroll, found
from tests.api.rest.fake_temporal import FakeTemporal
from tests.api.world import CASE, RULE, SMTP, World


@dataclass(frozen=True)
class Stranger:
    """The path names something of Acme's."""

    body: Any = None
    query: str = ""


@dataclass(frozen=True)
class Own:
    """The path names nothing. `queries` and `refused` name something of Acme's."""

    body: Any = None
    queries: Sequence[str] = ()
    refused: Sequence[Any] = ()
    files: Any = None
    bare: bool = True  # whether it can be asked without any of `queries` and `refused`


@dataclass(frozen=True)
class Public:
    """Needs no login, for this reason."""

    reason: str
    body: Any = None


CONSENT = {"contact_id": "{contact_id}", "topic_id": "{topic_id}", "channel": "email", "status": "granted", "method": "form", "source": "x"}
SEND = {"kind": "send", "template_id": "{template_id}", "topic_id": "{topic_id}", "connection_id": "{connection_id}"}
VERSION_SENT = {"subject": "Hello", "text": "Hello {{ unsubscribe_url }}"}
NEW_MEMBER = {"email": "new-{user_id}@example.com", "role": "viewer", "password": PASSWORD}

ROUTES: dict[str, Stranger | Own | Public] = {
    "GET /v1/api-keys": Own(),
    "POST /v1/api-keys": Own({"name": "x", "scopes": ["organization.read"]}),
    "DELETE /v1/api-keys/{key_id}": Stranger(),
    "GET /v1/audit-entries": Own(queries=["subject_id={run_id}", "actor_id={actor_id}"]),
    "GET /v1/audit-entries/checkpoint": Own(),
    "GET /v1/audit-entries/export": Own(),
    "POST /v1/campaign-previews": Own(refused=[{"journey_id": "{journey_id}"}], bare=False),
    "GET /v1/campaigns": Own(queries=["journey_id={journey_id}"]),
    "POST /v1/campaigns": Own(refused=[{"name": "x", "journey_id": "{journey_id}"}], bare=False),
    "GET /v1/campaigns/{campaign_id}": Stranger(),
    "PUT /v1/campaigns/{campaign_id}/cancellation": Stranger(),
    "PUT /v1/campaigns/{campaign_id}/pause": Stranger(),
    "DELETE /v1/campaigns/{campaign_id}/pause": Stranger(),
    "GET /v1/connections": Own(),
    "POST /v1/connections": Own(SMTP | {"name": "Another"}),
    "GET /v1/connections/{connection_id}": Stranger(),
    "PATCH /v1/connections/{connection_id}": Stranger({"rate_per_second": 5}),
    "DELETE /v1/connections/{connection_id}": Stranger(),
    "POST /v1/connections/{connection_id}/checks": Stranger(),
    "GET /v1/consents": Own(queries=["contact_id={contact_id}"], bare=False),
    "POST /v1/consents": Own(refused=[[CONSENT]], bare=False),
    "GET /v1/contact-imports": Own(),
    "POST /v1/contact-imports": Own(files={"file": ("people.csv", b"email\nada@example.com\n")}),
    "GET /v1/contact-imports/{import_id}": Stranger(),
    "GET /v1/contacts": Own(queries=["segment_id={segment_id}"]),
    "POST /v1/contacts": Own({"email": "ada@example.com"}),
    "GET /v1/contacts/export": Own(),
    "GET /v1/contacts/{contact_id}": Stranger(),
    "PATCH /v1/contacts/{contact_id}": Stranger({"first_name": "Ada"}),
    "GET /v1/contacts/{contact_id}/consents": Stranger(),
    "GET /v1/deliveries": Own(queries=["run_id={run_id}", "contact_id={contact_id}", "journey_id={journey_id}"]),
    "GET /v1/deliveries/{delivery_id}": Stranger(),
    "GET /v1/entries": Own(queries=["contact_id={contact_id}", "journey_id={journey_id}"]),
    "POST /v1/events": Own(refused=[{"name": "x", "contact_id": "{contact_id}"}], bare=False),
    "GET /v1/events": Own(queries=["contact_id={contact_id}"]),
    "GET /v1/events/{event_id}": Stranger(),
    "GET /v1/failures": Own(queries=["journey_id={journey_id}"]),
    "GET /v1/conservation": Own(),
    "GET /v1/findings": Own(queries=["journey_id={journey_id}"]),
    "GET /v1/findings/{finding_id}": Stranger(),
    "PUT /v1/findings/{finding_id}/acknowledgement": Stranger({"reason": "known"}),
    "GET /v1/health": Public("tells a load balancer whether the process works, and nothing else"),
    "POST /v1/journey-imports": Own(
        {"document": {"format": "leadstats.journey/1", "name": "y", "draft": {}}},
        refused=[{"document": {"format": "leadstats.journey/1", "name": "z", "draft": {"segment": {"segment": "Acme's"}}}}],
    ),
    "GET /v1/journeys": Own(),
    "POST /v1/journeys": Own({"name": "x"}),
    "GET /v1/journeys/{journey_id}": Stranger(),
    "PUT /v1/journeys/{journey_id}/archive": Stranger(),
    "DELETE /v1/journeys/{journey_id}/archive": Stranger(),
    "PUT /v1/journeys/{journey_id}/cancellation": Stranger(),
    "POST /v1/journeys/{journey_id}/approvals": Stranger(),
    "GET /v1/journeys/{journey_id}/approvals": Stranger(),
    "GET /v1/journeys/{journey_id}/approvals/{approval_id}": Stranger(),
    "PUT /v1/journeys/{journey_id}/approvals/{approval_id}/decision": Stranger({"decision": "rejected"}),
    "GET /v1/journeys/{journey_id}/cases": Stranger(),
    "POST /v1/journeys/{journey_id}/cases": Stranger(CASE),
    "POST /v1/journeys/{journey_id}/cases/runs": Stranger({"cases": [CASE]}),
    "GET /v1/journeys/{journey_id}/cases/{case_id}": Stranger(),
    "PUT /v1/journeys/{journey_id}/cases/{case_id}": Stranger(CASE | {"name": "mine now"}),
    "DELETE /v1/journeys/{journey_id}/cases/{case_id}": Stranger(),
    "GET /v1/journeys/{journey_id}/check": Stranger(),
    "GET /v1/journeys/{journey_id}/resumption": Stranger(),
    "POST /v1/journeys/{journey_id}/resumptions": Stranger({"spread": "PT10M"}),
    "GET /v1/campaigns/{campaign_id}/resumption": Stranger(),
    "POST /v1/campaigns/{campaign_id}/resumptions": Stranger({"spread": "PT10M"}),
    "GET /v1/journeys/{journey_id}/differences": Stranger(query="from=1&to=1"),
    "PATCH /v1/journeys/{journey_id}/draft": Stranger({"name": "mine now"}),
    "PUT /v1/journeys/{journey_id}/draft/restoration": Stranger({"version": 1}),
    "GET /v1/journeys/{journey_id}/draft-revisions": Stranger(),
    "GET /v1/journeys/{journey_id}/draft-revisions/{revision}": Stranger(),
    "POST /v1/journeys/{journey_id}/duplicates": Stranger({"name": "mine now"}),
    "GET /v1/journeys/{journey_id}/export": Stranger(),
    "GET /v1/journeys/{journey_id}/goals": Stranger(),
    "PUT /v1/journeys/{journey_id}/pause": Stranger(),
    "DELETE /v1/journeys/{journey_id}/pause": Stranger(),
    "POST /v1/journeys/{journey_id}/publish-plans": Stranger(),
    "GET /v1/journeys/{journey_id}/publish-plans": Stranger(),
    "GET /v1/journeys/{journey_id}/publish-plans/{plan_id}": Stranger(),
    "PUT /v1/journeys/{journey_id}/publish-plans/{plan_id}/execution": Stranger({"fingerprint": "x", "choices": []}),
    "POST /v1/journeys/{journey_id}/runs": Stranger({"contact_id": "{contact_id}"}),
    "GET /v1/journeys/{journey_id}/settings": Stranger(),
    "PATCH /v1/journeys/{journey_id}/settings": Stranger({"brake": {"share": 0.5}}),
    "POST /v1/journeys/{journey_id}/simulations": Stranger({"contacts": [{}]}),
    "POST /v1/journeys/{journey_id}/versions": Stranger(),
    "GET /v1/journeys/{journey_id}/versions": Stranger(),
    "GET /v1/journeys/{journey_id}/versions/{version}": Stranger(),
    "GET /v1/members": Own(),
    "POST /v1/members": Own(NEW_MEMBER),
    "PATCH /v1/members/{user_id}": Stranger({"role": "viewer"}),
    "DELETE /v1/members/{user_id}": Stranger(),
    "GET /v1/organization": Own(),
    "PATCH /v1/organization": Own({"name": "Crow & Sons"}),
    "GET /v1/organization/webhook-secret": Own(),
    "GET /v1/run-operations": Own(),
    "POST /v1/run-operations": Own(refused=[{"preview_id": "{preview_id}", "reason": "x"}], bare=False),
    "POST /v1/run-operations/previews": Own(
        {"command": "pause", "filter": {"statuses": ["held"]}},
        refused=[
            {"command": "pause", "filter": {"journey_id": "{journey_id}"}},
            {"command": "pause", "filter": {"version_id": "{version_id}"}},
            {"command": "pause", "filter": {"campaign_id": "{campaign_id}"}},
            {"command": "pause", "filter": {"segment_id": "{segment_id}"}},
        ],
    ),
    "GET /v1/run-operations/{operation_id}": Stranger(),
    "PUT /v1/run-operations/{operation_id}/cancellation": Stranger(),
    "GET /v1/run-operations/{operation_id}/items": Stranger(),
    "GET /v1/runs": Own(queries=["contact_id={contact_id}", "journey_id={journey_id}", "version_id={version_id}"]),
    "PUT /v1/runs/{run_id}/review": Stranger({"decision": "approved"}),
    "GET /v1/runs/{run_id}": Stranger(),
    "PUT /v1/runs/{run_id}/cancellation": Stranger({"reason": "x"}),
    "GET /v1/runs/{run_id}/histories": Stranger(),
    "GET /v1/runs/{run_id}/histories/{history_id}": Stranger(),
    "PUT /v1/runs/{run_id}/pause": Stranger(),
    "DELETE /v1/runs/{run_id}/pause": Stranger(),
    "POST /v1/runs/{run_id}/replays": Stranger({"reason": "x"}),
    "POST /v1/runs/{run_id}/replays/preview": Stranger(),
    "PUT /v1/runs/{run_id}/retry": Stranger({"reason": "x"}),
    "PUT /v1/runs/{run_id}/skip": Stranger({"reason": "x"}),
    "PUT /v1/runs/{run_id}/jump": Stranger({"step_id": "welcome", "reason": "x"}),
    "PUT /v1/runs/{run_id}/steps/{step_id}/cancellation": Stranger({"reason": "x"}),
    "DELETE /v1/runs/{run_id}/steps/{step_id}/cancellation": Stranger(),
    "PATCH /v1/runs/{run_id}/variables": Stranger({"variables": {"order": "A-1"}}),
    "GET /v1/runs/{run_id}/timeline": Stranger(),
    "GET /v1/sandbox/discarded": Own(),
    "GET /v1/sandbox/faults": Own(),
    "POST /v1/sandbox/faults": Own({"phase": "rcpt", "action": "refuse"}),
    "DELETE /v1/sandbox/faults": Own(),
    "DELETE /v1/sandbox/faults/{fault_id}": Stranger(),
    "GET /v1/sandbox/messages": Own(queries=["delivery_id={delivery_id}"]),
    "DELETE /v1/sandbox/messages": Own(),
    "GET /v1/sandbox/messages/{message_id}": Stranger(),
    "POST /v1/segment-previews": Own({"rule": RULE}),
    "GET /v1/segments": Own(),
    "POST /v1/segments": Own({"name": "x", "rule": RULE}),
    "GET /v1/segments/{segment_id}": Stranger(),
    "PATCH /v1/segments/{segment_id}": Stranger({"name": "mine now"}),
    "DELETE /v1/segments/{segment_id}": Stranger(),
    "GET /v1/segments/{segment_id}/preview": Stranger(),
    "GET /v1/session": Own(),
    "POST /v1/session": Public("where one logs in", {"email": "nobody@example.com", "password": "x"}),
    "DELETE /v1/session": Own(),
    "GET /v1/suppressions": Own(),
    "POST /v1/suppressions": Own({"address": "ada@example.com", "channel": "email"}),
    "DELETE /v1/suppressions/{suppression_id}": Stranger(query="reason=added_by_mistake"),
    "GET /v1/templates": Own(),
    "POST /v1/templates": Own({"name": "x", **VERSION_SENT}),
    "GET /v1/templates/{template_id}": Stranger(),
    "PATCH /v1/templates/{template_id}": Stranger({"archived": True}),
    "POST /v1/templates/{template_id}/previews": Stranger({"contact_id": "{contact_id}"}),
    "POST /v1/templates/{template_id}/versions": Stranger(VERSION_SENT),
    "GET /v1/templates/{template_id}/versions": Stranger(),
    "GET /v1/templates/{template_id}/versions/{number}": Stranger(),
    "GET /v1/topics": Own(),
    "POST /v1/topics": Own({"key": "x", "name": "x"}),
    "GET /v1/topics/{topic_id}": Stranger(),
    "PATCH /v1/topics/{topic_id}": Stranger({"name": "mine now"}),
    "GET /": Public("says what answers here and where the rest is, and nothing of any organization"),
    "GET /u/{token}": Public("the link in every mail; the token says whose, and is signed"),
    "POST /u/{token}": Public("one-click unsubscribing by mail programs; the token says whose, and is signed"),
    "GET /v1/openapi.json": Public("the description of this API"),
}


@dataclass(frozen=True)
class Stage:
    """One application and one world for all tests of this file: a stranger changes nothing of it."""

    app: FastAPI
    temporal: FakeTemporal
    database: Database
    alice: Person
    charlie: Person
    acme: World
    crow: World


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(settings: Settings, database: Database, password_hash: str) -> Stage:
    temporal: Any = FakeTemporal()
    app = create_app(Services(settings, database, temporal))
    acme, acme_slug = await found(database, "Acme")
    crow, crow_slug = await found(database, "Crow")
    alice = await enroll(database, app, "Alice", Role.OWNER, acme, acme_slug, password_hash)
    bob = await enroll(database, app, "Bob", Role.VIEWER, acme, acme_slug, password_hash)
    charlie = await enroll(database, app, "Charlie", Role.OWNER, crow, crow_slug, password_hash)
    his = await worlds.build(database, settings, charlie)
    return Stage(app, temporal, database, alice, charlie, await worlds.build(database, settings, alice, bob), his)


def routes_of(app: FastAPI) -> Iterator[tuple[str, RouteContext]]:
    for route in iter_route_contexts(app.routes):
        for method in sorted(route.methods or {"MOUNTED"}):
            if method != "HEAD":
                yield f"{method} {route.path}", route


def described_app() -> FastAPI:
    return create_app(None)  # type: ignore[arg-type]  # no route is called


def test_every_route_has_a_line() -> None:
    routes = {name for name, _ in routes_of(described_app())}
    assert len(routes) > 80  # the walk sees the included routers
    assert sorted(routes - set(ROUTES)) == [], "add a line to ROUTES for each of these"
    assert sorted(set(ROUTES) - routes) == [], "these routes are gone"


def test_a_new_route_without_a_line_is_noticed() -> None:
    app = described_app()
    app.get("/v1/novelties/{novelty_id}")(lambda novelty_id: novelty_id)
    assert {name for name, _ in routes_of(app)} - set(ROUTES) == {"GET /v1/novelties/{novelty_id}"}


def test_a_route_that_names_something_is_tried_by_a_stranger() -> None:
    for route, line in ROUTES.items():
        assert isinstance(line, Stranger) == ("{" in route and not isinstance(line, Public)), route


def test_every_route_that_is_not_public_asks_for_a_permission() -> None:
    whoever = {"GET /v1/session", "DELETE /v1/session"}  # everybody may ask who they are, and log out
    unguarded = {name for name, route in routes_of(described_app()) if not _permissions(route)}
    assert unguarded - whoever == {name for name, line in ROUTES.items() if isinstance(line, Public)}


def _permissions(route: RouteContext) -> list[str]:
    dependant = getattr(route.original_route, "dependant", None)
    asked = [getattr(dependency.call, "permissions", None) for dependency in dependant.dependencies] if dependant else []
    return [permission for permission in asked if permission]


def filled(value: Any, world: World) -> Any:
    """`value` with Acme's ids in the places that name them. Liquid's double braces are no such place."""
    encoded = json.dumps(value)
    for name, identifier in world.ids.items():
        encoded = encoded.replace(f"{{{name}}}", identifier)
    return json.loads(encoded)


async def call(client: AsyncClient, route: str, world: World, body: Any = None, query: str = "", files: Any = None) -> Response:
    method, path = route.split(" ")
    path = filled(path.replace("{version}", "1").replace("{number}", "1").replace("{revision}", "1"), world)
    headers = {"If-Match": '"1"'} if "/draft" in path else {}
    content: dict[str, Any] = {"files": files} if files else {} if body is None else {"json": filled(body, world)}
    return await client.request(method, f"{path}?{filled(query, world)}" if query else path, headers=headers, **content)


async def fingerprint(stage: Stage) -> list[tuple[str, str]]:
    """All of Acme's rows, table by table. Keys note when they were used, so that is left out."""
    tables = [table.name for table in SQLModel.metadata.tables.values() if "organization_id" in table.columns]
    queries = [f"SELECT '{name}', md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} t" for name in tables if name != "api_keys"]
    queries += [f"SELECT '{name}', md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} t" for name in ("organizations", "users")]
    queries += ["SELECT 'api_keys', string_agg(concat(id, revoked_at, scopes), '|' ORDER BY id) FROM api_keys"]
    async with stage.database.organization(stage.alice.organization_id) as session:
        rows = (await session.execute(text(" UNION ALL ".join(queries)))).all()
    told = str((len(stage.temporal.started), len(stage.temporal.told)))
    return [*sorted((name, found or "") for name, found in rows), ("temporal", told)]


# Deleting last: Alice's own requests show that what Charlie could not find was there.
STRANGER = sorted((route for route, line in ROUTES.items() if isinstance(line, Stranger)), key=lambda route: route.startswith("DELETE"))
OWN = [route for route, line in ROUTES.items() if isinstance(line, Own)]


@pytest.mark.parametrize("route", [*OWN, *STRANGER])
async def test_without_a_login_it_is_401(route: str, stage: Stage) -> None:
    line = ROUTES[route]
    async with anonymous(stage.app) as nobody:
        answer = await call(nobody, route, stage.acme, getattr(line, "body", None), files=getattr(line, "files", None))
    assert answer.status_code == 401, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("route", OWN)
async def test_crow_sees_and_changes_nothing_of_acme(route: str, stage: Stage) -> None:
    line = ROUTES[route]
    assert isinstance(line, Own)
    before = await fingerprint(stage)
    if line.bare:
        answer = await call(stage.charlie.client, route, stage.acme, line.body, files=line.files)
        assert answer.status_code < 300, answer.text
        assert [mark for mark in stage.acme.marks if mark in answer.text and mark not in json.dumps(filled(line.body, stage.acme))] == []
    for body in line.refused:
        answer = await call(stage.charlie.client, route, stage.acme, body)
        assert answer.status_code in (404, 422), answer.text
    for query in line.queries:
        answer = await call(stage.charlie.client, route, stage.acme, query=query)
        assert answer.status_code == 404 or answer.json()["items"] == [], answer.text
    assert _changes(before, await fingerprint(stage)) == []


@pytest.mark.parametrize("route", [route for route in OWN if getattr(ROUTES[route], "queries", ())])
async def test_the_filters_find_what_they_name_for_its_owner(route: str, stage: Stage) -> None:
    line = ROUTES[route]
    assert isinstance(line, Own)
    for query in line.queries:
        answer = await call(stage.alice.client, route, stage.acme, query=query)
        assert answer.json()["items"], f"{query} finds nothing, so it proves nothing"


@pytest.mark.parametrize("route", STRANGER)
async def test_what_belongs_to_acme_does_not_exist_for_crow(route: str, stage: Stage) -> None:
    line = ROUTES[route]
    assert isinstance(line, Stranger)
    before = await fingerprint(stage)
    answer = await call(stage.charlie.client, route, stage.acme, line.body, line.query)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), answer.text
    assert _changes(before, await fingerprint(stage)) == []
    # The same request by somebody it belongs to shows that the 404 is about the organization, not about the request.
    answer = await call(stage.alice.client, route, stage.acme, line.body, line.query)
    assert answer.status_code not in (401, 403, 404, 405, 422, 500), answer.text


def _changes(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> list[str]:
    return [name for (name, was), (_, now) in zip(before, after, strict=True) if was != now]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("POST /v1/journeys/{journey_id}/runs", {"contact_id": "{contact_id}"}),
        ("POST /v1/templates/{template_id}/previews", {"contact_id": "{contact_id}"}),
    ],
)
async def test_ones_own_journey_or_template_takes_no_strangers_contact(route: str, body: Any, stage: Stage) -> None:
    mixed = World(stage.crow.ids | {"contact_id": stage.acme.ids["contact_id"]})
    before = await fingerprint(stage)
    assert (await call(stage.charlie.client, route, mixed, body)).status_code in (404, 422)
    assert _changes(before, await fingerprint(stage)) == []
    assert (await call(stage.charlie.client, route, stage.crow, body)).status_code < 300


@pytest.mark.parametrize("reference", ["template_id", "topic_id", "connection_id"])
async def test_ones_own_journey_cannot_be_published_with_a_strangers_parts(reference: str, stage: Stage) -> None:
    mine = stage.crow.ids
    for ids, status in ((mine | {reference: stage.acme.ids[reference]}, 422), (mine, 201)):
        body = {"name": f"{reference} {status}", "draft": filled({"start": "a", "steps": {"a": SEND}}, World(ids))}
        journey = (await stage.charlie.client.post("/v1/journeys", json=body)).json()
        answer = await stage.charlie.client.post(f"/v1/journeys/{journey['id']}/versions")
        assert answer.status_code == status, answer.text


async def test_ones_own_campaign_takes_no_strangers_segment(stage: Stage) -> None:
    for segment_id, statuses in ((stage.acme.ids["segment_id"], (404, 422)), (stage.crow.ids["segment_id"], (202,))):
        body = {"name": "x", "journey_id": stage.crow.ids["journey_id"], "segment_id": segment_id}
        answer = await stage.charlie.client.post("/v1/campaigns", json=body)
        assert answer.status_code in statuses, answer.text


@pytest.mark.parametrize("reference", ["contact_id", "topic_id"])
async def test_consent_is_not_recorded_about_a_strangers_contact_or_topic(reference: str, stage: Stage) -> None:
    mixed = World(stage.crow.ids | {reference: stage.acme.ids[reference]})
    answer = await stage.charlie.client.post("/v1/consents", json=[filled(CONSENT, mixed)])
    assert answer.status_code in (404, 422), answer.text
