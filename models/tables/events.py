"""What happens to contacts, who waits for it, and what has to be told to runs."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Column, Identity, Index, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from models.tables.base import OrganizationRow, document, moment


class Event(OrganizationRow, table=True):
    """Something that a contact did, as another system says. Accepted once per `external_id`; `seq` is the order of acceptance."""

    __tablename__ = "events"
    __table_args__ = (
        Index("uq_events_external_id", "organization_id", "external_id", unique=True, postgresql_where=text("external_id IS NOT NULL")),
        Index("ix_events_contact", "organization_id", "contact_id", "name", "seq"),
        Index("ix_events_unrouted", "organization_id", "seq", postgresql_where=text("routed_at IS NULL")),
        Index("ix_events_page", "organization_id", "id"),
        Index("ix_events_name", "organization_id", "name", "created_at"),
    )

    seq: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), nullable=False, unique=True))
    external_id: str | None = None
    name: str
    contact_id: UUID = Field(foreign_key="contacts.id")
    properties: dict[str, Any] = document()
    hidden: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    occurred_at: datetime = moment()
    routed_at: datetime | None = moment(nullable=True)  # matched to entries and waits


class ContactChange(SQLModel, table=True):
    """A change of a contact whose conditions have not been looked at since. Written by triggers on contacts and consents, for
    organizations that listen."""

    __tablename__ = "contact_changes"

    organization_id: UUID = Field(foreign_key="organizations.id", primary_key=True)
    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), primary_key=True))
    contact_id: UUID
    changed_at: datetime = moment(default_now=True)


class Wait(OrganizationRow, table=True):
    """One visit of a run to a step that waits for something. Whoever closes the row first decides how the wait ended."""

    __tablename__ = "waits"
    __table_args__ = (
        UniqueConstraint("run_id", "step_id", "visit"),
        Index("ix_waits_open_contact", "organization_id", "contact_id", postgresql_where=text("state = 'open'")),
        Index("ix_waits_open_condition", "organization_id", "version_id", postgresql_where=text("state = 'open' AND has_condition")),
    )

    run_id: UUID = Field(foreign_key="runs.id")
    version_id: UUID
    contact_id: UUID
    step_id: str
    visit: int
    round: int = 0  # of the asking that opened it
    state: str = "open"  # open | matched | timed_out | closed
    event_names: list[str] = Field(default_factory=list, sa_column=Column(ARRAY(Text), nullable=False, server_default="{}"))
    has_condition: bool = False
    deadline: datetime | None = moment(nullable=True)
    way: int | None = None  # matched: the index of the way taken
    event_id: UUID | None = None
    closed_at: datetime | None = moment(nullable=True)


class JourneyTrigger(OrganizationRow, table=True):
    """What of a published version has to be looked for outside its steps: entries, exit rules and goals."""

    __tablename__ = "journey_triggers"
    __table_args__ = (
        UniqueConstraint("version_id", "kind", "position"),
        Index("ix_journey_triggers_event", "organization_id", "event_name", postgresql_where=text("event_name IS NOT NULL")),
        Index("ix_journey_triggers_rule", "organization_id", "kind", postgresql_where=text("event_name IS NULL")),
    )

    journey_id: UUID = Field(foreign_key="journeys.id")
    version_id: UUID = Field(foreign_key="journey_versions.id")
    kind: str  # entry | exit | goal
    position: int  # among those of its kind in the definition
    name: str = ""
    event_name: str | None = None  # NULL: `rule` is about the contact alone
    direction: str | None = None  # entry by a segment: entered | left
    rule: dict[str, Any] | None = document(nullable=True)
    timed: bool = False  # may become true by the passing of time alone
    active: bool = True  # entries: of the newest version only
    include_existing: bool = False
    baselined_at: datetime | None = moment(nullable=True)  # entry by a segment: its members were first taken down


class TriggerMember(SQLModel, table=True):
    """Who fits a segment trigger's rule, as last looked."""

    __tablename__ = "trigger_members"

    organization_id: UUID = Field(foreign_key="organizations.id", primary_key=True)
    trigger_id: UUID = Field(foreign_key="journey_triggers.id", primary_key=True)
    contact_id: UUID = Field(primary_key=True)


class Entry(OrganizationRow, table=True):
    """Somebody who was to enter a journey, and what became of that."""

    __tablename__ = "entries"
    __table_args__ = (
        Index(
            "uq_entries_source",
            "journey_id",
            "trigger_id",
            "source_id",
            "contact_id",
            unique=True,
            postgresql_where=text("source_id IS NOT NULL"),
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_entries_pending", "organization_id", "id", postgresql_where=text("outcome = 'pending'")),
        Index("ix_entries_journey", "organization_id", "journey_id", "id"),
        Index("ix_entries_contact", "organization_id", "contact_id"),
        Index("ix_entries_turned_back", "organization_id", "decided_at", postgresql_where=text("reason = 'entered_too_often'")),
    )

    journey_id: UUID = Field(foreign_key="journeys.id")
    version_id: UUID = Field(foreign_key="journey_versions.id")
    contact_id: UUID
    source: str  # event | segment | journey | api
    source_id: UUID | None = None  # the event, or the step's effect of the run that led here
    trigger_id: UUID | None = None
    entry_key: str | None = None
    variables: dict[str, Any] = document()
    hidden: bool = False
    outcome: str = "pending"  # pending | entered | refused
    reason: str | None = None  # refused, or still pending, because of this
    parent_run_id: UUID | None = None  # of the run whose step led here
    event_seq: int | None = Field(default=None, sa_type=BigInteger)  # of the event, or of the last one accepted when this was written
    run_id: UUID | None = None
    decided_at: datetime | None = moment(nullable=True)


class GoalHit(OrganizationRow, table=True):
    """A run whose contact reached a goal in time. Once per run and goal."""

    __tablename__ = "goal_hits"
    __table_args__ = (UniqueConstraint("run_id", "goal"), Index("ix_goal_hits_journey", "organization_id", "journey_id", "goal"))

    run_id: UUID = Field(foreign_key="runs.id")
    journey_id: UUID
    version_id: UUID
    goal: str
    event_id: UUID | None = None
    occurred_at: datetime = moment()


class RunMessage(OrganizationRow, table=True):
    """What a workflow must be told (the outbox): written with what it tells of, deleted once Temporal has it."""

    __tablename__ = "run_messages"
    __table_args__ = (Index("ix_run_messages_page", "organization_id", "id"),)

    run_id: UUID
    kind: str  # start | matched | exit | reconsider
    body: dict[str, Any] = document()


class Effect(OrganizationRow, table=True):
    """What a run's step did to the world other than sending: claimed before it is done, so that nothing is done twice."""

    __tablename__ = "effects"
    __table_args__ = (UniqueConstraint("run_id", "step_id", "visit", "kind"),)

    run_id: UUID = Field(foreign_key="runs.id")
    contact_id: UUID
    step_id: str
    visit: int
    kind: str
    state: str = "claimed"  # claimed | transmitting | done | refused | failed | unknown, see models/store/effects.py
    reason: str | None = None
    details: dict[str, Any] = document()
    attempts: int = 0
    settled_at: datetime | None = moment(nullable=True)
