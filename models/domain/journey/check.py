"""Whether a draft can be published: every reason why not, each with the path to the field. Pure.

What exists around the journey is handed in as `Facts`.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import ValidationError

from models.domain.errors import Problem, Unpublishable
from models.domain.journey.definition import BranchStep, Definition, SendStep, Step, WaitStep
from models.domain.journey.draft import storable
from models.domain.journey.facts import Facts, TemplateFact
from models.domain.journey.rule import rule_problems

MAX_STEPS = 500
MAX_CONDITIONS = 50
MAX_WAIT = timedelta(days=366)
UNSUBSCRIBE_LINK = "unsubscribe_url"  # the name that a template prints the recipient's own link by


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
        problems += _step(f"steps.{step_id}", step, facts)
    return [*problems, *_unreachable(definition), *_endless_loops(definition)]


def require_publishable(draft: Any, facts: Facts) -> Definition:
    """The draft as a definition.

    Raises:
        Unpublishable: with everything `check` found.
    """
    definition = parse(draft)
    problems = definition if isinstance(definition, list) else check_definition(definition, facts)
    if isinstance(definition, list) or problems:
        raise Unpublishable(problems, f"The draft has {len(problems)} problem(s); mend them and publish again.")
    return definition


# --- Malformed drafts -----------------------------------------------------------------------------------------------

_KINDS = ("send", "wait", "branch", "exit")
_WORDS = {
    "missing": ("required", "This field is required."),
    "extra_forbidden": ("unknown_field", "There is no such field; check the spelling."),
    "union_tag_not_found": ("required", f"Say which kind of step this is: {', '.join(_KINDS)}."),
    "union_tag_invalid": ("unknown_kind", f"There is no such kind of step; use one of {', '.join(_KINDS)}."),
}
_STEP_ID = "A step id starts with a lower-case letter and goes on with up to 62 letters, digits, - or _."


def _malformed(error: Any) -> Problem:
    location = list(error["loc"])
    if location[-1:] == ["[key]"]:
        return Problem(_dotted(location[:-1]), "malformed_step_id", _STEP_ID)
    if len(location) > 2 and location[0] == "steps" and location[2] in _KINDS:
        del location[2]  # pydantic's name of the kind it tried
    code, message = _WORDS.get(error["type"], (error["type"], f"{error['msg']}."))
    if error["type"].startswith("union_tag"):
        location.append("kind")
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


def _exits(step: Step) -> Iterator[tuple[str, str | None]]:
    """Each way out of a step: the field that names it, and the step named (None: the run completes)."""
    match step:
        case SendStep() | WaitStep():
            yield "next", step.next
        case BranchStep():
            for index, condition in enumerate(step.conditions):
                yield f"conditions[{index}].next", condition.next
            yield "otherwise", step.otherwise


def _references(definition: Definition, step_id: str, step: Step) -> Iterator[Problem]:
    for where, target in _exits(step):
        if target is not None and target not in definition.steps:
            yield Problem(f"steps.{step_id}.{where}", "unknown_step", f"There is no step {target!r}; add it, or name another.")


def _successors(definition: Definition, step_id: str) -> list[str]:
    return [target for _, target in _exits(definition.steps[step_id]) if target in definition.steps and target is not None]


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
    """Loops in which a run would never wait: it would spin, and mail, for ever."""
    instant = {step_id: step for step_id, step in definition.steps.items() if not isinstance(step, WaitStep)}
    while cycle := _cycle({step_id: [t for t in _successors(definition, step_id) if t in instant] for step_id in instant}):
        order = list(definition.steps)
        first = min(cycle, key=order.index)
        around = set(cycle)
        where = next(where for where, target in _exits(definition.steps[first]) if target in around)
        names = ", ".join(sorted(around, key=order.index)[:10])
        yield Problem(
            f"steps.{first}.{where}", "loop_without_wait", f"These steps go round without a wait: {names}. Put a wait between them."
        )
        instant = {step_id: step for step_id, step in instant.items() if step_id not in around}


def _cycle(graph: Mapping[str, list[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


# --- Single steps ---------------------------------------------------------------------------------------------------


def _step(path: str, step: Step, facts: Facts) -> Iterator[Problem]:
    match step:
        case SendStep():
            yield from _template(path, step, facts)
            yield from _topic(path, step, facts)
            yield from _connection(path, step, facts)
        case WaitStep():
            yield from _wait(path, step)
        case BranchStep():
            yield from _branch(path, step, facts)


def _template(path: str, step: SendStep, facts: Facts) -> Iterator[Problem]:
    found = facts.templates.get(step.template_id)
    if found is None:
        yield Problem(f"{path}.template_id", "unknown_template", "There is no template with this id.")
    elif found.archived:
        yield Problem(f"{path}.template_id", "archived_template", "This template is archived; choose another.")
    elif found.channel != step.channel:
        yield Problem(
            f"{path}.template_id", "wrong_channel", f"This is a template for {found.channel}, but the step sends by {step.channel}."
        )
    elif found.newest_version_id is None:
        yield Problem(f"{path}.template_id", "empty_template", "This template has no version yet; save its contents first.")
    else:
        yield from _template_version(path, step, found)


def _template_version(path: str, step: SendStep, template: TemplateFact) -> Iterator[Problem]:
    version_id = step.template_version_id or template.newest_version_id
    names = None if version_id is None else template.versions.get(version_id)
    if names is None:
        yield Problem(f"{path}.template_version_id", "unknown_template_version", "The template has no version with this id.")
    elif step.channel == "email" and step.purpose == "marketing" and UNSUBSCRIBE_LINK not in names:
        message = f"A marketing email shows a way out: print {{{{ {UNSUBSCRIBE_LINK} }}}} in the template."
        yield Problem(f"{path}.template_id", "no_unsubscribe_link", message)


def _topic(path: str, step: SendStep, facts: Facts) -> Iterator[Problem]:
    if step.topic_id is None:
        if step.purpose == "marketing":
            yield Problem(f"{path}.topic_id", "required", "A marketing message names the topic that its recipients agreed to.")
    elif step.topic_id not in facts.topics:
        yield Problem(f"{path}.topic_id", "unknown_topic", "There is no topic with this id.")
    elif facts.topics[step.topic_id].archived:
        yield Problem(f"{path}.topic_id", "archived_topic", "This topic is archived; choose another.")


def _connection(path: str, step: SendStep, facts: Facts) -> Iterator[Problem]:
    if step.connection_id is not None:
        found = facts.connections.get(step.connection_id)
        if found is None:
            yield Problem(f"{path}.connection_id", "unknown_connection", "There is no connection with this id.")
        elif found.channel != step.channel:
            yield Problem(
                f"{path}.connection_id", "wrong_channel", f"This connection sends {found.channel}, but the step sends {step.channel}."
            )
    elif facts.default_connection(step.channel) is None:
        there_is_one = any(connection.channel == step.channel for connection in facts.connections.values())
        message = "choose one here, or make one the default" if there_is_one else f"connect an account for {step.channel} first"
        yield Problem(f"{path}.connection_id", "no_connection", f"No default connection can send {step.channel}: {message}.")


def _wait(path: str, step: WaitStep) -> Iterator[Problem]:
    if step.duration <= timedelta(0):
        yield Problem(f"{path}.duration", "not_positive", "A wait lasts longer than nothing; remove the step if it need not wait.")
    elif step.duration > MAX_WAIT:
        yield Problem(f"{path}.duration", "too_long", f"A wait lasts at most {MAX_WAIT.days} days.")


def _branch(path: str, step: BranchStep, facts: Facts) -> Iterator[Problem]:
    if not step.conditions:
        yield Problem(f"{path}.conditions", "no_conditions", "A branch needs at least one condition.")
    if len(step.conditions) > MAX_CONDITIONS:
        yield Problem(f"{path}.conditions", "too_many_conditions", f"A branch has at most {MAX_CONDITIONS} conditions.")
    for index, condition in enumerate(step.conditions[:MAX_CONDITIONS]):
        yield from rule_problems(condition.when, facts, f"{path}.conditions[{index}].when")
