"""`wait_for`: one of several events, or a condition that comes true, or a timeout. Pure.

An event counts from the run's start on, so that one that came early is not missed; each counts for one wait only. The first event
by the order of its acceptance wins, among the ways of one event the first that fits, and an event before the condition. An event
that was accepted before the timeout was settled beats it: the database keeps one row per wait, and whoever closes it first wins.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar, Literal

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.rule import rule_problems
from models.domain.journey.run import RunState
from models.domain.journey.steps.base import (
    Answer,
    EventName,
    Exits,
    Go,
    Model,
    Name,
    Outcome,
    Rest,
    StepId,
    StepModel,
    duration_problems,
)
from models.domain.journey.written import Duration

MAX_WAYS = 20


class AwaitedEvent(Model):
    """`where`: a rule that may also read `event.<property>`, and compare it with the run: {"run": "order_id"}."""

    name: Name = ""
    event: EventName
    where: dict[str, Any] | None = None
    next: StepId | None = None


class AwaitedCondition(Model):
    name: Name = ""
    when: dict[str, Any]
    next: StepId | None = None


class WaitForStep(StepModel):
    question: ClassVar[str | None] = "open_waits"
    waits: ClassVar[bool] = True
    says: ClassVar[frozenset[str]] = frozenset({"matched", "timed_out", "waiting"})

    kind: Literal["wait_for"] = "wait_for"
    events: tuple[AwaitedEvent, ...] = ()
    conditions: tuple[AwaitedCondition, ...] = ()
    timeout: Duration | None = None  # None: for ever
    timeout_next: StepId | None = None

    @property
    def ways(self) -> tuple[AwaitedEvent | AwaitedCondition, ...]:
        """An answer's index counts these."""
        return (*self.events, *self.conditions)

    def exits(self) -> Exits:
        for index, event in enumerate(self.events):
            yield f"events[{index}].next", event.next
        for index, condition in enumerate(self.conditions):
            yield f"conditions[{index}].next", condition.next
        if self.timeout is not None:
            yield "timeout_next", self.timeout_next

    def instant_exits(self) -> Exits:
        for index, condition in enumerate(self.conditions):  # an event counts once, but a condition may be true each time
            yield f"conditions[{index}].next", condition.next

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        if not self.ways:
            yield Problem(path, "nothing_awaited", "Name at least one event or condition; to wait for time only, use a wait.")
        if len(self.ways) > MAX_WAYS:
            yield Problem(path, "too_many_ways", f"A step waits for at most {MAX_WAYS} events and conditions.")
        for index, event in enumerate(self.events[:MAX_WAYS]):
            if event.where is not None:
                yield from rule_problems(event.where, facts, f"{path}.events[{index}].where", event=True)
        for index, condition in enumerate(self.conditions[:MAX_WAYS]):
            yield from rule_problems(condition.when, facts, f"{path}.conditions[{index}].when")
        if self.timeout is not None:
            yield from duration_problems(f"{path}.timeout", self.timeout, "A timeout")
        elif self.timeout_next is not None:
            yield Problem(f"{path}.timeout_next", "unused", "Only a timeout leads there; give one, or remove this.")

    def frozen(self, facts: Facts) -> "WaitForStep":
        events = tuple(each.model_copy(update={"where": facts.inlined(each.where)}) if each.where else each for each in self.events)
        conditions = tuple(each.model_copy(update={"when": facts.inlined(each.when)}) for each in self.conditions)
        return self.model_copy(update={"events": events, "conditions": conditions})

    def asks(self, state: RunState) -> str:
        return "close_waits" if state.expired else "open_waits"

    def answered(self, state: RunState, answer: Answer, now: datetime) -> Outcome:
        if answer.index is not None:
            way = self.ways[answer.index]
            which = {"event": way.event} if isinstance(way, AwaitedEvent) else {"condition": answer.index - len(self.events)}
            details = {"index": answer.index, "name": way.name, "next": way.next, **which, **answer.details}
            return Go(way.next, "matched", details=details)
        if state.expired:
            return Go(self.timeout_next, "timed_out", details={"next": self.timeout_next})
        return Rest(self.deadline(state, now))

    def deadline(self, state: RunState, now: datetime) -> datetime | None:
        return None if self.timeout is None else (state.arrived_at or now) + self.timeout

    def woke(self, state: RunState, now: datetime) -> Outcome:
        raise AssertionError("the interpreter asks how the wait ended")
