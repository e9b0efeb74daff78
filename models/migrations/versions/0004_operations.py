"""Operations on many runs; what is beneath a run's pause."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_operations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("command", sa.String(), nullable=False),
        sa.Column("selection", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("arguments", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("maximum", sa.Integer(), nullable=True),
        sa.Column("preview", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("actor_kind", sa.String(), nullable=True),
        sa.Column("executed_by", sa.Uuid(), nullable=True),
        sa.Column("executed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_by", sa.Uuid(), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("unchanged", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("left_alone", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_run_operations_organization_id_organizations")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_operations")),
    )
    op.create_index("ix_run_operations_page", "run_operations", ["organization_id", "id"], unique=False)
    op.create_index(
        "ix_run_operations_running",
        "run_operations",
        ["organization_id", "executed_at"],
        unique=False,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_table(
        "run_operation_items",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("operation_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("step_id", sa.String(), nullable=True),
        sa.Column("visit", sa.Integer(), nullable=True),
        sa.Column("result", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["operation_id"], ["run_operations.id"], name=op.f("fk_run_operation_items_operation_id_run_operations")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_run_operation_items_organization_id_organizations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_operation_items")),
        sa.UniqueConstraint("operation_id", "position", name=op.f("uq_run_operation_items_operation_id_position")),
        sa.UniqueConstraint("operation_id", "run_id", name=op.f("uq_run_operation_items_operation_id_run_id")),
    )
    op.create_index(
        "ix_run_operation_items_pending",
        "run_operation_items",
        ["organization_id", "operation_id", "position"],
        unique=False,
        postgresql_where=sa.text("result = 'pending'"),
    )
    op.add_column("runs", sa.Column("beneath", sa.String(), nullable=True))

    for name in ("0001_security.sql", "0002_engine.sql", "0004_operations.sql"):
        op.execute(Path(__file__).with_name(name).read_text())


def downgrade() -> None:
    raise NotImplementedError("What operators did to runs would be lost; restore a backup instead.")
