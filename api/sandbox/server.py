"""The sandbox's mail inbox: real SMTP with STARTTLS and AUTH, kept in the database. A process of its own."""

import asyncio
import logging

from api.sandbox.certificate import server_tls
from api.sandbox.conversation import Conversation, Inbox
from api.sandbox.faults import Faults
from api.sandbox.recorder import Recorder
from api.sandbox.wire import Wire
from models.sandbox_account import sandbox_password
from models.settings import Settings
from models.store.session import Database

POOL = 4

log = logging.getLogger(__name__)


async def serve(settings: Settings, ready: asyncio.Event | None = None) -> None:
    """Takes mail on settings.sandbox_smtp_host and _port until cancelled. May be killed at any time: a message is
    committed before the sender hears 250. While the database is away it answers 451.

    Raises:
        OSError: the port is taken.
    """
    database = Database(settings.database_url.get_secret_value(), POOL)
    recorder = Recorder(database)
    inbox = Inbox(server_tls(settings), recorder, Faults(database), lambda organization: sandbox_password(settings, organization))
    conversations: set[asyncio.Task[None]] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Listener(inbox, conversations), settings.sandbox_smtp_host, settings.sandbox_smtp_port, backlog=500
    )
    log.info("the sandbox's inbox listens on %s:%d", settings.sandbox_smtp_host, settings.sandbox_smtp_port)
    if ready is not None:
        ready.set()
    try:
        await recorder.run()
    finally:
        server.close()
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
        await database.close()


class _Listener(Wire):
    """A wire that starts its conversation when it is connected."""

    def __init__(self, inbox: Inbox, conversations: set[asyncio.Task[None]]) -> None:
        super().__init__()
        self._inbox = inbox
        self._conversations = conversations

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        task = asyncio.get_running_loop().create_task(Conversation(self, self._inbox).run())
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
