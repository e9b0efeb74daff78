"""How many enter a journey in an hour, counted over runs by their starts."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_runs_start",
        "runs",
        ["organization_id", "journey_id", sa.text("COALESCE(starts_at, created_at)")],
        unique=False,
        postgresql_where=sa.text("replay_of IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_runs_start", table_name="runs")
