"""A number is one entry key however it is written. What `1.0` was before is `1` now, or its contact would enter once more."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TABLES = ("runs", "entries", "events")
# Only where the key was a number, as what it was taken from still says: a text `1.0`, such as a release's, stays what it is. Senders'
# numbers were written with no other needless zeros than this one.
_WRITTEN = r"x.entry_key ~ '^-?[0-9]+\.0$'"
_AMONG = """EXISTS (
  SELECT 1 FROM (VALUES (x.variables),
      ((SELECT e.properties FROM events e WHERE e.organization_id = x.organization_id AND e.id = {event})),
      ((SELECT p.variables FROM runs p WHERE p.organization_id = x.organization_id AND p.id = x.parent_run_id))) AS d(document)
  CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(d.document) WHEN 'object' THEN d.document ELSE '{{}}' END) AS m(name, value)
  WHERE jsonb_typeof(m.value) = '{kind}' AND m.value #>> '{{}}' = x.entry_key)"""


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    for table, source, event in (("entries", "source", "x.source_id"), ("runs", "entry_source", "x.entry_event_id")):
        number, string = (_AMONG.format(event=event, kind=kind) for kind in ("number", "string"))
        op.execute(
            f"""UPDATE {table} x SET entry_key = left(x.entry_key, -2)
                WHERE x.{source} IN ('event', 'journey') AND {_WRITTEN} AND {number} AND NOT {string}"""
        )
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    """Nothing to take back: the release before reads `1`, too."""
