"""One PostgreSQL per test session, the schema made by the migrations, and a named cast.

Alice owns Acme and does everything; Bob is her colleague; Charlie belongs to another organization, Crow.

`make test` runs two processes side by side (pytest-xdist). Each is a session of its own, with servers and ports of its own.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from sqlalchemy.engine import make_url
from xdist.scheduler import LoadFileScheduling

from deploy import ports
from deploy.postgres import EmbeddedPostgres, free_port
from models.migrations.run import application_url, migrate
from models.settings import Settings
from models.store.session import Database

# Machines are shared: how long an example took to draw or to run says nothing. What `make test` draws is the same each time, so that
# a change fails by what it changes. Others are looked for by `--hypothesis-profile=random`, and where LEADSTATS_PATHS asks for more.
hypothesis_settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.register_profile("leadstats", hypothesis_settings.get_profile("random"), derandomize=True)
hypothesis_settings.load_profile("random" if "LEADSTATS_PATHS" in os.environ else "leadstats")

# Between the choice of a free port and its use another process may choose it too: each has its own to choose from.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    ports._CHOICE = ports._CHOICE[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]


class Files(LoadFileScheduling):  # type: ignore[misc]  # xdist brings no types
    """One file after the other to whichever process is free; all of tests/deploy to one: an installation that is started again
    expects its ports, which nobody holds for it meanwhile."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/deploy" if nodeid.startswith("tests/deploy/") else nodeid.partition("::")[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test has an id of its own: of those that share one the scheduler would run only one, and say nothing. Under pytest 9.2
    schemathesis gives all operations of a test the same."""
    for item in items:
        if (operation := getattr(item, "operation_label", None)) is not None:
            item._id = item._id.with_params(operation)
    assert len({item.nodeid for item in items}) == len(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Files:
    config.option.loadscopereorder = False  # by the number of their tests, which says little: the longest would come last
    return Files(config, log)


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
    return settings_of(postgres.url, tmp_path_factory.mktemp("state"))


def settings_of(owner_url: str, state: Path) -> Settings:
    return Settings.model_validate(
        {
            "database_url": application_url(owner_url, "app-password"),
            "owner_database_url": owner_url,
            "secret_key": b"0123456789abcdef0123456789abcdef",
            "state_directory": state,
        }
    )


def another_database(postgres: EmbeddedPostgres, name: str) -> str:
    """The owner's URL of a new, migrated database on the same server: for tests that look after every organization there is."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = make_url(postgres.url).set(database=name).render_as_string(hide_password=False)
    migrate(url, "app-password")
    return url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.database_url.get_secret_value())
    yield database
    await database.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many of the numbered scenarios passed."""

    def numbers(outcome: str) -> set[str]:
        names = [report.nodeid.rpartition("::test_scenario_")[2] for report in terminalreporter.stats.get(outcome, [])]
        return {name.partition("_")[0] for name in names if name[:2].isdigit()}

    passed, failed = numbers("passed"), numbers("failed") | numbers("error")
    if passed or failed:
        good = sorted(passed - failed)
        terminalreporter.write_line(f"scenarios: {len(good)} passed, {len(failed)} failed ({', '.join(good)})")
