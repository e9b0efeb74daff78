"""The second wall: what the application's own role can do with raw SQL, table by table.

Tables that hold nobody's rows are listed in `GLOBAL` with the reason; a new table without an organization fails here
until it is listed, and one with an organization fails until it has row-level security and a policy.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlmodel import SQLModel

import models.tables
from deploy.postgres import EmbeddedPostgres
from models.store.session import Database
from models.tables.base import new_id

assert models.tables
GLOBAL = {
    "alembic_version": "the schema's version; the application's role has no rights on it",
    "login_attempts": "failed logins belong to no organization yet; keyed hashes and times only",
}
OWN_POLICY = {"organizations": "its id is the organization", "users": "seen through a membership of the organization"}
APPEND_ONLY = ("audit_entries", "consents", "template_versions", "journey_versions", "decisions", "run_events")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def owner(postgres: EmbeddedPostgres) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        yield connection


async def real_tables(owner: psycopg.AsyncConnection[Any]) -> dict[str, tuple[bool, bool, int]]:
    """Every table of the database: row-level security enabled, forced, number of policies for everybody."""
    rows = await owner.execute(
        """SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
                  (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid AND p.polroles = '{0}')
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')"""
    )
    return {name: (enabled, forced, policies) async for name, enabled, forced, policies in rows}


def with_organization() -> list[str]:
    return sorted(table.name for table in SQLModel.metadata.tables.values() if "organization_id" in table.columns)


async def test_the_database_has_exactly_the_tables_of_the_code(owner: psycopg.AsyncConnection[Any]) -> None:
    assert set(await real_tables(owner)) == set(SQLModel.metadata.tables) | {"alembic_version"}


async def test_every_table_has_row_level_security_or_a_reason(owner: psycopg.AsyncConnection[Any]) -> None:
    unprotected = {name for name, state in (await real_tables(owner)).items() if not (state[0] and state[1] and state[2])}
    assert unprotected == set(GLOBAL)
    assert set(SQLModel.metadata.tables) == set(with_organization()) | set(OWN_POLICY) | (set(GLOBAL) - {"alembic_version"})


async def test_the_applications_role_cannot_bypass_it(owner: psycopg.AsyncConnection[Any]) -> None:
    query = "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles WHERE rolname = 'leadstats_app'"
    assert await (await owner.execute(query)).fetchone() == (False,) * 5
    owned = await owner.execute("SELECT count(*) FROM pg_class WHERE relowner = 'leadstats_app'::regrole")
    assert await owned.fetchone() == (0,)
    member = await owner.execute("SELECT count(*) FROM pg_auth_members WHERE member = 'leadstats_app'::regrole")
    assert await member.fetchone() == (0,)


async def test_no_view_or_stray_function_goes_around_it(owner: psycopg.AsyncConnection[Any]) -> None:
    rows = await owner.execute(
        """SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
           WHERE n.nspname = 'public' AND p.prosecdef AND has_function_privilege('leadstats_app', p.oid, 'EXECUTE') ORDER BY 1"""
    )
    assert [name async for (name,) in rows] == [
        "authenticate_api_key",
        "authenticate_session",
        "find_login",
        "login_organizations",
        "organization_id_by_slug",
        "organizations_operating",
        "organizations_to_route",
        "organizations_with_unstarted",
    ]
    views = await owner.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')")
    assert await views.fetchone() == (0,)


async def test_functions_that_run_as_the_owner_pin_their_search_path(owner: psycopg.AsyncConnection[Any]) -> None:
    rows = await owner.execute("SELECT proconfig, proacl::text FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace")
    for settings, grants in await rows.fetchall():
        assert settings == ["search_path=pg_catalog, public, pg_temp"]
        assert "leadstats_app=X" in grants and "{=X" not in grants and ",=X" not in grants


# --- One row of every table, for an organization, written by the owner without looking at what it refers to. ----------

_SAMPLES: dict[str, Any] = {
    "uuid": lambda organization_id: new_id(),
    "character varying": lambda organization_id: f"x{new_id().hex}",
    "text": lambda organization_id: f"x{new_id().hex}",
    "integer": lambda organization_id: 1,
    "bigint": lambda organization_id: 1,
    "double precision": lambda organization_id: 1.0,
    "boolean": lambda organization_id: False,
    "jsonb": lambda organization_id: Jsonb({}),
    "bytea": lambda organization_id: new_id().bytes,
    "timestamp with time zone": lambda organization_id: datetime.now(UTC),
    "ARRAY": lambda organization_id: [],
}


