"""Managed databases give no superuser: an owner who may create roles and tables is enough."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.engine import make_url

from deploy import doctor_checks
from deploy.doctor_target import Target
from deploy.postgres import EmbeddedPostgres
from deploy.probes import Unhealthy
from leadstats import main
from models.migrations.run import RoleRefused, application_url, migrate
from models.store import access
from models.store.connections import NewConnection, create, get, mark_broken
from models.store.session import Database
from models.tables.base import new_id


@pytest.fixture
def superuser(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def owner_url(postgres: EmbeddedPostgres, superuser: psycopg.Connection[Any]) -> Iterator[str]:
    superuser.execute("CREATE ROLE steward LOGIN CREATEROLE NOSUPERUSER PASSWORD 'secret'")
    superuser.execute("GRANT leadstats_app TO steward WITH ADMIN OPTION")  # had it made the role itself, it would have this
    superuser.execute("CREATE DATABASE managed OWNER steward")
    yield f"postgresql://steward:secret@127.0.0.1:{postgres.port}/managed"
    superuser.execute("DROP DATABASE managed WITH (FORCE)")
    superuser.execute("DROP OWNED BY steward")
    superuser.execute("DROP ROLE steward")


async def test_an_owner_who_is_no_superuser_migrates_again_and_again_and_people_log_in(owner_url: str) -> None:
    for _ in range(2):
        migrate(owner_url, "app-password")
    database = Database(application_url(owner_url, "app-password"), pool_size=1)
    mine, user = new_id(), new_id()
    async with database.organization(mine) as session:
        await access.insert_organization(session, "Acme", "acme")
        await access.insert_user(session, user, "alice@example.com", "hash")
        await access.insert_membership(session, user, "owner")
    async with database.outside() as outside:
        login = await access.find_login(outside, "Alice@example.com")
        assert login is not None and login.user_id == user
        assert [one.slug for one in await access.login_organizations(outside, user)] == ["acme"]
        assert (await outside.execute(text("SELECT count(*) FROM organizations"))).scalar_one() == 0
    await database.close()


_EVENT = """
    INSERT INTO events (id, organization_id, name, contact_id, properties, occurred_at)
    VALUES (%(o)s, %(o)s, 'ordered', %(o)s, '{"order": 1.0, "release": "2.0", "either": 3.0, "or": "3.0"}', now())"""
_RUN = """
    INSERT INTO runs (id, organization_id, updated_at, journey_id, version_id, contact_id, workflow_id, page, status, sequence, variables,
      entry_source, entry_key, entry_event_id, parent_run_id)
    VALUES (%(id)s, %(o)s, now(), %(o)s, %(o)s, %(id)s, 'w', 0, 'active', 0, '{"order": 4.0}', %(source)s, %(key)s, %(event)s,
      %(parent)s)"""
_ENTRY = """
    INSERT INTO entries (id, organization_id, journey_id, version_id, contact_id, source, entry_key, source_id, parent_run_id, variables,
      hidden, outcome)
    VALUES (%(id)s, %(o)s, %(o)s, %(o)s, %(id)s, %(source)s, %(key)s, %(event)s, %(parent)s, '{}', false, 'pending')"""


def test_numbers_that_were_keys_are_the_same_keys_after_it(
    owner_url: str, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = command.upgrade
    with monkeypatch.context() as before:
        before.setattr(command, "upgrade", lambda config, _: upgrade(config, "0013"))
        migrate(owner_url, "app-password")
    event, parent = new_id(), new_id()
    by_event: dict[str, Any] = {"source": "event", "event": event, "parent": None}
    by_journey = {"source": "journey", "event": None, "parent": parent}
    by_api = {"source": "api", "event": None, "parent": None}
    keys = [(by_event, "1.0"), (by_event, "2.0"), (by_event, "3.0"), (by_event, "1.5"), (by_journey, "4.0"), (by_api, "1.0")]
    superusers = make_url(postgres.url).set(database="managed").render_as_string(hide_password=False)
    with psycopg.connect(superusers, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # rows without all that they hang on
        connection.execute(_EVENT, {"o": event})
        connection.execute(_RUN, {**by_api, "id": parent, "o": event, "key": None})
        for source, key in keys:
            row = {**source, "id": new_id(), "o": event, "key": key}
            connection.execute(_RUN, row)
            connection.execute(_ENTRY, row)
        migrate(owner_url, "app-password")
        for table in ("runs", "entries"):
            found = connection.execute(f"SELECT entry_key FROM {table} WHERE entry_key IS NOT NULL ORDER BY id").fetchall()
            assert [key for (key,) in found] == ["1", "2.0", "3.0", "1.5", "4", "1.0"]
        forced = connection.execute("SELECT bool_and(relforcerowsecurity) FROM pg_class WHERE relname IN ('runs', 'entries', 'events')")
        assert forced.fetchone() == (True,)


async def test_doctor_sees_the_broken_connections_of_every_organization_as_this_owner(owner_url: str, tmp_path: Path) -> None:
    migrate(owner_url, "app-password")
    application = application_url(owner_url, "app-password")
    target = Target(tmp_path, None, application, owner_url, None, "journeys")
    assert await doctor_checks.connections(target) == "none of 0 is broken"
    database = Database(application, pool_size=1)
    async with database.organization(new_id()) as session:
        await access.insert_organization(session, "Acme", "acme")
        identifier = await create(session, NewConnection("Mail", "email", "smtp", {}), b"k" * 32)
        await mark_broken(session, identifier, "auth_refused", (await get(session, identifier)).updated_at)
    await database.close()
    with pytest.raises(Unhealthy, match=r"1 of 1 .*acme: Mail \(auth_refused\).*POST /v1/connections"):
        await doctor_checks.connections(target)


def test_a_role_that_could_bypass_the_policies_is_refused(postgres: EmbeddedPostgres, superuser: psycopg.Connection[Any]) -> None:
    superuser.execute("ALTER ROLE leadstats_app BYPASSRLS")
    try:
        with pytest.raises(ValueError, match="BYPASSRLS"):
            migrate(postgres.url, "app-password")
    finally:
        superuser.execute("ALTER ROLE leadstats_app NOBYPASSRLS")


@pytest.fixture
def second_database(postgres: EmbeddedPostgres, superuser: psycopg.Connection[Any]) -> Iterator[str]:
    superuser.execute("CREATE DATABASE second")
    yield f"postgresql://leadstats:{postgres.password}@127.0.0.1:{postgres.port}/second"
    superuser.execute("DROP DATABASE second WITH (FORCE)")


def test_a_second_installation_on_a_server_does_not_lock_the_first_out(postgres: EmbeddedPostgres, second_database: str) -> None:
    with pytest.raises(RoleRefused, match=r"another installation on this server made the role.*DATABASE_APP_URL"):
        migrate(second_database, "another-password")
    psycopg.connect(application_url(postgres.url, "app-password")).close()
    migrate(second_database, "app-password")
    psycopg.connect(application_url(second_database, "app-password")).close()


def test_the_migrate_command_says_so_and_ends_with_1(
    second_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", second_database)
    monkeypatch.setenv("DATABASE_APP_URL", application_url(second_database, "another-password"))
    assert main(["migrate"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("leadstats migrate: PostgreSQL has the role leadstats_app already")
    assert "another-password" not in message
