"""What a run's step asks of activities, and what the answer does to the run. Runs that ask the same at the same moment ask together."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from activities.contracts.execution import RECORDS, SENDS, send_queue
from activities.contracts.journey import RunMessage
from activities.contracts.sending import Judgement, SendOutcome, SendResult, check_consent, check_quiet_hours, send_messages
from activities.contracts.steps import STEP_QUESTIONS, StepAnswer, StepVisit, VisitBatch
from models.domain.back_off import doubled
from models.domain.decision import Outcome
from models.domain.journey import interpreter
from models.domain.journey.interpreter import Command, Question, Send, WaitUntil
from workflows.batching import Batch
from workflows.listening import heard
from workflows.trips import Trip, Trips

# How long a run waits before it asks again when the activity named no time itself: the first time, and at most. Doubled in between,
# since every question writes its decisions.
ASK_AGAIN = {
    SendOutcome.PAUSED: (timedelta(seconds=15), timedelta(minutes=5)),  # the signal that lifts the pause usually comes first
    SendOutcome.CONNECTION_BROKEN: (timedelta(minutes=1), timedelta(minutes=30)),
    SendOutcome.THROTTLED: (timedelta(seconds=30), timedelta(minutes=15)),
    SendOutcome.TRANSIENT: (timedelta(seconds=30), timedelta(minutes=15)),
}
CAMPAIGN_CANCELLED = "campaign_cancelled"  # how the last check before a send calls it
Answer = TypeVar("Answer", Judgement, StepAnswer, SendResult)
NOT_SENT = (SendOutcome.REFUSED, SendOutcome.RECIPIENT_PERMANENT, SendOutcome.OPTED_OUT)


class Performer:
    def __init__(self, trips: Trips) -> None:
        self.trips = trips
        self.definition = trips.definition
        self.consent = Batch(self._asks(check_consent))
        self.quiet_hours = Batch(self._asks(check_quiet_hours))
        self.sending = workflow.ActivityConfig(**SENDS, task_queue=send_queue(workflow.info().task_queue))
        self.sends = Batch(self._asks(send_messages, self.sending))
        self.questions: dict[tuple[str, str], Batch[StepVisit, StepAnswer]] = {}

    async def perform(self, trip: Trip, command: Command) -> None:
        try:
            match command:
                case Send():
                    await self._send(trip, command)
                case Question():
                    self._hear(trip, command, await self._batch(command).ask(self._visit(trip)))
                case WaitUntil():
                    self.trips.apply(trip, interpreter.wake(self.definition, trip.state, workflow.now()))
        except ActivityError as error:  # the activity gave up on the whole batch: its runs park, each with its state
            cause = error.cause
            self._forget_words(trip)
            kind = cause.type if isinstance(cause, ApplicationError) and cause.type else type(cause or error).__name__
            self._fail(trip, f"step_failed:{kind}")

    async def _send(self, trip: Trip, command: Send) -> None:
        """consent-check → quiet-hours → send."""
        visit = self._visit(trip)
        trip.reconnected = False
        for check in (self.consent, self.quiet_hours):
            judgement: Judgement = await check.ask(visit)
            if judgement.kept is not None:
                self._settle(trip, judgement.kept)
                return
            if judgement.verdict is not Outcome.SEND:
                self._obey(trip, judgement)
                return
            visit = replace(visit, allowed_until=judgement.allowed_until)
        self._settle(trip, await self.sends.ask(visit))

    def _obey(self, trip: Trip, judgement: Judgement) -> None:
        reason = judgement.reason or str(judgement.verdict)
        if judgement.verdict is Outcome.HOLD and judgement.hold_until is not None:
            self.trips.apply(trip, interpreter.held(trip.state, judgement.hold_until, reason))
        else:
            self.trips.apply(trip, interpreter.not_sent(self.definition, trip.state, workflow.now(), reason))

    def _settle(self, trip: Trip, result: SendResult) -> None:
        reason = result.reason or str(result.outcome)
        if result.outcome is SendOutcome.ACCEPTED:
            self.trips.apply(trip, interpreter.sent(self.definition, trip.state, workflow.now(), _delivered(result)))
        elif result.outcome in NOT_SENT:
            self.trips.apply(trip, interpreter.not_sent(self.definition, trip.state, workflow.now(), reason))
        elif result.reason == CAMPAIGN_CANCELLED:  # its signal was missed, or is on its way
            self.trips.apply(trip, interpreter.cancel(trip.state, CAMPAIGN_CANCELLED))
        elif result.outcome in ASK_AGAIN:
            mended = trip.reconnected and result.outcome is SendOutcome.CONNECTION_BROKEN  # while it asked: the answer is out of date
            until = result.retry_at or workflow.now() + (timedelta(0) if mended else _patience(result.outcome, trip.state.round))
            self.trips.apply(trip, interpreter.held(trip.state, max(until, workflow.now()), reason))
        else:  # content that can never go, or a message that may have gone: a person decides
            self._fail(trip, reason)

    def _fail(self, trip: Trip, reason: str) -> None:
        """The step failed for good: the run waits for a person, or goes on without it where its campaign says so."""
        if self.trips.scope.on_error == "skip":
            self.trips.apply(trip, interpreter.pass_over(self.definition, trip.state, workflow.now(), reason))
        else:
            self.trips.apply(trip, interpreter.park(trip.state, reason))

    def _batch(self, question: Question) -> Batch[StepVisit, StepAnswer]:
        """Runs that ask the same at steps of the same kind ask together."""
        key = (question.name, question.kind)
        if key not in self.questions:
            options = self.sending if self.definition.steps[question.step_id].slow else RECORDS
            self.questions[key] = Batch(self._asks(STEP_QUESTIONS[question.name], options))
        return self.questions[key]

    def _hear(self, trip: Trip, question: Question, answer: StepAnswer) -> None:
        now, reason = workflow.now(), answer.reason or question.name
        early, trip.early = trip.early, None
        outdated, trip.outdated = trip.outdated, False
        if answer.failed:
            self._fail(trip, reason)
        elif answer.retry_at is not None:
            self.trips.apply(trip, interpreter.held(trip.state, max(answer.retry_at, now), reason))
        else:
            told = answer if early is None or answer.index is not None or _stale(trip, early) else early
            self.trips.apply(trip, interpreter.answered(self.definition, trip.state, heard(told), now))
            if outdated:
                trip.state = interpreter.reconsidered(self.definition, trip.state, now)

    def _forget_words(self, trip: Trip) -> None:
        """Those for a question that has no answer: the next one is another."""
        if trip.early is not None and workflow.patched("2026-11-26-early-events"):
            trip.early = None
        trip.outdated = False

    def _visit(self, trip: Trip) -> StepVisit:
        state = trip.state
        assert state.step_id is not None
        return StepVisit(
            run_id=state.run_id,
            contact_id=state.contact_id,
            step_id=state.step_id,
            visit=state.visit,
            round=state.round,
            arrived_at=state.arrived_at,
            asks_from=state.asks_from,
        )

    def _asks(
        self, activity: Callable[[VisitBatch], Awaitable[list[Answer]]], options: workflow.ActivityConfig = RECORDS
    ) -> Callable[[Sequence[StepVisit]], Awaitable[Sequence[Answer]]]:
        """A batch call of this activity, answering in the order asked."""

        async def ask(visits: Sequence[StepVisit]) -> Sequence[Answer]:
            batch = VisitBatch(scope=self.trips.scope, now=workflow.now(), visits=visits)
            answers = {answer.run_id: answer for answer in await workflow.execute_activity(activity, batch, **options)}
            return [answers[visit.run_id] for visit in visits]

        return ask


def _stale(trip: Trip, early: RunMessage) -> bool:
    """Whether it is of another visit than the one that asks."""
    here = (early.step_id, early.visit) == (trip.state.step_id, trip.state.visit)
    return not here and workflow.patched("2026-11-26-early-events")


def _delivered(result: SendResult) -> dict[str, Any]:
    details: dict[str, Any] = {"delivery_id": str(result.delivery_id)}
    if result.kept_from is not None and result.kept_at is not None:
        details |= {"kept_from": str(result.kept_from), "kept_at": result.kept_at.isoformat()}
    return details


def _patience(outcome: SendOutcome, round: int) -> timedelta:
    first, longest = ASK_AGAIN[outcome]
    return doubled(first, _times_asked(round), longest)


def _times_asked(round: int) -> int:
    """Before the patch, a run that another version had before waited the longest time at once."""
    asked = interpreter.times_asked(round)
    return asked if asked == round or workflow.patched("2026-11-26-patience-of-moved-runs") else round
