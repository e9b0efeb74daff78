"""Reading deliveries, for lists and support. `deliveries` writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlmodel import col

from models.domain.errors import NotFound
from models.store.session import OrganizationSession
from models.tables.journeys import Run
from models.tables.messaging import Delivery


@dataclass(frozen=True)
class DeliveryFilter:
    """None: whatever."""

    run_id: UUID | None = None
    contact_id: UUID | None = None
    campaign_id: UUID | None = None
    journey_id: UUID | None = None
    state: str | None = None
    outcome: str | None = None
    hidden: bool = False  # also of hidden runs


async def page(session: OrganizationSession, wanted: DeliveryFilter, limit: int, after: UUID | None) -> Sequence[Delivery]:
    """Up to `limit` deliveries that fit, oldest first, beginning after the id `after`."""
    statement = select(Delivery).where(col(Delivery.organization_id) == session.organization_id)
    if not wanted.hidden:
        hidden = select(col(Run.id)).where(col(Run.organization_id) == session.organization_id, col(Run.hidden))
        statement = statement.where(col(Delivery.run_id).not_in(hidden))
    for name, value in vars(wanted).items():
        if value is not None and name != "hidden":
            statement = statement.where(col(getattr(Delivery, name)) == value)
    if after is not None:
        statement = statement.where(col(Delivery.id) > after)
    return (await session.execute(statement.order_by(col(Delivery.id)).limit(limit))).scalars().all()


async def get(session: OrganizationSession, delivery_id: UUID) -> Delivery:
    """The delivery.

    Raises:
        NotFound: no such delivery in this organization.
    """
    statement = select(Delivery).where(col(Delivery.organization_id) == session.organization_id, col(Delivery.id) == delivery_id)
    found = (await session.execute(statement)).scalar_one_or_none()
    if found is None:
        raise NotFound("delivery", delivery_id)
    return found
