"""All contacts as CSV, streamed by COPY, in the form that the import reads."""

import csv
import io
from collections.abc import AsyncIterator

from psycopg import sql

from models.domain.contact import FIELDS
from models.store import contacts
from models.store.session import OrganizationSession

# A spreadsheet runs cells that start so. The import takes the quote away again (models.contact_file.cells.trim).
_FORMULA = sql.Literal(r"^'*[=+\-@\t\r]")


async def export(session: OrganizationSession) -> AsyncIterator[bytes]:
    """The header, then the rows in order of their ids, in pieces. Text that a spreadsheet would run as a formula is
    preceded by an apostrophe; phone numbers are not, since they hold digits only."""
    keys = sorted(await contacts.attribute_schema(session))
    header = io.StringIO()
    csv.writer(header).writerow([*FIELDS, "tags", *(f"attributes.{key}" for key in keys)])
    yield b"\xef\xbb\xbf" + header.getvalue().encode()  # the byte order mark tells Excel that this is UTF-8
    columns = [sql.Identifier(name) if name == "phone" else _guarded(sql.Identifier(name)) for name in FIELDS]
    columns += [_guarded(sql.SQL("array_to_string(tags, ';')"))]
    columns += [_guarded(sql.SQL("(attributes ->> {})").format(sql.Literal(key))) for key in keys]
    query = sql.SQL("COPY (SELECT {} FROM contacts WHERE organization_id = {} ORDER BY id) TO STDOUT (FORMAT csv)").format(
        sql.SQL(", ").join(columns), sql.Literal(session.organization_id)
    )
    connection = await session.driver()
    async with connection.cursor() as cursor, cursor.copy(query) as copy:
        async for piece in copy:
            yield bytes(piece)


def _guarded(value: sql.Composable) -> sql.Composed:
    return sql.SQL("CASE WHEN {0} ~ {1} THEN '''' || {0} ELSE {0} END").format(value, _FORMULA)
