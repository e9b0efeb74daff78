"""`subscribe` and `unsubscribe` in memory. Pure."""

from models.domain.decision import Reason
from models.domain.journey.steps.base import Answer
from models.domain.journey.steps.subscription import SubscribeStep, UnsubscribeStep
from models.domain.simulation.effects.effect import Heard, Scene, refused

METHOD = "journey"


def subscribe(step: SubscribeStep, scene: Scene) -> Heard:
    """Consent is not taken from somebody who has withdrawn it since the run began, other than by a journey's step."""
    topic = scene.surroundings.topics.get(step.topic_id)
    if topic is None or topic.archived:
        return refused(Reason.TOPIC_ARCHIVED)
    said = scene.person.consents.get((step.topic_id, step.channel))
    if said and said.line.status == "withdrawn" and said.method != METHOD and said.line.occurred_at > scene.began:
        return refused(Reason.CONSENT_WITHDRAWN)
    scene.person.say(step.topic_id, step.channel, "granted", scene.now, METHOD)
    scene.touched = True
    return Heard(Answer())


def unsubscribe(step: UnsubscribeStep, scene: Scene) -> Heard:
    scene.person.say(step.topic_id, step.channel, "withdrawn", scene.now, METHOD)
    scene.touched = True
    return Heard(Answer())
