"""What a connection to a provider is made of, apart from its secret. Pure."""

from typing import Literal, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from models.domain.errors import Problem

Security = Literal["starttls", "tls", "none"]
# Every reason for which messages are held until a connection is mended: what providers say of it, and what we find before we ask one.
BrokenReason = Literal[
    "address_not_allowed",
    "auth_refused",
    "authentication_failed",
    "authentication_not_offered",
    "certificate_invalid",
    "connection_broken",
    "no_connection",
    "secret_unreadable",
    "sender_refused",
    "starttls_not_offered",
    "tls_refused",
]
BROKEN_REASONS: frozenset[str] = frozenset(get_args(BrokenReason))


class SmtpConfig(BaseModel):
    """An account at an SMTP server. `none` (no encryption) is for a server on this machine only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(min_length=1, max_length=253)
    port: int = Field(ge=1, le=65535)
    security: Security = "starttls"
    username: str | None = Field(default=None, max_length=320)
    sender_address: str = Field(min_length=3, max_length=254)
    sender_name: str = Field(default="", max_length=200)
    reply_to: str | None = Field(default=None, max_length=254)
    # Servers cap the links of one account, and every message in the air holds one. None: as the installation says.
    concurrency: int | None = Field(default=None, ge=1, le=100)
    sandbox: bool = False  # the account at our own sandbox: host and port are where that listened, not where it listens now


def smtp_problems(config: SmtpConfig, has_password: bool) -> list[Problem]:
    """What keeps this account from being used, as a list of problems with the field's path; empty when nothing."""
    problems = []
    if config.security == "none" and config.host not in ("127.0.0.1", "::1", "localhost"):
        problems.append(Problem("security", "unencrypted", "Choose starttls or tls; none is only for a server on this machine."))
    if config.username is not None and not has_password:
        problems.append(Problem("password", "required", "A username needs a password."))
    if config.username is None and has_password:
        problems.append(Problem("username", "required", "A password needs a username."))
    for name in ("host", "username", "sender_address", "sender_name", "reply_to"):
        value = getattr(config, name)
        if value is not None and any(ord(character) < 32 or ord(character) == 127 for character in value):
            problems.append(Problem(name, "control_character", "Remove line breaks and other control characters."))
    return problems


def secret_binding(organization_id: UUID, connection_id: UUID) -> bytes:
    """The associated data of a connection's secret: a sealed secret copied to another row does not open."""
    return b"connections.secret:" + organization_id.bytes + connection_id.bytes
