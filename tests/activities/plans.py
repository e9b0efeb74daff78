"""How PostgreSQL finds what a statement asks for, as the application's role, beneath row-level security."""

from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import TextClause, text

from tests.activities.world import World


async def analyze(world: World, table: str) -> None:
    """The planner knows what is in the table."""
    assert world.settings.owner_database_url is not None
    async with await psycopg.AsyncConnection.connect(world.settings.owner_database_url.get_secret_value(), autocommit=True) as owner:
        await owner.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table)))


async def index_conditions(world: World, statement: TextClause, **values: Any) -> list[str]:
    """What it looks for in indexes: it reads no table through that it need not, however few rows there are."""
    async with world.database.organization(world.organization_id) as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        explained = text(f"EXPLAIN {statement.text}")
        plan = (await session.scalars(explained, {"o": world.organization_id, **values})).all()
    return [line for line in plan if "Index Cond" in line]
