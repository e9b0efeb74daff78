"""All tables, imported so that Alembic and the isolation test see every one."""

from models.tables import (
    access,
    audit,
    contacts,
    events,
    failures,
    findings,
    journeys,
    messaging,
    operating,
    publishing,
    simulations,
)

__all__ = [
    "access",
    "audit",
    "contacts",
    "events",
    "failures",
    "findings",
    "journeys",
    "messaging",
    "operating",
    "publishing",
    "simulations",
]
