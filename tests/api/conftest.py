"""The application in this process, and the cast logged in to it.

Alice owns Acme, Bob views there, Charlie owns Crow. `temporal` is a client that connects to nothing: a test that needs
workflows overrides the fixture `temporal` in its own file or folder.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest_asyncio
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from temporalio.client import Client

from api.auth.passwords import hash_password
from api.auth.tokens import new_key
from api.dependencies import Services
from deploy.postgres import free_port
from models.domain.permissions import ROLE_PERMISSIONS, Role
from models.settings import Settings
from models.store import access
from models.store.session import Database
from models.tables.access import ApiKey
from models.tables.base import new_id
from tests.application import application
from workflows.connection import payload_keys
from workflows.payloads import plugin

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Person:
    """Somebody with an API key; `client` sends it. `client` goes to `http://test`, paths start with `/v1`."""

    name: str
    email: str
    role: str
    organization_id: UUID
    slug: str
    user_id: UUID
    api_key_id: UUID
    api_key: str
    client: AsyncClient

    @property
    def password(self) -> str:
        return PASSWORD


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal(settings: Settings) -> Client:
    """Connects to nothing, but writes its payloads as the product does."""
    return await Client.connect(f"127.0.0.1:{free_port()}", plugins=[plugin(payload_keys(settings))], lazy=True)


@pytest_asyncio.fixture(loop_scope="session")
async def services(settings: Settings, database: Database, temporal: Client) -> Services:
    return Services(settings=settings, database=database, temporal=temporal)


@pytest_asyncio.fixture(loop_scope="session")
async def app(services: Services) -> FastAPI:
    return application(services)


def anonymous(app: FastAPI, **headers: str) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app=app), base_url="http://test", headers=headers)


@pytest_asyncio.fixture(loop_scope="session")
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Nobody in particular."""
    async with anonymous(app) as found:
        yield found


async def enroll(database: Database, app: FastAPI, name: str, role: Role, organization_id: UUID, slug: str, password_hash: str) -> Person:
    """A new member of an organization, with an API key that has everything the role allows."""
    key, user_id, email = new_key(), new_id(), f"{name.lower()}-{organization_id.hex[-12:]}@example.com"
    row = ApiKey(
        organization_id=organization_id,
        name=name,
        prefix=key.prefix,
        secret_hash=key.secret_hash,
        scopes=sorted(ROLE_PERMISSIONS[role]),
        created_by=user_id,
    )
    async with database.organization(organization_id) as session:
        await access.insert_user(session, user_id, email, password_hash)
        await access.insert_membership(session, user_id, role, name)
        await access.insert_api_key(session, row)
    client = anonymous(app, Authorization=f"Bearer {key.secret}")
    return Person(name, email, role, organization_id, slug, user_id, row.id, key.secret, client)


async def found(database: Database, name: str) -> tuple[UUID, str]:
    """A new organization: its id and slug."""
    organization_id = new_id()
    slug = f"{name.lower()}-{organization_id.hex[-12:]}"
    async with database.organization(organization_id) as session:
        await access.insert_organization(session, name, slug)
    return organization_id, slug


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def password_hash() -> str:
    return await hash_password(PASSWORD)


@dataclass(frozen=True)
class Cast:
    alice: Person
    bob: Person
    charlie: Person


@pytest_asyncio.fixture(loop_scope="session")
async def cast(database: Database, app: FastAPI, password_hash: str) -> AsyncIterator[Cast]:
    """New organizations for every test, so that lists hold only what the test made."""
    acme, acme_slug = await found(database, "Acme")
    crow, crow_slug = await found(database, "Crow")
    people = Cast(
        await enroll(database, app, "Alice", Role.OWNER, acme, acme_slug, password_hash),
        await enroll(database, app, "Bob", Role.VIEWER, acme, acme_slug, password_hash),
        await enroll(database, app, "Charlie", Role.OWNER, crow, crow_slug, password_hash),
    )
    yield people
    for person in (people.alice, people.bob, people.charlie):
        await person.client.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def alice(cast: Cast) -> Person:
    """Owner of Acme."""
    return cast.alice


@pytest_asyncio.fixture(loop_scope="session")
async def bob(cast: Cast) -> Person:
    """Viewer at Acme."""
    return cast.bob


@pytest_asyncio.fixture(loop_scope="session")
async def charlie(cast: Cast) -> Person:
    """Owner of Crow: a stranger to Acme."""
    return cast.charlie
