"""What the tree may hold, and where."""

import ast
import subprocess
from pathlib import Path

import pytest

from deploy.environment import ROOT

PACKAGES = ("activities", "api", "deploy", "models", "workflows")
TOP_LEVEL = {
    *("workflows", "activities", "api", "models", "tests", "web", "docs", "deploy"),
    *("worker.py", "leadstats.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile"),
    *("requirements.txt", "requirements-dev.txt"),
}
INITS = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("__init__.py"))]


def committed() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def test_the_top_level_is_fixed() -> None:
    names = {path.split("/")[0] for path in committed()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("path", INITS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_file_holds_at_most_a_docstring(path: Path) -> None:
    if path == ROOT / "models" / "tables" / "__init__.py":
        return  # imports all tables, so that Alembic sees them
    body = ast.parse(path.read_text()).body
    assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def test_nothing_secret_or_built_is_committed() -> None:
    forbidden = (".leadstats/", ".venv/", "api/static/", ".env", "secrets.json")
    assert [path for path in committed() if path.startswith(forbidden) or path.endswith("secrets.json")] == []
