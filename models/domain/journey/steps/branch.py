"""`branch`: the first condition that holds wins. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar, Literal

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.rule import rule_problems
from models.domain.journey.run import RunState
from models.domain.journey.steps.base import Answer, Exits, Go, Model, Name, Outcome, StepId, StepModel

MAX_CONDITIONS = 50


class BranchCondition(Model):
    """`when` is a segment rule (`models.domain.segment`), which may also read the run's variables under `run.`."""

    name: Name = ""
    when: dict[str, Any]
    next: StepId | None = None


class BranchStep(StepModel):
    question: ClassVar[str | None] = "choose_branches"
    says: ClassVar[frozenset[str]] = frozenset({"chose"})

    kind: Literal["branch"] = "branch"
    conditions: tuple[BranchCondition, ...]  # the first that holds wins
    otherwise: StepId | None = None

    def exits(self) -> Exits:
        for index, condition in enumerate(self.conditions):
            yield f"conditions[{index}].next", condition.next
        yield "otherwise", self.otherwise

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        if not self.conditions:
            yield Problem(f"{path}.conditions", "no_conditions", "A branch needs at least one condition.")
        if len(self.conditions) > MAX_CONDITIONS:
            yield Problem(f"{path}.conditions", "too_many_conditions", f"A branch has at most {MAX_CONDITIONS} conditions.")
        for index, condition in enumerate(self.conditions[:MAX_CONDITIONS]):
            yield from rule_problems(condition.when, facts, f"{path}.conditions[{index}].when")

    def frozen(self, facts: Facts) -> "BranchStep":
        conditions = tuple(each.model_copy(update={"when": facts.inlined(each.when)}) for each in self.conditions)
        return self.model_copy(update={"conditions": conditions})

    def answered(self, state: RunState, answer: Answer, now: datetime) -> Outcome:
        index = answer.index
        taken = self.otherwise if index is None else self.conditions[index].next
        name = "otherwise" if index is None else self.conditions[index].name
        return Go(taken, "chose", details={"index": index, "name": name, "next": taken})

    def skipped(self) -> str | None:
        return self.otherwise
