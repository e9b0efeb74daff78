"""The path that the simulator takes through a drawn world: its scenario and script are what the world says."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.definition import BranchStep, SendStep
from models.domain.journey.interpreter import Change
from models.domain.segment_memory import Happened
from models.domain.simulation import scenario
from models.domain.simulation.person import Person
from models.domain.simulation.scenario import EventNow, Happening, WebhookAnswer, in_order
from models.domain.simulation.surroundings import Message, Surroundings
from models.domain.simulation.travel import travel
from models.domain.simulation.trip import Plan
from tests.workflows.walking import NOW, Walk
from tests.workflows.worlds import LEFT, Word, World, way_of

STATUSES = {"done": 200, "failed": 410, "again": 503}
OUTCOMES: Mapping[str, scenario.Outcome] = {"sent": "accepted", "not_sent": "bounced", "failed": "gave_up"}


class BlankPrinter:
    def message(self, step: SendStep, template: TemplateContent | None, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Message:
        return Message("", "", "")

    def mail(self, subject: str, text: str, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Message:
        return Message(subject, "", text)

    def json(self, value: Any, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Any:
        return value


def simulate(world: World, run: UUID, walked: Walk) -> list[tuple[datetime, Change]]:
    """The lines that the simulator says of the run, told what happened to it outside."""
    early = [Happened(number, name, NOW, NOW) for number, (at, name) in enumerate(walked.events, 1) if at == NOW]
    person = Person(run, {"email": "someone@example.com", "created_at": NOW, "updated_at": NOW}, events=early)
    script = in_order(tuple(_script(walked)), NOW)
    plan = Plan(world.definition, Surroundings(), BlankPrinter(), _given(world, run, walked), script, NOW, NOW + timedelta(days=3_000))
    return [(line.at, line.change) for line in travel(plan, person, run).lines]


def _given(world: World, run: UUID, walked: Walk) -> scenario.World:
    steps, version = world.definition.steps, world.version_id
    ways = {way_of(name): int(world.branch(run, version, name, 1) == 0) for name, step in steps.items() if isinstance(step, BranchStep)}
    sends = {name: OUTCOMES[world.send(run, version, name, 1, 0)] for name, step in steps.items() if isinstance(step, SendStep)}
    calls = {name: _answers(tries) for name, tries in walked.calls.items() if steps[name].kind == "call_webhook"}
    return scenario.World(variables=ways, sends=sends, webhooks=calls)


def _answers(tries: Sequence[str]) -> tuple[WebhookAnswer, ...]:
    return tuple(WebhookAnswer(status=STATUSES[each]) for each in tries)


def _script(walked: Walk) -> list[Happening]:
    events = [Happening(after=at - NOW, event=EventNow(name=name)) for at, name in walked.events if at > NOW]
    return events + [happening for at, word in walked.said if (happening := _happening(at - NOW, word)) is not None]


def _happening(after: timedelta, word: Word) -> Happening | None:
    match word.kind:
        case "approve":
            return Happening(after=after, review="approved")
        case "reject":
            return Happening(after=after, review="rejected")
        case "exit":
            return Happening(after=after, event=EventNow(name=LEFT))
        case "retry" | "skip" | "cancel" as control:
            return Happening.model_validate({"after": after, "control": control})
        case _:
            return None
