"""The import contracts of pyproject.toml are kept, and would catch what they are there for."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.environment import ROOT

PACKAGES = ("activities", "api", "models", "workflows")
# One violation for each contract, planted together in a copy of the tree.
PLANTED = {
    "models/planted_layer.py": "import workflows.journey\n",
    "models/tables/planted.py": "import models.store.session\n",
    "models/domain/planted.py": "import asyncio\n",
    "workflows/planted.py": "import models.store.session\n",
    "activities/contracts/planted.py": "import os\n",
    "api/planted.py": "import activities.planted\n",
    "activities/planted.py": "import aiosmtplib\nimport sqlalchemy\nimport fastapi\nimport worker\n",
    "activities/providers/gmail.py": "import activities.providers.smtp\n",
    "api/rest/planted.py": "import api.sandbox\n",
    "workflows/planted_cycle.py": "import workflows.planted_back\n",
    "workflows/planted_back.py": "import workflows.planted_cycle\n",
}
CONTRACTS = ("1.", "2.", "3.", "4.", "4b.", "5.", "6.", "7.", "8.", "9.", "10.", "11.", "12.")


def check_imports(root: Path) -> str:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run(['--no-logo', '--no-cache'])"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(root)}).stdout


def verdicts(report: str) -> dict[str, str]:
    lines = [line for line in report.splitlines() if " KEPT" in line or " BROKEN" in line]
    return {line.split()[0]: "KEPT" if " KEPT" in line else "BROKEN" for line in lines}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    root = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for path, code in PLANTED.items():
        with (root / path).open("a") as file:
            file.write(f"\n{code}")
    yield verdicts(check_imports(root))


def test_every_contract_is_kept() -> None:
    report = check_imports(ROOT)
    assert verdicts(report) == dict.fromkeys(CONTRACTS, "KEPT"), report


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_planted_violation_is_caught(planted: dict[str, str], contract: str) -> None:
    assert planted[contract] == "BROKEN"
