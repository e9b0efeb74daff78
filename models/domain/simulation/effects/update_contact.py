"""`update_contact` in memory. Pure."""

from models.domain.journey.steps.base import Answer
from models.domain.journey.steps.update_contact import Refused, UpdateContactStep
from models.domain.simulation.effects.effect import Heard, Scene, refused


def update(step: UpdateContactStep, scene: Scene) -> Heard:
    try:
        attributes = step.new_attributes(scene.variables, scene.surroundings.attributes)
        tags = step.new_tags(scene.person.tags)
    except Refused as refusal:
        return refused(refusal.reason)
    fields = scene.person.change({}, attributes, tags, scene.now)
    scene.touched = bool(fields)
    return Heard(Answer(details={"fields": fields}))
