"""Writing an organization's audit record to a file, straight from the database."""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from deploy.doctor_target import locate
from deploy.state import Secrets, StateDirectory
from models.checkpoints import Signer
from models.migrations.run import application_url
from models.settings import Settings
from models.store.access import organization_id_by_slug
from models.store.audit_export import export_lines
from models.store.faults import Fault, fault_of
from models.store.session import Database


class Unusable(Exception):
    """The export cannot be made. The message says why, and what to do."""


@dataclass(frozen=True)
class Export:
    """What was written. `public_key` (hex) is what `audit verify --public-key` pins."""

    organization: str
    output: str
    lines: int
    public_key: str


def export_to(slug: str, output: str, state: StateDirectory, environment: Mapping[str, str]) -> Export:
    """The record of the organization `slug` is in the file `output` (readable by its owner only), or on standard output
    for `-`. A file appears whole or not at all.

    Raises:
        Unusable: no such organization, no installation, the database does not answer, or the file cannot be written.
    """
    settings = _settings(state, environment)
    signer = Signer(settings)
    try:
        with _destination(output) as file:
            lines = asyncio.run(_copy(settings, slug, signer, file))
    except OSError as error:
        raise Unusable(f"{output} cannot be written: {error.strerror}") from None
    return Export(slug, output, lines, signer.public_key.hex())


@contextmanager
def _destination(output: str) -> Iterator[TextIO]:
    if output == "-":
        yield sys.stdout
        return
    draft = Path(f"{output}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            yield file
        draft.rename(output)
    finally:
        draft.unlink(missing_ok=True)


async def _copy(settings: Settings, slug: str, signer: Signer, file: TextIO) -> int:
    count = 0
    database = Database(settings.database_url.get_secret_value(), pool_size=2)
    try:
        async with database.outside() as session:
            organization_id = await organization_id_by_slug(session, slug)
        if organization_id is None:
            raise Unusable(f"there is no organization {slug}")
        async for part in export_lines(database, organization_id, signer):
            file.write(part)
            count += part.count("\n")
    except Exception as error:
        if fault_of(error) is Fault.UNAVAILABLE:
            raise Unusable("the database does not answer; is the installation up?") from None
        raise
    finally:
        await database.close()
    return count


def _settings(state: StateDirectory, environment: Mapping[str, str]) -> Settings:
    """Those of the installation that runs over `state` or, where none does, what the environment and the state's secrets say."""
    try:
        secrets = state.known_secrets()
        url = locate(state, environment).database_url or _as_application(environment.get("DATABASE_URL"), secrets)
    except (OSError, ValueError) as error:  # not its text: it may quote a secret
        why = error.strerror if isinstance(error, OSError) else "its files are not in the form expected"
        raise Unusable(f"the state directory {state.path} cannot be read: {why}") from None
    key = environment.get("LEADSTATS_SECRET_KEY") or (secrets and secrets.secret_key)
    if not url or not key:
        raise Unusable(
            f"no installation is up over {state.path}. Start it (leadstats up), name another by --state DIR or LEADSTATS_STATE, "
            "or set DATABASE_APP_URL and LEADSTATS_SECRET_KEY"
        )
    try:
        return Settings.from_environment({**environment, "DATABASE_APP_URL": url, "LEADSTATS_SECRET_KEY": key})
    except ValueError as error:
        raise Unusable(str(error)) from None


def _as_application(owner_url: str | None, secrets: Secrets | None) -> str | None:
    """As `leadstats up` makes it for a database of the operator's own."""
    return application_url(owner_url, secrets.database_app_password) if owner_url and secrets else None
