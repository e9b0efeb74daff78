"""`enter_journey`: the contact also enters another journey, by that one's own rules. Pure."""

from collections.abc import Iterator
from typing import ClassVar, Literal
from uuid import UUID

from pydantic import Field

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.steps.base import VariableName
from models.domain.journey.steps.effect import EffectStep


class EnterJourneyStep(EffectStep):
    """The newest version at that time. `variables`: the other run's variable by the name of this run's; `key`: this run's variable
    that tells two runs of one contact apart."""

    done: ClassVar[str] = "entered_journey"

    kind: Literal["enter_journey"] = "enter_journey"
    journey_id: UUID
    variables: dict[VariableName, VariableName] = Field(default_factory=dict, max_length=50)
    key: VariableName | None = None

    def leads_into(self) -> UUID | None:
        return self.journey_id

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        if facts.journeys is None:
            return
        found = facts.journeys.get(self.journey_id)
        if found is None:
            yield Problem(f"{path}.journey_id", "unknown_journey", "There is no journey with this id.")
        elif self.journey_id == facts.journey_id:
            yield Problem(f"{path}.journey_id", "own_journey", "A journey cannot enter itself here; lead back to an earlier step instead.")
        elif not found.published:
            yield Problem(f"{path}.journey_id", "unpublished_journey", "This journey has no published version yet.")
        elif found.archived:
            yield Problem(f"{path}.journey_id", "archived_journey", "This journey is archived; choose another.")
