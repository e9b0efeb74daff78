"""Who may use the sandbox's mail inbox: every organization, with a password derived from the installation's key; and where it is now."""

from uuid import UUID

from models.domain.connection import SmtpConfig
from models.settings import Settings

DISCARD = "+discard"  # appended to the user name: the mail is counted and thrown away


def sandbox_username(organization_id: UUID, *, discard: bool = False) -> str:
    return f"{organization_id}{DISCARD if discard else ''}"


def sandbox_password(settings: Settings, organization_id: UUID) -> str:
    """Always the same for an organization of an installation, so the inbox needs no list of passwords."""
    return settings.keyed_hash("sandbox-smtp", str(organization_id)).hex()


def at_sandbox_now(config: SmtpConfig, organization_id: UUID, settings: Settings) -> SmtpConfig:
    """The account with the address at which it is to be reached. The sandbox's own follows the sandbox, which takes another port when
    its own is taken at a start; any other stays as it is."""
    if not is_sandbox_account(config, organization_id, settings):
        return config
    return config.model_copy(update={"sandbox": True, "host": settings.sandbox_smtp_host, "port": settings.sandbox_smtp_port})


def is_sandbox_account(config: SmtpConfig, organization_id: UUID, settings: Settings) -> bool:
    """Whether this is the organization's account at the sandbox: marked so or, made before there was a mark or by hand, of the
    sandbox's user name on the sandbox's host. No other server has such a user."""
    users = [sandbox_username(organization_id, discard=discard) for discard in (False, True)]
    return config.sandbox or (config.host == settings.sandbox_smtp_host and config.username in users)
