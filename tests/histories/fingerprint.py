"""Notice an edit of code that is replayed: `python -m tests.histories.fingerprint --why "…" [--patch ID]`.

`fingerprints.json` holds a hash of every function that decides which commands a workflow issues: those in `workflows/`, the
interpreter with its steps, and how long is waited before asking again. `make test` fails when one differs, until this command is
run, which writes the reason down. What the reason has to be says docs/decisions/changing-workflows.md: no other commands for runs
under way, or `workflow.patched(ID)` and a new history.
"""

import argparse
import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.environment import ROOT

FILE = ROOT / "tests/workflows/fingerprints.json"
REPLAYED = ("workflows", "models/domain/journey/steps")
ALSO = ("models/domain/back_off.py", "models/domain/journey/interpreter.py")
NOT_REPLAYED = {"workflows/connection.py", "workflows/payloads.py", "workflows/sandbox.py", "workflows/schedules.py"}
ASKED_ONLY_AT_PUBLICATION = {"problems", "frozen", "liquid", "exits", "instant_exits"}  # of a step's class
PATCHED = re.compile(r"\b(?:patched|deprecate_patch)\(\s*\"([^\"]+)\"")


def sources() -> list[Path]:
    found = [path for folder in REPLAYED for path in sorted((ROOT / folder).rglob("*.py"))] + [ROOT / name for name in ALSO]
    return [path for path in found if str(path.relative_to(ROOT)) not in NOT_REPLAYED and path.name != "__init__.py"]


def fingerprints() -> dict[str, str]:
    """By file and function: a hash of what it does, blind to names of files, comments, docstrings and layout."""
    found: dict[str, str] = {}
    for path in sources():
        for name, function in _functions(ast.parse(path.read_text()), str(path.relative_to(ROOT))):
            found[name] = hashlib.sha256(ast.dump(_without_docstring(function)).encode()).hexdigest()[:16]
    return dict(sorted(found.items()))


def patches() -> set[str]:
    """The ids that the code asks for."""
    return {id for path in sources() for id in PATCHED.findall(path.read_text())}


def _functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}:{node.name}")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in ASKED_ONLY_AT_PUBLICATION:
            yield f"{prefix}:{node.name}", node


def _without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        function.body = function.body[1:] or [ast.Pass()]
    return function


def read() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {"functions": {}, "changes": []}
    return known


def differing(known: dict[str, Any]) -> list[str]:
    """The functions that are new, gone or changed since the file was written."""
    before, now = known["functions"], fingerprints()
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.histories.fingerprint", description=__doc__)
    parser.add_argument("--why", required=True, help="why no run under way issues other commands, or what the patch is for")
    parser.add_argument("--patch", help="the id given to workflow.patched")
    wanted = parser.parse_args(arguments)
    known = read()
    changed = differing(known)
    if not changed:
        print("Nothing that is replayed has changed.")
        return 0
    if wanted.patch is not None and wanted.patch not in patches():
        print(f"No code asks for the patch {wanted.patch!r}.", file=sys.stderr)
        return 1
    change = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "functions": changed, "why": wanted.why, "patch": wanted.patch}
    if not known["changes"]:
        change["functions"] = ["all"]
    FILE.write_text(json.dumps({"functions": fingerprints(), "changes": [*known["changes"], change]}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
