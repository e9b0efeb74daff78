"""What `leadstats doctor` looks at. Each check answers with a detail, or raises `Unhealthy` with what to do."""

import importlib.metadata
import re
import stat
import sys
import zoneinfo
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, make_url
from temporalio.client import Client
from temporalio.service import RPCError

from deploy.doctor_target import Target
from deploy.environment import ROOT
from deploy.probes import Unhealthy, api_health, smtp_banner, worker_polls
from deploy.temporal_server import RETENTION, TemporalUnfit, connect_bare, missing_search_attributes, retention

START = "Start it: leadstats up (or make up)."
LOOK = "Look at its log in the state directory. " + START
OLDEST_PYTHON = (3, 11)
OLDEST_POSTGRES = 16
CLOCK_TOLERANCE = timedelta(seconds=2)


Check = Callable[[Target], Coroutine[Any, Any, str]]


async def python(target: Target) -> str:
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise Unhealthy(f"Python is {sys.version.split()[0]}.", "Install Python 3.11 or newer, then: make clean up.")
    return sys.version.split()[0]


async def packages(target: Target) -> str:
    """The lock is what is installed."""
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==([^ \\\n]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    wrong = [f"{name} {found or 'missing'} instead of {version}" for name, version in pins if (found := _installed(name)) != version]
    if wrong:
        raise Unhealthy(f"Not as locked: {', '.join(wrong[:5])}.", "Install the lock: make up.")
    return f"{len(pins)} as locked"


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


async def secrets(target: Target) -> str:
    """Nobody else can read what must stay secret."""
    if not target.state.exists():
        raise Unhealthy(f"There is no state directory {target.state}.", START + " Or name it: --state DIR.")
    for name in ("secrets.json", "installation.json"):
        path = target.state / name
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            raise Unhealthy(f"{path} has mode {mode:o}.", f"Close it: chmod 600 {path}")
    return "readable by the owner only"


async def processes(target: Target) -> str:
    """Every part that `leadstats up` started is alive."""
    if not target.processes:
        if target.database_url and target.temporal:
            return "none of this state directory; the environment names the parts"
        raise Unhealthy(f"Nothing runs over {target.state}.", START)
    if faults := [fault for part in target.processes if (fault := target.fault(part))]:
        raise Unhealthy(f"{'; '.join(faults)}.".capitalize(), target.remedy(LOOK))
    return ", ".join(target.processes)


async def database(target: Target) -> str:
    async with _connected(target.database_url) as connection:
        version = connection.info.server_version // 10_000
    if version < OLDEST_POSTGRES:
        raise Unhealthy(f"PostgreSQL is {version}.", f"Use {OLDEST_POSTGRES} or newer.")
    return f"PostgreSQL {version}"


async def migrations(target: Target) -> str:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "models" / "migrations"))
    head = ScriptDirectory.from_config(config).get_current_head()
    async with _connected(target.owner_database_url) as connection:
        exists = (await _row(connection, "SELECT to_regclass('public.alembic_version') IS NOT NULL"))[0]
        current = (await _row(connection, "SELECT version_num FROM alembic_version"))[0] if exists else None
    if current != head:
        raise Unhealthy(f"The schema is at {current or 'nothing'}, this release needs {head}.", "Run: leadstats migrate.")
    return f"at {head}"


