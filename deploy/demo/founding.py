"""The demo's own organization, in the database of a running installation."""

import os
import secrets
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from api.commands.organizations import create_organization
from api.dependencies import Services
from deploy.state import StateDirectory
from models.settings import Settings
from models.store.session import Database
from workflows.connection import connect


@dataclass(frozen=True)
class Founded:
    """`api_key` may do everything in the organization; `password` is the owner's."""

    organization_id: UUID
    slug: str
    email: str
    password: str
    api_key: str


async def found_organization(state: StateDirectory, installation: dict[str, Any]) -> Founded:
    """A new organization with an owner of its own, for each demo another one."""
    settings = _settings(state, installation)
    slug = f"demo-{secrets.token_hex(4)}"
    email, password = f"{slug}@example.com", secrets.token_urlsafe(12)
    database = Database(settings.database_url.get_secret_value(), pool_size=2)
    try:
        services = Services(settings=settings, database=database, temporal=await connect(settings, lazy=True))
        made = await create_organization(services, f"Fernhill ({slug})", slug, email, password)
    finally:
        await database.close()
    return Founded(made.organization_id, slug, email, password, made.api_key)


def _settings(state: StateDirectory, installation: dict[str, Any]) -> Settings:
    """As the installation's own processes have them: its key, its database, its mail sandbox."""
    host, _, port = installation["sandbox_smtp"].rpartition(":")
    return Settings.from_environment(
        {
            "DATABASE_APP_URL": installation["database_url"],
            "LEADSTATS_SECRET_KEY": os.environ.get("LEADSTATS_SECRET_KEY") or state.secrets().secret_key,
            "LEADSTATS_STATE": str(state.path),
            "LEADSTATS_SANDBOX_SMTP_HOST": host,
            "LEADSTATS_SANDBOX_SMTP_PORT": port,
        }
    )
