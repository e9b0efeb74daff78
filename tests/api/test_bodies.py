from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from httpx2 import AsyncClient, Response

from api import bodies
from tests.api.conftest import Person

PROBLEM = "application/problem+json"
MEBIBYTE = 1024**2
MULTIPART = "multipart/form-data; boundary=x"
KINDS = ["application/json", "text/csv", "application/octet-stream", "text/tab-separated-values", MULTIPART]


class Sending:
    """A body of `size_bytes`; `taken_bytes` is how much of it the application has asked for."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes, self.taken_bytes = size_bytes, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.taken_bytes < self.size_bytes:
            self.taken_bytes += 64 * 1024
            yield b"x" * 64 * 1024


async def send(client: AsyncClient, path: str, body: Any, kind: str) -> Response:
    return await client.post(path, content=body, headers={"Content-Type": kind})


@pytest.fixture
def read_all(app: FastAPI) -> None:
    @app.post("/v1/trial")
    async def read(request: Request) -> int:
        return len(await request.body())


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_makes_a_route_keep_a_large_body_in_memory(client: AsyncClient, kind: str) -> None:
    body = Sending(200 * MEBIBYTE)
    refused = await send(client, "/v1/session", body, kind)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert body.taken_bytes <= bodies.JSON_LIMIT_BYTES + MEBIBYTE


async def test_a_file_of_a_stranger_is_refused_before_it_is_read(client: AsyncClient) -> None:
    body = Sending(200 * MEBIBYTE)
    refused = await send(client, "/v1/contact-imports", body, MULTIPART)
    assert (refused.status_code, refused.headers["content-type"]) == (401, PROBLEM)
    assert body.taken_bytes == 0


@pytest.mark.parametrize("kind", ["text/csv", "application/x-www-form-urlencoded"])
async def test_what_is_no_form_with_a_file_is_not_read_as_one(alice: Person, kind: str) -> None:
    assert (await send(alice.client, "/v1/contact-imports", Sending(200 * MEBIBYTE), kind)).status_code == 413


@pytest.mark.usefixtures("read_all")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [bytes, Sending])
async def test_a_body_that_is_too_large_is_413(alice: Person, kind: str, given: Callable[[int], Any]) -> None:
    for size_bytes, status in ((bodies.JSON_LIMIT_BYTES, 200), (bodies.JSON_LIMIT_BYTES + MEBIBYTE, 413)):
        answer = await send(alice.client, "/v1/trial", given(size_bytes), kind)
        assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM


@pytest.mark.usefixtures("read_all")
@pytest.mark.parametrize("given", [bytes, Sending])
async def test_an_upload_has_a_limit_of_its_own(alice: Person, given: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "UPLOAD_LIMIT_BYTES", 3 * MEBIBYTE)
    monkeypatch.setattr(bodies, "UPLOADS", {("POST", "/v1/trial")})
    for size_bytes, status in ((3 * MEBIBYTE, 200), (4 * MEBIBYTE, 413)):
        answer = await send(alice.client, "/v1/trial", given(size_bytes), MULTIPART)
        assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM


async def test_a_file_may_be_larger_than_any_other_body(alice: Person) -> None:
    content = b"email,region\n" + b"a@example.com,x\n" * (bodies.JSON_LIMIT_BYTES // 16 + 1)
    taken = await alice.client.post("/v1/contact-imports", files={"file": ("people.csv", content)})
    assert (taken.status_code, taken.json()["created"]) == (201, 1)


@pytest.mark.parametrize("form", [{"files": [("file", ("a.csv", b"email\n"))] * 2}, {"data": {f"f{n}": "x" for n in range(20)}}])
async def test_a_form_of_many_parts_is_refused_before_they_fill_the_memory(alice: Person, form: dict[str, Any]) -> None:
    files = form.get("files") or {"file": ("a.csv", b"email\na@example.com\n")}
    refused = await alice.client.post("/v1/contact-imports", files=files, data=form.get("data"))
    assert (refused.status_code, refused.json()["code"]) == (400, "malformed")
