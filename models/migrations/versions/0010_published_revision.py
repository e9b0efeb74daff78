"""Which revision of the draft a version was published from."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("journey_versions", sa.Column("revision", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("journey_versions", "revision")
