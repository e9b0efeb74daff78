"""Make the lock files: every package pinned, with hashes, and without any address.

The pip configuration of the machine (mirrors, local directories, constraints) has no say, so that the lock is the
same wherever it is made. Used by `make lock`.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADER = "# Made by `make lock` from pyproject.toml. Do not edit.\n"
OPTIONS = (
    "--quiet",
    "--no-config",
    "--generate-hashes",
    "--allow-unsafe",
    "--strip-extras",
    "--no-header",
    "--annotation-style=line",
    "--no-annotate",
    "--no-emit-index-url",
    "--no-emit-trusted-host",
    "--no-emit-find-links",
    "--no-emit-options",
    "--resolver=backtracking",
)


def lock(upgrade: bool) -> None:
    """`requirements.txt` and `requirements-dev.txt` are in step with pyproject.toml.

    The second holds the first, with the same versions. Pins that still fit are kept unless `upgrade`.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime: list[str] = project["project"]["dependencies"]
    development: list[str] = project["dependency-groups"]["dev"]
    _compile(runtime, ROOT / "requirements.txt", None, upgrade)
    _compile(runtime + development, ROOT / "requirements-dev.txt", ROOT / "requirements.txt", upgrade)


def _compile(requirements: list[str], target: Path, constraint: Path | None, upgrade: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "requirements.in"
        source.write_text("\n".join(requirements) + "\n")
        extra = [*(["--upgrade"] if upgrade else []), *([f"--constraint={constraint}"] if constraint else [])]
        command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, *extra, "--output-file", str(target), str(source)]
        subprocess.run(command, check=True, env=_environment())
    body = target.read_text().removeprefix(HEADER)
    target.write_text(HEADER + body)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") or name in ("PIP_CERT", "PIP_DEFAULT_TIMEOUT")}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


if __name__ == "__main__":
    lock(upgrade="--upgrade" in sys.argv[1:])
