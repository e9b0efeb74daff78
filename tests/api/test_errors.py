import logging
from datetime import timedelta
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlalchemy import text
from temporalio.service import RPCError, RPCStatusCode

from api.app import create_app
from api.dependencies import Services
from api.errors import answer
from deploy.postgres import free_port
from models.domain import errors
from models.domain.phrases import json_path
from models.store.session import Database
from tests.api.conftest import Person, anonymous

PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.NotAuthenticated("x"), 401, "not_authenticated"),
        (errors.NotAllowed("x"), 403, "not_allowed"),
        (errors.NotFound("contact"), 404, "not_found"),
        (errors.Conflict("x"), 409, "conflict"),
        (errors.StaleRevision("x"), 412, "stale_revision"),
        (errors.Invalid.field("email", "malformed", "x"), 422, "invalid"),
        (errors.Unpublishable([errors.Problem("steps.a", "unreachable", "x")]), 422, "unpublishable"),
        (errors.TooManyAttempts("x", timedelta(seconds=61.5)), 429, "too_many_attempts"),
        (errors.Unavailable("x"), 503, "unavailable"),
        (RPCError("x", RPCStatusCode.UNAVAILABLE, b""), 503, "unavailable"),
        (RPCError("x", RPCStatusCode.DEADLINE_EXCEEDED, b""), 503, "unavailable"),
        (RPCError("x", RPCStatusCode.INVALID_ARGUMENT, b""), 500, "unexpected"),
        (RuntimeError("x"), 500, "unexpected"),
    ],
)
def test_every_error_has_one_status_and_code(error: Exception, status: int, code: str) -> None:
    found = answer(error)
    assert (found.status_code, found.media_type) == (status, PROBLEM)
    assert f'"type":"urn:leadstats:error:{code}"' in bytes(found.body).decode()


def test_every_error_class_of_the_domain_has_a_status_of_its_own() -> None:
    def every(kind: type[errors.LeadStatsError]) -> list[type[errors.LeadStatsError]]:
        return [kind, *(one for child in kind.__subclasses__() for one in every(child))]

    from api.errors import _STATUS

    for kind in every(errors.LeadStatsError)[1:]:
        assert any(base in _STATUS for base in kind.__mro__), kind


def test_who_must_wait_is_told_how_long() -> None:
    assert answer(errors.TooManyAttempts("x", timedelta(seconds=61.5))).headers["retry-after"] == "62"
    assert answer(errors.Unavailable("x")).headers["retry-after"] == "5"


def test_paths_are_written_as_json_is_read() -> None:
    assert json_path(("steps", 3, "topic")) == "steps[3].topic"
    assert json_path(["variables", "Order", "[key]"]) == "variables.Order"


async def test_a_broken_field_is_named_by_its_path_and_never_repeated(alice: Person) -> None:
    found = await alice.client.post("/v1/api-keys", json={"name": "x", "scopes": ["a", 7, "s3cr3t" * 20]})
    assert (found.status_code, found.headers["content-type"]) == (422, PROBLEM)
    assert [error["path"] for error in found.json()["errors"]] == ["scopes[1]", "scopes[2]"]
    assert "s3cr3t" not in found.text


async def test_the_form_of_a_field_is_told_in_words(alice: Person) -> None:
    [topic] = (await alice.client.post("/v1/topics", json={"key": "News!", "name": "News"})).json()["errors"]
    form = "Use 1 to 63 lower-case letters, digits, - and _, beginning with a letter or a digit."
    assert topic == {"path": "key", "code": "string_pattern_mismatch", "message": form}
    started = await alice.client.post(f"/v1/journeys/{uuid4()}/runs", json={"contact_id": str(uuid4()), "variables": {"Order": 1}})
    form = "Use 1 to 63 lower-case letters, digits and _, beginning with a letter."
    assert started.json()["errors"] == [{"path": "variables.Order", "code": "string_pattern_mismatch", "message": form}]


async def test_a_body_that_is_no_json_or_no_object_is_named_as_the_body(alice: Person) -> None:
    for content in (b"{", b"7"):
        answer = await alice.client.post("/v1/topics", content=content, headers={"content-type": "application/json"})
        assert (answer.status_code, [error["path"] for error in answer.json()["errors"]]) == (422, ["body"])


async def test_what_is_no_route_or_method_is_a_problem_too(client: AsyncClient) -> None:
    missing, wrong = await client.get("/v1/nothing"), await client.put("/v1/api-keys")
    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_route")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["content-type"]) == (405, "method_not_allowed", PROBLEM)
    assert wrong.headers["allow"]


async def test_every_answer_carries_a_request_id(client: AsyncClient, alice: Person) -> None:
    assert len((await client.get("/v1/nothing")).headers["x-request-id"]) == 32
    mine = await alice.client.get("/v1/organization", headers={"X-Request-Id": "order-1042.a"})
    assert mine.headers["x-request-id"] == "order-1042.a"
    forged = await alice.client.get("/v1/organization", headers={"X-Request-Id": "a b" * 8})
    assert forged.headers["x-request-id"] != "a b" * 8


