"""What a database needs before the installation can be used: the schema, and on first start an organization with its admin."""

import asyncio

from sqlalchemy.engine import make_url

from deploy.environment import Plan
from deploy.state import Secrets
from models.domain.errors import Conflict
from models.migrations.run import migrate
from models.settings import Settings
from models.store.session import Database

ORGANIZATION_NAME = "My organization"
ORGANIZATION_SLUG = "my-organization"


async def migrate_database(plan: Plan) -> None:
    """The schema is the newest and the application's role can log in, with the password of DATABASE_APP_URL where that is given.

    Raises:
        RoleRefused: the role exists with another password, which is not changed.
    """
    await asyncio.to_thread(migrate, plan.owner_url, make_url(plan.app_url).password or "")


async def ensure_first_organization(plan: Plan, settings: Settings) -> Secrets:
    """The secrets with an organization in them, made now on the first start. Safe to repeat.

    Where the database already has the organization but this state directory does not know it: in our own database a first
    start was broken off, so that its login stands, but its API key is lost; an external one's people have their own logins.
    """
    if plan.secrets.organization_id is not None:
        return plan.secrets
    from api.commands.organizations import create_organization, organization_id_of
    from api.dependencies import Services
    from workflows.connection import connect

    database = Database(settings.database_url.get_secret_value(), pool_size=2)
    login = plan.secrets.admin_email, plan.secrets.admin_password
    try:
        services = Services(settings=settings, database=database, temporal=await connect(settings, lazy=True))
        made = await create_organization(services, ORGANIZATION_NAME, ORGANIZATION_SLUG, *login)
        found = {"organization_id": str(made.organization_id), "api_key": made.api_key}
    except Conflict:
        if plan.postgres_port is None:
            return plan.secrets
        found = {"organization_id": str(await organization_id_of(services, ORGANIZATION_SLUG))}
    finally:
        await database.close()
    secrets = plan.secrets.model_copy(update=found)
    plan.state.keep_secrets(secrets)
    return secrets
