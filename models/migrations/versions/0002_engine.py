"""The engine: events, waits, entries, effects, the outbox, draft history, approvals, publish plans, schedules."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "contact_changes",
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_contact_changes_organization_id_organizations")),
        sa.PrimaryKeyConstraint("organization_id", "contact_id", name=op.f("pk_contact_changes")),
    )
    op.create_table(
        "run_messages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("body", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_run_messages_organization_id_organizations")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_messages")),
    )
    op.create_index("ix_run_messages_page", "run_messages", ["organization_id", "id"], unique=False)
    op.create_table(
        "approvals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("journey_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(), nullable=False),
        sa.Column("definition", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("requested_by", sa.Uuid(), nullable=True),
        sa.Column("decision", sa.String(), nullable=True),
        sa.Column("decided_by", sa.Uuid(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["journey_id"], ["journeys.id"], name=op.f("fk_approvals_journey_id_journeys")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_approvals_organization_id_organizations")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approvals")),
    )
    op.create_index("ix_approvals_journey", "approvals", ["organization_id", "journey_id", "content_hash"], unique=False)
    op.create_table(
        "draft_revisions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("journey_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("draft", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("saved_by", sa.Uuid(), nullable=True),
        sa.Column("origin", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["journey_id"], ["journeys.id"], name=op.f("fk_draft_revisions_journey_id_journeys")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_draft_revisions_organization_id_organizations")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_draft_revisions")),
        sa.UniqueConstraint("journey_id", "revision", name=op.f("uq_draft_revisions_journey_id_revision")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("external_id", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("properties", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("hidden", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("routed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name=op.f("fk_events_contact_id_contacts")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_events_organization_id_organizations")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("seq", name=op.f("uq_events_seq")),
    )
    op.create_index("ix_events_contact", "events", ["organization_id", "contact_id", "name", "seq"], unique=False)
    op.create_index("ix_events_page", "events", ["organization_id", "id"], unique=False)
    op.create_index("ix_events_unrouted", "events", ["organization_id", "seq"], unique=False, postgresql_where=sa.text("routed_at IS NULL"))
    op.create_index(
        "uq_events_external_id",
        "events",
        ["organization_id", "external_id"],
        unique=True,
        postgresql_where=sa.text("external_id IS NOT NULL"),
    )
    op.create_table(
        "publish_plans",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("journey_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(), nullable=False),
        sa.Column("preview", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("choices", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("executed_by", sa.Uuid(), nullable=True),
        sa.Column("executed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["journey_id"], ["journeys.id"], name=op.f("fk_publish_plans_journey_id_journeys")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_publish_plans_organization_id_organizations")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_publish_plans")),
    )
    op.create_index("ix_publish_plans_journey", "publish_plans", ["organization_id", "journey_id", "id"], unique=False)
    op.create_table(
        "entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("journey_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("source_id", sa.Uuid(), nullable=True),
        sa.Column("trigger_id", sa.Uuid(), nullable=True),
        sa.Column("entry_key", sa.String(), nullable=True),
        sa.Column("variables", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("hidden", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("parent_run_id", sa.Uuid(), nullable=True),
        sa.Column("event_seq", sa.BigInteger(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["journey_id"], ["journeys.id"], name=op.f("fk_entries_journey_id_journeys")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_entries_organization_id_organizations")),
        sa.ForeignKeyConstraint(["version_id"], ["journey_versions.id"], name=op.f("fk_entries_version_id_journey_versions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
    )
    op.create_index("ix_entries_contact", "entries", ["organization_id", "contact_id"], unique=False)
    op.create_index("ix_entries_journey", "entries", ["organization_id", "journey_id", "id"], unique=False)
    op.create_index(
        "ix_entries_pending", "entries", ["organization_id", "id"], unique=False, postgresql_where=sa.text("outcome = 'pending'")
    )
    op.create_index(
        "uq_entries_source",
        "entries",
        ["journey_id", "trigger_id", "source_id", "contact_id"],
        unique=True,
        postgresql_where=sa.text("source_id IS NOT NULL"),
        postgresql_nulls_not_distinct=True,
    )
    op.create_table(
        "journey_triggers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("journey_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("event_name", sa.String(), nullable=True),
        sa.Column("direction", sa.String(), nullable=True),
        sa.Column("rule", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("timed", sa.Boolean(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("include_existing", sa.Boolean(), nullable=False),
        sa.Column("baselined_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["journey_id"], ["journeys.id"], name=op.f("fk_journey_triggers_journey_id_journeys")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_journey_triggers_organization_id_organizations")),
        sa.ForeignKeyConstraint(["version_id"], ["journey_versions.id"], name=op.f("fk_journey_triggers_version_id_journey_versions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journey_triggers")),
        sa.UniqueConstraint("version_id", "kind", "position", name=op.f("uq_journey_triggers_version_id_kind_position")),
    )
    op.create_index(
        "ix_journey_triggers_event",
        "journey_triggers",
        ["organization_id", "event_name"],
        unique=False,
        postgresql_where=sa.text("event_name IS NOT NULL"),
    )
    op.create_index(
        "ix_journey_triggers_rule",
        "journey_triggers",
        ["organization_id", "kind"],
        unique=False,
        postgresql_where=sa.text("event_name IS NULL"),
    )
    op.create_table(
        "trigger_members",
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("trigger_id", sa.Uuid(), nullable=False),
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_trigger_members_organization_id_organizations")),
        sa.ForeignKeyConstraint(["trigger_id"], ["journey_triggers.id"], name=op.f("fk_trigger_members_trigger_id_journey_triggers")),
        sa.PrimaryKeyConstraint("organization_id", "trigger_id", "contact_id", name=op.f("pk_trigger_members")),
    )
    op.create_table(
        "effects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("step_id", sa.String(), nullable=False),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_effects_organization_id_organizations")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_effects_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_effects")),
        sa.UniqueConstraint("run_id", "step_id", "visit", name=op.f("uq_effects_run_id_step_id_visit")),
    )
    op.create_table(
        "goal_hits",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("journey_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("goal", sa.String(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_goal_hits_organization_id_organizations")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_goal_hits_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_goal_hits")),
        sa.UniqueConstraint("run_id", "goal", name=op.f("uq_goal_hits_run_id_goal")),
    )
    op.create_index("ix_goal_hits_journey", "goal_hits", ["organization_id", "journey_id", "goal"], unique=False)
    op.create_table(
        "waits",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("step_id", sa.String(), nullable=False),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("event_names", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("has_condition", sa.Boolean(), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("way", sa.Integer(), nullable=True),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_waits_organization_id_organizations")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_waits_run_id_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_waits")),
        sa.UniqueConstraint("run_id", "step_id", "visit", name=op.f("uq_waits_run_id_step_id_visit")),
    )
    op.create_index(
        "ix_waits_open_condition",
        "waits",
        ["organization_id", "version_id"],
        unique=False,
        postgresql_where=sa.text("state = 'open' AND has_condition"),
    )
    op.create_index(
        "ix_waits_open_contact", "waits", ["organization_id", "contact_id"], unique=False, postgresql_where=sa.text("state = 'open'")
    )
    op.add_column("campaigns", sa.Column("exclusion_rule", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("campaigns", sa.Column("schedule", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("campaigns", sa.Column("planned_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("campaigns", sa.Column("left_out", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.drop_index("ix_campaigns_unstarted", table_name="campaigns")
    op.create_index(
        "ix_campaigns_unstarted",
        "campaigns",
        ["organization_id", "created_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('starting', 'scheduled') AND planned_at IS NULL"),
    )
    op.add_column("campaigns", sa.Column("audience_at", sa.String(), server_default="start", nullable=False))
    op.add_column("campaigns", sa.Column("parent_id", sa.Uuid(), nullable=True))
    op.add_column("campaigns", sa.Column("nominal_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "uq_campaigns_occurrence", "campaigns", ["parent_id", "nominal_at"], unique=True, postgresql_where=sa.text("parent_id IS NOT NULL")
    )
    op.create_foreign_key(op.f("fk_campaigns_parent_id_campaigns"), "campaigns", "campaigns", ["parent_id"], ["id"])
    op.add_column("organizations", sa.Column("approval_required", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("organizations", sa.Column("listening", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("runs", sa.Column("starts_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("entry_source", sa.String(), server_default="api", nullable=False))
    op.add_column("runs", sa.Column("entry_key", sa.String(), nullable=True))
    op.add_column("runs", sa.Column("entry_event_id", sa.Uuid(), nullable=True))
    op.add_column("runs", sa.Column("entry_seq", sa.BigInteger(), nullable=True))
    op.add_column("runs", sa.Column("parent_run_id", sa.Uuid(), nullable=True))
    op.add_column("runs", sa.Column("hidden", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("runs", sa.Column("exit_requested_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("exit_reason", sa.String(), nullable=True))
    op.create_index("ix_runs_entries", "runs", ["organization_id", "journey_id", "contact_id"], unique=False)
    op.create_index(
        "ix_runs_step",
        "runs",
        ["organization_id", "journey_id", "version_id", "step_id"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )

    for name in ("0001_security.sql", "0002_engine.sql"):
        op.execute(Path(__file__).with_name(name).read_text())


def downgrade() -> None:
    raise NotImplementedError("Runs would lose what they wait for; restore a backup instead.")
