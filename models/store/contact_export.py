"""All contacts as CSV, by COPY, in the form that the import reads."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from psycopg import sql
from sqlalchemy import text

from models.domain.contact import FIELDS
from models.store import contacts
from models.store.session import Database, OrganizationSession

# A spreadsheet runs cells that start so. The import takes the quote away again (models.contact_file.cells.trim).
_FORMULA = sql.Literal(r"^'*[=+\-@\t\r]")


_BATCH_END = text("SELECT id FROM contacts WHERE organization_id = :o AND id > :after ORDER BY id OFFSET :further LIMIT 1")


async def export(database: Database, organization_id: UUID, batch: int = 1000) -> AsyncIterator[bytes]:
    """The header, then the rows in order of their ids, in pieces. Text that a spreadsheet would run as a formula is
    preceded by an apostrophe; phone numbers are not, since they hold digits only.

    Each batch is a transaction of its own, so that a slow reader holds no connection and no old rows; of what changes meanwhile, some is
    in it. Its columns are those of the attributes that there were when it began.
    """
    async with database.organization(organization_id) as session:
        keys = sorted(await contacts.attribute_schema(session))
    header = io.StringIO()
    csv.writer(header).writerow([*FIELDS, "tags", *(f"attributes.{key}" for key in keys)])
    yield b"\xef\xbb\xbf" + header.getvalue().encode()  # the byte order mark tells Excel that this is UTF-8
    after: UUID | None = UUID(int=0)
    while after is not None:
        async with database.organization(organization_id) as session:
            end = await session.scalar(_BATCH_END, {"o": organization_id, "after": after, "further": batch - 1})
            rows = await _rows(session, keys, after, end)
        yield rows
        after = end


async def _rows(session: OrganizationSession, keys: Sequence[str], after: UUID, end: UUID | None) -> bytes:
    """Those with ids beyond `after`, to `end` (None: all the rest) and including it."""
    columns = [sql.Identifier(name) if name == "phone" else _guarded(sql.Identifier(name)) for name in FIELDS]
    columns += [_guarded(sql.SQL("array_to_string(tags, ';')"))]
    columns += [_guarded(sql.SQL("(attributes ->> {})").format(sql.Literal(key))) for key in keys]
    query = sql.SQL("COPY (SELECT {} FROM contacts WHERE organization_id = {} AND id > {}{} ORDER BY id) TO STDOUT (FORMAT csv)").format(
        sql.SQL(", ").join(columns),
        sql.Literal(session.organization_id),
        sql.Literal(after),
        sql.SQL("") if end is None else sql.SQL(" AND id <= {}").format(sql.Literal(end)),
    )
    connection = await session.driver()
    async with connection.cursor() as cursor, cursor.copy(query) as copy:
        return b"".join([bytes(piece) async for piece in copy])


def _guarded(value: sql.Composable) -> sql.Composed:
    return sql.SQL("CASE WHEN {0} ~ {1} THEN '''' || {0} ELSE {0} END").format(value, _FORMULA)
