"""All tables, imported so that Alembic and the isolation test see every one."""

from models.tables import access, audit, contacts, events, journeys, messaging, operating, publishing

__all__ = ["access", "audit", "contacts", "events", "journeys", "messaging", "operating", "publishing"]
