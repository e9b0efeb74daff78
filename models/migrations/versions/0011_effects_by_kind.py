"""A run that a publish plan has moved to a step of the same name that does something else has not done that yet."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

THREE, FOUR = "uq_effects_run_id_step_id_visit", "uq_effects_run_id_step_id_visit_kind"


def upgrade() -> None:
    op.drop_constraint(THREE, "effects", type_="unique")
    op.create_unique_constraint(FOUR, "effects", ["run_id", "step_id", "visit", "kind"])


def downgrade() -> None:
    op.drop_constraint(FOUR, "effects", type_="unique")
    op.create_unique_constraint(THREE, "effects", ["run_id", "step_id", "visit"])
