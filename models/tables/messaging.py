"""What is sent, through what, and what became of it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, LargeBinary, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.tables.base import OrganizationRow, document, moment


class Template(OrganizationRow, table=True):
    __tablename__ = "templates"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)

    name: str
    channel: str  # email | sms
    archived_at: datetime | None = moment(nullable=True)


class TemplateVersion(OrganizationRow, table=True):
    """Immutable: UPDATE and DELETE are refused by the database."""

    __tablename__ = "template_versions"
    __table_args__ = (UniqueConstraint("template_id", "number"),)

    template_id: UUID = Field(foreign_key="templates.id")
    number: int
    subject: str = ""
    html: str = ""
    text: str = ""
    variables: list[str] = document(default_factory=list)  # paths the template prints or tests
    content_hash: str  # hex SHA-256 of channel, subject, html and text
    created_by: UUID | None = None


class Connection(OrganizationRow, table=True):
    """An account at a provider. `secret` is AES-GCM under `key_id`, bound to organization and connection."""

    __tablename__ = "connections"
    __table_args__ = (
        UniqueConstraint("organization_id", "name"),
        Index("uq_connections_default", "organization_id", "channel", unique=True, postgresql_where=text("is_default")),
    )

    name: str
    channel: str  # email | sms | …
    provider: str  # smtp | …
    config: dict[str, Any] = document()  # host, port, security, username, sender
    secret: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    key_id: str | None = None
    status: str = "active"  # active | broken: runs wait until it is reconnected
    broken_reason: str | None = None
    is_default: bool = False
    rate_per_second: float | None = None  # NULL: no limit
    updated_at: datetime = moment(default_now=True)


class ConnectionRate(SQLModel, table=True):
    """The next free sending slot of a connection (GCRA), shared by all workers."""

    __tablename__ = "connection_rates"

    connection_id: UUID = Field(foreign_key="connections.id", primary_key=True)
    organization_id: UUID = Field(foreign_key="organizations.id")
    next_slot_at: datetime = moment(default_now=True)


class Decision(OrganizationRow, table=True):
    """Why a message may leave, must wait or must not leave. One row per question asked."""

    __tablename__ = "decisions"
    __table_args__ = (
        UniqueConstraint("run_id", "step_id", "visit", "check", "round"),
        Index("ix_decisions_contact", "organization_id", "contact_id"),
        Index("ix_decisions_refused", "organization_id", "run_id", postgresql_where=text("outcome = 'refuse'")),  # a campaign's progress
    )

    run_id: UUID
    contact_id: UUID
    step_id: str
    visit: int
    check: str  # consent | quiet_hours
    round: int  # how often this visit has asked before: 0, 1, … (asked again after every wait)
    outcome: str  # send | hold | refuse
    reason: str | None = None
    hold_until: datetime | None = moment(nullable=True)
    inputs: dict[str, Any] = document()
    rule_version: str
    decided_at: datetime = moment()


class Delivery(OrganizationRow, table=True):
    """One message to one recipient: the claim ledger. Inserted before the provider is called.

    claimed → transmitting → accepted | refused | failed | unknown; a `claimed` row was certainly not handed over;
    a `transmitting` row whose owner died may have been.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("run_id", "step_id", "visit"),
        Index("ix_deliveries_page", "organization_id", "id"),
        Index("ix_deliveries_contact", "organization_id", "contact_id"),
        Index("ix_deliveries_campaign", "organization_id", "campaign_id", "state"),
        Index("ix_deliveries_journey", "organization_id", "journey_id", "state"),
    )

    run_id: UUID
    journey_id: UUID
    version_id: UUID
    campaign_id: UUID | None = None
    contact_id: UUID
    step_id: str
    visit: int
    channel: str
    purpose: str  # marketing | transactional
    topic_id: UUID | None = None
    connection_id: UUID | None = None
    template_version_id: UUID | None = None
    state: str = "claimed"
    outcome: str | None = None  # docs/sending.md, section 3
    reason: str | None = None
    attempt: UUID | None = None  # the activity attempt that owns the row
    attempts: int = 0  # transient and throttled answers so far
    round: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # the asking it was last claimed for
    provider_message_id: str | None = None
    claimed_at: datetime = moment(default_now=True)
    transmitting_at: datetime | None = moment(nullable=True)
    settled_at: datetime | None = moment(nullable=True)


class SandboxMessage(OrganizationRow, table=True):
    """What the sandbox received, as it was received."""

    __tablename__ = "sandbox_messages"
    __table_args__ = (
        Index("ix_sandbox_messages_page", "organization_id", "id"),
        Index("ix_sandbox_messages_recipient", "organization_id", text("lower(recipient)")),
    )

    channel: str = "email"
    sender: str
    recipient: str
    subject: str = ""
    headers: dict[str, Any] = document()
    text: str = ""
    html: str = ""
    raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    delivery_id: UUID | None = Field(default=None, index=True)  # from our X-LeadStats-Delivery header, when present


class SandboxFault(OrganizationRow, table=True):
    """A scripted failure of the sandbox's SMTP inbox."""

    __tablename__ = "sandbox_faults"

    phase: str  # connect | auth | mail | rcpt | data
    action: str  # refuse | reply | drop_before_dot | drop_after_dot | delay
    code: int | None = None
    message: str = ""
    delay_ms: int | None = None
    recipient: str | None = None  # only for this address; NULL: any
    remaining: int | None = None  # how many times still; NULL: until deleted


class SandboxDiscard(SQLModel, table=True):
    """How many messages the sandbox has counted and thrown away."""

    __tablename__ = "sandbox_discards"

    organization_id: UUID = Field(foreign_key="organizations.id", primary_key=True)
    received: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
