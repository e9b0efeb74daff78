"""The sandbox's inbox running inside a test, and messages to send to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from activities.providers.port import Mailbox, OutgoingEmail
from api.sandbox.server import serve
from deploy.postgres import free_port
from models.sandbox_account import sandbox_password, sandbox_username
from models.settings import Settings
from models.store import sandbox
from models.store.connections import SendingConnection
from models.store.sandbox import MessageFilter, MessageHead
from models.store.session import Database
from models.tables.access import Organization
from models.tables.base import new_id


@dataclass
class RunningInbox:
    """An inbox, and one organization that may use it."""

    settings: Settings
    database: Database
    organization_id: UUID

    def connection(self, *, discard: bool = False, secret: str | None = None, **config: Any) -> SendingConnection:
        return SendingConnection(
            id=new_id(),
            organization_id=self.organization_id,
            channel="email",
            provider="smtp",
            config={
                "host": self.settings.sandbox_smtp_host,
                "port": self.settings.sandbox_smtp_port,
                "security": "starttls",
                "username": sandbox_username(self.organization_id, discard=discard),
                "sender_address": "news@example.com",
                **config,
            },
            status="active",
            broken_reason=None,
            rate_per_second=None,
            revision=datetime.now(UTC),
            secret=secret or sandbox_password(self.settings, self.organization_id),
        )

    async def fail(self, phase: str, action: str, **more: Any) -> None:
        """From now on the inbox fails like this, once unless said otherwise."""
        fault = {"code": None, "message": "", "delay_ms": None, "recipient": None, "remaining": 1} | more
        async with self.database.organization(self.organization_id) as session:
            await sandbox.add_fault(session, {"phase": phase, "action": action, **fault})

    async def received(self) -> list[MessageHead]:
        async with self.database.organization(self.organization_id) as session:
            return list(await sandbox.list_messages(session, MessageFilter(), 1000, None))


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Settings]:
    """The inbox runs on a free port; gives the settings with that port."""
    settings = settings.model_copy(update={"sandbox_smtp_port": free_port()})
    ready = asyncio.Event()
    task = asyncio.create_task(serve(settings, ready))
    started = asyncio.create_task(ready.wait())
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield settings
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def new_organization(database: Database) -> UUID:
    organization_id = new_id()
    async with database.organization(organization_id) as session:
        session.add(Organization(id=organization_id, name="Acme", slug=str(organization_id)))
    return organization_id


def email(**changes: Any) -> OutgoingEmail:
    """A valid marketing mail."""
    values: dict[str, Any] = {
        "delivery_id": new_id(),
        "sender": Mailbox("news@example.com", "Acme News"),
        "recipient": "ann@example.org",
        "subject": "This week",
        "html": "<p>Hello Ann</p>",
        "text": "Hello Ann",
        "purpose": "marketing",
        "sent_at": datetime(2026, 11, 23, 12, tzinfo=UTC),
        "unsubscribe_url": "https://example.com/u/token",
    }
    return OutgoingEmail(**values | changes)


@dataclass
class Fence:
    """A `transmit` that says `answer`, and remembers that it was asked."""

    answer: bool = True
    asked: int = field(default=0)

    async def __call__(self) -> bool:
        self.asked += 1
        return self.answer
