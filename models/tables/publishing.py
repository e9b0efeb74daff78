"""How drafts become versions: their history, approvals, and what becomes of the runs on the version before."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Field

from models.tables.base import OrganizationRow, document, moment


class DraftRevision(OrganizationRow, table=True):
    """A draft as it was saved."""

    __tablename__ = "draft_revisions"
    __table_args__ = (UniqueConstraint("journey_id", "revision"),)

    journey_id: UUID = Field(foreign_key="journeys.id")
    revision: int
    name: str
    draft: dict[str, Any] = document()
    saved_by: UUID | None = None
    origin: str = "edit"  # edit | restore | duplicate | import


class Approval(OrganizationRow, table=True):
    """Somebody asks whether exactly this content may be published, and somebody else answers."""

    __tablename__ = "approvals"
    __table_args__ = (Index("ix_approvals_journey", "organization_id", "journey_id", "content_hash"),)

    journey_id: UUID = Field(foreign_key="journeys.id")
    revision: int
    content_hash: str
    definition: dict[str, Any] = document()  # as it would be frozen
    note: str = ""
    requested_by: UUID | None = None
    decision: str | None = None  # approved | rejected
    decided_by: UUID | None = None
    decided_at: datetime | None = moment(nullable=True)
    reason: str | None = None


class PublishPlan(OrganizationRow, table=True):
    """What becomes of the runs on older versions when the draft is published: previewed, bound to that preview, then carried out."""

    __tablename__ = "publish_plans"
    __table_args__ = (Index("ix_publish_plans_journey", "organization_id", "journey_id", "id"),)

    journey_id: UUID = Field(foreign_key="journeys.id")
    revision: int
    content_hash: str
    preview: dict[str, Any] = document()
    fingerprint: str  # of the preview: carried out only while it is still true
    choices: dict[str, Any] = document()
    status: str = "previewed"  # previewed | executing | completed
    version_id: UUID | None = None  # the one it published
    created_by: UUID | None = None
    executed_by: UUID | None = None
    executed_at: datetime | None = moment(nullable=True)
    completed_at: datetime | None = moment(nullable=True)
