"""The migrations make exactly the tables that the code declares."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlmodel import SQLModel

import models.tables  # noqa: F401  (registers every table)
from deploy.postgres import EmbeddedPostgres
from models.migrations.run import migrate


def test_the_migrated_database_is_what_the_tables_say(postgres: EmbeddedPostgres) -> None:
    engine = create_engine(make_url(postgres.url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
            assert compare_metadata(context, SQLModel.metadata) == []
    finally:
        engine.dispose()


def test_migrating_again_changes_nothing(postgres: EmbeddedPostgres) -> None:
    migrate(postgres.url, "app-password")
