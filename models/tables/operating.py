"""What operators do to many runs at once."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint, text
from sqlmodel import Field

from models.tables.base import OrganizationRow, document, moment


class RunOperation(OrganizationRow, table=True):
    """One command for all runs that a selection fits: previewed, bound to the preview's count, then carried out by a workflow."""

    __tablename__ = "run_operations"
    __table_args__ = (
        Index("ix_run_operations_page", "organization_id", "id"),
        Index("ix_run_operations_running", "organization_id", "executed_at", postgresql_where=text("status = 'running'")),
    )

    command: str
    selection: dict[str, Any] = document()  # models.domain.journey.operations.RunSelection
    arguments: dict[str, Any] = document()
    maximum: int | None = None  # of runs; NULL: all that fit
    preview: dict[str, Any] = document()
    runs: int  # that it is for: as previewed, and as taken
    expires_at: datetime = moment()  # of the preview
    status: str = "previewed"  # previewed | running | completed | cancelled
    reason: str | None = None
    created_by: UUID | None = None
    actor_kind: str | None = None  # who executed it
    executed_by: UUID | None = None
    executed_at: datetime | None = moment(nullable=True)
    cancelled_by: UUID | None = None
    cancelled_at: datetime | None = moment(nullable=True)  # asked for: those that have not been told are left alone
    completed_at: datetime | None = moment(nullable=True)
    done: int = 0
    unchanged: int = 0
    failed: int = 0
    left_alone: int = 0


class RunOperationItem(OrganizationRow, table=True):
    """One run of an operation, and what became of it."""

    __tablename__ = "run_operation_items"
    __table_args__ = (
        UniqueConstraint("operation_id", "run_id"),
        UniqueConstraint("operation_id", "position"),
        Index(
            "ix_run_operation_items_pending",
            "organization_id",
            "operation_id",
            "position",
            postgresql_where=text("result = 'pending'"),
        ),
    )

    operation_id: UUID = Field(foreign_key="run_operations.id")
    run_id: UUID
    position: int  # from 1, runs of one workflow together
    step_id: str | None = None  # where it stood when it was taken
    visit: int | None = None
    result: str = "pending"  # pending | done | unchanged | failed | left_alone
    why: str | None = None  # a code, unless it was done
    status: str | None = None  # of the run, as its workflow answered
    details: dict[str, Any] = document()  # ids and codes: of what came of it
    settled_at: datetime | None = moment(nullable=True)
