"""What becomes of the runs on older versions when a draft is published: the preview, what it is bound to, and the choices. Pure."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal, Self
from uuid import UUID

from models.domain.errors import Problem
from models.domain.journey.content_hash import canonical
from models.domain.journey.definition import Definition

ChoiceKind = Literal["finish", "move", "exit"]
SUGGESTED: ChoiceKind = "finish"  # whoever says nothing changes nobody's journey
MAX_CHOICES = 2_000
NAMED_CHANGES = 10


@dataclass(frozen=True)
class Count:
    """So many unfinished runs of a version stand at a step with this status."""

    version_id: UUID
    number: int
    step_id: str
    status: str
    runs: int


@dataclass(frozen=True)
class StepPreview:
    step_id: str
    name: str
    kind: str
    runs: int
    by_status: Mapping[str, int]
    in_draft: bool  # the draft has a step of this id, of the same kind
    suggested: ChoiceKind = SUGGESTED


@dataclass(frozen=True)
class VersionPreview:
    version_id: str
    number: int
    runs: int
    steps: Sequence[StepPreview]


@dataclass(frozen=True)
class Preview:
    """Where the runs on older versions stand: only steps at which there are any, versions in order."""

    runs: int
    versions: Sequence[VersionPreview]

    def stored(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """What `stored` gave."""
        versions = [
            VersionPreview(**{**version, "steps": [StepPreview(**step) for step in version["steps"]]}) for version in document["versions"]
        ]
        return cls(document["runs"], versions)

    def runs_by_place(self) -> dict[tuple[int, str], int]:
        """How many runs stand at each version's steps."""
        return {(version.number, step.step_id): step.runs for version in self.versions for step in version.steps}


def preview(counts: Sequence[Count], older: Mapping[UUID, Definition], draft: Definition) -> Preview:
    """The counts, told of versions and their steps. `older`: the definition of every version that is counted."""
    ordered = sorted(counts, key=lambda count: (count.number, count.step_id, count.status))
    versions = []
    for version_id, mine in groupby(ordered, key=lambda count: count.version_id):
        by_step = groupby(mine_of := list(mine), key=lambda count: count.step_id)
        steps = [_step(step_id, list(there), older[version_id], draft) for step_id, there in by_step]
        versions.append(VersionPreview(str(version_id), mine_of[0].number, sum(step.runs for step in steps), steps))
    return Preview(sum(version.runs for version in versions), versions)


def _step(step_id: str, counts: Sequence[Count], older: Definition, draft: Definition) -> StepPreview:
    step, same = older.steps.get(step_id), draft.steps.get(step_id)
    kind = "" if step is None else step.kind
    return StepPreview(
        step_id=step_id,
        name="" if step is None else step.name,
        kind=kind,
        runs=sum(count.runs for count in counts),
        by_status={count.status: count.runs for count in counts},
        in_draft=same is not None and same.kind == kind,
    )


def fingerprint(content_hash: str, seen: Preview) -> str:
    """Stands for what somebody has seen: what would be published, and how many runs stand at each step. Not for their status: a
    run that wakes and asks at the same step does not make a plan untrue."""
    places = [[number, step_id, runs] for (number, step_id), runs in sorted(seen.runs_by_place().items())]
    return hashlib.sha256(canonical([content_hash, places])).hexdigest()


def changes(seen: Preview, now: Preview) -> list[str]:
    """What has changed since the preview, in words."""
    before, after = seen.runs_by_place(), now.runs_by_place()
    return [
        f"step {step_id} of version {number}: {before.get((number, step_id), 0)} runs then, {after.get((number, step_id), 0)} now"
        for number, step_id in sorted(before.keys() | after.keys())
        if before.get((number, step_id), 0) != after.get((number, step_id), 0)
    ]


# --- Choices --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """What the runs do that stand at this step of this version. `to_step`: where those that move arrive."""

    version: int
    step_id: str
    choice: ChoiceKind
    to_step: str | None = None


@dataclass(frozen=True)
class PlannedStep:
    """A choice as it is kept."""

    version_id: UUID
    number: int
    step_id: str
    choice: ChoiceKind
    to_step: str | None

    @property
    def acts(self) -> bool:
        """Whether its runs do not simply finish on their version."""
        return self.choice != "finish"


def choice_problems(choices: Sequence[Choice], older: Mapping[int, Definition], draft: Definition) -> list[Problem]:
    """What is wrong with the choices, by path. `older`: the versions that the preview shows, by number."""
    problems: list[Problem] = []
    seen: set[tuple[int, str]] = set()
    for index, choice in enumerate(choices):
        problems += _choice(f"choices[{index}]", choice, older, draft)
        if (choice.version, choice.step_id) in seen:
            problems.append(Problem(f"choices[{index}]", "chosen_twice", "Something has been chosen for this step already."))
        seen.add((choice.version, choice.step_id))
    return problems


def _choice(path: str, choice: Choice, older: Mapping[int, Definition], draft: Definition) -> Iterator[Problem]:
    if choice.version not in older:
        yield Problem(f"{path}.version", "unknown_version", "The preview shows no unfinished run of a version with this number.")
    elif choice.step_id not in older[choice.version].steps:
        yield Problem(f"{path}.step_id", "unknown_step", f"Version {choice.version} has no step {choice.step_id!r}.")
    if choice.choice == "move" and choice.to_step is None:
        yield Problem(f"{path}.to_step", "required", "Name the step of the draft where these runs arrive.")
    elif choice.choice == "move" and choice.to_step not in draft.steps:
        yield Problem(f"{path}.to_step", "unknown_step", f"The draft has no step {choice.to_step!r}; name one that it has.")
    elif choice.choice != "move" and choice.to_step is not None:
        yield Problem(f"{path}.to_step", "unused", "Only runs that move arrive at a step.")
