"""Organizations, people, and how they prove who they are."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Column, Index, LargeBinary, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.tables.base import OrganizationRow, document, moment, new_id


class Organization(SQLModel, table=True):
    """A tenant. Its row-level security policy compares `id` itself."""

    __tablename__ = "organizations"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str
    slug: str = Field(unique=True)
    status: str = "active"  # active | suspended: nothing leaves a suspended organization
    timezone: str = "UTC"  # IANA; used when a contact has none or an invalid one
    quiet_hours: dict[str, Any] = document()  # by channel: {"email": {"start": "21:00", "end": "08:00"}}
    attribute_schema: dict[str, Any] = document()  # custom contact attributes: {"plan": {"type": "string"}}
    approval_required: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})  # to publish a journey
    listening: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})  # some version depends on contacts' changes
    created_at: datetime = moment(default_now=True)


class User(SQLModel, table=True):
    """A person who may belong to several organizations. Visible only through a shared membership."""

    __tablename__ = "users"
    __table_args__ = (Index("uq_users_email_lower", text("lower(email)"), unique=True),)

    id: UUID = Field(default_factory=new_id, primary_key=True)
    email: str
    password_hash: str
    disabled_at: datetime | None = moment(nullable=True)
    created_at: datetime = moment(default_now=True)


class Membership(OrganizationRow, table=True):
    __tablename__ = "memberships"
    __table_args__ = (UniqueConstraint("organization_id", "user_id"),)

    user_id: UUID = Field(foreign_key="users.id", index=True)
    name: str = ""  # what this organization calls them; what others call them is not its business
    role: str  # owner | admin | designer | approver | support | auditor | viewer


class Session(OrganizationRow, table=True):
    """A console login. Only hashes of the cookie and the CSRF token are kept."""

    __tablename__ = "sessions"

    user_id: UUID = Field(foreign_key="users.id")
    token_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    csrf_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    expires_at: datetime = moment()
    last_seen_at: datetime = moment(default_now=True)


class ApiKey(OrganizationRow, table=True):
    __tablename__ = "api_keys"

    name: str
    prefix: str  # the part that may be shown, to recognise a key by
    secret_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    scopes: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    created_by: UUID | None = None
    made_by: UUID | None = None  # the key that made it: this one does not outlive it
    expires_at: datetime | None = moment(nullable=True)
    last_used_at: datetime | None = moment(nullable=True)
    revoked_at: datetime | None = moment(nullable=True)


class LoginAttempt(SQLModel, table=True):
    """Failed logins, for throttling. Holds keyed hashes of address and email, never the values."""

    __tablename__ = "login_attempts"
    __table_args__ = (
        Index("ix_login_attempts_subject_hash_attempted_at", "subject_hash", "attempted_at"),
        Index("ix_login_attempts_attempted_at", "attempted_at"),
    )

    id: UUID = Field(default_factory=new_id, primary_key=True)
    subject_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    attempted_at: datetime = moment(default_now=True)


class IdempotencyKey(OrganizationRow, table=True):
    """The stored answer of a creating POST, so that the same key gives the same answer and no second thing."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        UniqueConstraint("organization_id", "actor_id", "key"),
        Index("ix_idempotency_keys_created_at", "organization_id", "created_at"),
    )

    actor_id: UUID
    key: str
    request_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    status_code: int | None = None  # NULL while the first request is still running
    body: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))  # sealed: headers and body
    headers: dict[str, Any] = document()
