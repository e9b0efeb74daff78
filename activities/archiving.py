"""The archive of workflow histories: what Temporal forgets after its retention is kept in the database, payloads encrypted as they are."""

import asyncio
import hashlib
import logging
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts.reconciling import Reconcile, Reconciled
from activities.heartbeat import heartbeating
from activities.observed import Listed, Observer
from models.store import access, histories
from models.store.histories import NewHistory
from models.store.session import Database
from models.tables.base import utc_now

log = logging.getLogger(__name__)

OVERLAP = timedelta(minutes=15)  # visibility lags, and clocks differ
FETCHED_AT_ONCE = 4
STORED_AT_ONCE = 20  # about 25 KB each
A_ROUND = timedelta(seconds=45)  # then the next round goes on: what is stored is not fetched again


class Archive:
    def __init__(self, database: Database, temporal: Client) -> None:
        self.database = database
        self.temporal = temporal

    async def missing(self, organization_id: UUID, closed: Sequence[Listed]) -> list[Listed]:
        """Those that the archive does not have."""
        async with self.database.organization(organization_id) as session:
            there = await histories.stored(session, [(each.workflow_id, each.temporal_run_id) for each in closed])
        return [each for each in closed if (each.workflow_id, each.temporal_run_id) not in there]

    async def fetch(self, organization_id: UUID, closed: Sequence[Listed]) -> int:
        """They are in the archive; how many of them Temporal still knew. Safe to repeat: each is stored once."""
        limit = asyncio.Semaphore(FETCHED_AT_ONCE)
        known = 0
        for first in range(0, len(closed), STORED_AT_ONCE):
            some = closed[first : first + STORED_AT_ONCE]
            fetched = [one for one in await asyncio.gather(*(self._fetch(each, limit) for each in some)) if one is not None]
            if fetched:
                async with self.database.organization(organization_id) as session:
                    await histories.store(session, fetched)
            known += len(fetched)
        return known

    async def _fetch(self, closed: Listed, limit: asyncio.Semaphore) -> NewHistory | None:
        """None: Temporal has forgotten it since it was listed."""
        async with limit:
            try:
                handle = self.temporal.get_workflow_handle(closed.workflow_id, run_id=closed.temporal_run_id)
                history = await handle.fetch_history()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return None
                raise
            return await asyncio.to_thread(_packed, closed, history)


def _packed(closed: Listed, history: WorkflowHistory) -> NewHistory:
    document = history.to_json().encode()
    return NewHistory(
        workflow_id=closed.workflow_id,
        temporal_run_id=closed.temporal_run_id,
        status=closed.status,
        started_at=closed.started_at,
        closed_at=closed.closed_at,
        events=len(history.events),
        size_bytes=len(document),
        sha256=hashlib.sha256(document).hexdigest(),
        history=zlib.compress(document),
    )


class ArchivingActivities:
    def __init__(self, database: Database, temporal: Client) -> None:
        self.database = database
        self.temporal = temporal
        self.archive = Archive(database, temporal)

    def methods(self) -> list[Callable[..., Any]]:
        return [self.archive_histories]

    @activity.defn(name="archive_histories")
    async def archive_histories(self, reconcile: Reconcile) -> Reconciled:
        """The histories of journey workflows that have closed, in whatever way, are in the archive with their checksums.

        Safe to run twice, and to break off: each is stored once, and the mark from which the next sweep lists moves only when all
        that was listed is stored. It lists with an overlap, for visibility lags.
        """
        async with heartbeating():
            began, deadline = utc_now(), monotonic() + A_ROUND.total_seconds()
            async with self.database.outside() as session:
                mark = await histories.closed_to(session, self.temporal.namespace)
                ours = set(await access.organizations_to_reconcile(session))
            archived = 0
            async for page in Observer(self.temporal).closed(mark and mark - OVERLAP):
                archived += await self._store(page, ours)
                if monotonic() > deadline:
                    return Reconciled(archived=archived)  # the mark stays: the next round lists the same, and goes on
            async with self.database.outside() as session:
                await histories.set_closed_to(session, self.temporal.namespace, began)
            return Reconciled(archived=archived)

    async def _store(self, page: Sequence[Listed], ours: set[UUID]) -> int:
        """Those of organizations that this database does not know are another installation's."""
        by_organization: defaultdict[UUID, list[Listed]] = defaultdict(list)
        for closed in page:
            if closed.organization_id in ours:
                by_organization[closed.organization_id].append(closed)
        archived = 0
        for organization_id, closed_there in by_organization.items():
            archived += await self.archive.fetch(organization_id, await self.archive.missing(organization_id, closed_there))
        return archived
