"""`notify_team` in memory: the mail is printed, and nobody gets it. Pure."""

from models.domain.journey.steps.base import Answer
from models.domain.journey.steps.notify_team import NotifyTeamStep
from models.domain.simulation.effects.effect import Heard, Scene, refused
from models.domain.template import Unsendable


def notify(step: NotifyTeamStep, scene: Scene) -> Heard:
    told = [str(member) for member in step.members if member in scene.surroundings.members]
    if not told:
        return refused("no_members")
    try:
        scene.printer.mail(step.subject, step.text, scene.person.row, scene.variables)
    except Unsendable as unsendable:
        return Heard(Answer(reason=unsendable.reason), failed=True)
    return Heard(Answer(details={"told": told}))
