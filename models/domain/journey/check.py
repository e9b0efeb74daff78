"""Whether a draft can be published: every reason why not, each with the path to the field. Pure.

What exists around the journey is handed in as `Facts`. What is wrong with a single step its own class says.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import ValidationError

from models.domain.errors import Problem
from models.domain.journey.definition import KINDS, Definition, SendStep, SplitStep, Step
from models.domain.journey.draft import storable
from models.domain.journey.entry import policy_problems
from models.domain.journey.facts import Facts
from models.domain.journey.leading import loops_through_journeys
from models.domain.phrases import plain_message

MAX_STEPS = 500


def check(draft: Any, facts: Facts) -> list[Problem]:
    """Everything that keeps this draft from being published, in the order of the draft; empty when nothing does."""
    definition = parse(draft)
    return definition if isinstance(definition, list) else check_definition(definition, facts)


def parse(draft: Any) -> Definition | list[Problem]:
    """The draft as a definition, or what is malformed about it."""
    if problems := storable(draft, "draft"):
        return problems
    if isinstance(draft, dict) and isinstance(draft.get("steps"), dict) and len(draft["steps"]) > MAX_STEPS:
        return [_too_many_steps(len(draft["steps"]))]
    try:
        return Definition.model_validate(draft)
    except ValidationError as error:
        return [_malformed(problem) for problem in error.errors(include_url=False, include_input=False)]


def check_definition(definition: Definition, facts: Facts) -> list[Problem]:
    """As `check`, for a draft that is well formed."""
    problems = [*_size(definition), *_start(definition)]
    for step_id, step in definition.steps.items():
        problems += _references(definition, step_id, step)
        problems += step.problems(f"steps.{step_id}", facts)
    problems += [
        *_unreachable(definition),
        *_endless_loops(definition),
        *_mailed_holdouts(definition),
        *loops_through_journeys(definition, facts),
    ]
    problems += _end(definition, facts)
    return [*problems, *policy_problems(definition.entry, definition.exits, definition.goals, facts)]


# --- Malformed drafts -----------------------------------------------------------------------------------------------

_KINDS = tuple(KINDS)
_WORDS = {
    "missing": ("required", "This field is required."),
    "extra_forbidden": ("unknown_field", "There is no such field; check the spelling."),
    "union_tag_not_found": ("required", f"Say which kind of step this is: {', '.join(_KINDS)}."),
    "union_tag_invalid": ("unknown_kind", f"There is no such kind of step; use one of {', '.join(_KINDS)}."),
}
_TRIGGERS = ("event", "segment_entered", "segment_left")
_STEP_ID = "A step id starts with a lower-case letter and goes on with up to 62 letters, digits, - or _."


def _malformed(error: Any) -> Problem:
    location = list(error["loc"])
    if location[-1:] == ["[key]"]:
        location.pop()
        if len(location) == 2:
            return Problem(_dotted(location), "malformed_step_id", _STEP_ID)
    if len(location) > 2 and location[0] == "steps" and location[2] in _KINDS:
        del location[2]  # pydantic's name of the kind it tried
    if len(location) > 3 and location[:2] == ["entry", "triggers"] and location[3] in _TRIGGERS:
        del location[3]
    code, message = _WORDS.get(error["type"], (error["type"], f"{plain_message(error).removesuffix('.')}."))
    if error["type"].startswith("union_tag"):
        location.append("kind")
        if location[:2] == ["entry", "triggers"]:
            message = f"Say what begins a run: {', '.join(_TRIGGERS)}."
    return Problem(_dotted(location) or "draft", code, message)


def _dotted(location: list[Any]) -> str:
    """`steps.a.conditions[0].next`"""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part[:64]}" if path else str(part)[:64]
    return path


# --- The graph ------------------------------------------------------------------------------------------------------


def _too_many_steps(count: int) -> Problem:
    return Problem("steps", "too_many_steps", f"A journey has at most {MAX_STEPS} steps; this one has {count}.")


def _size(definition: Definition) -> Iterator[Problem]:
    if not definition.steps:
        yield Problem("steps", "no_steps", "A journey needs at least one step.")


def _start(definition: Definition) -> Iterator[Problem]:
    if definition.steps and definition.start not in definition.steps:
        yield Problem("start", "unknown_step", f"There is no step {definition.start!r} to start at.")


def _end(definition: Definition, facts: Facts) -> Iterator[Problem]:
    if definition.at_end == "exit" and definition.ends_at is None:
        yield Problem("at_end", "unused", "Only a journey that ends has somebody leave then; say when by ends_at, or remove it.")
    if facts.now is not None and definition.has_ended(facts.now):
        yield Problem("ends_at", "in_the_past", "This has passed already, so that nobody could enter; choose a later time, or remove it.")


def _references(definition: Definition, step_id: str, step: Step) -> Iterator[Problem]:
    for where, target in step.exits():
        if target is not None and target not in definition.steps:
            yield Problem(f"steps.{step_id}.{where}", "unknown_step", f"There is no step {target!r}; add it, or name another.")


def _successors(definition: Definition, step_id: str) -> list[str]:
    return [target for _, target in definition.steps[step_id].exits() if target in definition.steps and target is not None]


def _unreachable(definition: Definition) -> Iterator[Problem]:
    if definition.start not in definition.steps:
        return
    seen, ahead = {definition.start}, [definition.start]
    while ahead:
        new = [target for target in _successors(definition, ahead.pop()) if target not in seen]
        seen.update(new)
        ahead += new
    for step_id in definition.steps:
        if step_id not in seen:
            yield Problem(f"steps.{step_id}", "unreachable_step", "No way from the start leads here; connect the step or remove it.")


def _endless_loops(definition: Definition) -> Iterator[Problem]:
    """Loops in which a run may go round without waiting: it would spin, and mail, for ever."""
    steps = definition.steps
    ways = {id: [(where, to) for where, to in step.instant_exits() if to in steps and to is not None] for id, step in steps.items()}
    while cycle := _cycle({step_id: [target for _, target in onward] for step_id, onward in ways.items()}):
        order = list(steps)
        first = min(cycle, key=order.index)
        around = set(cycle)
        where = next(where for where, target in ways[first] if target in around)
        names = ", ".join(sorted(around, key=order.index)[:10])
        message = f"These steps may go round without a wait: {names}. Put a wait for some time between them."
        yield Problem(f"steps.{first}.{where}", "loop_without_wait", message)
        ways = {
            step_id: [(where, target) for where, target in onward if target not in around]
            for step_id, onward in ways.items()
            if step_id not in around
        }


def _mailed_holdouts(definition: Definition) -> Iterator[Problem]:
    """Arms whose contacts are to be left alone, and whose way leads to a message all the same."""
    sends = _sends_ahead(definition)
    for step_id, step in definition.steps.items():
        for index, arm in enumerate(step.arms if isinstance(step, SplitStep) else ()):
            if arm.holdout and (send := sends.get(arm.next or "")) is not None:
                message = (
                    f"Whoever is held out gets no message, but this way leads to {send!r}, which sends one. Let it lead to the end, or to "
                    "steps that send nothing; or do not call the arm a holdout."
                )
                yield Problem(f"steps.{step_id}.arms[{index}].next", "holdout_is_sent_to", message)


def _sends_ahead(definition: Definition) -> dict[str, str]:
    """Of each step from which a send can be reached: the nearest one, which may be itself."""
    sources: dict[str, list[str]] = {step_id: [] for step_id in definition.steps}
    for step_id in definition.steps:
        for target in _successors(definition, step_id):
            sources[target].append(step_id)
    found = {step_id: step_id for step_id, step in definition.steps.items() if isinstance(step, SendStep)}
    ahead = deque(found)
    while ahead:
        target = ahead.popleft()
        new = [source for source in sources[target] if source not in found]
        found |= dict.fromkeys(new, found[target])
        ahead += new
    return found


def _cycle(graph: Mapping[str, list[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
