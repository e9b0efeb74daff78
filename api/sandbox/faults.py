"""The scripted failures that are in force."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from models.store import sandbox
from models.store.sandbox import Fault
from models.store.session import Database

REFRESH_SECONDS = 0.25
DATABASE_SECONDS = 5.0


class Faults:
    """Reads an organization's faults at most every `REFRESH_SECONDS`; keeps the last known ones while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[UUID, tuple[float, Sequence[Fault]]] = {}

    async def strike(self, organization_id: UUID, phase: str, recipient: str | None = None) -> Fault | None:
        """The oldest fault for this phase and recipient, with one use taken from it; None when all is well."""
        for fault in await self._current(organization_id):
            if fault.phase != phase or (fault.recipient is not None and fault.recipient.lower() != (recipient or "").lower()):
                continue
            if fault.remaining is None or await self._use(organization_id, fault):
                return fault
        return None

    async def _current(self, organization_id: UUID) -> Sequence[Fault]:
        now = asyncio.get_running_loop().time()
        read_at, faults = self._known.get(organization_id, (float("-inf"), ()))
        if now - read_at < REFRESH_SECONDS:
            return faults
        if organization_id in self._known:
            self._known[organization_id] = (now, faults)  # the others go on with what was known meanwhile
        try:
            async with asyncio.timeout(DATABASE_SECONDS), self._database.organization(organization_id) as session:
                faults = [fault for fault in await sandbox.list_faults(session) if fault.remaining is None or fault.remaining > 0]
        except Exception:
            return faults
        self._known[organization_id] = (now, faults)
        return faults

    async def _use(self, organization_id: UUID, fault: Fault) -> bool:
        try:
            async with asyncio.timeout(DATABASE_SECONDS), self._database.organization(organization_id) as session:
                return await sandbox.use_fault(session, fault.id)
        except Exception:
            return False
