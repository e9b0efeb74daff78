"""How long the database may take for somebody who waits for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from models.domain.errors import Unavailable
from models.store.faults import timed_out
from models.store.session import OrganizationSession

NARROWER = "Ask about fewer, by a narrower filter or segment, or repeat when the database is less busy."


@asynccontextmanager
async def within(session: OrganizationSession, limit: timedelta, way_out: str = NARROWER) -> AsyncIterator[None]:
    """No statement in here takes longer than `limit`, nor a later one of the transaction.

    Raises:
        Unavailable: one would have; `way_out` says what to do then. The transaction is lost.
    """
    await session.execute(text(f"SET LOCAL statement_timeout = {limit // timedelta(milliseconds=1)}"))
    try:
        yield
    except DBAPIError as error:
        if not timed_out(error):
            raise
        took = f"{limit.total_seconds():g} seconds"
        raise Unavailable(f"This took longer than {took} and was given up. {way_out}") from None
