"""What a case can expect at all: of any journey, and of one version. Pure.

The kinds of lines that a step can have are said by its class (`StepModel.says`).
"""

from collections.abc import Iterator, Mapping

from models.domain.errors import Problem
from models.domain.journey.definition import KINDS, Definition, SendStep
from models.domain.journey.run import FINISHED, Phase
from models.domain.journey.steps.base import StepModel
from models.domain.journey.steps.effect import EffectStep
from models.domain.simulation.case import Case, ExpectedEnd, ExpectedStep
from models.domain.simulation.scenario import Script

NOT_ENTERED = "not_entered"
ENDS = frozenset(map(str, Phase)) - {"paused"} | {NOT_ENTERED}  # nobody pauses a simulated run
LAST = frozenset(map(str, FINISHED))  # lines of the path by the phases that they begin
ANYWHERE = LAST | {"entered", "held", "woke", "rescheduled", "parked", "retried", "skipped"}
# What happens only by somebody's word, which the script has to hold: which of its fields, and what it says.
WORDS: Mapping[str, tuple[str, str]] = {
    "retried": ("control", "retry"),
    "skipped": ("control", "skip"),
    "cancelled": ("control", "cancel"),
    "review_approved": ("review", "approved"),
    "review_rejected": ("review", "rejected"),
}
WITH_REASON = frozenset({"held", "parked", "needs_attention", "not_sent", "exited", NOT_ENTERED})
WITHOUT_REASON = frozenset({"entered", "sent", "waiting", "woke", "rescheduled", "chose", "split", "matched", *WORDS, "completed"})


def says(step: type[StepModel]) -> frozenset[str]:
    """The kinds of lines that a path can hold at a step of this class."""
    return ANYWHERE | step.says | ({step.done} if issubclass(step, EffectStep) and hasattr(step, "done") else frozenset())


EVERY = frozenset().union(*(says(step) for step in KINDS.values()))


# --- Of any journey -------------------------------------------------------------------------------------------------


def impossible(case: Case) -> Iterator[Problem]:
    """What no journey can ever do for this case, with its path below `expected`."""
    path, end = case.expected.path, case.expected.end
    for index, line in enumerate(path or ()):
        yield from _line(f"path[{index}]", line, case.script)
    yield from _order(path or ())
    yield from _times(case)
    if end is not None:
        yield from _end(end, case)
        if path is not None:
            yield from _ends_otherwise(end, path)
        if end.phase == NOT_ENTERED and case.expected.messages:
            yield Problem(
                "messages", "impossible", "A contact who does not enter gets no message; leave the messages out, or expect another end."
            )


def _line(where: str, line: ExpectedStep, script: Script) -> Iterator[Problem]:
    if line.kind not in EVERY:
        yield Problem(f"{where}.kind", "unknown_kind", f"A path never has a line {line.kind!r}; its lines are {_listed(EVERY)}.")
        return
    yield from _word(f"{where}.kind", line.kind, script)
    if "reason" in line.model_fields_set:
        yield from _reason(f"{where}.reason", line.kind, line.reason)


def _word(where: str, kind: str, script: Script) -> Iterator[Problem]:
    field, said = WORDS.get(kind, ("", ""))
    if field and not any(getattr(each, field) == said for each in script):
        message = f'Nothing in the script leads to {kind!r}: that needs a line with "{field}": "{said}".'
        yield Problem(where, "impossible", message)


def _reason(where: str, kind: str, reason: str | None) -> Iterator[Problem]:
    if reason is not None and kind in WITHOUT_REASON:
        yield Problem(where, "impossible", f"{kind!r} never has a reason; leave it out.")
    if reason is None and kind in WITH_REASON:
        yield Problem(where, "impossible", f"{kind!r} always has a reason; say which, or leave the field out, if it may be any.")


def _order(path: tuple[ExpectedStep, ...]) -> Iterator[Problem]:
    for index, line in enumerate(path):
        if (line.kind == "entered") != (index == 0):
            yield Problem(f"path[{index}].kind", "impossible", "A path begins with 'entered', and has it nowhere else.")
    over = next((index for index, line in enumerate(path[:-1]) if line.kind in LAST), None)
    if over is not None:
        message = f"After {path[over].kind!r} the run is over, and the path has no more lines; remove them."
        yield Problem(f"path[{over + 1}]", "impossible", message)


