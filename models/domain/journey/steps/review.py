"""`review`: a person looks, and lets the run go on or sends it another way. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import ClassVar, Literal

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.run import RunState
from models.domain.journey.steps.base import Exits, Go, Outcome, Rest, StepId, StepModel, duration_problems
from models.domain.journey.written import Duration


class ReviewStep(StepModel):
    waits: ClassVar[bool] = True
    says: ClassVar[frozenset[str]] = frozenset({"review_approved", "review_asked", "review_rejected", "timed_out"})

    kind: Literal["review"] = "review"
    approved: StepId | None = None
    rejected: StepId | None = None
    timeout: Duration | None = None  # None: for ever
    timeout_next: StepId | None = None

    def exits(self) -> Exits:
        yield "approved", self.approved
        yield "rejected", self.rejected
        if self.timeout is not None:
            yield "timeout_next", self.timeout_next

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        if self.timeout is not None:
            yield from duration_problems(f"{path}.timeout", self.timeout, "A timeout")
        elif self.timeout_next is not None:
            yield Problem(f"{path}.timeout_next", "unused", "Only a timeout leads there; give one, or remove this.")

    def arrive(self, state: RunState, now: datetime) -> Outcome:
        return Rest(None if self.timeout is None else (state.arrived_at or now) + self.timeout, "review_asked")

    def woke(self, state: RunState, now: datetime) -> Outcome:
        return Go(self.timeout_next, "timed_out", details={"next": self.timeout_next})

    def reviewed(self, approved: bool) -> Go:
        return Go(self.approved, "review_approved") if approved else Go(self.rejected, "review_rejected")

    def skipped(self) -> str | None:
        """As rejected: who leaves a review out may not be somebody who may approve."""
        return self.rejected
