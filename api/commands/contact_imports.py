"""Importing a file of contacts: read in a thread, staged while it is read, merged in one transaction."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

from api.commands.routing import poke_if_listening
from api.dependencies import Caller
from models.contact_file.columns import Columns, map_columns
from models.contact_file.form import Form, examine
from models.contact_file.reading import Chunk, ConsentAddress, ContactReader, Refusal, Table
from models.domain.audit import NewEntry
from models.domain.errors import Conflict, Invalid
from models.store import audit, consents, contact_imports, contacts, topics
from models.store.contact_imports import GivenConsent
from models.store.faults import Fault, fault_of
from models.store.session import OrganizationSession
from models.store.suppressions import address_hash
from models.tables.base import new_id, utc_now
from models.tables.contacts import ContactImport

MAX_REFUSALS = 1_000
_ATTEMPTS = 3


@dataclass(frozen=True)
class ConsentOption:
    """The importer vouches that everybody in the file said so, at `occurred_at` (aware)."""

    topic: str
    channel: str
    method: str
    source: str
    occurred_at: datetime


@dataclass(frozen=True)
class ImportOptions:
    """None: found out from the file."""

    delimiter: str | None = None
    encoding: str | None = None
    mapping: Mapping[str, str | None] = field(default_factory=dict)
    default_country: str | None = None
    dry_run: bool = False
    consent: ConsentOption | None = None


async def import_contacts(caller: Caller, file: BinaryIO, file_name: str, options: ImportOptions) -> ContactImport:
    """The contacts of the file are merged with those there are, or, in a dry run, it is reported what would happen.

    Safe to repeat: the same file again changes nothing. The file stays open.

    Raises:
        Invalid: the file as a whole cannot be read, or the options do not fit it. Single bad rows are in the report.
        Conflict: others kept changing the same contacts.
    """
    form = await asyncio.to_thread(examine, file, options.encoding, options.delimiter)
    for _ in range(_ATTEMPTS):
        try:
            async with caller.session() as session:
                imported = await _Import(caller, session, file, file_name, options, form).run()
            if not imported.dry_run:
                await poke_if_listening(caller)
            return imported
        except Exception as error:
            if fault_of(error) is not Fault.TAKEN:
                raise
    raise Conflict("Other requests keep changing the contacts of this file; send it again.")


class _Import:
    """One attempt, in one transaction."""

    def __init__(
        self, caller: Caller, session: OrganizationSession, file: BinaryIO, file_name: str, options: ImportOptions, form: Form
    ) -> None:
        self.caller, self.session, self.options, self.form = caller, session, options, form
        self.file, self.file_name = file, file_name
        self.id = new_id()
        self.rows = 0
        self.refused = 0  # rows, not refusals: a row may have several bad cells
        self.refusals: list[Refusal] = []

    async def run(self) -> ContactImport:
        consent = await self._consent()
        await contact_imports.prepare(self.session)
        columns = await self._stage()
        counts = await contact_imports.plan(self.session)
        merged = await contact_imports.refusals(self.session, MAX_REFUSALS)
        if not self.options.dry_run:
            await contact_imports.apply(self.session)
            if consent:
                await consents.write_alone(self.session)  # late: who leaves meanwhile should not have to wait for the whole file
        granted = await contact_imports.plan_consents(self.session, consent) if consent else None
        if consent and not self.options.dry_run:
            await contact_imports.grant_consents(self.session, consent, self.id, self.caller.actor)
        row = ContactImport(
            id=self.id,
            organization_id=self.session.organization_id,
            created_by=self.caller.user_id,
            file_name=self.file_name,
            options=_as_document(self.options),
            content_hash=self.form.content_hash,
            dry_run=self.options.dry_run,
            rows=self.rows,
            created=counts.created,
            updated=counts.updated,
            unchanged=counts.unchanged,
            refused=counts.refused + self.refused,
            refusals=[asdict(one) for one in sorted([*self.refusals, *merged], key=lambda one: one.line)[:MAX_REFUSALS]],
            details=self._details(columns) | {"consent": None if granted is None else asdict(granted)},
        )
        await contact_imports.save(self.session, row)
        if not self.options.dry_run:
            await self._record(row)
        return row

    async def _consent(self) -> GivenConsent | None:
        stated = self.options.consent
        if stated is None:
            return None
        if stated.occurred_at > utc_now():
            raise Invalid.field("options.consent.date", "in_the_future", "Consent cannot be given in the future.")
        found = (await topics.find(self.session, [stated.topic], [])).get(stated.topic)
        if found is None or found.archived:
            raise Invalid.field("options.consent.topic", "unknown_topic", "There is no topic with this key that takes consent.")
        return GivenConsent(found.id, stated.channel, stated.method, stated.source, stated.occurred_at)

    async def _stage(self) -> Columns:
        schema = await contacts.attribute_schema(self.session)
        table = Table(self.file, self.form)
        try:
            header = await asyncio.to_thread(table.header)
            columns = map_columns(header, self.options.mapping, schema)
            reader = ContactReader(columns, len(header), schema, self.options.default_country, self._consent_address())
            await contact_imports.stage(self.session, self._pieces(table, reader))
        finally:
            table.close()
        if not self.rows:
            raise Invalid.field("file", "no_rows", "The file has a header but no contacts.")
        return columns

    def _consent_address(self) -> ConsentAddress | None:
        if self.options.consent is None:
            return None
        key, channel = self.caller.services.settings.derive_key("suppressions"), self.options.consent.channel
        return ConsentAddress("email" if channel == "email" else "phone", lambda address: address_hash(key, channel, address))

    async def _pieces(self, table: Table, reader: ContactReader) -> AsyncIterator[bytes]:
        batches = table.batches()

        def read() -> Chunk | None:
            batch = next(batches, None)
            return None if batch is None else reader.read(*batch)

        while (chunk := await asyncio.to_thread(read)) is not None:
            self.rows += chunk.rows
            self.refused += len({one.line for one in chunk.refusals})
            self.refusals.extend(chunk.refusals[: max(0, MAX_REFUSALS - len(self.refusals))])
            yield chunk.staged

    def _details(self, columns: Columns) -> dict[str, Any]:
        return {
            "encoding": self.form.encoding,
            "delimiter": self.form.delimiter,
            "columns": [{"header": column.header, "field": column.field} for column in columns.used],
            "ignored_columns": list(columns.ignored),
        }

    async def _record(self, row: ContactImport) -> None:
        counts = {"rows": row.rows, "created": row.created, "updated": row.updated, "unchanged": row.unchanged, "refused": row.refused}
        details: dict[str, Any] = counts | {"content_hash": row.content_hash.hex()}
        if self.options.consent is not None:
            details["consent"] = row.details["consent"] | {"topic": self.options.consent.topic, "channel": self.options.consent.channel}
        await audit.append(self.session, [NewEntry("contact_import.completed", "contact_import", str(row.id), self.caller.actor, details)])


def _as_document(options: ImportOptions) -> dict[str, Any]:
    document = asdict(options)
    if options.consent is not None:
        document["consent"]["occurred_at"] = options.consent.occurred_at.isoformat()
    return document
