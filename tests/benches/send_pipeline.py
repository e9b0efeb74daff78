"""How many messages per second one worker process claims, fences, hands to the sandbox by SMTP over TLS, settles and audits.

Run: `python -m tests.benches.send_pipeline [MESSAGES]`. Makes its own PostgreSQL (fsync on); the inbox runs in a process of its own.
"""

import asyncio
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from temporalio.testing import ActivityEnvironment

from activities.contracts.sending import SendOutcome
from activities.lines import Lines
from activities.providers.registry import Providers
from activities.send import SendActivities
from activities.versions import Versions
from api.sandbox.server import serve
from deploy.postgres import EmbeddedPostgres, free_port
from models.migrations.run import application_url, migrate
from models.sandbox_account import sandbox_password, sandbox_username
from models.settings import Settings
from models.store import connections
from models.store.connections import NewConnection
from models.store.session import Database
from tests.activities.world import SMTP, World

HTML = "<p>Hello {{ contact.first_name }}</p>" + "<p>This week's offers are waiting for you.</p>\n" * 40 + "{{ unsubscribe_url }}"
BATCH = 200
BATCHES_AT_ONCE = 4


def run(messages: int = 4000) -> dict[str, Any]:
    """Messages per second of the whole pipeline, and of the same batches asked again (answered from the ledger)."""
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
        return asyncio.run(_measure(settings, messages))
    finally:
        if inbox is not None:
            inbox.kill()
            inbox.join()
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _inbox(settings: Settings) -> None:
    asyncio.run(serve(settings))


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


async def _measure(settings: Settings, messages: int) -> dict[str, Any]:
    database = Database(settings.database_url.get_secret_value())
    world = await World(database, settings).build(html=HTML)
    await _connect(world)
    await _crowd(world, messages)
    await _listening(settings)
    providers = Providers(settings)
    sending = SendActivities(database, settings, Versions(), Lines(providers, settings.send_concurrency))
    cpu = time.process_time()
    sent = await _send(world, sending)
    cpu = time.process_time() - cpu
    again = await _send(world, sending)
    entries = await world.one("SELECT count(*) FROM audit_entries WHERE action = 'delivery.accepted'")
    await providers.close()
    await database.close()
    return {
        "messages": messages,
        "batch": BATCH,
        "concurrency": settings.send_concurrency,
        "messages_per_s": round(messages / sent),
        "worker_cpu_ms_per_message": round(cpu / messages * 1000, 2),
        "answered_again_per_s": round(messages / again),
        "audit_entries": entries,
    }


async def _connect(world: World) -> None:
    """The organization's connection leads to the sandbox, which takes the mail and forgets it."""
    settings = world.settings
    config = {
        **SMTP,
        "host": settings.sandbox_smtp_host,
        "port": settings.sandbox_smtp_port,
        "security": "starttls",
        "username": sandbox_username(world.organization_id, discard=True),
    }
    await world.sql("UPDATE connections SET is_default = false")
    async with world.database.organization(world.organization_id) as session:
        new = NewConnection("Sandbox", "email", "smtp", config, sandbox_password(settings, world.organization_id), True)
        await connections.create(session, new, settings.derive_key("connection-secrets"))


async def _crowd(world: World, count: int) -> None:
    """Contacts who agreed, each with a run."""
    await world.sql(
        """INSERT INTO contacts (id, organization_id, email, first_name, attributes)
           SELECT gen_random_uuid(), :o, 'person' || number || '@example.com', 'Ann', '{}' FROM generate_series(1, :count) AS number""",
        count=count,
    )
    await world.sql(
        """INSERT INTO consents (id, organization_id, contact_id, topic_id, channel, status, method, source, evidence, actor_kind,
                                 occurred_at)
           SELECT gen_random_uuid(), :o, id, :topic_id, 'email', 'granted', 'form', '', '{}', 'user', now() FROM contacts""",
        topic_id=world.topic_id,
    )
    rows = await world.sql(
        """INSERT INTO runs (id, organization_id, journey_id, version_id, contact_id, workflow_id, page, status, sequence, variables)
           SELECT gen_random_uuid(), :o, :journey_id, :version_id, id, 'bench/' || id, 0, 'active', 0, '{}' FROM contacts
           RETURNING id, contact_id""",
        journey_id=world.journey_id,
        version_id=world.version_id,
    )
    world.contacts |= {row["id"]: row["contact_id"] for row in rows}


async def _send(world: World, sending: SendActivities) -> float:
    """Seconds for all messages, in batches, some at once."""
    runs = list(world.contacts)
    limit = asyncio.Semaphore(BATCHES_AT_ONCE)

    async def one(batch: list[UUID]) -> None:
        async with limit:
            results = await ActivityEnvironment().run(sending.send_messages, world.batch(batch))
            assert {result.outcome for result in results} == {SendOutcome.ACCEPTED}, results[0]

    began = time.perf_counter()
    await asyncio.gather(*(one(runs[start : start + BATCH]) for start in range(0, len(runs), BATCH)))
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(run(*map(int, sys.argv[1:]))))
