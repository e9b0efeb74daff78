import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI, Request, Response
from httpx2 import AsyncClient
from sqlalchemy import text

from api import bodies
from models.domain.errors import Unavailable
from models.store import idempotency
from models.store.session import Database
from tests.api.conftest import Person

NEW = {"name": "Billing", "scopes": ["organization.read"]}


async def key_count(person: Person) -> int:
    return len((await person.client.get("/v1/api-keys")).json()["items"])


async def test_the_same_key_gives_the_same_answer_and_no_second_thing(alice: Person) -> None:
    before = await key_count(alice)
    headers = {"Idempotency-Key": "one"}
    first = await alice.client.post("/v1/api-keys", json=NEW, headers=headers)
    second = await alice.client.post("/v1/api-keys", json=NEW, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert await key_count(alice) == before + 1


async def test_without_a_key_there_are_two(alice: Person) -> None:
    before = await key_count(alice)
    for _ in range(2):
        await alice.client.post("/v1/api-keys", json=NEW)
    assert await key_count(alice) == before + 2


async def test_a_key_for_another_request_is_refused(alice: Person) -> None:
    headers = {"Idempotency-Key": "two"}
    await alice.client.post("/v1/api-keys", json=NEW, headers=headers)
    for request in (
        alice.client.post("/v1/api-keys", json=NEW | {"name": "Other"}, headers=headers),
        alice.client.post("/v1/api-keys?x=1", json=NEW, headers=headers),
        alice.client.post("/v1/members", json=NEW, headers=headers),
    ):
        answer = await request
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_refused_request_may_be_corrected_under_its_key(alice: Person) -> None:
    headers = {"Idempotency-Key": "three"}
    refused = [
        await alice.client.post("/v1/api-keys", json={}, headers=headers),
        await alice.client.post("/v1/api-keys", content=b"{", headers=headers | {"content-type": "application/json"}),
        await alice.client.post(f"/v1/templates/{uuid4()}/versions", json={"subject": "a", "text": "b"}, headers=headers),
    ]
    assert [answer.status_code for answer in refused] == [422, 422, 404]
    assert not any("idempotent-replayed" in answer.headers for answer in refused)
    assert "idempotency_key_reused" not in {answer.json()["code"] for answer in refused}
    assert (await alice.client.post("/v1/api-keys", json=NEW, headers=headers)).status_code == 201


async def test_after_a_conflict_the_key_is_free(alice: Person) -> None:
    topic, headers = {"key": "news", "name": "News"}, {"Idempotency-Key": "conflict"}
    await alice.client.post("/v1/topics", json=topic)
    refused = [await alice.client.post("/v1/topics", json=topic, headers=headers) for _ in range(2)]
    assert [(answer.status_code, "idempotent-replayed" in answer.headers) for answer in refused] == [(409, False), (409, False)]
    assert (await alice.client.post("/v1/topics", json=topic | {"key": "other"}, headers=headers)).status_code == 201


async def test_keys_of_others_do_not_meet(alice: Person, charlie: Person) -> None:
    headers = {"Idempotency-Key": "four"}
    mine = await alice.client.post("/v1/api-keys", json=NEW, headers=headers)
    theirs = await charlie.client.post("/v1/api-keys", json=NEW, headers=headers)
    assert theirs.status_code == 201
    assert mine.json()["secret"] != theirs.json()["secret"]


async def test_requests_at_the_same_time_make_one_thing(alice: Person) -> None:
    before = await key_count(alice)
    headers = {"Idempotency-Key": "five"}
    answers = await asyncio.gather(*(alice.client.post("/v1/api-keys", json=NEW, headers=headers) for _ in range(6)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_key_in_use"}
    assert await key_count(alice) == before + 1


async def test_a_secret_in_an_answer_is_not_readable_in_the_table(alice: Person, database: Database) -> None:
    headers = {"Idempotency-Key": "six"}
    secret = (await alice.client.post("/v1/api-keys", json=NEW, headers=headers)).json()["secret"]
    async with database.organization(alice.organization_id) as session:
        body: bytes = (await session.execute(text("SELECT body FROM idempotency_keys WHERE key = 'six'"))).scalar_one()
    assert secret.encode() not in body


async def test_a_permission_refusal_is_not_kept(bob: Person, database: Database) -> None:
    headers = {"Idempotency-Key": "seven"}
    assert (await bob.client.post("/v1/api-keys", json=NEW, headers=headers)).status_code == 403
    async with database.organization(bob.organization_id) as session:
        await session.execute(text("UPDATE memberships SET role = 'admin' WHERE user_id = :id"), {"id": bob.user_id})
        await session.execute(
            text("UPDATE api_keys SET scopes = array_append(scopes, 'api_keys.write') WHERE id = :id"), {"id": bob.api_key_id}
        )
    assert (await bob.client.post("/v1/api-keys", json=NEW, headers=headers)).status_code == 201


@pytest.mark.parametrize("key", ["", "with space", "x" * 201])
async def test_a_malformed_key_is_refused(alice: Person, key: str) -> None:
    answer = await alice.client.post("/v1/api-keys", json=NEW, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "header.Idempotency-Key")


async def test_a_stranger_reserves_nothing(client: AsyncClient) -> None:
    answer = await client.post("/v1/api-keys", json=NEW, headers={"Idempotency-Key": "eight"})
    assert answer.status_code == 401


# --- A route that does as it is told, to see what is kept and what is not. --------------------------------------------


@pytest.fixture
def route(app: FastAPI) -> Callable[[Callable[[Request], Awaitable[Response]]], None]:
    def install(behave: Callable[[Request], Awaitable[Response]]) -> None:
        app.post("/v1/trial")(_with_request(behave))

    return install


def _with_request(behave: Callable[[Request], Awaitable[Response]]) -> Any:
    async def trial(request: Request) -> Response:
        return await behave(request)

    return trial


async def test_a_server_error_may_be_repeated(alice: Person, route: Any) -> None:
    calls = 0

    async def fail_once(request: Request) -> Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unavailable("not now")
        if calls == 2:
            raise RuntimeError("a mistake of ours")
        return Response("done", 202)

    route(fail_once)
    headers = {"Idempotency-Key": "nine"}
    assert [(await alice.client.post("/v1/trial", headers=headers)).status_code for _ in range(4)] == [503, 500, 202, 202]
    assert calls == 3


@pytest.mark.parametrize("status", [400, 409, 412, 418, 423, 428])
async def test_no_refusal_is_kept(alice: Person, route: Any, status: int) -> None:
    statuses = [status, 201]

    async def refuse_once(request: Request) -> Response:
        return Response(status_code=statuses.pop(0))

    route(refuse_once)
    headers = {"Idempotency-Key": uuid4().hex}
    assert [(await alice.client.post("/v1/trial", headers=headers)).status_code for _ in range(3)] == [status, 201, 201]


async def test_another_if_match_is_another_request(alice: Person, route: Any) -> None:
    async def save(request: Request) -> Response:
        return Response(request.headers.get("If-Match"), 201)

    route(save)
    key = {"Idempotency-Key": uuid4().hex}
    first, same = [await alice.client.post("/v1/trial", headers=key | {"If-Match": '"1"'}) for _ in range(2)]
    assert (first.text, same.text) == ('"1"', '"1"')
    for other in ({"If-Match": '"2"'}, {}):
        assert (await alice.client.post("/v1/trial", headers=key | other)).json()["code"] == "idempotency_key_reused"


async def test_while_the_first_runs_the_second_is_told(alice: Person, route: Any) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait(request: Request) -> Response:
        entered.set()
        await leave.wait()
        return Response(status_code=204)

    route(wait)
    headers = {"Idempotency-Key": "ten"}
    first = asyncio.create_task(alice.client.post("/v1/trial", headers=headers))
    await entered.wait()
    second = await alice.client.post("/v1/trial", headers=headers)
    assert (second.status_code, second.json()["code"]) == (409, "idempotency_key_in_use")
    leave.set()
    assert (await first).status_code == 204
    assert (await alice.client.post("/v1/trial", headers=headers)).status_code == 204


async def _age(database: Database, person: Person, interval: str) -> None:
    async with database.organization(person.organization_id) as session:
        await session.execute(text("UPDATE idempotency_keys SET created_at = now() - CAST(:interval AS interval)"), {"interval": interval})


async def test_a_key_whose_request_died_is_free_after_some_minutes(alice: Person, database: Database) -> None:
    async with database.organization(alice.organization_id) as session:
        await idempotency.reserve(session, alice.api_key_id, "eleven", b"hash of a request that died")
    headers = {"Idempotency-Key": "eleven"}
    await _age(database, alice, "4 minutes")
    assert (await alice.client.post("/v1/api-keys", json=NEW, headers=headers)).status_code == 422
    await _age(database, alice, "6 minutes")
    assert (await alice.client.post("/v1/api-keys", json=NEW, headers=headers)).status_code == 201


async def test_an_answer_is_forgotten_after_a_day(alice: Person, database: Database) -> None:
    headers = {"Idempotency-Key": "twelve"}
    await alice.client.post("/v1/api-keys", json=NEW, headers=headers)
    await alice.client.post("/v1/api-keys", json=NEW, headers={"Idempotency-Key": "thirteen"})
    await _age(database, alice, "25 hours")
    again = await alice.client.post("/v1/api-keys", json=NEW | {"name": "Other"}, headers=headers)
    assert (again.status_code, "idempotent-replayed" in again.headers) == (201, False)
    async with database.organization(alice.organization_id) as session:
        assert list((await session.execute(text("SELECT key FROM idempotency_keys"))).scalars()) == ["twelve"]


async def test_a_file_sent_again_is_the_same_request(alice: Person, route: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try of a client draws another multipart boundary."""
    monkeypatch.setattr(bodies, "UPLOADS", {("POST", "/v1/trial")})
    sizes: list[int] = []

    async def read(request: Request) -> Response:
        async with request.form() as form:
            upload: Any = form["file"]
            sizes.append(len(await upload.read()))
        return Response("read", 202)

    route(read)
    content = b"email,plan\n" + b"alice@example.com,gold\n" * 400_000  # 9 MB: through the disk
    headers = {"Idempotency-Key": uuid4().hex}
    answers = [await alice.client.post("/v1/trial", files={"file": ("a.csv", content)}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert sizes == [len(content)]
    changed = await alice.client.post("/v1/trial", files={"file": ("a.csv", content[:-2] + b"x\n")}, headers=headers)
    assert changed.status_code == 422
