"""The bans on clock and chance bite where code must be pure or is replayed, and only there."""

import subprocess
import sys

import pytest

from deploy.environment import ROOT

PLANTED = [
    ("import datetime\n\nx = datetime.datetime.now(datetime.UTC)\n", "datetime.datetime.now"),
    ("from datetime import date\n\nx = date.today()\n", "datetime.date.today"),
    ("import time\n\nx = time.monotonic()\n", "time"),
    ("import random\n\nx = random.random()\n", "random"),
    ("from uuid import uuid4\n\nx = uuid4()\n", "uuid.uuid4"),
    ("import uuid_utils\n\nx = uuid_utils.uuid7()\n", "uuid_utils"),
    ("import os\n\nx = os.environ['A']\n", "os.environ"),
    ("from temporalio import workflow\n\nwith workflow.unsafe.imports_passed_through():\n    pass\n", "temporalio.workflow.unsafe"),
]


def banned(path: str, code: str) -> str:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251", "--stdin-filename", path, "-"]
    return subprocess.run(command, input=code, cwd=ROOT, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(("code", "name"), PLANTED, ids=[name for _, name in PLANTED])
@pytest.mark.parametrize("path", ["models/domain/planted.py", "models/domain/journey/planted.py", "workflows/planted.py"])
def test_impure_calls_are_caught(path: str, code: str, name: str) -> None:
    assert f"`{name}` is banned" in banned(path, code)


@pytest.mark.parametrize("path", ["activities/planted.py", "models/store/planted.py", "api/planted.py", "deploy/planted.py"])
def test_the_rest_may_look_at_the_clock(path: str) -> None:
    assert "All checks passed" in banned(path, PLANTED[0][0])


def test_a_time_without_a_zone_is_caught_everywhere() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", "activities/planted.py", "-"]
    code = "from datetime import datetime\n\nx = datetime.now()\n"
    assert "DTZ005" in subprocess.run(command, input=code, cwd=ROOT, capture_output=True, text=True, check=False).stdout
