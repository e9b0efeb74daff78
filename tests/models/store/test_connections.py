import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from models.domain.errors import Conflict, NotFound
from models.secrets import SecretUnreadable
from models.store import connections
from models.store.connections import NewConnection
from models.store.session import Database
from tests.inbox import new_organization

KEY = b"k" * 32


def smtp(name: str = "Mail", **changes: object) -> NewConnection:
    values = {"name": name, "channel": "email", "provider": "smtp", "config": {"host": "h"}, "secret": "pass"} | changes
    return NewConnection(**values)  # type: ignore[arg-type]


async def make(database: Database, organization_id: UUID, **changes: object) -> UUID:
    async with database.organization(organization_id) as session:
        return await connections.create(session, smtp(**changes), KEY)  # type: ignore[arg-type]


async def test_the_secret_is_sealed_at_rest_and_opened_for_sending(database: Database) -> None:
    organization_id = await new_organization(database)
    identifier = await make(database, organization_id)
    async with database.organization(organization_id) as session:
        blob = await session.scalar(text("SELECT secret FROM connections WHERE id = :id"), {"id": identifier})
        loaded = await connections.load_for_sending(session, identifier, "email", KEY)
    assert blob is not None and b"pass" not in bytes(blob)
    assert loaded.secret == "pass" and "pass" not in repr(loaded)


async def test_a_secret_moved_to_another_connection_does_not_open(database: Database) -> None:
    organization_id = await new_organization(database)
    first, second = await make(database, organization_id), await make(database, organization_id, name="Other", secret="b")
    async with database.organization(organization_id) as session:
        await session.execute(
            text("UPDATE connections SET secret = (SELECT secret FROM connections WHERE id = :a) WHERE id = :b"), {"a": first, "b": second}
        )
        with pytest.raises(SecretUnreadable):
            await connections.load_for_sending(session, second, "email", KEY)


async def test_a_new_default_takes_over(database: Database) -> None:
    organization_id = await new_organization(database)
    first = await make(database, organization_id, is_default=True)
    async with database.organization(organization_id) as session:
        assert (await connections.load_for_sending(session, None, "email", KEY)).id == first
    second = await make(database, organization_id, name="Second", is_default=True)
    async with database.organization(organization_id) as session:
        assert (await connections.load_for_sending(session, None, "email", KEY)).id == second
        with pytest.raises(NotFound):
            await connections.load_for_sending(session, None, "sms", KEY)
        with pytest.raises(Conflict, match="default"):
            await connections.delete(session, await connections.get(session, second))


async def test_a_name_is_taken_once(database: Database) -> None:
    organization_id = await new_organization(database)
    await make(database, organization_id)
    with pytest.raises(Conflict):
        await make(database, organization_id)


async def test_another_organizations_connection_does_not_exist(database: Database) -> None:
    identifier = await make(database, await new_organization(database))
    async with database.organization(await new_organization(database)) as session:
        with pytest.raises(NotFound):
            await connections.load_for_sending(session, identifier, "email", KEY)


async def test_without_a_limit_every_slot_is_now(database: Database) -> None:
    organization_id = await new_organization(database)
    identifier = await make(database, organization_id)
    async with database.organization(organization_id) as session:
        slots = (await connections.reserve_slots(session, identifier, 5)).reserved
    assert len(set(slots)) == 1 and abs(slots[0] - datetime.now(UTC)) < timedelta(minutes=1)


async def test_two_workers_together_keep_the_rate(database: Database) -> None:
    organization_id = await new_organization(database)
    identifier = await make(database, organization_id, rate_per_second=50.0)

    async def worker() -> list[datetime]:
        slots: list[datetime] = []
        for _ in range(15):
            async with database.organization(organization_id) as session:
                slots += (await connections.reserve_slots(session, identifier, 10)).reserved
        return slots

    slots = sorted(slot for found in await asyncio.gather(worker(), worker()) for slot in found)
    assert len(slots) == 300
    for first, last in zip(slots, slots[101:], strict=False):
        # In any second: the rate, plus the second's worth that a pause may save up.
        assert last - first >= timedelta(seconds=0.99)
    # 300 messages at 50 a second, 50 of them at once. A slow machine lets slots pass, and takes longer.
    assert slots[-1] - slots[0] >= timedelta(seconds=4.7)


async def test_a_long_pause_saves_up_one_second_only(database: Database) -> None:
    organization_id = await new_organization(database)
    identifier = await make(database, organization_id, rate_per_second=10.0)
    async with database.organization(organization_id) as session:
        await session.execute(
            text("UPDATE connection_rates SET next_slot_at = now() - interval '1 day' WHERE connection_id = :id"), {"id": identifier}
        )
        slots = (await connections.reserve_slots(session, identifier, 20)).reserved
    assert sum(1 for slot in slots if slot == slots[0]) == 10
    assert slots[-1] - slots[0] == pytest.approx(timedelta(seconds=1), abs=timedelta(milliseconds=50))


async def test_a_slow_rate_has_no_burst(database: Database) -> None:
    organization_id = await new_organization(database)
    identifier = await make(database, organization_id, rate_per_second=0.5)
    async with database.organization(organization_id) as session:
        slots = (await connections.reserve_slots(session, identifier, 3)).reserved
    assert [round((slot - slots[0]).total_seconds()) for slot in slots] == [0, 2, 4]


async def test_slots_beyond_the_horizon_are_told_and_not_reserved(database: Database) -> None:
    organization_id = await new_organization(database)
    identifier = await make(database, organization_id, rate_per_second=0.05)
    horizon = timedelta(seconds=30)
    async with database.organization(organization_id) as session:
        near = await connections.reserve_slots(session, identifier, 3, horizon)
        far = [await connections.reserve_slots(session, identifier, count, horizon) for count in (1, 50)]
    assert [round(delay) for delay in near.delays] == [0, 20, 40] and far[0].delays == []
    assert [(list(slots.reserved), slots.next_at) for slots in far] == [([], near.next_at)] * 2
    assert near.next_at - near.reserved[-1] == timedelta(seconds=20)


async def test_broken_and_mended_are_told_once(database: Database) -> None:
    organization_id = await new_organization(database)
    identifier = await make(database, organization_id)
    async with database.organization(organization_id) as session:
        revision = (await connections.get(session, identifier)).updated_at
        assert await connections.mark_broken(session, identifier, "authentication_failed", revision)
        assert not await connections.mark_broken(session, identifier, "authentication_failed", revision)
        assert (await connections.load_for_sending(session, identifier, "email", KEY)).status == "broken"
        assert await connections.mark_active(session, identifier, revision)
        assert (await connections.get(session, identifier)).broken_reason is None


async def test_what_is_known_of_an_older_revision_changes_nothing(database: Database) -> None:
    organization_id = await new_organization(database)
    identifier = await make(database, organization_id)
    async with database.organization(organization_id) as session:
        stored = await connections.get(session, identifier)
        assert await connections.is_current(session, identifier, stored.updated_at)
        await connections.change(session, stored, smtp(), KEY)
        assert not await connections.is_current(session, identifier, stored.updated_at)
        assert not await connections.mark_broken(session, identifier, "authentication_failed", stored.updated_at)
        changed = await connections.get(session, identifier)
        assert changed.status == "active"
        assert await connections.mark_broken(session, identifier, "authentication_failed", changed.updated_at)
        assert not await connections.mark_active(session, identifier, stored.updated_at)
