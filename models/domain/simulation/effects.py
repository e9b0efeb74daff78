"""What each kind of step does to the world, in memory: nothing is claimed, written or called. What this and `activities/effects` share
belongs to the class of the step. Adding a kind adds a function and its line in `EFFECTS`: docs/adding-a-step.md. Pure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.domain.decision import Reason
from models.domain.journey.steps.base import Answer
from models.domain.journey.steps.call_webhook import CallWebhookStep
from models.domain.journey.steps.enter_journey import EnterJourneyStep
from models.domain.journey.steps.notify_team import NotifyTeamStep
from models.domain.journey.steps.subscription import SubscribeStep, UnsubscribeStep
from models.domain.journey.steps.update_contact import Refused, UpdateContactStep
from models.domain.journey.variables import within_bounds
from models.domain.journey.webhook_tries import meaning, pause_after
from models.domain.simulation.person import Person
from models.domain.simulation.surroundings import Printer, Surroundings
from models.domain.template import Unsendable
from models.domain.wait_time import shared_instant


@dataclass
class Scene:
    """A run that stands at a step which does something. `variables` are the run's, changed in place, as the person is; `touched`: whether
    the contact changed, so that rules look at it again. `reply`: the next answer of another system, its status and JSON; `tries`: how
    often this visit has asked, this time included. Times are aware UTC."""

    person: Person
    variables: dict[str, Any]
    now: datetime
    began: datetime
    surroundings: Surroundings
    printer: Printer
    reply: Callable[[], tuple[int, Any]]
    tries: int
    touched: bool = False


@dataclass(frozen=True)
class Heard:
    """What an activity would answer. `failed`: a person decides; `retry_at`: it is asked again then."""

    answer: Answer
    failed: bool = False
    retry_at: datetime | None = None


Effect = Callable[[Any, Scene], Heard]  # of the kind's step


def refused(reason: str) -> Heard:
    """It is not done, and the run goes on."""
    return Heard(Answer(refused=True, reason=reason))


def update_contact(step: UpdateContactStep, scene: Scene) -> Heard:
    try:
        attributes = step.new_attributes(scene.variables, scene.surroundings.attributes)
        tags = step.new_tags(scene.person.tags)
    except Refused as refusal:
        return refused(refusal.reason)
    fields = scene.person.change({}, attributes, tags, scene.now)
    scene.touched = bool(fields)
    return Heard(Answer(details={"fields": fields}))


def subscribe(step: SubscribeStep, scene: Scene) -> Heard:
    """Consent is not taken from somebody who has withdrawn it since the run began, other than by a journey's step."""
    topic = scene.surroundings.topics.get(step.topic_id)
    if topic is None or topic.archived:
        return refused(Reason.TOPIC_ARCHIVED)
    said = scene.person.consents.get((step.topic_id, step.channel))
    if said and said.left_at is not None and said.left_at > scene.began:
        return refused(Reason.CONSENT_WITHDRAWN)
    scene.person.say(step.topic_id, step.channel, "granted", scene.now, by_a_step=True)
    scene.touched = True
    return Heard(Answer())


def unsubscribe(step: UnsubscribeStep, scene: Scene) -> Heard:
    scene.person.say(step.topic_id, step.channel, "withdrawn", scene.now, by_a_step=True)
    scene.touched = True
    return Heard(Answer())


def call_webhook(step: CallWebhookStep, scene: Scene) -> Heard:
    try:
        if step.body is not None:
            scene.printer.json(step.body, scene.person.row, scene.variables)
    except Unsendable as unsendable:
        return _given_up(step, unsendable.reason)
    status, body = scene.reply()
    tries = scene.tries % scene.surroundings.tries
    match meaning(status):
        case "done":
            return _done(step, scene, status, body)
        case "again" if tries:
            return Heard(Answer(reason=f"webhook_answered_{status}"), retry_at=shared_instant(scene.now + pause_after(tries)))
        case "again":
            return _given_up(step, f"gave_up:webhook_answered_{status}")
        case _:
            return _given_up(step, f"webhook_answered_{status}")


def _done(step: CallWebhookStep, scene: Scene, status: int, body: Any) -> Heard:
    found, missed = step.kept(body) if step.save else ({}, {})
    values, beyond = within_bounds(scene.variables, found)
    missed |= beyond
    scene.variables |= values
    details = {"status": status, **({"saved": sorted(values)} if values else {}), **({"not_saved": missed} if missed else {})}
    return Heard(Answer(details=details))


def _given_up(step: CallWebhookStep, reason: str) -> Heard:
    path = step.on_failure == "path"
    return Heard(Answer(refused=path, reason=reason), failed=not path)


def notify_team(step: NotifyTeamStep, scene: Scene) -> Heard:
    told = [str(member) for member in step.members if member in scene.surroundings.members]
    if not told:
        return refused("no_members")
    try:
        scene.printer.mail(step.subject, step.text, scene.person.row, scene.variables)
    except Unsendable as unsendable:
        return Heard(Answer(reason=unsendable.reason), failed=True)
    return Heard(Answer(details={"told": told}))


def enter_journey(step: EnterJourneyStep, scene: Scene) -> Heard:
    if step.journey_id not in scene.surroundings.published:
        return refused("journey_unpublished")
    return Heard(Answer(details={"journey_id": str(step.journey_id)}))


EFFECTS: Mapping[str, Effect] = {
    "update_contact": update_contact,
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
    "call_webhook": call_webhook,
    "notify_team": notify_team,
    "enter_journey": enter_journey,
}
ANSWERED = frozenset({"call_webhook"})  # the scenario says what another system answers
