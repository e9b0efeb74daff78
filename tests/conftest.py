"""One PostgreSQL per test session, the schema made by the migrations, and a named cast.

Alice owns Acme and does everything; Bob is her colleague; Charlie belongs to another organization, Crow.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.postgres import EmbeddedPostgres, free_port
from models.migrations.run import application_url, migrate
from models.settings import Settings
from models.store.session import Database


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    directory = Path(tempfile.mkdtemp(prefix="leadstats-test-"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory / "postgres", free_port(), "owner-password", durable=False)
    server.start()
    migrate(server.url, "app-password")
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def settings(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.model_validate(
        {
            "database_url": application_url(postgres.url, "app-password"),
            "owner_database_url": postgres.url,
            "secret_key": b"0123456789abcdef0123456789abcdef",
            "state_directory": tmp_path_factory.mktemp("state"),
        }
    )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.database_url.get_secret_value())
    yield database
    await database.close()
