"""Alembic migrations. Run by `leadstats migrate` as the database's owner."""
