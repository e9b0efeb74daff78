"""How the last resumption of a journey or campaign was spread: whoever is told of it later goes on at the moment that it gave."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("journeys", sa.Column("resumption", JSONB(), nullable=True))
    op.add_column("campaigns", sa.Column("resumption", JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("campaigns", "resumption")
    op.drop_column("journeys", "resumption")
