"""`enter_journey` in memory: the other journey is not simulated. Pure."""

from models.domain.journey.steps.base import Answer
from models.domain.journey.steps.enter_journey import EnterJourneyStep
from models.domain.simulation.effects.effect import Heard, Scene, refused


def enter(step: EnterJourneyStep, scene: Scene) -> Heard:
    if step.journey_id not in scene.surroundings.published:
        return refused("journey_unpublished")
    return Heard(Answer(details={"journey_id": str(step.journey_id)}))
