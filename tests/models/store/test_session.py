import asyncio
import traceback
from typing import Any
from uuid import uuid4

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError, StatementError

from models.settings import Settings
from models.store.session import Database
from models.tables.access import Organization
from models.tables.base import new_id


async def test_rows_of_another_organization_do_not_exist(database: Database) -> None:
    mine, theirs = new_id(), new_id()
    for organization_id in (mine, theirs):
        async with database.organization(organization_id) as session:
            session.add(Organization(id=organization_id, name="x", slug=str(organization_id)))
    async with database.organization(mine) as session:
        rows = (await session.execute(text("SELECT id FROM organizations"))).scalars().all()
    assert rows == [mine]


async def test_a_row_cannot_be_written_into_another_organization(database: Database) -> None:
    with pytest.raises(ProgrammingError, match="row-level security"):
        async with database.organization(new_id()) as session:
            session.add(Organization(id=uuid4(), name="x", slug=str(uuid4())))


SECRET = "ada@example.com"
FAILING = {
    "syntax": ("SELECT :value FROM no_such_table", {"value": SECRET}),
    "malformed": ("SELECT CAST(CAST(:value AS text) AS uuid)", {"value": SECRET}),
    "malformed, quoted twice": ("SELECT CAST(CAST(:value AS text) AS jsonb)", {"value": f'{{"a": "{SECRET}" "{SECRET}"}}'}),
    "not null": (
        "INSERT INTO login_attempts (id, subject_hash) VALUES (gen_random_uuid(), NULLIF(:value, :value)::bytea)",
        {"value": SECRET},
    ),
    "duplicate": (
        "INSERT INTO login_attempts (id, subject_hash) SELECT CAST(:id AS uuid), convert_to(:value, 'UTF8') FROM generate_series(1, 2)",
        {"value": SECRET, "id": "0192a000-0000-7000-8000-00000000abcd"},
    ),
    "raised": ("SELECT set_config('TimeZone', :value, true)", {"value": SECRET}),
    "not bound": ("SELECT :value, :missing", {"value": SECRET}),
}


@pytest.mark.parametrize("case", FAILING)
async def test_a_failing_statement_says_nothing_of_its_parameters(database: Database, case: str) -> None:
    statement, parameters = FAILING[case]
    with pytest.raises(StatementError) as caught:
        async with database.organization(new_id()) as session:
            await session.execute(text(statement), parameters)
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value.orig)
    assert not [value for value in parameters.values() if value in said]


async def test_an_error_still_says_what_is_wrong(database: Database) -> None:
    statement, parameters = FAILING["duplicate"]
    with pytest.raises(DBAPIError, match=r"violates unique constraint.*pk_login_attempts") as caught:
        async with database.organization(new_id()) as session:
            await session.execute(text(statement), parameters)
    assert caught.value.orig is not None and caught.value.orig.sqlstate == "23505"  # type: ignore[attr-defined]


async def test_a_connection_that_is_lost_without_a_word_is_given_up_soon(database: Database) -> None:
    async with database.organization(new_id()) as session:
        chosen: dict[str, Any] = conninfo_to_dict((await session.driver()).info.dsn)
    wanted = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15000}
    assert {name: int(chosen[name]) for name in wanted} == wanted


async def test_what_the_url_says_about_connecting_is_obeyed(settings: Settings) -> None:
    own = Database(settings.database_url.get_secret_value() + "?connect_timeout=2&application_name=worker", pool_size=1)
    async with own.organization(new_id()) as session:
        chosen = conninfo_to_dict((await session.driver()).info.dsn)
    assert (chosen["connect_timeout"], chosen["application_name"], chosen["keepalives_idle"]) == ("2", "worker", "10")
    await own.close()


async def test_connections_that_were_wanted_at_once_are_kept_for_the_next_time(settings: Settings) -> None:
    """And there are never more than were asked for."""
    own = Database(settings.database_url.get_secret_value(), pool_size=3)

    async def backend() -> int:
        async with own.organization(new_id()) as session:
            return int((await session.execute(text("SELECT pg_backend_pid() FROM pg_sleep(0.05)"))).scalar_one())

    first, second = [set(await asyncio.gather(*(backend() for _ in range(6)))) for _ in range(2)]
    assert first == second and len(first) == 3
    await own.close()
