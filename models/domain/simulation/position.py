"""Where one contact of a simulation stands: the run's state, the contact, and the moment. Pure."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from models.domain.journey.definition import Step
from models.domain.journey.interpreter import Progress
from models.domain.journey.run import RunState
from models.domain.segment_memory import Happened, Subject
from models.domain.simulation.person import Person
from models.domain.simulation.trip import Line, Plan, Trip


class Position:
    """What those who drive the run, answer it and tell it what happens look at and change."""

    def __init__(self, plan: Plan, person: Person, run_id: UUID) -> None:
        self.plan = plan
        self.definition = plan.definition
        self.person = person
        self.now = plan.start
        self.variables: dict[str, Any] = dict(plan.world.variables)
        self.entered_by: int | None = None
        self.state = RunState(run_id=run_id, contact_id=person.id, step_id=plan.definition.start)
        self.trip = Trip(person.id, self.state, plan.start)
        self.topics = plan.surroundings.topic_ids
        self.tries: dict[tuple[str, int], int] = {}  # of a visit's webhook
        self.doubtful: set[tuple[str, int]] = set()  # visits whose message may have been sent: it is never sent again
        self.called: dict[str, int] = {}  # tries of a step's webhook, all visits
        self.consumed: set[int] = set()  # numbers of events that a wait has counted
        self.changed = False  # by the journey itself: rules look at it when the run rests next
        self._subject: Subject | None = None

    @property
    def subject(self) -> Subject:
        if self._subject is None:
            self._subject = self.person.subject(self.topics, self.variables, self._began)
        return self._subject

    def _began(self, event: Happened) -> bool:
        """Whether the event came after the run's entry."""
        return event.number > self.entered_by if self.entered_by is not None else event.accepted_at >= self.plan.start

    def _step(self) -> Step:
        return self.definition.steps[self.state.step_id or ""]

    def _apply(self, progress: Progress) -> None:
        self.trip.lines += [Line(self.now, change) for change in progress.changes]
        self.state = replace(progress.state, sequence=progress.state.sequence + len(progress.changes))
