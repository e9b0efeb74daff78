"""The reconciler beside a test: with a worker and a task queue of its own, and less patience than in earnest."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg
from temporalio.client import Client
from temporalio.worker import Worker

from activities.archiving import ArchivingActivities
from activities.contracts.reconciling import RECONCILE_WORKFLOW, Reconcile, Reconciled
from activities.reconciler_rules import Patience
from activities.reconciling import ReconcilingActivities
from activities.reconciling_records import RecordsActivities
from models.tables.base import new_id
from tests.journeys.conftest import Stack
from tests.journeys.organization import Document, Organization
from workflows.reconciling import ReconcileWorkflow

HASTE = Patience(
    grace=timedelta(milliseconds=300),
    late=timedelta(milliseconds=500),
    unstarted=timedelta(milliseconds=800),
    starting=timedelta(seconds=2),
    behind=timedelta(minutes=5),
    archiving=timedelta(milliseconds=300),
    task_attempts=2,
    activity_attempts=3,
    failures=2,
)


@dataclass(frozen=True)
class Reconciler:
    stack: Stack
    task_queue: str

    async def look(self) -> Reconciled:
        """One round, as the schedule starts it."""
        with self.stack.temporal.with_time_skipping_disabled():
            found: Reconciled = await self.stack.temporal.client.execute_workflow(
                RECONCILE_WORKFLOW, Reconcile(), id=f"reconcile/{new_id()}", task_queue=self.task_queue, result_type=Reconciled
            )
        return found

    async def finding(self, acme: Organization, kind: str, *, open: bool = True) -> Document:
        """The one finding of this kind, after as many rounds as it takes; with `open` false: the one that is resolved."""

        async def look() -> Document:
            await self.look()
            return {"found": await acme.every("/findings", kind=kind, open=open)}

        [found] = (await acme.until(look, lambda answer: answer["found"] != []))["found"]
        return dict(found)

    async def until(self, acme: Organization, look: Callable[[], Awaitable[Document]], condition: Callable[[Document], bool]) -> Document:
        """What is looked at is so, after as many rounds as it takes: in one, somebody else may still be at it."""

        async def again() -> Document:
            await self.look()
            return await look()

        return await acme.until(again, condition)

    async def none(self, acme: Organization, kind: str) -> None:
        """Two rounds see nothing of this kind."""
        for _ in range(2):
            await self.look()
        assert await acme.every("/findings", kind=kind) == []


@asynccontextmanager
async def reconciler(stack: Stack, patience: Patience = HASTE, client: Client | None = None) -> AsyncIterator[Reconciler]:
    database = stack.services.database
    client = client or stack.temporal.client
    activities: list[Any] = [
        *ReconcilingActivities(database, client, stack.settings.task_queue, patience).methods(),
        *RecordsActivities(database, client, patience).methods(),
        *ArchivingActivities(database, client).methods(),
    ]
    queue = f"reconciler-{new_id()}"
    async with Worker(client, task_queue=queue, workflows=[ReconcileWorkflow], activities=activities):
        yield Reconciler(stack, queue)


def starting_on(stack: Stack, task_queue: str) -> Stack:
    """The same, but what the API starts for an organization that is founded here goes to this task queue."""
    settings = stack.settings.model_copy(update={"task_queue": task_queue})
    return replace(stack, settings=settings, services=replace(stack.services, settings=settings))


def as_owner(stack: Stack, *statements: str) -> None:
    """What nobody should do: to the database, by hand."""
    assert stack.settings.owner_database_url is not None
    with psycopg.connect(stack.settings.owner_database_url.get_secret_value(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
