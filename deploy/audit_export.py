"""Writing an organization's audit record to a file, straight from the database."""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from deploy.state import StateDirectory
from models.checkpoints import Signer
from models.migrations.run import application_url
from models.settings import Settings
from models.store.access import organization_id_by_slug
from models.store.audit_export import export_lines
from models.store.faults import Fault, fault_of
from models.store.session import Database


class Unusable(Exception):
    """The export cannot be made; `code` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def export_to(slug: str, output: str, state: Path, environment: Mapping[str, str]) -> int:
    """The record of the organization `slug` is in the file `output` (readable by its owner only), or on standard output
    for `-`. Gives the number of lines. A file appears whole or not at all.

    Raises:
        Unusable: no such organization, no installation, or the database does not answer.
    """
    settings = _settings(state, environment)
    with _destination(output) as file:
        return asyncio.run(_copy(settings, slug, file))


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


async def _copy(settings: Settings, slug: str, file: TextIO) -> int:
    count = 0
    database = Database(settings.database_url.get_secret_value(), pool_size=1)
    try:
        async with database.outside() as session:
            organization_id = await organization_id_by_slug(session, slug)
        if organization_id is None:
            raise Unusable(f"there is no organization {slug}", 1)
        async for part in export_lines(database, organization_id, Signer(settings)):
            file.write(part)
            count += part.count("\n")
    except Exception as error:
        if fault_of(error) is Fault.UNAVAILABLE:
            raise Unusable("the database does not answer; is the installation up?", 2) from None
        raise
    finally:
        await database.close()
    return count


def _settings(state: Path, environment: Mapping[str, str]) -> Settings:
    """From the environment, or from a state directory that `leadstats up` made."""
    if "DATABASE_APP_URL" in environment:
        try:
            return Settings.from_environment(environment)
        except ValueError as error:
            raise Unusable(str(error), 2) from None
    directory = StateDirectory(state)
    port = directory.ports().get("postgres")
    if port is None and "DATABASE_URL" not in environment:
        raise Unusable(f"set DATABASE_APP_URL and LEADSTATS_SECRET_KEY, or give --state: {state} is not an installation", 2)
    secrets = directory.secrets()
    owner = environment.get("DATABASE_URL") or f"postgresql://leadstats@127.0.0.1:{port}/leadstats"
    found = {"DATABASE_APP_URL": application_url(owner, secrets.database_app_password), "LEADSTATS_SECRET_KEY": secrets.secret_key}
    return Settings.from_environment(found | dict(environment))