async def isolation(target: Target) -> str:
    """The application's role cannot see past row-level security."""
    async with _connected(target.database_url) as connection:
        role = await _row(connection, "SELECT rolname, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
        open_tables = await _row(
            connection,
            """SELECT coalesce(string_agg(c.relname, ', '), ''), count(*) FROM pg_class c
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id' AND NOT a.attisdropped
               WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
                 AND NOT (c.relrowsecurity AND c.relforcerowsecurity)""",
        )
    if role[1]:
        raise Unhealthy(
            f"The role {role[0]} bypasses row-level security.",
            "Use the role leadstats_app in DATABASE_APP_URL.",
        )
    if open_tables[0]:
        raise Unhealthy(f"No row-level security on {open_tables[0]}.", "Run: leadstats migrate.")
    return f"{role[0]} is held by row-level security"


async def connections(target: Target) -> str:
    """No organization's messages wait for a connection to be mended. Asked as the owner, for the application sees one at a time."""
    async with _connected(target.owner_database_url) as connection:
        count, broken, some = await _row(
            connection,
            """SELECT count(*), count(*) FILTER (WHERE c.status = 'broken'),
                 (array_agg(o.slug || ': ' || c.name || ' (' || coalesce(c.broken_reason, 'no reason') || ')' ORDER BY o.slug, c.name)
                  FILTER (WHERE c.status = 'broken'))[1:5]
               FROM connections c JOIN organizations o ON o.id = c.organization_id""",
        )
    if broken:
        raise Unhealthy(
            f"{broken} of {count} connections to providers are broken, and their messages wait: {', '.join(some)}.",
            "An admin of the organization mends it (PATCH /v1/connections/ID) or, when the cause has gone, has it checked "
            "(POST /v1/connections/ID/checks).",
        )
    return f"none of {count} is broken"


async def clock(target: Target) -> str:
    """Ours and the database's clock agree, and time zones are known."""
    zones = zoneinfo.available_timezones()
    if "America/New_York" not in zones:
        raise Unhealthy("No time zones are known.", "Install the lock, which brings tzdata: make up.")
    async with _connected(target.database_url) as connection:
        asked = datetime.now(UTC)
        theirs: datetime = (await _row(connection, "SELECT clock_timestamp()"))[0]
        answered = datetime.now(UTC)
    apart = max(asked - theirs, theirs - answered)
    if apart > CLOCK_TOLERANCE:
        raise Unhealthy(
            f"The database's clock is {apart.total_seconds():.1f} s from ours.",
            "Synchronise both by NTP.",
        )
    return f"{len(zones)} time zones, tzdata {_installed('tzdata')}"


async def temporal(target: Target) -> str:
    client = await _temporal(target)
    return f"{client.service_client.config.target_host}, namespace {client.namespace}"


async def search_attributes(target: Target) -> str:
    client = await _temporal(target)
    try:
        missing = await missing_search_attributes(client)
    except TemporalUnfit as unfit:
        raise Unhealthy(str(unfit), "Set TEMPORAL_NAMESPACE.") from unfit
    if missing:
        options = " ".join(f"--name {name} --type Keyword" for name in missing)
        raise Unhealthy(
            f"Namespace {client.namespace} lacks search attributes {', '.join(missing)}.",
            f"Run: temporal operator search-attribute create --namespace {client.namespace} {options}",
        )
    return "known"


async def history_retention(target: Target) -> str:
    client = await _temporal(target)
    kept = await retention(client)
    if kept < RETENTION:
        raise Unhealthy(
            f"Closed workflows are kept for {kept / timedelta(days=1):g} days, less than {RETENTION.days} days.",
            f"Run: temporal operator namespace update --namespace {client.namespace} --retention {RETENTION.days * 24}h",
        )
    return f"{kept / timedelta(days=1):g} days"


async def worker(target: Target) -> str:
    """Its process is looked at too: Temporal remembers a poll for a while after the worker's end."""
    if fault := target.fault("worker"):
        raise Unhealthy(f"{fault.capitalize()}.", target.remedy(LOOK))
    client = await _temporal(target)
    return f"{len(await worker_polls(client, target.task_queue))} poll {target.task_queue}"


LOOKED_WITHIN = timedelta(minutes=5)  # the reconciler looks every minute


async def reconciler(target: Target) -> str:
    """It has looked lately, and no trouble that it found is open. Asked as the owner: the application sees one organization at a time."""
    async with _connected(target.owner_database_url) as connection:
        seconds, problems, suspicions, some = await _row(
            connection,
            """SELECT (SELECT CAST(extract(epoch FROM now() - max(workflows_at)) AS int) FROM organization_checks),
                 count(*) FILTER (WHERE f.severity = 'problem'), count(*) FILTER (WHERE f.severity <> 'problem'),
                 (array_agg(DISTINCT o.slug || ': ' || f.kind) FILTER (WHERE f.severity = 'problem'))[1:5]
               FROM findings f JOIN organizations o ON o.id = f.organization_id WHERE f.resolved_at IS NULL""",
        )
    if seconds is not None and timedelta(seconds=seconds) > LOOKED_WITHIN:
        raise Unhealthy(f"The reconciler last looked {seconds // 60} minutes ago.", target.remedy(LOOK))
    if problems:
        raise Unhealthy(f"{problems} findings are open: {', '.join(some)}.", "Each says what to do: GET /v1/findings?open=true.")
    looked = "has not looked yet" if seconds is None else f"looked {seconds} s ago"
    return f"{looked}; no problem is open, {suspicions} suspicions"


async def api(target: Target) -> str:
    if target.api is None:
        raise Unhealthy("The API is not running.", START)
    return f"{target.api}: {(await api_health(target.api)).get('status', 'answers')}"


async def sandbox(target: Target) -> str:
    if target.sandbox_smtp is None:
        raise Unhealthy("The sandbox is not running.", START)
    host, _, port = target.sandbox_smtp.rpartition(":")
    await smtp_banner(host, int(port))
    return target.sandbox_smtp


CHECKS: tuple[Check, ...] = (
    python,
    packages,
    secrets,
    processes,
    database,
    migrations,
    isolation,
    connections,
    clock,
    temporal,
    search_attributes,
    history_retention,
    worker,
    reconciler,
    api,
    sandbox,
)


async def _temporal(target: Target) -> Client:
    advice = START + " With your own, set TEMPORAL_ADDRESS."
    if target.temporal is None:
        raise Unhealthy("Temporal is not running.", advice)
    try:
        return await connect_bare(timedelta(seconds=2), target.temporal, target.temporal_namespace)
    except (RuntimeError, RPCError) as error:
        raise Unhealthy(f"Temporal does not answer at {target.temporal}.", advice) from error


@asynccontextmanager
async def _connected(url: str | None) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    if url is None:
        raise Unhealthy("The database's address is not known.", START + " With your own database, set DATABASE_URL and DATABASE_APP_URL.")
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = await psycopg.AsyncConnection.connect(plain, connect_timeout=3, autocommit=True)
    except psycopg.OperationalError as error:
        raise _unreachable(make_url(plain), error) from error
    try:
        yield connection
    finally:
        await connection.close()


def _unreachable(url: URL, error: psycopg.OperationalError) -> Unhealthy:
    reason = str(error).strip().splitlines()[-1]
    if "password authentication failed" in reason:
        return Unhealthy(
            f"PostgreSQL at {url.host}:{url.port or 5432} refuses the password of {url.username}.",
            "Give the right one in DATABASE_APP_URL (role leadstats_app) and DATABASE_URL (the owner), then restart: leadstats up. "
            "The embedded database's passwords are in secrets.json: restore that file if it was changed.",
        )
    if "FATAL" in reason:
        return Unhealthy(f"PostgreSQL does not let {url.username} in ({reason}).", "Correct DATABASE_APP_URL and DATABASE_URL.")
    return Unhealthy(f"Cannot connect to PostgreSQL at {url.host}:{url.port or 5432} ({reason}).", START)


async def _row(connection: psycopg.AsyncConnection[Any], query: LiteralString) -> tuple[Any, ...]:
    found = await (await connection.execute(query)).fetchone()
    return found if found is not None else (None,)
