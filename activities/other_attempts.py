"""Messages of a batch that this attempt does not carry: settled before, in another attempt's hands, or without a way out."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from temporalio.exceptions import ApplicationError

from activities.claiming import Wanted
from activities.contracts.sending import TRANSMIT_LEASE, SendOutcome, SendResult
from activities.outcomes import standing_result
from models.store import audit, deliveries
from models.store.deliveries import DeliveryRow
from models.store.session import Database

LOOK_EVERY = 0.5  # seconds
PATIENCE = 2 * TRANSMIT_LEASE.total_seconds()


@dataclass(frozen=True)
class Others:
    """Waits for what other attempts say. `now` is the workflow's clock."""

    database: Database
    organization_id: UUID
    now: Callable[[], datetime]
    halted: Callable[[], bool]

    async def results(self, wanted: Sequence[Wanted]) -> dict[UUID, SendResult]:
        """By run, what became of each. A message whose attempt handed it over and then stayed silent for
        `TRANSMIT_LEASE` is settled as `unknown`.

        Raises:
            ApplicationError: another attempt holds messages and does nothing with them, or the worker goes away;
                a later attempt of the activity takes them over.
        """
        pending = {one.run_id: one for one in wanted}
        found: dict[UUID, SendResult] = {}
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            standings = await self._look(list(pending.values())) if pending else {}
            for run_id, one in list(pending.items()):
                if (result := self._result(one, standings.get(run_id))) is not None:
                    found[run_id] = result
                    del pending[run_id]
            if not pending:
                return found
            if self.halted() or asyncio.get_running_loop().time() > deadline:
                raise ApplicationError(f"another attempt holds {len(pending)} messages of this batch", type="HeldElsewhere")
            await asyncio.sleep(LOOK_EVERY)

    async def _look(self, wanted: Sequence[Wanted]) -> Mapping[UUID, DeliveryRow]:
        claims = [one.claim for one in wanted]
        async with self.database.organization(self.organization_id) as session:
            standings = await deliveries.standings(session, claims, TRANSMIT_LEASE)
            silent = [one for one in standings if one.state == "transmitting" and one.lease_over]
            if silent:
                abandoned = await deliveries.abandon(session, silent, TRANSMIT_LEASE)
                standings = await deliveries.standings(session, claims, TRANSMIT_LEASE)
                await audit.append(session, [one.entry() for one in abandoned])
        return {one.run_id: one for one in standings}

    def _result(self, one: Wanted, standing: DeliveryRow | None) -> SendResult | None:
        """None: it is in another attempt's hands."""
        untouched = standing is None or standing.state == "claimed"
        if untouched and not one.sendable:
            return SendResult(run_id=one.run_id, outcome=SendOutcome.CONNECTION_BROKEN, reason=one.way.trouble)
        if standing is None or standing.state == "transmitting" or (standing.state == "claimed" and standing.attempt is not None):
            return None
        return standing_result(standing, self.now())
