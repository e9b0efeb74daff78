"""What cannot be worked out for one run takes no other run of its batch with it."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from temporalio.exceptions import FailureError

from activities.contracts.steps import StepAnswer, StepVisit
from models.domain.errors import LeadStatsError
from models.store.faults import lies_in_the_rows

log = logging.getLogger(__name__)
Ask = Callable[[Sequence[StepVisit]], Awaitable[list[StepAnswer]]]


async def answered_apart(visits: Sequence[StepVisit], ask: Ask) -> list[StepAnswer]:
    """What `ask` answers for all of these; where it raises for something in them, asked by halves, until only the run is left that it
    lies with: that one has `failed`, and waits for a person. Otherwise the activity would be tried for ever, and all would wait.

    `ask` is safe to run twice, and keeps nothing of an attempt that raises. Raises what is no fault of the rows.
    """
    try:
        return await ask(visits)
    except Exception as error:
        if not lies_with_some(error):
            raise
        if len(visits) == 1:
            return [StepAnswer(run_id=visits[0].run_id, failed=True, reason=step_failed(visits[0].run_id, error))]
    middle = len(visits) // 2
    return [*await answered_apart(visits[:middle], ask), *await answered_apart(visits[middle:], ask)]


def lies_with_some(error: Exception) -> bool:
    """Whether other runs may be answered. Not where the database is away, nor where we raise on purpose: that is about the batch."""
    return not isinstance(error, (FailureError, LeadStatsError)) and lies_in_the_rows(error)


def step_failed(run_id: UUID, error: Exception) -> str:
    """Why the run needs attention. Of the error only its class is told: its words may hold what the contact holds."""
    kind = type(error).__name__
    log.error("a step could not be answered for a run", extra={"run_id": str(run_id), "error": kind})
    return f"step_failed:{kind}"
