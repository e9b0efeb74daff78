"""The append-only, hash-chained record."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

from models.tables.base import document, moment


class AuditEntry(SQLModel, table=True):
    """One link of an organization's chain. UPDATE, DELETE and TRUNCATE are refused by the database."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index("ix_audit_entries_subject", "organization_id", "subject_kind", "subject_id"),)

    organization_id: UUID = Field(foreign_key="organizations.id", primary_key=True)
    sequence: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    id: UUID = Field(unique=True)
    occurred_at: datetime = moment()
    actor_kind: str  # user | api_key | system | recipient
    actor_id: UUID | None = None
    action: str  # noun.verb: consent.granted, delivery.accepted, run.paused
    subject_kind: str
    subject_id: str
    details: dict[str, Any] = document()  # opaque ids, codes and numbers; never personal data
    previous_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class AuditHead(SQLModel, table=True):
    """The end of an organization's chain; locked by whoever appends."""

    __tablename__ = "audit_heads"

    organization_id: UUID = Field(foreign_key="organizations.id", primary_key=True)
    sequence: int = Field(sa_column=Column(BigInteger, nullable=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
