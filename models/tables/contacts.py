"""Contacts and what they agreed to."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Column, Computed, Index, LargeBinary, Text, UniqueConstraint, text
from sqlmodel import Field

from models.tables.base import OrganizationRow, document, moment


class Contact(OrganizationRow, table=True):
    __tablename__ = "contacts"
    __table_args__ = (
        Index("uq_contacts_external_id", "organization_id", "external_id", unique=True, postgresql_where=text("external_id IS NOT NULL")),
        Index("uq_contacts_email", "organization_id", "email_key", unique=True, postgresql_where=text("email_key IS NOT NULL")),
        Index("ix_contacts_phone", "organization_id", "phone", postgresql_where=text("phone IS NOT NULL")),
        Index("ix_contacts_page", "organization_id", "id"),
    )

    external_id: str | None = None
    email: str | None = None
    # What the email is found and unique by. A column and not an expression in the index: under row-level security
    # PostgreSQL uses an index only for leakproof tests, which lower() is not.
    email_key: str | None = Field(default=None, sa_column=Column(Text, Computed("lower(email)", persisted=True)))
    phone: str | None = None  # E.164
    first_name: str | None = None
    last_name: str | None = None
    locale: str | None = None  # BCP 47
    timezone: str | None = None  # IANA
    country: str | None = None  # ISO 3166-1 alpha-2
    region: str | None = None
    postal_code: str | None = None
    attributes: dict[str, Any] = document()
    tags: list[str] = Field(default_factory=list, sa_column=Column(ARRAY(Text), nullable=False, server_default="{}"))
    updated_at: datetime = moment(default_now=True)


class ContactImport(OrganizationRow, table=True):
    __tablename__ = "contact_imports"
    __table_args__ = (Index("ix_contact_imports_page", "organization_id", "id"),)

    created_by: UUID | None = None
    file_name: str = ""
    options: dict[str, Any] = document()  # column mapping, delimiter, encoding, dry run, consent given
    content_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    status: str = "completed"
    dry_run: bool = False
    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    details: dict[str, Any] = document()  # what was detected, how columns were read, what became of consent
    refusals: list[dict[str, Any]] = document(default_factory=list)  # [{line, column, code, message}], the first 1,000


class Topic(OrganizationRow, table=True):
    """What one subscribes to."""

    __tablename__ = "topics"
    __table_args__ = (UniqueConstraint("organization_id", "key"),)

    key: str
    name: str
    description: str = ""
    archived_at: datetime | None = moment(nullable=True)


class Consent(OrganizationRow, table=True):
    """One line of the append-only consent ledger. The current state is the line with the latest
    (`occurred_at`, `id`) of a contact, channel and topic. UPDATE and DELETE are refused by the database."""

    __tablename__ = "consents"
    __table_args__ = (Index("ix_consents_current", "organization_id", "contact_id", "channel", "topic_id", "occurred_at", "id"),)

    contact_id: UUID = Field(foreign_key="contacts.id")
    topic_id: UUID = Field(foreign_key="topics.id")
    channel: str  # email | sms | …
    status: str  # granted | withdrawn
    method: str  # form | import | api | one_click | staff | …
    source: str  # where it was given: a URL, a file name, a campaign
    evidence: dict[str, Any] = document()
    actor_kind: str = "user"
    actor_id: UUID | None = None
    occurred_at: datetime = moment()


class Suppression(OrganizationRow, table=True):
    """An address that must not be written to, whatever consent says. Only a keyed hash of it is kept."""

    __tablename__ = "suppressions"
    __table_args__ = (
        Index(
            "uq_suppressions_active",
            "organization_id",
            "channel",
            "address_hash",
            unique=True,
            postgresql_where=text("released_at IS NULL"),
        ),
    )

    channel: str
    address_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    reason: str  # unsubscribed | bounced | complained | manual
    source: str = ""
    released_at: datetime | None = moment(nullable=True)
    release_reason: str | None = None  # a code


class Segment(OrganizationRow, table=True):
    """A rule that selects contacts (`models.domain.segment`)."""

    __tablename__ = "segments"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)

    name: str
    rule: dict[str, Any] = document()
    updated_at: datetime = moment(default_now=True)
