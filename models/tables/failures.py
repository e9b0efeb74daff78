"""Why runs need attention, by cause; and what brakes a journey or campaign whose messages fail."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.tables.base import OrganizationRow, document, moment


class FailureGroup(OrganizationRow, table=True):
    """One cause for which runs have parked: `models.domain.journey.failures`. Which runs do so now is on the runs."""

    __tablename__ = "failure_groups"
    __table_args__ = (
        UniqueConstraint("organization_id", "fingerprint"),
        Index("ix_failure_groups_page", "organization_id", "id"),
    )

    fingerprint: str
    journey_id: UUID = Field(foreign_key="journeys.id")
    step_id: str | None = None
    failure_class: str
    reason: str
    provider_code: str | None = None
    seen: int = Field(default=0, sa_type=BigInteger)  # how often a run has parked for it
    first_seen_at: datetime = moment()
    last_seen_at: datetime = moment()


class BrakeCount(SQLModel, table=True):
    """How the latest messages of a journey (those outside campaigns) or a campaign fared, since its last resume: the present window
    and the one before. Gone when it is resumed."""

    __tablename__ = "brake_counts"

    organization_id: UUID = Field(foreign_key="organizations.id", primary_key=True)
    subject_id: UUID = Field(primary_key=True)
    subject_kind: str  # journey | campaign
    window_size: int  # after how many messages the next window begins
    attempted: int = 0
    failed: int = 0
    earlier_attempted: int = 0
    earlier_failed: int = 0


class Braking(OrganizationRow, table=True):
    """A journey or campaign was paused because its messages or runs failed. In force until it is resumed or cancelled."""

    __tablename__ = "brakings"
    __table_args__ = (
        Index("uq_brakings_in_force", "organization_id", "subject_id", unique=True, postgresql_where=text("lifted_at IS NULL")),
        Index("ix_brakings_unfinished", "organization_id", "created_at", postgresql_where=text("finished_at IS NULL")),
    )

    subject_kind: str  # journey | campaign
    subject_id: UUID
    journey_id: UUID = Field(foreign_key="journeys.id")
    reason: str  # too_many_failures | first_failure
    facts: dict[str, Any] = document()  # attempted, failed, share, failure (the commonest reason), run_id
    lifted_at: datetime | None = moment(nullable=True)
    finished_at: datetime | None = moment(nullable=True)  # somebody was told, or nobody could be
    notice: str = Field(
        default="waiting", sa_column_kwargs={"server_default": "waiting"}
    )  # transmitting | told | unknown | nobody | lifted
    notified_user_id: UUID | None = None
    unreachable: list[Any] = document(default_factory=list)  # users whose address cannot receive mail
