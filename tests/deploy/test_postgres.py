import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deploy import postgres_home
from deploy.ports import free_port
from deploy.postgres import EmbeddedPostgres
from deploy.postgres_home import settle

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account for PostgreSQL")


@pytest.fixture
def system_directory(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In place of /var/lib/leadstats."""
    place = Path("/tmp") / f"leadstats-test-system-{os.getpid()}"
    monkeypatch.setattr(postgres_home, "SYSTEM_DIRECTORY", place)
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    directory = tmp_path / "closed"
    directory.mkdir(mode=0o700)
    return directory


@only_root
def test_data_under_a_closed_directory_moves_and_nobodys_permissions_are_widened(closed: Path, system_directory: Path) -> None:
    home = settle(closed / "state" / "postgres")
    assert home.data.is_relative_to(system_directory)
    assert (home.data.parent / "belongs-to").read_text().strip() == str(closed / "state" / "postgres")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert settle(closed / "state" / "postgres") == home


@only_root
def test_programs_under_a_closed_directory_are_copied_and_work(
    closed: Path, system_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = postgres_home.POSTGRES_VERSIONS[postgres_home.VERSION].parent.parent
    for source in (package / "pginstall18", package.with_name(f"{package.name}.libs")):
        if source.exists():
            target = closed / source.relative_to(package.parent)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("include"))
    monkeypatch.setitem(postgres_home.POSTGRES_VERSIONS, postgres_home.VERSION, closed / package.name / "pginstall18" / "bin")
    server = EmbeddedPostgres(closed / "state" / "postgres", free_port(), "password", durable=False)
    server.start()
    server.stop()
    assert server.home.binaries.is_relative_to(system_directory)


def test_a_pid_file_that_names_some_other_process_does_not_block_the_start(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    server = EmbeddedPostgres(postgres.home.data.parent / "second", free_port(), "password", durable=False)
    server.start()
    server.stop()
    pid_file = server.home.data / "postmaster.pid"
    pid_file.write_text(f"{os.getppid()}\n{server.home.data}\n")  # the number was given to another process meanwhile
    server.start()
    try:
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.stop()


def test_a_wrong_password_is_refused(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url.replace(postgres.password, "guess"))
