"""Where a journey leads its contacts beside its own steps: loops through journeys, in which no time passes. Pure."""

from collections.abc import Iterator, Mapping, Set
from uuid import UUID

from models.domain.errors import Problem
from models.domain.journey.definition import Definition
from models.domain.journey.entry import EntryRules
from models.domain.journey.facts import Facts


def enters_at_once(definition: Definition) -> dict[UUID, str]:
    """The journeys that a contact may enter from here before any time has passed, each with the step that leads there."""
    found: dict[UUID, str] = {}
    seen, ahead = {definition.start}, [definition.start]
    while ahead:
        step_id = ahead.pop()
        if (step := definition.steps.get(step_id)) is None:
            continue
        if (journey_id := step.leads_into()) is not None:
            found.setdefault(journey_id, step_id)
        new = [target for _, target in step.instant_exits() if target is not None and target not in seen]
        seen.update(new)
        ahead += new
    return found


def takes_again(entry: EntryRules) -> bool:
    """Whether one contact may enter however often it comes."""
    return entry.again != "once" and entry.cool_down is None and entry.maximum is None


def leads_to(definition: Definition) -> frozenset[UUID]:
    """The journeys that whoever comes here again and again is led into again and again."""
    return frozenset(enters_at_once(definition)) if takes_again(definition.entry) else frozenset()


def loops_through_journeys(definition: Definition, facts: Facts) -> Iterator[Problem]:
    """Each step from which other journeys, as they are published, lead back to this one without a wait."""
    if facts.journey_id is None or not takes_again(definition.entry):
        return
    for journey_id, step_id in enters_at_once(definition).items():
        if journey_id != facts.journey_id and facts.journey_id in _reached(journey_id, facts.leads):
            message = "That journey leads back into this one without a wait: contacts would go round. Put a wait for some time between."
            yield Problem(f"steps.{step_id}.journey_id", "loop_through_journeys", message)


def _reached(journey_id: UUID, leads: Mapping[UUID, Set[UUID]]) -> set[UUID]:
    reached: set[UUID] = set()
    ahead = [journey_id]
    while ahead:
        new = leads.get(ahead.pop(), frozenset()) - reached
        reached |= new
        ahead += new
    return reached
