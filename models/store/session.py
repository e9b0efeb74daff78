"""The one door to the database: sessions scoped to one organization.

PostgreSQL's row-level security is the second wall: each transaction sets `leadstats.organization_id` for itself
(`SET LOCAL`), and the role of the application's connections cannot bypass the policies.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from uuid import UUID

import psycopg
from sqlalchemy import event, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

# A connection lost without a word (a vanished host, a firewall that forgot it) is given up within half a minute: idle, by
# keepalives; with something sent and not acknowledged, after `tcp_user_timeout` milliseconds. The others are seconds.
_NOTICES_A_LOST_SERVER: Final = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


class OrganizationSession(AsyncSession):
    """One transaction of one organization. Rows of others do not exist for it."""

    organization_id: UUID

    async def driver(self) -> psycopg.AsyncConnection[Any]:
        """The psycopg connection under this transaction, for COPY."""
        raw = await (await self.connection()).get_raw_connection()
        return cast("psycopg.AsyncConnection[Any]", raw.driver_connection)


class Database:
    """The application's pool of at most `pool_size` connections, opened as they are needed and then kept. Built at a composition root,
    closed by it."""

    def __init__(self, url: str, pool_size: int = 20) -> None:
        address = make_url(url).set(drivername="postgresql+psycopg")
        self.engine: AsyncEngine = create_async_engine(
            address,
            pool_size=pool_size,
            max_overflow=0,  # those end when they are given back: a new one, each time, costs more than what it is wanted for
            pool_pre_ping=True,
            pool_recycle=1800,
            hide_parameters=True,
            connect_args={name: value for name, value in _NOTICES_A_LOST_SERVER.items() if name not in address.query},
        )
        event.listen(self.engine.sync_engine, "handle_error", _withhold_values)

    @asynccontextmanager
    async def organization(self, organization_id: UUID) -> AsyncIterator[OrganizationSession]:
        """One transaction scoped to `organization_id`: committed when the block ends, rolled back when it raises."""
        async with OrganizationSession(self.engine, expire_on_commit=False) as session:
            session.organization_id = organization_id
            async with session.begin():
                await session.execute(
                    text("SELECT set_config('leadstats.organization_id', :organization_id, true)"),
                    {"organization_id": str(organization_id)},
                )
                yield session

    @asynccontextmanager
    async def outside(self) -> AsyncIterator[AsyncSession]:
        """One transaction in no organization: sees no organization's rows, and may only call the
        functions of `models/migrations/versions/0001_security.sql` that answer who somebody is."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    async def close(self) -> None:
        await self.engine.dispose()


def _withhold_values(context: ExceptionContext) -> None:
    """PostgreSQL quotes values in its messages (a malformed one, the row that breaks a rule): only what is ours is kept.

    `error.orig.sqlstate` and `error.orig.diag` still say everything to code that asks.
    """
    origin, wrapped = context.original_exception, context.sqlalchemy_exception
    if not isinstance(origin, psycopg.Error) or origin.sqlstate is None:
        return
    message = _without_values(origin)
    origin.args = (message,)
    if isinstance(wrapped, DBAPIError):
        wrapped.args = (f"({type(origin).__module__}.{type(origin).__qualname__}) {message}",)


def _without_values(error: psycopg.Error) -> str:
    """The primary message without its quotation for data exceptions (class 22), with the constraint's name otherwise."""
    primary, constraint = error.diag.message_primary or "", error.diag.constraint_name
    if (error.sqlstate or "").startswith("22"):
        primary = primary.partition('"')[0].strip()
    return f"{primary} [{error.sqlstate}{f', {constraint}' if constraint else ''}]"
