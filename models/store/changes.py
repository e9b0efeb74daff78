"""Contacts that have changed since their conditions were last looked at.

Each change has a row of its own, and nobody waits for another's. One row per contact would lose changes: routing takes the row of a
change that it sees, and with it that of one which is not committed yet.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text

from models.store.session import OrganizationSession

_TAKE = text(
    """
    DELETE FROM contact_changes WHERE organization_id = :o AND id IN (
      SELECT id FROM contact_changes WHERE organization_id = :o ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING contact_id
    """
)
_NOTE = text(
    """
    INSERT INTO contact_changes (organization_id, contact_id)
    SELECT :o, contact_id FROM unnest(CAST(:ids AS uuid[])) AS a(contact_id)
    """
)
_WAITS = text(
    """
    SELECT EXISTS (SELECT 1 FROM contact_changes WHERE organization_id = :o)
      OR EXISTS (SELECT 1 FROM entries WHERE organization_id = :o AND outcome = 'pending')
    """
)
_LISTENING = text("SELECT listening FROM organizations WHERE id = :o")


async def take(session: OrganizationSession, limit: int) -> list[UUID]:
    """The contacts of up to `limit` changes, looked at once this transaction commits. One that has changed twice is named twice."""
    return list((await session.execute(_TAKE, {"o": session.organization_id, "limit": limit})).scalars())


async def note(session: OrganizationSession, contact_ids: Sequence[UUID]) -> None:
    """Conditions about these contacts are looked at again."""
    if contact_ids:
        await session.execute(_NOTE, {"o": session.organization_id, "ids": list(contact_ids)})


async def anything_waits(session: OrganizationSession) -> bool:
    """Whether a change has not been looked at, or somebody is to enter a journey."""
    return bool(await session.scalar(_WAITS, {"o": session.organization_id}))


async def listening(session: OrganizationSession) -> bool:
    """Whether anything published depends on how contacts change."""
    return bool(await session.scalar(_LISTENING, {"o": session.organization_id}))
