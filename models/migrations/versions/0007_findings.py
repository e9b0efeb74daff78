"""What watches over the engine: findings, conservation, the archive of workflow histories."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "findings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("subject_kind", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("journey_id", sa.Uuid(), nullable=True),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_by_kind", sa.String(), nullable=True),
        sa.Column("acknowledged_by", sa.Uuid(), nullable=True),
        sa.Column("acknowledgement", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_findings_organization_id_organizations")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_findings")),
    )
    op.create_index("ix_findings_page", "findings", ["organization_id", "id"], unique=False)
    op.create_index(
        "uq_findings_open",
        "findings",
        ["organization_id", "kind", "subject_id"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "organization_checks",
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("workflows_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("records_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("volumes_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("balanced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("balance_ms", sa.Integer(), nullable=False),
        sa.Column("balance", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("counted_to", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("started", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("accepted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("histories_to", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_organization_checks_organization_id_organizations")
        ),
        sa.PrimaryKeyConstraint("organization_id", name=op.f("pk_organization_checks")),
    )
    op.create_table(
        "workflow_histories",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("workflow_id", sa.String(), nullable=False),
        sa.Column("temporal_run_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("history", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_workflow_histories_organization_id_organizations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflow_histories")),
        sa.UniqueConstraint(
            "organization_id",
            "workflow_id",
            "temporal_run_id",
            name=op.f("uq_workflow_histories_organization_id_workflow_id_temporal_run_id"),
        ),
    )
    op.create_index("ix_workflow_histories_page", "workflow_histories", ["organization_id", "id"], unique=False)
    op.create_table(
        "archive_marks",
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("closed_to", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", name=op.f("pk_archive_marks")),
    )
    op.add_column("runs", sa.Column("earlier_workflows", sa.ARRAY(sa.Text()), server_default="{}", nullable=False))
    op.create_index(
        "ix_runs_carried", "runs", ["organization_id", "workflow_id"], unique=False, postgresql_where=sa.text("finished_at IS NULL")
    )
    op.create_index(
        "ix_runs_due",
        "runs",
        ["organization_id", sa.text("(CASE WHEN wake_at IS NULL THEN updated_at ELSE wake_at END)")],
        unique=False,
        postgresql_where=sa.text("status = 'active' OR (status IN ('waiting', 'held') AND wake_at IS NOT NULL)"),
    )
    op.create_index("ix_events_name", "events", ["organization_id", "name", "created_at"], unique=False)
    op.execute(Path(__file__).with_name("0007_findings.sql").read_text())


def downgrade() -> None:
    raise NotImplementedError("Archived histories would be lost; restore a backup instead.")
