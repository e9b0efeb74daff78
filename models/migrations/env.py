"""Runs the migrations on the connection that `models.migrations.run.migrate` passes in."""

from alembic import context
from sqlmodel import SQLModel

import models.tables  # noqa: F401  (registers every table)

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=SQLModel.metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
