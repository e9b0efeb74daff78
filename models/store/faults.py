"""What the database's own errors mean to a caller, so that nobody else has to know its error classes."""

from enum import Enum

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from models.store.session import Database


class Fault(Enum):
    """UNAVAILABLE: try again later. TAKEN, REFERENCED: another row stands in the way. UNSTORABLE: text or a number
    that PostgreSQL cannot hold."""

    UNAVAILABLE = "unavailable"
    TAKEN = "taken"
    REFERENCED = "referenced"
    UNSTORABLE = "unstorable"


_CANCELLED = "57014"  # statement timeout
_BY_STATE = {
    "23505": Fault.TAKEN,
    "23503": Fault.REFERENCED,
    "22003": Fault.UNSTORABLE,  # numeric value out of range
    "22008": Fault.UNSTORABLE,  # a time out of range
    "22021": Fault.UNSTORABLE,  # not a character
    "22P05": Fault.UNSTORABLE,  # untranslatable character: NUL in JSON
    "40001": Fault.UNAVAILABLE,  # serialization failure
    "40P01": Fault.UNAVAILABLE,  # deadlock
    "53300": Fault.UNAVAILABLE,  # too many connections
    "55P03": Fault.UNAVAILABLE,  # lock not available
    _CANCELLED: Fault.UNAVAILABLE,
    "57P01": Fault.UNAVAILABLE,  # the server is being shut down
    "57P02": Fault.UNAVAILABLE,
    "57P03": Fault.UNAVAILABLE,  # the server is starting
}


def fault_of(error: BaseException) -> Fault | None:
    """What this error means, or None when it is a mistake of ours."""
    if isinstance(error, PoolTimeout):
        return Fault.UNAVAILABLE
    origin = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(origin, "sqlstate", None)
    if state in _BY_STATE:
        return _BY_STATE[state]
    if isinstance(origin, psycopg.DataError) and "NUL" in str(origin):
        return Fault.UNSTORABLE
    # Without a state the server never answered: it is away, or the connection broke.
    lost = state is None and isinstance(error, (OperationalError, InterfaceError, psycopg.OperationalError))
    return Fault.UNAVAILABLE if lost else None


def lies_in_the_rows(error: BaseException) -> bool:
    """Whether it comes again with the same rows, but not with others: what was written breaks a rule, or a mistake of ours. False:
    it lies with the database as it is now (away, read-only, full), and any rows would have met it."""
    if fault_of(error) is Fault.UNAVAILABLE or isinstance(error, OSError):
        return False
    origin = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(origin, (psycopg.DataError, psycopg.IntegrityError)) or not isinstance(origin, psycopg.Error)


def timed_out(error: DBAPIError) -> bool:
    """Whether the statement took longer than it was allowed to."""
    return getattr(error.orig, "sqlstate", None) == _CANCELLED


async def is_reachable(database: Database) -> bool:
    """Whether the database answers a question now."""
    try:
        async with database.outside() as session:
            await session.execute(text("SELECT 1"))
    except Exception as error:
        if fault_of(error) is Fault.UNAVAILABLE:
            return False
        raise
    return True
