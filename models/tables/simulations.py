"""Cases of journeys: what is expected of them, tried on every publish."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import UniqueConstraint
from sqlmodel import Field

from models.tables.base import OrganizationRow, document, moment


class SimulationCase(OrganizationRow, table=True):
    """`scenario` and `expected` as models.domain.simulation.case.Case has them."""

    __tablename__ = "simulation_cases"
    __table_args__ = (UniqueConstraint("journey_id", "name"),)

    journey_id: UUID = Field(foreign_key="journeys.id")
    name: str
    start: datetime = moment()
    scenario: dict[str, Any] = document()  # until, given and script
    expected: dict[str, Any] = document()
    saved_by: UUID | None = None
    updated_at: datetime = moment(default_now=True)
