"""An organization's audit record as the lines of an export file, read in batches."""

from collections.abc import AsyncIterator
from uuid import UUID

from models.checkpoints import Signer
from models.domain.audit_export import Origin, entry_lines, header_line, trailer_line
from models.store import access, audit
from models.store.session import Database
from models.tables.base import utc_now


async def export_lines(database: Database, organization_id: UUID, signer: Signer, batch: int = 1000) -> AsyncIterator[str]:
    """The record as it stands now: entries appended meanwhile are left for the next export.

    Each batch is a transaction of its own, so that a slow reader holds no connection; entries cannot change in between.

    Raises:
        NotFound: there is no such organization.
    """
    async with database.organization(organization_id) as session:
        organization = await access.get_organization(session)
        end = await audit.head(session)
    origin = Origin(organization_id, organization.slug, utc_now(), signer.public_key)
    yield header_line(origin)
    after = 0
    while after < end.sequence:
        async with database.organization(organization_id) as session:
            entries = await audit.list_entries(session, audit.EntryFilter(), min(batch, end.sequence - after), after)
        yield "".join(entry_lines(origin, entries, signer.sign))
        after = entries[-1].sequence
    yield trailer_line(origin, end.sequence, end.hash, signer.sign)
