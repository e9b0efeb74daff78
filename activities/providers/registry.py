"""The providers of a process, one per connection, kept between messages so that their links are reused."""

from datetime import datetime
from uuid import UUID

from activities.providers.destination import Destinations
from activities.providers.port import Provider
from activities.providers.smtp import SmtpAccount, SmtpProvider
from models.settings import Settings
from models.store.connections import SendingConnection


class Providers:
    """Built once per process, closed with it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._destinations = Destinations(settings)
        self._built: dict[UUID, tuple[datetime, Provider]] = {}

    async def of(self, connection: SendingConnection) -> Provider:
        """The provider for this connection as it is now; one built before its last edit is replaced.

        Raises:
            ValueError: no such provider in this release.
        """
        built = self._built.get(connection.id)
        if built is not None and built[0] >= connection.revision:
            return built[1]
        provider = self._build(connection)
        self._built[connection.id] = (connection.revision, provider)
        if built is not None:
            await built[1].close()
        return provider

    def _build(self, connection: SendingConnection) -> Provider:
        match connection.provider:
            case "smtp":
                return SmtpProvider(SmtpAccount.of(connection, self._settings), self._destinations)
            case other:
                raise ValueError(f"there is no provider {other!r}")

    async def close(self) -> None:
        for _, provider in self._built.values():
            await provider.close()
        self._built.clear()
