import asyncio
from uuid import UUID

import pytest
import pytest_asyncio

from models.domain.audit import GENESIS, Actor, NewEntry
from models.store import audit
from models.store.session import Database
from models.tables.access import Organization
from models.tables.base import new_id


@pytest_asyncio.fixture(loop_scope="session")
async def organization(database: Database) -> UUID:
    identifier = new_id()
    async with database.organization(identifier) as session:
        session.add(Organization(id=identifier, name="Acme", slug=str(identifier)))
    return identifier


def entries(count: int) -> list[NewEntry]:
    return [
        NewEntry(
            "delivery.accepted", "delivery", str(new_id()), Actor("api_key", new_id()), {"step": "welcome", "attempt": n, "run": new_id()}
        )
        for n in range(count)
    ]


async def test_entries_are_chained_in_order(database: Database, organization: UUID) -> None:
    for count in (1, 3, 0, 2):
        async with database.organization(organization) as session:
            await audit.append(session, entries(count))
    async with database.organization(organization) as session:
        chain = await audit.list_entries(session, audit.EntryFilter(), 100)
        end = await audit.head(session)
    assert [entry.sequence for entry in chain] == [1, 2, 3, 4, 5, 6]
    assert [entry.previous_hash for entry in chain] == [GENESIS, *(entry.hash for entry in chain[:-1])]
    assert end == audit.Head(6, chain[-1].hash)


async def test_a_rolled_back_transaction_leaves_no_entry(database: Database, organization: UUID) -> None:
    with pytest.raises(RuntimeError):
        async with database.organization(organization) as session:
            await audit.append(session, entries(2))
            raise RuntimeError
    async with database.organization(organization) as session:
        assert (await audit.head(session)).sequence == 0


async def test_concurrent_appends_make_one_chain(database: Database, organization: UUID) -> None:
    async def write() -> None:
        async with database.organization(organization) as session:
            await audit.append(session, entries(5))

    await asyncio.gather(*(write() for _ in range(8)))
    async with database.organization(organization) as session:
        chain = await audit.list_entries(session, audit.EntryFilter(), 100)
    assert [entry.sequence for entry in chain] == list(range(1, 41))
    assert [entry.previous_hash for entry in chain[1:]] == [entry.hash for entry in chain[:-1]]
