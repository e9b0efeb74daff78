"""What is different between two versions of a journey, as data. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from models.domain.journey.content_hash import TemplateContent, stored
from models.domain.journey.definition import Definition, SendStep

Json = Any
_STEPS = "steps"


@dataclass(frozen=True)
class Side:
    """A version, or a draft as it would be published. `contents`: of the template versions that it names, as far as they are known."""

    definition: Definition
    contents: Mapping[UUID, TemplateContent]


@dataclass(frozen=True)
class FieldChange:
    """`path` from the step or the definition on: `duration`, `conditions[0].next`, `entry.again`. None: there was or is no such field."""

    path: str
    before: Json
    after: Json


@dataclass(frozen=True)
class WholeStep:
    step_id: str
    step: Mapping[str, Json]


@dataclass(frozen=True)
class StepChange:
    step_id: str
    kind: str  # afterwards
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True)
class Difference:
    """`rules`: everything around the steps: start, entry, exits, goals, the end. `templates`: what the messages of steps that are on
    both sides say."""

    added: tuple[WholeStep, ...]
    removed: tuple[WholeStep, ...]
    changed: tuple[StepChange, ...]
    rules: tuple[FieldChange, ...]
    templates: tuple[StepChange, ...]


def difference(before: Side, after: Side) -> Difference:
    """What has to be done to `before` to make it `after`. Steps are the same when they have the same id; in the order of their ids."""
    old, new = stored(before.definition), stored(after.definition)
    was, now = old.pop(_STEPS), new.pop(_STEPS)
    both = sorted(was.keys() & now.keys())
    changed = (StepChange(step_id, now[step_id]["kind"], tuple(_changes("", was[step_id], now[step_id]))) for step_id in both)
    return Difference(
        added=tuple(WholeStep(step_id, now[step_id]) for step_id in sorted(now.keys() - was.keys())),
        removed=tuple(WholeStep(step_id, was[step_id]) for step_id in sorted(was.keys() - now.keys())),
        changed=tuple(change for change in changed if change.fields),
        rules=tuple(_changes("", old, new)),
        templates=tuple(_templates(both, before, after)),
    )


def _templates(step_ids: list[str], before: Side, after: Side) -> Iterator[StepChange]:
    for step_id in step_ids:
        was, now = _content(before, step_id), _content(after, step_id)
        if fields := tuple(_changes("", was, now)):
            yield StepChange(step_id, after.definition.steps[step_id].kind, fields)


def _content(side: Side, step_id: str) -> dict[str, Json]:
    step = side.definition.steps[step_id]
    version_id = step.template_version_id if isinstance(step, SendStep) else None
    return asdict(side.contents[version_id]) if version_id is not None and version_id in side.contents else {}


def _changes(path: str, before: Json, after: Json) -> Iterator[FieldChange]:
    """Field by field in mappings, item by item in lists of the same length; anything else is one value."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _changes(f"{path}.{key}" if path else str(key), before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (was, now) in enumerate(zip(before, after, strict=True)):
            yield from _changes(f"{path}[{index}]", was, now)
    else:
        yield FieldChange(path, before, after)
