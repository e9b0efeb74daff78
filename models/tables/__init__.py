"""All tables, imported so that Alembic and the isolation test see every one."""

from models.tables import access, audit, contacts, journeys, messaging

__all__ = ["access", "audit", "contacts", "journeys", "messaging"]
