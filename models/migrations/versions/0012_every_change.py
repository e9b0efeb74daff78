"""Every change of a contact is noted in a row of its own: one that is not committed yet does not share the row that routing takes."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# As in 0002_engine.sql, but for the conflicts, which there are no more: nobody waits for another's note, nor for routing.
NOTE = """
CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  INSERT INTO contact_changes (organization_id, contact_id)
  SELECT DISTINCT n.organization_id, n.{contact} FROM new_rows n JOIN organizations o ON o.id = n.organization_id
  WHERE o.listening {conflicts};
  RETURN NULL;
END $$
"""
NOTES = (("note_changed_contacts", "id"), ("note_changed_consents", "contact_id"))


def upgrade() -> None:
    op.drop_constraint("pk_contact_changes", "contact_changes", type_="primary")
    op.add_column("contact_changes", sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False))
    op.create_primary_key("pk_contact_changes", "contact_changes", ["organization_id", "id"])
    for name, contact in NOTES:
        op.execute(NOTE.format(name=name, contact=contact, conflicts=""))


def downgrade() -> None:
    # Row-level security hides other organizations' rows from an owner who is no superuser: the table is made without them.
    op.execute("ALTER TABLE contact_changes NO FORCE ROW LEVEL SECURITY")
    op.execute(
        """DELETE FROM contact_changes a USING contact_changes b
           WHERE a.organization_id = b.organization_id AND a.contact_id = b.contact_id AND a.id > b.id"""
    )
    op.execute("ALTER TABLE contact_changes FORCE ROW LEVEL SECURITY")
    op.drop_constraint("pk_contact_changes", "contact_changes", type_="primary")
    op.drop_column("contact_changes", "id")
    op.create_primary_key("pk_contact_changes", "contact_changes", ["organization_id", "contact_id"])
    for name, contact in NOTES:
        op.execute(NOTE.format(name=name, contact=contact, conflicts="ORDER BY 1, 2 ON CONFLICT DO NOTHING"))