async def sample(owner: psycopg.AsyncConnection[Any], table: str, organization_id: UUID) -> dict[str, Any]:
    rows = await owner.execute(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = %s AND is_generated = 'NEVER' AND is_identity = 'NO'",
        (table,),
    )
    values = {name: _SAMPLES[kind](organization_id) async for name, kind in rows}
    return values | {"organization_id": organization_id}


def insert(table: str, values: dict[str, Any]) -> str:
    columns, places = ", ".join(f'"{name}"' for name in values), ", ".join(f"%({name})s" for name in values)
    return f"INSERT INTO {table} ({columns}) VALUES ({places})"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def planted(owner: psycopg.AsyncConnection[Any], postgres: EmbeddedPostgres) -> UUID:
    """An organization with one row in every table, a user included."""
    acme, user = new_id(), new_id()
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")  # no foreign keys, no append-only triggers
        await connection.execute(
            "INSERT INTO organizations (id, name, slug, status, timezone, quiet_hours, attribute_schema)"
            " VALUES (%s, 'Acme', %s, 'active', 'UTC', '{}', '{}')",
            (acme, str(acme)),
        )
        await connection.execute("INSERT INTO users (id, email, password_hash) VALUES (%s, %s, '')", (user, f"{user}@example.com"))
        for table in with_organization():
            values = await sample(owner, table, acme) | ({"user_id": user} if table == "memberships" else {})
            await connection.execute(insert(table, values), values)
    return acme


@pytest.mark.parametrize("table", [*with_organization(), *OWN_POLICY])
async def test_rows_of_another_organization_are_invisible_and_unwritable(database: Database, planted: UUID, table: str) -> None:
    async with database.organization(planted) as session:
        assert (await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == 1
    crow = new_id()
    for visit in (database.organization(crow), database.outside()):
        async with visit as session:
            assert (await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == 0
            for change in (f"UPDATE {table} SET created_at = now()", f"DELETE FROM {table}"):
                await _changes_nothing(session, change)
    async with database.organization(planted) as session:
        assert (await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == 1


async def _changes_nothing(session: Any, change: str) -> None:
    """Refused outright, or applied to no row."""
    from sqlalchemy.exc import DBAPIError

    try:
        async with session.begin_nested():
            assert (await session.execute(text(change))).rowcount == 0
    except DBAPIError as error:
        assert getattr(error.orig, "sqlstate", "") in ("42501", "42703")  # no right at all, or no such column in this table


@pytest.mark.parametrize("table", with_organization())
async def test_a_row_cannot_be_written_into_another_organization(
    database: Database, owner: psycopg.AsyncConnection[Any], planted: UUID, table: str
) -> None:
    values = await sample(owner, table, planted)
    async with database.organization(new_id()) as session:
        driver = await session.driver()
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            await driver.execute(insert(table, values), values)
        await session.rollback()


@pytest.mark.parametrize("table", with_organization())
async def test_a_row_cannot_be_moved_to_another_organization(database: Database, planted: UUID, table: str) -> None:
    async with database.organization(planted) as session:
        driver = await session.driver()
        with pytest.raises(psycopg.Error) as refused:
            await driver.execute(f"UPDATE {table} SET organization_id = %s", (new_id(),))
        assert refused.value.sqlstate == "42501"
        await session.rollback()


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["UPDATE {} SET organization_id = organization_id", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
async def test_even_the_owner_cannot_change_the_record(
    owner: psycopg.AsyncConnection[Any], planted: UUID, table: str, statement: str
) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        await owner.execute(statement.format(table))


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["UPDATE {} SET organization_id = organization_id", "DELETE FROM {}", "TRUNCATE {}"])
async def test_the_application_has_no_right_to_change_the_record(database: Database, planted: UUID, table: str, statement: str) -> None:
    async with database.organization(planted) as session:
        driver = await session.driver()
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
            await driver.execute(statement.format(table))
        await session.rollback()


async def test_the_setting_does_not_outlive_its_transaction(database: Database, planted: UUID) -> None:
    async with database.organization(planted) as session:
        backend = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    for _ in range(30):
        async with database.outside() as session:
            row = (await session.execute(text("SELECT pg_backend_pid(), current_setting('leadstats.organization_id', true)"))).one()
            assert row[1] in (None, "")
            if row[0] == backend:
                return
    pytest.fail("the pool never gave the connection back")
