"""The application against its own description, over HTTP: no server error, and no status, content type, header or body
that the OpenAPI does not name. Most ids in paths exist, so that requests get past "not found".

`SCHEMATHESIS_EXAMPLES=200` hunts longer than an ordinary run.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from schemathesis import Case, HookContext
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.auth.passwords import hash_password
from api.dependencies import Services
from deploy.postgres import free_port
from models.domain.permissions import Role
from models.settings import Settings
from models.store.session import Database
from tests.api import world as worlds
from tests.api.conftest import PASSWORD, enroll, found
from tests.api.rest.fake_temporal import FakeTemporal

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "5"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
schema = schemathesis.openapi.from_dict(create_app(None).openapi())  # type: ignore[arg-type]  # no route is called
IDS: dict[str, str] = {}  # what exists, by the names of path parameters; filled by the fixture


@schema.hook
def map_path_parameters(context: HookContext, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Three of four ids exist."""
    for name, value in (path_parameters or {}).items():
        if name in IDS and crc32(str(value).encode()) % 4:  # `hash` of a text is another one in each process
            path_parameters[name] = IDS[name]  # type: ignore[index]
    return path_parameters


class ReachableTemporal(FakeTemporal):
    """`GET /v1/health` asks the client's service whether it is there."""

    @property
    def service_client(self) -> "ReachableTemporal":
        return self

    async def check_health(self, **options: Any) -> bool:
        return True


@dataclass(frozen=True)
class Served:
    """`session` keeps its connection: a new one for each request takes longer than the request."""

    address: str
    session: requests.Session


@pytest.fixture(scope="module")
def served(settings: Settings) -> Iterator[Served]:
    """The application in a thread, with an event loop and a database pool of its own."""
    port, ready, stop = free_port(), threading.Event(), threading.Event()
    keys: list[str] = []

    async def serve() -> None:
        database = Database(settings.database_url.get_secret_value())
        temporal: Any = ReachableTemporal()
        app = create_app(Services(settings, database, temporal))
        keys.append(await _populate(app, database, settings))
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
        serving = asyncio.create_task(server.serve())
        ready.set()
        await asyncio.to_thread(stop.wait)
        server.should_exit = True
        await serving
        await database.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {keys[0]}"
        yield Served(f"http://127.0.0.1:{port}", session)
    stop.set()
    thread.join(20)


async def _populate(app: Any, database: Database, settings: Settings) -> str:
    organization_id, slug = await found(database, "Acme")
    password_hash = await hash_password(PASSWORD)
    alice = await enroll(database, app, "Alice", Role.OWNER, organization_id, slug, password_hash)
    bob = await enroll(database, app, "Bob", Role.VIEWER, organization_id, slug, password_hash)
    world = await worlds.build(database, settings, alice, bob)
    IDS.update(world.ids | {"version": "1", "number": "1", "revision": "1"})
    return alice.api_key


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_the_application_does_as_described(case: "Case[Any]", served: Served) -> None:
    case.headers.pop("Authorization", None)  # the session's is a real one
    case.cookies.clear()
    case.call_and_validate(base_url=served.address, session=served.session, checks=CHECKS)
