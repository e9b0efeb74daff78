"""Connections in use: the provider of each, how many messages it may have in the air in this process, and the one way to send by it."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from temporalio.exceptions import ApplicationError

from activities.contracts.sending import SendOutcome
from activities.providers.port import OutgoingMessage, Provider, ProviderAnswer
from models.domain.audit import NewEntry
from models.store import audit, connections
from models.store.connections import SendingConnection
from models.store.session import Database

log = logging.getLogger(__name__)

CONNECTION_CHANGED = "connection_changed"  # while something waited to be sent by it: its password or sender may be others now


class ProviderSource(Protocol):
    async def of(self, connection: SendingConnection) -> Provider:
        """The provider for this connection as it is now. Raises ValueError: there is none of its kind."""
        ...


@dataclass(frozen=True)
class Line:
    connection: SendingConnection
    provider: Provider
    places: asyncio.Semaphore  # shared by every batch of the process that sends through the connection


class Lines:
    """Those of a process: one object for all its activities, or a connection would carry more than it may. `providers` stays the
    caller's to close; `concurrency` is for connections that name none."""

    def __init__(self, providers: ProviderSource, concurrency: int) -> None:
        self._providers = providers
        self._concurrency = concurrency
        self._places: dict[tuple[UUID, UUID, int], asyncio.Semaphore] = {}

    async def line(self, connection: SendingConnection) -> Line:
        """The connection's line.

        Raises:
            ApplicationError: this release has no provider of the connection's kind; not to be tried again.
        """
        limit = connection.config.get("concurrency") or self._concurrency
        key = (connection.organization_id, connection.id, limit)
        places = self._places.setdefault(key, asyncio.Semaphore(limit))
        try:
            return Line(connection, await self._providers.of(connection), places)
        except ValueError as error:
            raise ApplicationError(str(error), type="UnknownProvider", non_retryable=True) from error


class Gate(Protocol):
    """The way of one mail past the point of no return."""

    @property
    def passed(self) -> bool:
        """Whether the provider was told to go on with this mail."""
        ...

    async def transmit(self) -> bool:
        """See `Transmit`."""
        ...


async def send_guarded(line: Line, mail: OutgoingMessage, gate: Gate) -> ProviderAnswer:
    """What became of the mail, handed over at most once: whatever a provider raises is transient if its gate was not passed, and
    `unknown` if it was."""
    try:
        return await line.provider.send(mail, gate.transmit)
    except Exception as error:
        # Neither its text nor its trace: they may quote the mail or its address.
        where = {"provider": line.connection.provider, "delivery_id": str(mail.delivery_id)}
        log.error("a provider raised", extra={"error": type(error).__name__, **where})
        outcome = SendOutcome.UNKNOWN if gate.passed else SendOutcome.TRANSIENT
        return ProviderAnswer(outcome, f"provider_raised:{type(error).__name__}")


async def is_current(database: Database, connection: SendingConnection) -> bool:
    """Whether nobody has changed or deleted the connection since it was loaded. For those who have waited for a slot of it."""
    async with database.organization(connection.organization_id) as session:
        return await connections.is_current(session, connection.id, connection.revision)


async def mark_broken(database: Database, connection: SendingConnection, reason: str) -> bool:
    """Runs that need the connection wait until somebody mends it. `reason` is a code.

    False: somebody has changed the connection since it was loaded, so that this says nothing of how it is now. Safe to repeat.
    """
    async with database.organization(connection.organization_id) as session:
        if not await connections.mark_broken(session, connection.id, reason, connection.revision):
            return await connections.is_current(session, connection.id, connection.revision)
        entry = NewEntry("connection.broken", "connection", str(connection.id), details={"reason": reason})
        await audit.append(session, [entry])
        return True
