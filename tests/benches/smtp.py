"""How many messages per second one worker process hands to the sandbox's inbox, over TLS, eight at a time.

Run: `python -m tests.benches.smtp`. Makes its own PostgreSQL; the inbox runs in a process of its own.
"""

import asyncio
import json
import multiprocessing
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from activities.contracts.sending import SendOutcome
from activities.providers.port import Mailbox, OutgoingEmail
from activities.providers.registry import Providers
from api.sandbox.server import serve
from deploy.postgres import EmbeddedPostgres, free_port
from models.migrations.run import application_url, migrate
from models.sandbox_account import sandbox_password, sandbox_username
from models.settings import Settings
from models.store.connections import SendingConnection
from models.store.session import Database
from models.tables.access import Organization
from models.tables.base import new_id

HTML = "<p>Hello Ann, this week's offers are waiting for you.</p>\n" * 40


def run(messages: int = 3000, concurrency: int = 8) -> dict[str, Any]:
    """Figures for discarded and for stored mail."""
    directory = Path(tempfile.mkdtemp(prefix="leadstats-bench-"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory / "postgres", free_port(), "owner-password")
    server.start()
    inbox = None
    try:
        migrate(server.url, "app-password")
        settings = Settings.model_validate(
            {
                "database_url": application_url(server.url, "app-password"),
                "secret_key": b"0123456789abcdef0123456789abcdef",
                "state_directory": directory / "state",
                "sandbox_smtp_port": free_port(),
            }
        )
        inbox = multiprocessing.get_context("spawn").Process(target=_inbox, args=(settings,), daemon=True)
        inbox.start()
        return asyncio.run(_measure(settings, messages, concurrency))
    finally:
        if inbox is not None:
            inbox.kill()
            inbox.join()
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _inbox(settings: Settings) -> None:
    asyncio.run(serve(settings))


async def _measure(settings: Settings, messages: int, concurrency: int) -> dict[str, Any]:
    database = Database(settings.database_url.get_secret_value())
    organization_id = new_id()
    async with database.organization(organization_id) as session:
        session.add(Organization(id=organization_id, name="Bench", slug="bench"))
    await database.close()
    await _listening(settings)
    discarded = await _throughput(settings, organization_id, messages, concurrency, discard=True)
    stored = await _throughput(settings, organization_id, messages, concurrency, discard=False)
    return {"messages": messages, "concurrency": concurrency, "discarded_per_s": round(discarded), "stored_per_s": round(stored)}


async def _listening(settings: Settings) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection(settings.sandbox_smtp_host, settings.sandbox_smtp_port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise RuntimeError("the inbox did not start")


async def _throughput(settings: Settings, organization_id: UUID, messages: int, concurrency: int, *, discard: bool) -> float:
    providers = Providers(settings)
    provider = await providers.of(_connection(settings, organization_id, discard))
    left = iter(range(messages))
    began = time.perf_counter()

    async def send_some() -> None:
        for number in left:
            answer = await provider.send(_message(number), _always)
            if answer.outcome is not SendOutcome.ACCEPTED:
                raise RuntimeError(f"{answer.outcome}: {answer.reason}")

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(send_some())
    elapsed = time.perf_counter() - began
    await providers.close()
    return messages / elapsed


async def _always() -> bool:
    return True


def _connection(settings: Settings, organization_id: UUID, discard: bool) -> SendingConnection:
    return SendingConnection(
        id=new_id(),
        organization_id=organization_id,
        channel="email",
        provider="smtp",
        config={
            "host": settings.sandbox_smtp_host,
            "port": settings.sandbox_smtp_port,
            "security": "starttls",
            "username": sandbox_username(organization_id, discard=discard),
            "sender_address": "news@example.com",
        },
        status="active",
        broken_reason=None,
        rate_per_second=None,
        revision=datetime.now(UTC),
        secret=sandbox_password(settings, organization_id),
    )


def _message(number: int) -> OutgoingEmail:
    return OutgoingEmail(
        delivery_id=new_id(),
        sender=Mailbox("news@example.com", "Acme News"),
        recipient=f"contact-{number}@example.org",
        subject="This week's offers",
        html=HTML,
        text="Hello Ann, this week's offers are waiting for you.",
        purpose="marketing",
        sent_at=datetime.now(UTC),
        unsubscribe_url="https://example.com/u/token",
    )


if __name__ == "__main__":
    print(json.dumps(run()))
