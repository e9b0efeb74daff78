"""List the licences of what is installed with the product: `make licences` writes docs/licences.md, `make check` compares."""

import importlib.metadata
import re
import sys
from pathlib import Path

from deploy.environment import ROOT

TARGET = ROOT / "docs" / "licences.md"
# Terms that would reach into a product that is handed on.
REFUSED = re.compile(r"(?<![A-Z])A?GPL|GNU (Affero )?General Public|SSPL|Business Source", re.IGNORECASE)
INTRODUCTION = """# Licences of the dependencies

Made by `make licences` from what requirements.txt installs. The programs that packages bring along (PostgreSQL: PostgreSQL
licence; Temporal's server: MIT) are named by their packages.

| package | licence |
|---|---|
"""


def locked_packages() -> list[str]:
    return re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)


def licence(package: str) -> str:
    """As the package states it: an SPDX expression, else its classifiers, else the first line of its licence field."""
    metadata = importlib.metadata.metadata(package).json
    if expression := metadata.get("license_expression"):
        return str(expression)
    classifiers = [line.rsplit(" :: ", 1)[-1] for line in metadata.get("classifier", []) if line.startswith("License :: OSI Approved ::")]
    stated = str(metadata.get("license") or "not stated").strip().splitlines()
    return " or ".join(classifiers) or stated[0]


def document() -> str:
    return INTRODUCTION + "".join(f"| {package} | {licence(package)} |\n" for package in locked_packages())


def main(arguments: list[str]) -> int:
    """Writes the list; with --check, 1 when it is out of date or holds a licence that we cannot ship under."""
    refused = [package for package in locked_packages() if REFUSED.search(licence(package)) and "LGPL" not in licence(package)]
    if refused:
        print(f"Licences that cannot be shipped with the product: {', '.join(refused)}", file=sys.stderr)
        return 1
    if "--check" not in arguments:
        TARGET.write_text(document())
    elif not TARGET.exists() or TARGET.read_text() != document():
        print(f"{_shown(TARGET)} is out of date; run `make licences`.", file=sys.stderr)
        return 1
    print(f"{len(locked_packages())} dependencies, their licences in {_shown(TARGET)}.")
    return 0


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
