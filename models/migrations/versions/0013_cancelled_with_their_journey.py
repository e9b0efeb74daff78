"""Since when a journey's runs outside campaigns are cancelled: whoever starts or moves one can see that it is."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("journeys", sa.Column("runs_cancelled_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("journeys", sa.Column("cancel_request_id", sa.Uuid(), nullable=True))


def downgrade() -> None:
    op.drop_column("journeys", "cancel_request_id")
    op.drop_column("journeys", "runs_cancelled_at")