async def test_a_mistake_of_ours_is_logged_by_id_without_its_text(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/v1/trial")
    async def fail() -> None:
        raise ValueError("alice@example.com cannot be parsed")

    with caplog.at_level(logging.ERROR):
        async with anonymous(app) as client:
            found = await client.get("/v1/trial")
    assert (found.status_code, found.json()["code"]) == (500, "unexpected")
    assert "alice" not in found.text and "alice" not in caplog.text
    assert "ValueError" in caplog.text
    assert found.json()["detail"].rpartition(" ")[2].rstrip(".") in caplog.text


async def test_a_database_that_is_away_is_503(services: Services) -> None:
    away = Database(f"postgresql://leadstats_app:x@127.0.0.1:{free_port()}/leadstats")
    app = create_app(Services(services.settings, away, services.temporal))
    async with anonymous(app, Authorization="Bearer ls_1_2") as client:
        found = await client.get("/v1/organization")
        health = await client.get("/v1/health")
    await away.close()
    assert (found.status_code, found.headers["retry-after"]) == (503, "5")
    assert (health.status_code, health.json()["database"]) == (503, False)


async def test_a_workflow_service_that_is_away_is_503(app: FastAPI, services: Services, client: AsyncClient) -> None:
    @app.get("/v1/trial")
    async def start() -> None:
        await services.temporal.start_workflow("Nothing", id="x", task_queue="x")

    found = await client.get("/v1/trial")
    assert (found.status_code, found.headers["retry-after"]) == (503, "5")
    health = await client.get("/v1/health")
    assert (health.status_code, health.json()["database"], health.json()["temporal"]) == (503, True, False)


async def test_a_unique_name_taken_meanwhile_is_409(app: FastAPI, client: AsyncClient, database: Database, alice: Person) -> None:
    @app.get("/v1/trial")
    async def take() -> None:
        async with database.organization(alice.organization_id) as session:
            for _ in range(2):
                await session.execute(
                    text("INSERT INTO topics (id, organization_id, key, name, description) VALUES (gen_random_uuid(), :o, 'k', '', '')"),
                    {"o": alice.organization_id},
                )

    assert (await client.get("/v1/trial")).json()["code"] == "taken"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (rb'{"name": "a\u0000b", "scopes": ["organization.read"]}', "name"),
        (rb'{"name": "a\ud800", "scopes": ["organization.read"]}', "name"),
        (rb'{"name": "a", "scopes": NaN}', "scopes"),
        (rb'{"name": "a", "scopes": [1, -Infinity], "more": NaN}', "scopes[1]"),
        (rb'{"name": {"first": 1, "a\u0000b": 2}}', "name"),
        (rb'{"a\udfff": 1}', "body"),
        (rb'[{"name": "a"}, {"name": "\u0000"}]', "[1].name"),
        (rb'"\u0000"', "body"),
    ],
)
async def test_what_cannot_be_stored_is_refused_before_anything_reads_it(alice: Person, body: bytes, path: str) -> None:
    found = await alice.client.post("/v1/api-keys", content=body, headers={"Content-Type": "application/json"})
    [problem] = found.json()["errors"]
    assert (found.status_code, problem["code"], problem["path"]) == (422, "unstorable", path)


@pytest.mark.parametrize(
    ("body", "code"),
    [(b'{"name":' + b"9" * 5000 + b"}", "number_too_long"), (b'{"name": "\xff"}', "not_utf8"), (b"[" * 100_000, "too_deep")],
)
async def test_a_body_that_cannot_be_read_says_what_is_wrong_with_it(alice: Person, body: bytes, code: str) -> None:
    found = await alice.client.post("/v1/api-keys", content=body, headers={"Content-Type": "application/json"})
    assert (found.status_code, [(each["path"], each["code"]) for each in found.json()["errors"]]) == (400, [("body", code)])


@pytest.mark.parametrize("name", [r"a\\u0000b", "NaN", r"\ud83d\ude00", "Infinity"])
async def test_what_only_looks_like_it_is_accepted(alice: Person, name: str) -> None:
    body = b'{"name": "%s", "scopes": ["organization.read"]}' % name.encode()
    found = await alice.client.post("/v1/api-keys", content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 201, found.text


async def test_a_nul_in_the_address_is_refused(alice: Person) -> None:
    assert (await alice.client.get("/v1/audit-entries?subject_id=a%00b")).status_code == 422
    assert (await alice.client.delete("/v1/api-keys/a%00b")).status_code == 422


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'{"name":' + b"9" * 5000 + b"}", b"null", b'"text"'])
async def test_nonsense_is_refused(alice: Person, body: bytes) -> None:
    found = await alice.client.post("/v1/api-keys", content=body, headers={"Content-Type": "application/json"})
    assert (found.status_code in (400, 422), found.headers["content-type"]) == (True, PROBLEM)
