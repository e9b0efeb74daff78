"""Which events had been accepted when somebody was to enter: the application may read how far their sequence has come."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT SELECT ON SEQUENCE events_seq_seq TO leadstats_app")


def downgrade() -> None:
    op.execute("REVOKE SELECT ON SEQUENCE events_seq_seq FROM leadstats_app")