def _times(case: Case) -> Iterator[Problem]:
    """Lines and messages come in the order of time, from the start on and until the end."""
    dated = {"path": [line.at for line in case.expected.path or ()], "messages": [message.at for message in case.expected.messages or ()]}
    last = case.start + case.until
    for name, moments in dated.items():
        before = case.start
        for index, at in enumerate(moments):
            if at is not None and not before <= at <= last:
                message = f"This comes between {before.isoformat()}, as what stands before it does, and the case's end, {last.isoformat()}."
                yield Problem(f"{name}[{index}].at", "impossible", message)
            before = max(before, at or before)


def _end(end: ExpectedEnd, case: Case) -> Iterator[Problem]:
    if end.phase not in ENDS:
        yield Problem("end.phase", "unknown_phase", f"No run ever stands at {end.phase!r}; use one of {_listed(ENDS)}.")
        return
    yield from _word("end.phase", end.phase, case.script)
    if "reason" in end.model_fields_set:
        yield from _reason("end.reason", end.phase, end.reason)


def _ends_otherwise(end: ExpectedEnd, path: tuple[ExpectedStep, ...]) -> Iterator[Problem]:
    if not path or end.phase == NOT_ENTERED:
        if bool(path) == (end.phase == NOT_ENTERED):
            message = f"The path is empty exactly when nobody enters, whose end is {NOT_ENTERED!r}; change one of them."
            yield Problem("end.phase", "impossible", message)
        return
    last = path[-1]
    if end.phase != last.kind and LAST & {end.phase, last.kind}:
        yield Problem(
            "end.phase", "impossible", f"The path ends with {last.kind!r}, and so does not end {end.phase!r}; change one of them."
        )
    elif end.phase == last.kind and _said(end) and _said(last) and end.reason != last.reason and end.phase in LAST:
        yield Problem("end.reason", "impossible", f"The path ends with the reason {last.reason!r}; change one of them.")


def _said(one: ExpectedEnd | ExpectedStep) -> bool:
    return "reason" in one.model_fields_set


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))


# --- Of one version -------------------------------------------------------------------------------------------------


def unfitting(case: Case, definition: Definition) -> Iterator[Problem]:
    """What this version of the journey cannot do, whatever happens, with its path in the case's own words. A case that names what is
    gone must be looked at, even where the rest still fits."""
    yield from _lost_steps(case, definition)
    for index, line in enumerate(case.expected.path or ()):
        step = definition.steps.get(line.step or "")
        if step is not None and line.kind in EVERY and line.kind not in says(type(step)):
            yield Problem(
                f"path[{index}]", "wrong_kind", f"The step {line.step!r} is of the kind {step.kind}, which never says {line.kind!r}."
            )
        yield from _lost_rule(f"path[{index}].reason", line.reason, definition)
    for index, message in enumerate(case.expected.messages or ()):
        step = definition.steps.get(message.step)
        if step is not None and not isinstance(step, SendStep):
            yield Problem(
                f"messages[{index}]", "sends_nothing", f"The step {message.step!r} is of the kind {step.kind}, which sends no message."
            )
    if case.expected.end is not None:
        yield from _lost_rule("end.reason", case.expected.end.reason, definition)


def _lost_steps(case: Case, definition: Definition) -> Iterator[Problem]:
    named = [(f"path[{index}]", one.step) for index, one in enumerate(case.expected.path or ())]
    named += [(f"messages[{index}]", one.step) for index, one in enumerate(case.expected.messages or ())]
    named += [(f"given.{field}", step_id) for field in ("webhooks", "sends") for step_id in getattr(case.given, field)]
    said: set[str] = set()
    for where, step_id in named:
        if step_id is not None and step_id not in definition.steps and step_id not in said:
            said.add(step_id)
            yield Problem(where, "unknown_step", f"The step {step_id!r} does not exist in this version of the journey; change the case.")


def _lost_rule(where: str, reason: str | None, definition: Definition) -> Iterator[Problem]:
    kind, _, name = (reason or "").partition(":")
    rules = {"exit_rule": definition.exits, "goal": definition.goals}.get(kind)
    if rules is not None and name not in {rule.name for rule in rules}:
        what = "exit rule" if kind == "exit_rule" else "goal"
        yield Problem(where, "unknown_rule", f"The {what} {name!r} does not exist in this version of the journey; change the case.")
