"""Telling runs what they have not heard of: a resumption, or that their campaign or journey is cancelled, where the workflow that was to
tell them was closed before it did."""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, Collection, Sequence
from datetime import timedelta
from uuid import UUID

from temporalio.client import Client

from activities.contracts.payload import Scope
from activities.missed_words import Known, tell_missed_words
from activities.observed import GOES_ON, Observer
from activities.reconciler_rules import Patience
from models.domain.journey import workflow_id
from models.store import access, untold
from models.store.session import Database
from models.store.untold import Untold

log = logging.getLogger(__name__)

TELLING_FOR = timedelta(seconds=45)  # in one round; whoever is left is told in the next, a minute later
READ_AT_MOST = 30_000  # workflows of an organization in one round: more than can be told in it
TOLD_IN_TURN = 500  # of one organization, before it is the next one's turn


class UntoldTelling:
    def __init__(self, database: Database, temporal: Client, patience: Patience) -> None:
        self.database = database
        self.temporal = temporal
        self.patience = patience

    async def tell(self, observer: Observer, for_so_long: timedelta = TELLING_FOR) -> None:
        """Whoever has not heard what is in force hears it, unless somebody is at it. Those whose workflow tasks fail only collect what
        they are told.

        A page of each organization in turn, for as long as given: one that has a hundred thousand does not keep the others waiting, and
        whose turn is first is left to chance. No transaction is open while Temporal is told. Safe to run twice: who knows already changes
        nothing. One organization's trouble is not another's; it is tried again in the next round.
        """
        failing = {one.workflow_id for one in await observer.failing()}
        async with self.database.outside() as session:
            organizations = await access.organizations_to_reconcile(session)
        random.shuffle(organizations)
        turns = deque(self._turns(organization_id, failing, observer) for organization_id in organizations)
        clock = asyncio.get_running_loop().time
        end = clock() + for_so_long.total_seconds()
        while turns and clock() < end:
            turn = turns.popleft()
            if await anext(turn, None) is not None:
                turns.append(turn)
        for turn in turns:
            await turn.aclose()
        if turns:
            log.warning("reconciler: %d organizations have workflows that are told in the next round", len(turns))

    async def _turns(self, organization_id: UUID, failing: Collection[str], observer: Observer) -> AsyncGenerator[int, None]:
        """How many workflows were told in each of the organization's turns; none if all know what is in force."""
        try:
            async with self.database.organization(organization_id) as session:
                stale = await untold.untold(session, self.patience.unstarted, READ_AT_MOST)
            left = [one for one in stale if one.workflow_id not in failing]
            at_it: dict[str, bool] = {}  # whether the workflow that may be telling them goes on; looked at once
            for first in range(0, len(left), TOLD_IN_TURN):
                yield await self._tell(organization_id, left[first : first + TOLD_IN_TURN], at_it, observer)
        except Exception as error:
            log.error("reconciler: %s in telling the untold of organization %s", type(error).__name__, organization_id)

    async def _tell(self, organization_id: UUID, page: Sequence[Untold], at_it: dict[str, bool], observer: Observer) -> int:
        tellers = {one.workflow_id: _tellers(organization_id, one) for one in page}
        seen = await observer.examine_all(set().union(*tellers.values()) - at_it.keys())
        at_it |= {name: each.status in GOES_ON for name, each in seen.items()}
        alone = [one for one in page if not any(at_it[name] for name in tellers[one.workflow_id])]
        if alone:
            log.warning("reconciler: %d workflows have not heard what is in force, and are told", len(alone))
            known = {one.workflow_id: Known(_scope(organization_id, one), None) for one in alone}
            await tell_missed_words(self.temporal, self.database, organization_id, known)
        return len(alone)


def _scope(organization_id: UUID, one: Untold) -> Scope:
    return Scope(organization_id=organization_id, journey_id=one.journey_id, version_id=one.version_id, campaign_id=one.campaign_id)


def _tellers(organization_id: UUID, one: Untold) -> set[str]:
    """The control workflows that may be telling it."""
    kinds = (("journey", one.journey_id), ("campaign", one.campaign_id), ("campaign", one.parent_id))
    return {workflow_id.control(organization_id, kind, id) for kind, id in kinds if id is not None}
