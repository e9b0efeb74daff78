"""Who was led into a journey too often is found every minute, among all who were to enter."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

INDEX = "ix_entries_turned_back"


def upgrade() -> None:
    test = sa.text("reason = 'entered_too_often'")
    op.create_index(INDEX, "entries", ["organization_id", "decided_at"], unique=False, postgresql_where=test)


def downgrade() -> None:
    op.drop_index(INDEX, "entries")
