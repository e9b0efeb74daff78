"""Journeys, their frozen versions, campaigns and runs."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Column, Index, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from models.tables.base import OrganizationRow, document, moment


class Journey(OrganizationRow, table=True):
    __tablename__ = "journeys"
    __table_args__ = (UniqueConstraint("organization_id", "name"),)

    name: str
    draft: dict[str, Any] = document()  # a definition, possibly not yet valid
    revision: int = 1  # of the draft; the ETag
    paused_at: datetime | None = moment(nullable=True)
    pauses: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # how often a pause was said; a resume lifts those it knew
    resumption: dict[str, Any] | None = document(nullable=True)  # the last one, where it was spread: models.store.audience.Spread
    runs_cancelled_at: datetime | None = moment(nullable=True)  # runs outside campaigns, and replays, that were there then are cancelled
    cancel_request_id: UUID | None = None  # the request that was for
    archived_at: datetime | None = moment(nullable=True)
    owner_id: UUID | None = None  # the user who answers for it, and is told first when it is braked
    brake: dict[str, Any] | None = document(nullable=True)  # models.domain.journey.brake.Brake; NULL: as it is for everybody
    updated_at: datetime = moment(default_now=True)


class JourneyVersion(OrganizationRow, table=True):
    """Frozen at publication: UPDATE and DELETE are refused by the database."""

    __tablename__ = "journey_versions"
    __table_args__ = (UniqueConstraint("journey_id", "number"),)

    journey_id: UUID = Field(foreign_key="journeys.id")
    number: int
    definition: dict[str, Any] = document()  # every `send` names the template version it is frozen to
    content_hash: str  # hex SHA-256 over the definition and the contents of everything it names
    published_by: UUID | None = None
    revision: int | None = None  # of the draft that was frozen; NULL: published before this was kept


class Campaign(OrganizationRow, table=True):
    __tablename__ = "campaigns"
    __table_args__ = (
        Index("ix_campaigns_page", "organization_id", "id"),
        Index(
            "ix_campaigns_unstarted",
            "organization_id",
            "created_at",
            postgresql_where=text("status IN ('starting', 'scheduled') AND planned_at IS NULL"),
        ),
        Index("uq_campaigns_occurrence", "parent_id", "nominal_at", unique=True, postgresql_where=text("parent_id IS NOT NULL")),
        Index("uq_campaigns_request", "organization_id", "request_id", unique=True, postgresql_where=text("request_id IS NOT NULL")),
    )

    name: str
    journey_id: UUID = Field(foreign_key="journeys.id")
    version_id: UUID = Field(foreign_key="journey_versions.id")
    segment_id: UUID | None = Field(default=None, foreign_key="segments.id")  # NULL: every contact
    segment_rule: dict[str, Any] | None = Field(default=None, sa_type=JSONB, nullable=True)  # as it was at launch
    exclusion_rule: dict[str, Any] | None = document(nullable=True)  # of the excluded segments: any of them; as it was at launch
    schedule: dict[str, Any] | None = document(nullable=True)  # models.domain.schedule.Timing; NULL: at once
    planned_at: datetime | None = moment(nullable=True)  # since when its workflow, or Temporal schedule, is known to exist
    audience_at: str = Field(default="start", sa_column_kwargs={"server_default": "start"})  # start | launch: when it is taken
    parent_id: UUID | None = Field(default=None, foreign_key="campaigns.id")  # of one occurrence: the recurring campaign
    nominal_at: datetime | None = moment(nullable=True)  # of one occurrence: when it was due
    on_error: str = Field(default="park", sa_column_kwargs={"server_default": "park"})  # park | pause | skip: when a step fails for good
    status: str = "starting"  # starting | scheduled | running | paused | completed | cancelled
    page_size: int = 200
    audience: int | None = None  # size of the snapshot; NULL until it is taken
    left_out: dict[str, Any] | None = document(nullable=True)  # of the snapshot: how many were not taken, by reason
    paused_at: datetime | None = moment(nullable=True)
    pauses: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # how often a pause was said; a resume lifts those it knew
    resumption: dict[str, Any] | None = document(nullable=True)  # the last one, where it was spread: models.store.audience.Spread
    cancelled_at: datetime | None = moment(nullable=True)
    started_at: datetime | None = moment(nullable=True)
    finished_at: datetime | None = moment(nullable=True)
    created_by: UUID | None = None
    request_id: UUID | None = None  # made of the launching request's Idempotency-Key: a repeated request finds its campaign


class Run(OrganizationRow, table=True):
    """The projection of one contact's trip through one version. Temporal is the truth of its progress."""

    __tablename__ = "runs"
    __table_args__ = (
        Index("ix_runs_page", "organization_id", "id"),
        Index("ix_runs_journey_status", "organization_id", "journey_id", "status"),
        Index("ix_runs_campaign_status", "organization_id", "campaign_id", "status"),
        Index("ix_runs_contact", "organization_id", "contact_id"),
        Index("ix_runs_workflow", "workflow_id"),
        Index("ix_runs_entries", "organization_id", "journey_id", "contact_id"),
        Index(  # who starts in which hour
            "ix_runs_start",
            "organization_id",
            "journey_id",
            text("COALESCE(starts_at, created_at)"),
            postgresql_where=text("replay_of IS NULL"),
        ),
        Index("ix_runs_carried", "organization_id", "workflow_id", postgresql_where=text("finished_at IS NULL")),
        Index(  # what should have gone on by now
            "ix_runs_due",
            "organization_id",
            text("(\nCASE\n WHEN wake_at IS NULL THEN updated_at\n ELSE wake_at\nEND)"),  # in the lines in which PostgreSQL shows it
            postgresql_where=text("status = 'active' OR (status IN ('waiting', 'held') AND wake_at IS NOT NULL)"),
        ),
        Index("ix_runs_step", "organization_id", "journey_id", "version_id", "step_id", postgresql_where=text("finished_at IS NULL")),
        Index(
            "ix_runs_unstarted",
            "organization_id",
            "created_at",
            postgresql_where=text("campaign_id IS NULL AND status = 'active' AND sequence = 0"),
        ),
        Index(
            "ix_runs_failure",
            "organization_id",
            "failure_fingerprint",
            "id",
            postgresql_where=text("failure_fingerprint IS NOT NULL"),
        ),
        Index("uq_runs_campaign_contact", "campaign_id", "contact_id", unique=True, postgresql_where=text("replay_of IS NULL")),
        Index("uq_runs_replay_of", "replay_of", unique=True, postgresql_where=text("replay_of IS NOT NULL")),
        Index("ix_runs_root", "root_run_id", postgresql_where=text("root_run_id IS NOT NULL")),
        Index("uq_runs_request", "organization_id", "request_id", unique=True, postgresql_where=text("request_id IS NOT NULL")),
    )

    journey_id: UUID = Field(foreign_key="journeys.id")
    version_id: UUID = Field(foreign_key="journey_versions.id")
    campaign_id: UUID | None = Field(default=None, foreign_key="campaigns.id")
    contact_id: UUID = Field(foreign_key="contacts.id")
    workflow_id: str
    earlier_workflows: list[str] = Field(  # that carried it before publish plans moved it
        default_factory=list, sa_column=Column(ARRAY(Text), nullable=False, server_default="{}")
    )
    earlier_versions: list[UUID] = Field(  # on which it was while they carried it
        default_factory=list, sa_column=Column(ARRAY(Uuid), nullable=False, server_default="{}")
    )
    page: int = 0  # of the campaign's audience
    status: str = "active"  # active | waiting | held | paused | needs_attention | completed | exited | cancelled
    beneath: str | None = None  # while it is paused: the phase underneath
    step_id: str | None = None
    wake_at: datetime | None = moment(nullable=True)
    reason: str | None = None
    failure_class: str | None = None  # while its step has failed for good: models.domain.journey.failures
    failure_fingerprint: str | None = None
    failed_at: datetime | None = moment(nullable=True)
    starts_at: datetime | None = moment(nullable=True)  # it comes to its first step only then
    entry_source: str = Field(default="api", sa_column_kwargs={"server_default": "api"})  # api | campaign | event | segment | journey
    entry_key: str | None = None  # tells two runs of one contact apart
    entry_event_id: UUID | None = None
    entry_seq: int | None = Field(default=None, sa_type=BigInteger)  # of that event, or the last before: later ones count
    parent_run_id: UUID | None = None  # of the run whose step led here
    hidden: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    exit_requested_at: datetime | None = moment(nullable=True)  # a rule of the journey ended it; the fence obeys this
    exit_reason: str | None = None
    cancel_requested_at: datetime | None = moment(nullable=True)  # something was in flight when it was cancelled; the fence obeys this
    sequence: int = 0  # of the last transition applied; an older one is ignored
    variables: dict[str, Any] = document()
    request_id: UUID | None = None  # made of the starting request's Idempotency-Key: a repeated request finds its run
    replay_of: UUID | None = None  # the run that this one replays: each is replayed once, so that a chain has one end
    root_run_id: UUID | None = None  # of a replay: the first run of its chain
    replayed_by: UUID | None = None  # the run that replays this one; from then on this one does nothing any more
    entered_at: datetime | None = moment(nullable=True)  # of a replay: when the first of its chain began
    replay: dict[str, Any] | None = document(nullable=True)  # of a replay: as `models.store.replays` writes it
    updated_at: datetime = moment(default_now=True)
    finished_at: datetime | None = moment(nullable=True)


class RunEvent(OrganizationRow, table=True):
    """One line of a run's timeline."""

    __tablename__ = "run_events"
    __table_args__ = (UniqueConstraint("run_id", "sequence"),)

    run_id: UUID
    sequence: int
    kind: str
    step_id: str | None = None
    visit: int | None = None
    details: dict[str, Any] = document()
    occurred_at: datetime = moment()
