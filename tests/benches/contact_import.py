"""How many rows per second a CSV import takes: 8 columns, into an organization that has none of them, then the same file again.

python -m tests.benches.contact_import [rows]
"""

import asyncio
import io
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import psutil
from temporalio.client import Client

from api.commands.contact_imports import ImportOptions, import_contacts
from api.dependencies import Caller, Services
from deploy.postgres import EmbeddedPostgres, free_port
from models.domain.audit import Actor
from models.migrations.run import application_url, migrate
from models.settings import Settings
from models.store import access
from models.store.session import Database
from models.tables.base import new_id

_ZONES = ("America/New_York", "America/Chicago", "Europe/Berlin", "Asia/Tokyo", "")
_HEADER = "external_id,email,phone,first_name,last_name,country,timezone,tags\n"


def make_file(rows: int) -> io.BytesIO:
    """`rows` plausible people: every email and phone different, half of the phones written nationally."""
    chance = random.Random(7)
    lines = [_HEADER]
    for number in range(rows):
        local = 2_000_000 + number % 7_000_000
        phone = f"+1212{local}" if number % 2 else f"(646) {str(local)[:3]}-{str(local)[3:]}"
        lines.append(
            f"crm-{number},person.{number}@mail{number % 50}.example.com,{phone},First{number % 900},Last{number % 5000},US,"
            f"{chance.choice(_ZONES)},{chance.choice(('vip', 'vip;beta', ''))}\n"
        )
    return io.BytesIO("".join(lines).encode())


async def measure(settings: Settings, server: EmbeddedPostgres, rows: int) -> dict[str, Any]:
    database = Database(settings.database_url.get_secret_value())
    organization_id: UUID = new_id()
    async with database.organization(organization_id) as session:
        await access.insert_organization(session, "Bench", f"bench-{organization_id}")
    caller = Caller(organization_id, Actor("system"), frozenset(), Services(settings, database, cast("Client", None)))
    found: dict[str, Any] = {"rows": rows, "columns": 8}
    for name in ("first", "again"):
        file = make_file(rows)
        started, busy = time.perf_counter(), _cpu_seconds(server)
        result = await import_contacts(caller, file, "bench.csv", ImportOptions())
        seconds = time.perf_counter() - started
        found[name] = {
            "rows_per_s": round(rows / seconds),
            "seconds": round(seconds, 2),
            "cpu_seconds": round(_cpu_seconds(server) - busy, 2),  # ours and PostgreSQL's: what a busy machine cannot hide
            "created": result.created,
            "unchanged": result.unchanged,
            "refused": result.refused,
        }
    await database.close()
    return found


def _cpu_seconds(server: EmbeddedPostgres) -> float:
    assert server.process is not None
    postmaster = psutil.Process(server.process.pid)
    return sum(sum(process.cpu_times()[:2]) for process in (psutil.Process(), *postmaster.children()))


def run(rows: int = 200_000) -> dict[str, Any]:
    """Measures on a PostgreSQL of its own, durable as in production. Answers rows/s of both imports."""
    directory = Path(tempfile.mkdtemp(prefix="leadstats-bench-"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory / "postgres", free_port(), "owner-password")
    try:
        server.start()
        migrate(server.url, "app-password")
        values = {"database_url": application_url(server.url, "app-password"), "secret_key": bytes(32), "state_directory": directory}
        return asyncio.run(measure(Settings.model_validate(values), server, rows))
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)))
