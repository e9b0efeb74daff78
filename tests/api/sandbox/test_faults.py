"""Which scripted failures are in force, and when."""

import asyncio
from uuid import UUID

from api.sandbox.faults import IN_FORCE_SECONDS, Faults
from models.store import sandbox
from models.store.session import Database
from tests.inbox import new_organization

FAULT = {"phase": "data", "action": "refuse", "code": None, "message": "", "delay_ms": None, "recipient": None, "remaining": None}


async def change(database: Database, organization_id: UUID, faults: bool) -> None:
    async with database.organization(organization_id) as session:
        await (sandbox.add_fault(session, FAULT) if faults else sandbox.clear_faults(session))


async def strike_together(faults: Faults, organization_id: UUID) -> list[bool]:
    return [fault is not None for fault in await asyncio.gather(*(faults.strike(organization_id, "data") for _ in range(5)))]


async def test_after_a_pause_nobody_is_judged_by_what_was_known_before_it(database: Database) -> None:
    """Messages that come together: only the first used to look, and the others were refused by a fault that was gone for long."""
    organization_id, faults = await new_organization(database), Faults(database)
    await change(database, organization_id, True)
    assert await strike_together(faults, organization_id) == [True] * 5
    await change(database, organization_id, False)
    await asyncio.sleep(IN_FORCE_SECONDS)
    assert await strike_together(faults, organization_id) == [False] * 5
    await change(database, organization_id, True)
    await asyncio.sleep(IN_FORCE_SECONDS)
    assert await strike_together(faults, organization_id) == [True] * 5


async def test_while_the_database_is_away_the_last_known_ones_are_in_force(database: Database) -> None:
    organization_id, away = await new_organization(database), Database("postgresql://nobody@127.0.0.1:1/nothing")
    await change(database, organization_id, True)
    faults = Faults(database)
    assert await strike_together(faults, organization_id) == [True] * 5
    faults._database = away
    await asyncio.sleep(IN_FORCE_SECONDS)
    assert await strike_together(faults, organization_id) == [True] * 5
    assert await strike_together(Faults(away), organization_id) == [False] * 5
