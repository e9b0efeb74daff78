"""The scripted failures that are in force."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from models.store import sandbox
from models.store.sandbox import InjectedFault
from models.store.session import Database

REFRESH_SECONDS = 0.25
IN_FORCE_SECONDS = 0.5  # nobody is judged by what was known longer ago, unless the database is away
DATABASE_SECONDS = 5.0


class Faults:
    """Reads an organization's faults at most every `REFRESH_SECONDS`; keeps the last known ones while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[UUID, tuple[float, Sequence[InjectedFault]]] = {}
        self._readings: dict[UUID, asyncio.Task[Sequence[InjectedFault]]] = {}

    async def strike(self, organization_id: UUID, phase: str, recipient: str | None = None) -> InjectedFault | None:
        """The oldest fault for this phase and recipient, with one use taken from it; None when all is well."""
        for fault in await self._current(organization_id):
            if fault.phase != phase or (fault.recipient is not None and fault.recipient.lower() != (recipient or "").lower()):
                continue
            if fault.remaining is None or await self._use(organization_id, fault):
                return fault
        return None

    async def _current(self, organization_id: UUID) -> Sequence[InjectedFault]:
        age = asyncio.get_running_loop().time() - self._known[organization_id][0] if organization_id in self._known else float("inf")
        reading = self._readings.get(organization_id)
        if age < REFRESH_SECONDS or (reading is not None and age < IN_FORCE_SECONDS):
            return self._known[organization_id][1]
        if reading is None:
            reading = self._readings[organization_id] = asyncio.create_task(self._read(organization_id))
            reading.add_done_callback(lambda _: self._readings.pop(organization_id, None))
        return await asyncio.shield(reading)  # the others wait for it, even if the one who began it hangs up

    async def _read(self, organization_id: UUID) -> Sequence[InjectedFault]:
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(DATABASE_SECONDS), self._database.organization(organization_id) as session:
                faults = [fault for fault in await sandbox.list_faults(session) if fault.remaining is None or fault.remaining > 0]
        except Exception:
            if organization_id not in self._known:
                return ()
            began, faults = asyncio.get_running_loop().time(), list(self._known[organization_id][1])
        self._known[organization_id] = (began, faults)
        return faults

    async def _use(self, organization_id: UUID, fault: InjectedFault) -> bool:
        try:
            async with asyncio.timeout(DATABASE_SECONDS), self._database.organization(organization_id) as session:
                return await sandbox.use_fault(session, fault.id)
        except Exception:
            return False
