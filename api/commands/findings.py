"""What a person says about a finding."""

from uuid import UUID

from api.dependencies import Caller
from models.domain.errors import Conflict
from models.store import findings
from models.tables.findings import Finding


async def acknowledge(caller: Caller, finding_id: UUID, reason: str) -> Finding:
    """Somebody knows of the finding, and why it may stay. It remains open until its trouble is gone. Said again in the same words, it
    changes nothing.

    Raises:
        NotFound: no such finding.
        Conflict: its trouble is gone already.
    """
    async with caller.session() as session:
        finding = await findings.get(session, finding_id, lock=True)
        if finding.resolved_at is not None:
            raise Conflict("The trouble is gone already: this finding is resolved, and needs no acknowledgement.")
        if (finding.acknowledgement, finding.acknowledged_by) != (reason, caller.actor.id):
            await findings.acknowledge(session, finding, caller.actor, reason)
    return finding
