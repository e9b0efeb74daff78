import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from deploy.child_log import ChildLog
from deploy.processes import Part, PartFailed, ProcessTree
from deploy.state import StateDirectory

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


def part(name: str, code: str, **options: float) -> Part:
    return Part(name, [sys.executable, "-c", code], {"PATH": os.environ["PATH"]}, stop_within=options.get("stop_within", 2.0))


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    directory = StateDirectory(tmp_path)
    directory.prepare()
    return directory


@pytest_asyncio.fixture
async def tree(state: StateDirectory) -> AsyncIterator[ProcessTree]:
    made = ProcessTree(state.logs, state.keep_processes)
    yield made
    made.kill()
    await made.stop([list(made.pids())])


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.02)


async def test_a_part_that_dies_is_started_again_with_a_notice(tree: ProcessTree, state: StateDirectory) -> None:
    await tree.start(part("api", SLEEP))
    tree.settle()
    first = state.processes()["api"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: state.processes().get("api", first) != first)
    assert "ended (killed by SIGKILL); starting it again" in (state.logs / "api.log").read_text()


async def test_a_part_that_keeps_dying_while_starting_fails_the_start_with_its_last_words(tree: ProcessTree) -> None:
    await tree.start(part("worker", "raise SystemExit('no such database')"))
    with pytest.raises(PartFailed, match=r"worker keeps ending while starting.*\n.*no such database"):
        await asyncio.wait_for(tree.failure(), 60)


async def test_a_part_that_ignores_the_stop_signal_is_ended_by_force(tree: ProcessTree, state: StateDirectory) -> None:
    await tree.start(part("sandbox", STUBBORN, stop_within=0.2))
    await until(lambda: "deaf" in (state.logs / "sandbox.log").read_text())
    pid = tree.pids()["sandbox"]
    await tree.stop([["sandbox"]])
    assert not psutil.pid_exists(pid)


async def test_parts_stop_one_after_the_other_in_the_given_order(tree: ProcessTree, state: StateDirectory) -> None:
    # Not by print: the signal may meet the print of "up", and its buffer takes no second one.
    last_words = "import os, signal, sys, time\ndef end(*_): os.write(1, f'ended {time.time()}\\n'.encode()); sys.exit()\n"
    last_words += "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(60)"
    for name in ("api", "worker"):
        await tree.start(part(name, last_words, stop_within=60))
        await until(lambda name=name: "up" in (state.logs / f"{name}.log").read_text())  # type: ignore[misc]
    await tree.stop([["worker"], ["api"]])
    worker, api = (float((state.logs / f"{name}.log").read_text().split()[-1]) for name in ("worker", "api"))
    assert worker < api


async def test_parts_of_a_group_stop_at_the_same_time_and_all_within_the_time_of_the_whole(
    tree: ProcessTree, state: StateDirectory
) -> None:
    for name in ("sandbox", "temporal", "postgres"):
        await tree.start(part(name, STUBBORN, stop_within=1.0))
    for name in ("sandbox", "temporal", "postgres"):
        await until(lambda name=name: "deaf" in (state.logs / f"{name}.log").read_text())  # type: ignore[misc]
    await tree.stop([["sandbox", "temporal"], ["postgres"]], within=1.2)
    said = {name: (state.logs / f"{name}.log").read_text() for name in ("sandbox", "temporal", "postgres")}
    assert "did not stop within 1.0 s" in said["sandbox"] and "did not stop within 1.0 s" in said["temporal"]
    assert "did not stop within 0.5 s" in said["postgres"]
    assert tree.pids() == {}


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys
from pathlib import Path
from deploy.processes import Part, ProcessTree
async def main():
    tree = ProcessTree(Path({str(tmp_path)!r}), lambda pids: None)
    await tree.start(Part("api", [sys.executable, "-c", {STUBBORN!r}], {{}}))
    print(tree.pids()["api"], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


async def test_output_is_prefixed_with_the_name_line_by_line(tmp_path: Path) -> None:
    terminal = io.StringIO()
    log = ChildLog("api", tmp_path, terminal)
    reader, writer = os.pipe()
    os.write(writer, b"one\ntw")
    os.write(writer, b"o\nrest without an end")
    os.close(writer)
    await log.follow(reader)
    assert terminal.getvalue().splitlines() == ["api      | one", "api      | two", "api      | rest without an end"]
    assert (tmp_path / "api.log").read_text() == "one\ntwo\nrest without an end\n"


async def test_a_large_log_makes_room_and_keeps_the_part_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.child_log.ROTATE_AT_BYTES", 10)
    log = ChildLog("api", tmp_path, io.StringIO())
    for number in range(3):
        log.say(f"line {number}")
    assert (tmp_path / "api.log").read_text() == "[leadstats] line 2\n"
    assert (tmp_path / "api.log.1").read_text() == "[leadstats] line 1\n"
