"""`leadstats up` as a script or a person meets it: the real parts, twice over the same state."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.environment import ROOT

PATIENCE = 60  # seconds of a busy machine


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="leadstats-test-up-"))
    directory.chmod(0o711)
    yield directory / "state"
    shutil.rmtree(directory, ignore_errors=True)


def start(state: Path) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    own = ("LEADSTATS_", "DATABASE_", "TEMPORAL_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    with (state.parent / "stderr.log").open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, ROOT / "leadstats.py", "up", "--state", state, "--json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            cwd=state.parent,
        )
    assert process.stdout is not None
    line = process.stdout.readline()  # empty when it ended without being ready
    assert line, (state.parent / "stderr.log").read_text()[-4000:]
    return process, json.loads(line)


def stop(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    assert process.wait(PATIENCE) == 0


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def still_there(processes: list[psutil.Process]) -> list[str]:
    return [each.name() for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def get(url: str, key: str, method: str = "GET") -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"}, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def test_up_prints_one_line_when_ready_stops_clean_and_goes_on_next_time(state: Path) -> None:
    process, first = start(state)
    try:
        check_ready(first, state)
        refused = subprocess.run(
            [sys.executable, ROOT / "leadstats.py", "up", "--state", state], capture_output=True, text=True, check=False
        )
        assert refused.returncode == 1
        assert f"already runs over {state} (process {process.pid})" in refused.stderr
        children = family(process)
        assert len(children) >= 5
        stop(process, signal.SIGINT)
    finally:
        process.kill()
    assert still_there(children) == []
    assert process.stdout is not None and process.stdout.read() == ""
    assert not (state / "processes.json").exists()
    check_second_start(state, first)


def check_ready(installation: dict[str, Any], state: Path) -> None:
    assert set(installation["pids"]) == {"postgres", "temporal", "worker", "api", "sandbox"}
    assert json.loads((state / "processes.json").read_text()) == installation["pids"]
    assert get(f"{installation['api']}/v1/organization", installation["api_key"])["id"] == installation["organization_id"]
    with urllib.request.urlopen(installation["console"], timeout=PATIENCE) as page:
        assert installation["temporal_ui"] in page.read().decode()
    assert (state / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert (state / "installation.json").stat().st_mode & 0o777 == 0o600
    assert found_by_doctor(state) == []


def found_by_doctor(state: Path) -> list[dict[str, Any]]:
    """What is wrong. On a busy machine it may ask again what did not answer soon enough."""
    deadline = time.monotonic() + PATIENCE
    while True:
        said = subprocess.run(
            [sys.executable, ROOT / "leadstats.py", "doctor", "--state", state, "--json"], capture_output=True, text=True, check=False
        )
        wrong = [each for each in json.loads(said.stdout)["findings"] if not each["ok"]]
        if time.monotonic() > deadline or not any(each["detail"].startswith("It did not answer within") for each in wrong):
            return wrong


def check_second_start(state: Path, first: dict[str, Any]) -> None:
    """The same installation again, with the sandbox's port taken by somebody else; and this time `up` is killed outright."""
    with taken(first["sandbox_smtp"]):
        process, second = start(state)
    try:
        same = ("api_key", "organization_id", "admin", "api", "database_url", "temporal")
        assert {name: second[name] for name in same} == {name: first[name] for name in same}
        assert get(f"{second['api']}/v1/organization", first["api_key"])["id"] == first["organization_id"]
        check_sandbox_connection(second, moved_from=first["sandbox_smtp"])
        children = family(process)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + PATIENCE
    while still_there(children):
        assert time.monotonic() < deadline, f"outlived their parent: {still_there(children)}"
        time.sleep(0.1)


@contextmanager
def taken(address: str) -> Iterator[None]:
    host, _, port = address.rpartition(":")
    with ExitStack() as held:
        with suppress(OSError):  # somebody has it already
            held.enter_context(socket.create_server((host, int(port))))
        yield


def check_sandbox_connection(installation: dict[str, Any], moved_from: str) -> None:
    """It is where the sandbox is now."""
    assert installation["sandbox_smtp"] != moved_from
    address, key = f"{installation['api']}/v1/connections", installation["api_key"]
    [connection] = get(address, key)["items"]
    assert f"{connection['host']}:{connection['port']}" == installation["sandbox_smtp"]
    assert get(f"{address}/{connection['id']}/checks", key, "POST")["ok"]
