"""Cases of journeys."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "simulation_cases",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("journey_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("scenario", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("expected", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("saved_by", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["journey_id"], ["journeys.id"], name=op.f("fk_simulation_cases_journey_id_journeys")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_simulation_cases_organization_id_organizations")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_simulation_cases")),
        sa.UniqueConstraint("journey_id", "name", name=op.f("uq_simulation_cases_journey_id_name")),
    )
    for name in ("0001_security.sql", "0002_engine.sql"):  # the new table is walled off as the others are
        op.execute(Path(__file__).with_name(name).read_text())


def downgrade() -> None:
    op.drop_table("simulation_cases")
