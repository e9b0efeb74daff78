"""The locks are complete, hashed, free of addresses, and in step with pyproject.toml."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.environment import ROOT

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
LOCKS = {"requirements.txt": RUNTIME, "requirements-dev.txt": RUNTIME + PROJECT["dependency-groups"]["dev"]}


def pins(lock: str) -> dict[str, str]:
    return {canonicalize_name(match[1]): match[2] for match in PIN.finditer((ROOT / lock).read_text())}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_nothing_but_hashed_pins(lock: str) -> None:
    text = (ROOT / lock).read_text()
    rest = [line for line in PIN.sub("", text).splitlines() if line and not line.startswith("#")]
    assert rest == []
    assert "://" not in text


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_is_locked_at_a_version_that_fits(lock: str) -> None:
    locked = pins(lock)
    required = [Requirement(line) for line in LOCKS[lock]]
    unfit = [str(each) for each in required if not each.specifier.contains(locked.get(canonicalize_name(each.name), "0"), prereleases=True)]
    assert unfit == [], "run `make lock`"


def test_both_locks_agree() -> None:
    development = pins("requirements-dev.txt")
    assert {name: development.get(name) for name in pins("requirements.txt")} == pins("requirements.txt")
