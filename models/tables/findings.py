"""What watches over the engine: findings, what is known about the watching itself, and the archive of histories."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, LargeBinary, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.tables.base import OrganizationRow, document, moment


class Finding(OrganizationRow, table=True):
    """Something that is not as it should be. At most one of a kind is open about a subject; it is resolved when the trouble is gone."""

    __tablename__ = "findings"
    __table_args__ = (
        Index("ix_findings_page", "organization_id", "id"),
        Index(
            "uq_findings_open",
            "organization_id",
            "kind",
            "subject_id",
            unique=True,
            postgresql_where=text("resolved_at IS NULL"),
        ),
    )

    kind: str  # models.domain.findings.Kind
    severity: str  # problem | suspicion
    subject_kind: str  # workflow | step | journey | run | organization
    subject_id: str
    journey_id: UUID | None = None
    runs: int = 0  # that are concerned
    cause: str  # in words
    action: str  # in words: what a person should do, with the route
    details: dict[str, Any] = document()  # ids, codes, counts and times
    first_seen_at: datetime = moment(default_now=True)
    last_seen_at: datetime = moment(default_now=True)
    seen: int = 1  # in how many rounds
    resolved_at: datetime | None = moment(nullable=True)
    acknowledged_at: datetime | None = moment(nullable=True)
    acknowledged_by_kind: str | None = None
    acknowledged_by: UUID | None = None
    acknowledgement: str | None = None  # the person's words


class OrganizationCheck(SQLModel, table=True):
    """How far the reconciler has come in an organization."""

    __tablename__ = "organization_checks"

    organization_id: UUID = Field(foreign_key="organizations.id", primary_key=True)
    workflows_at: datetime | None = moment(nullable=True)  # when rows were last compared with workflows
    records_at: datetime | None = moment(nullable=True)  # when the records were last looked through
    volumes_at: datetime | None = moment(nullable=True)
    balanced_at: datetime | None = moment(nullable=True)  # when conservation was last checked
    balance_ms: int = 0  # how long that took
    balance: dict[str, Any] = document()
    counted_to: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))  # sequence of the audit chain
    started: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))  # runs, until there
    accepted: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))  # deliveries, until there
    histories_to: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))  # sequence of the audit chain


class WorkflowHistory(OrganizationRow, table=True):
    """The history of a closed workflow, its payloads encrypted as they were. UPDATE and DELETE are refused by the database."""

    __tablename__ = "workflow_histories"
    __table_args__ = (
        UniqueConstraint("organization_id", "workflow_id", "temporal_run_id"),
        Index("ix_workflow_histories_page", "organization_id", "id"),
    )

    workflow_id: str
    temporal_run_id: str
    status: str  # completed | failed | canceled | terminated | continued_as_new | timed_out
    started_at: datetime | None = moment(nullable=True)
    closed_at: datetime | None = moment(nullable=True)
    events: int
    size_bytes: int  # of the JSON
    sha256: str  # of the JSON, hex
    history: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # the JSON, compressed by zlib


class ArchiveMark(SQLModel, table=True):
    """Until when the workflows that closed in a Temporal namespace are all archived."""

    __tablename__ = "archive_marks"

    namespace: str = Field(primary_key=True)
    closed_to: datetime = moment()
