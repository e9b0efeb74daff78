"""`call_webhook` in memory: nobody is called; the scenario says what the other system answers. Pure."""

from typing import Any

from models.domain.journey.steps.base import Answer
from models.domain.journey.steps.call_webhook import CallWebhookStep
from models.domain.journey.webhook_tries import meaning, pause_after
from models.domain.simulation.effects.effect import Heard, Scene
from models.domain.template import Unsendable
from models.domain.wait_time import shared_instant


def call(step: CallWebhookStep, scene: Scene) -> Heard:
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
    values, missed = step.kept(body) if step.save else ({}, {})
    scene.variables |= values
    details = {"status": status, **({"saved": sorted(values)} if values else {}), **({"not_saved": missed} if missed else {})}
    return Heard(Answer(details=details))


def _given_up(step: CallWebhookStep, reason: str) -> Heard:
    path = step.on_failure == "path"
    return Heard(Answer(refused=path, reason=reason), failed=not path)
