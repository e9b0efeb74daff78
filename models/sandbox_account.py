"""Who may use the sandbox's mail inbox: every organization, with a password derived from the installation's key."""

from uuid import UUID

from models.settings import Settings

DISCARD = "+discard"  # appended to the user name: the mail is counted and thrown away


def sandbox_username(organization_id: UUID, *, discard: bool = False) -> str:
    return f"{organization_id}{DISCARD if discard else ''}"


def sandbox_password(settings: Settings, organization_id: UUID) -> str:
    """Always the same for an organization of an installation, so the inbox needs no list of passwords."""
    return settings.keyed_hash("sandbox-smtp", str(organization_id)).hex()
