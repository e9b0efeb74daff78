"""Freezing: what a published version fixes, and the one hash that stands for all of it. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar
from uuid import UUID

from models.domain.journey.definition import Definition, SendStep, Step
from models.domain.journey.entry import EventTrigger, Happens, SegmentTrigger
from models.domain.journey.facts import Facts

Rule = TypeVar("Rule", bound=Happens)


@dataclass(frozen=True)
class TemplateContent:
    """What a template version says. `subject` and `html` are empty where the channel has none."""

    channel: str
    subject: str
    html: str
    text: str


def freeze(definition: Definition, facts: Facts) -> Definition:
    """The definition with everything that it names fixed as it is now, so that later changes do not touch it: template versions,
    connections, segments' rules.

    The definition has passed `check` with the same facts.
    """
    steps = {step_id: step.frozen(facts) for step_id, step in definition.steps.items()}
    triggers = tuple(_trigger(trigger, facts) for trigger in definition.entry.triggers)
    return definition.model_copy(
        update={
            "steps": steps,
            "entry": definition.entry.model_copy(update={"triggers": triggers}),
            "exits": tuple(_rule(rule, facts) for rule in definition.exits),
            "goals": tuple(_rule(rule, facts) for rule in definition.goals),
        }
    )


def thawed(frozen: Mapping[str, Any], journey_id: UUID) -> dict[str, Any]:
    """A draft out of a version of this journey whose own draft is not known: without the template versions, connections, seeds and
    segments' rules that freezing fills in. Which of these the draft had named itself, and which rules in its steps were segments,
    cannot be told any more."""
    filled_in = {"template_version_id": None, "connection_id": None}
    steps = {step_id: {**step, **{name: filled_in[name] for name in filled_in.keys() & step}} for step_id, step in frozen["steps"].items()}
    own_seed = str(journey_id)
    steps = {step_id: {**step, "seed": ""} if step.get("seed") == own_seed else step for step_id, step in steps.items()}
    entry = frozen.get("entry", {})
    triggers = [{**trigger, "rule": None} if "rule" in trigger else trigger for trigger in entry.get("triggers", [])]
    return {**frozen, "steps": steps, "entry": {**entry, "triggers": triggers}}


def freeze_known(definition: Definition, facts: Facts) -> Definition:
    """As `freeze`, for a draft that may name what there is not (yet): such steps and rules stay as they are."""
    steps = {step_id: _known(step, facts) for step_id, step in definition.steps.items()}
    without = definition.model_copy(update={"steps": {}})
    try:
        return freeze(without, facts).model_copy(update={"steps": steps})
    except KeyError:
        return definition.model_copy(update={"steps": steps})


def _known(step: Step, facts: Facts) -> Step:
    try:
        return step.frozen(facts)
    except KeyError:
        return step


def _trigger(trigger: EventTrigger | SegmentTrigger, facts: Facts) -> EventTrigger | SegmentTrigger:
    if isinstance(trigger, SegmentTrigger):
        return trigger.model_copy(update={"rule": facts.inlined(facts.segments[trigger.segment_id])})
    return trigger.model_copy(update={"where": facts.inlined(trigger.where)}) if trigger.where else trigger


def _rule(rule: Rule, facts: Facts) -> Rule:
    changes = {name: facts.inlined(value) for name in ("where", "when") if (value := getattr(rule, name)) is not None}
    return rule.model_copy(update=changes)


def template_version_ids(definition: Definition) -> list[UUID]:
    """The template versions that a frozen definition names, each once, in ascending order."""
    named = {step.template_version_id for step in definition.steps.values() if isinstance(step, SendStep)}
    return sorted(version_id for version_id in named if version_id is not None)


def content_hash(definition: Definition, contents: Mapping[UUID, TemplateContent]) -> str:
    """Hex SHA-256 over the frozen definition and the contents of every template version it names.

    The bytes are UTF-8 JSON with sorted keys and no spaces: {"definition": …, "templates": {version id: content}}.
    Equal for equal meaning, whatever the order of the draft's fields or steps.

    Raises:
        KeyError: the content of a named template version is not given.
    """
    templates = {str(version_id): asdict(contents[version_id]) for version_id in template_version_ids(definition)}
    return hashlib.sha256(canonical({"definition": stored(definition), "templates": templates})).hexdigest()


def stored(definition: Definition) -> dict[str, Any]:
    """The definition as plain JSON, as it is kept in the database."""
    return definition.model_dump(mode="json")


def canonical(document: Any) -> bytes:
    """One spelling for one JSON value: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
