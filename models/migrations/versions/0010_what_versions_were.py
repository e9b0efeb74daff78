"""Which revision of the draft a version was published from, and on which versions a run was before publish plans moved it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("journey_versions", sa.Column("revision", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("earlier_versions", postgresql.ARRAY(sa.Uuid()), server_default="{}", nullable=False))


def downgrade() -> None:
    op.drop_column("runs", "earlier_versions")
    op.drop_column("journey_versions", "revision")
