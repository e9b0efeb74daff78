"""The way out: the connection that something is sent by, and whether anything can leave by it now."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from activities.contracts.sending import SendOutcome
from models.domain.audit import NewEntry
from models.domain.connection import SmtpConfig
from models.domain.errors import NotFound
from models.sandbox_account import is_sandbox_account
from models.secrets import SecretUnreadable
from models.settings import Settings
from models.store import audit, connections
from models.store.connections import SendingConnection
from models.store.session import Database, OrganizationSession


@dataclass(frozen=True)
class Way:
    """`trouble`: why nothing can leave by it now, a code; None: it can. `stranded`: it is to be mended before it is used."""

    connection: SendingConnection | None
    trouble: str | None = None
    stranded: bool = False


class Ways:
    """For whatever is sent: messages, team mails and notices choose a connection alike."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._key = settings.derive_key("connection-secrets")

    async def way(self, session: OrganizationSession, connection_id: UUID | None, channel: str) -> Way:
        """By this connection; None: by the organization's usual one for the channel. `mend` what it finds stranded."""
        try:
            connection = await connections.load_for_sending(session, connection_id, channel, self._key)
        except NotFound:
            return Way(None, "no_connection")
        except SecretUnreadable:
            return Way(None, "secret_unreadable")
        if self._is_stranded(connection):
            return Way(connection, stranded=True)
        return Way(connection, None if connection.status == "active" else connection.broken_reason or SendOutcome.CONNECTION_BROKEN)

    def _is_stranded(self, connection: SendingConnection) -> bool:
        """Whether it broke only because the sandbox had moved to another port and the connection had not: now it follows."""
        if connection.provider != "smtp" or connection.broken_reason != "address_not_allowed":
            return False
        return is_sandbox_account(SmtpConfig.model_validate(connection.config), connection.organization_id, self._settings)

    async def mend(self, ways: Iterable[Way]) -> None:
        """Those that are stranded are marked as active. Safe to repeat.

        In transactions of its own, for it locks the audit chain's head; and never inside another: were every connection of the pool
        held by somebody who waits for a second one, all would wait.
        """
        stranded = {way.connection.id: way.connection for way in ways if way.stranded and way.connection is not None}
        for connection in stranded.values():
            async with self._database.organization(connection.organization_id) as session:
                if await connections.mark_active(session, connection.id, connection.revision):
                    await audit.append(session, [NewEntry("connection.mended", "connection", str(connection.id))])
