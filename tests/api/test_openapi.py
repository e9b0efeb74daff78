import json
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app, openapi_document
from tests.api.conftest import Person

DOCUMENT = Path(__file__).parents[2] / "docs/openapi.json"
DESCRIBED = create_app(None).openapi()  # type: ignore[arg-type]  # no route is called
OPERATIONS = [
    pytest.param(path, method, operation, id=f"{method.upper()} {path}")
    for path, operations in DESCRIBED["paths"].items()
    for method, operation in operations.items()
]


def test_the_committed_description_is_in_step() -> None:
    assert DOCUMENT.read_text() == openapi_document(), "run: make openapi (.venv/bin/python -m api.app > docs/openapi.json)"


async def test_the_description_is_served(alice: Person) -> None:
    assert (await alice.client.get("/v1/openapi.json")).json() == json.loads(openapi_document())


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_an_operation_describes_its_refusals_as_problems(path: str, method: str, operation: dict[str, Any]) -> None:
    for status in ("400", "401", "403", "404", "422", "429"):
        response = operation["responses"][status]
        if "$ref" in response:
            response = DESCRIBED["components"]["responses"][response["$ref"].rpartition("/")[2]]
        assert list(response["content"]) == ["application/problem+json"]
    assert operation["summary"]


@pytest.mark.parametrize(("path", "method", "operation"), [one for one in OPERATIONS if one.values[1] == "post"])
def test_a_post_takes_an_idempotency_key(path: str, method: str, operation: dict[str, Any]) -> None:
    names = {parameter["name"].lower() for parameter in operation.get("parameters", ())}
    assert ("idempotency-key" in names) == (path != "/v1/session")


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_a_private_operation_says_how_to_log_in(path: str, method: str, operation: dict[str, Any]) -> None:
    public = (path, method) in (("/v1/session", "post"), ("/v1/health", "get"))
    assert bool(operation.get("security")) != public
