"""Replays: which run replays which, and from where."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("replay_of", "root_run_id", "replayed_by"):
        op.add_column("runs", sa.Column(name, sa.Uuid(), nullable=True))
    op.add_column("runs", sa.Column("entered_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("runs", sa.Column("replay", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.drop_index("uq_runs_campaign_contact", table_name="runs")
    op.create_index(
        "uq_runs_campaign_contact", "runs", ["campaign_id", "contact_id"], unique=True, postgresql_where=sa.text("replay_of IS NULL")
    )
    op.create_index("uq_runs_replay_of", "runs", ["replay_of"], unique=True, postgresql_where=sa.text("replay_of IS NOT NULL"))
    op.create_index("ix_runs_root", "runs", ["root_run_id"], unique=False, postgresql_where=sa.text("root_run_id IS NOT NULL"))


def downgrade() -> None:
    raise NotImplementedError("Replays would become entries of their own; restore a backup instead.")
