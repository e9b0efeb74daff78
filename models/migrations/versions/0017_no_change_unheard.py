"""Contacts that change while their organization begins to listen are noted: who began before is waited for, who begins then waits."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# As in 0012, but that who changes something while nobody listens says so until the end of the transaction (`models.store.triggers.listen`
# waits for that); whoever says so while listening begins looks again, for each statement sees what is committed by then.
NOTE = """
CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
{unheard}  INSERT INTO contact_changes (organization_id, contact_id)
  SELECT DISTINCT n.organization_id, n.{contact} FROM new_rows n JOIN organizations o ON o.id = n.organization_id
  WHERE o.listening;
  RETURN NULL;
END $$
"""
UNHEARD = """  PERFORM pg_advisory_xact_lock_shared(hashtextextended('listening/' || CAST(o.id AS text), 0))
  FROM organizations o WHERE NOT o.listening AND o.id IN (SELECT n.organization_id FROM new_rows n);
"""
NOTES = (("note_changed_contacts", "id"), ("note_changed_consents", "contact_id"))


def upgrade() -> None:
    for name, contact in NOTES:
        op.execute(NOTE.format(name=name, contact=contact, unheard=UNHEARD))


def downgrade() -> None:
    for name, contact in NOTES:
        op.execute(NOTE.format(name=name, contact=contact, unheard=""))
