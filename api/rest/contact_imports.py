"""`/v1/contact-imports`"""

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, File, Form, UploadFile
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from api.commands.contact_imports import ConsentOption, ImportOptions, import_contacts
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.contact_file.form import Encoding
from models.domain.contact import COUNTRIES
from models.domain.errors import Invalid, NotAllowed, Problem
from models.domain.phrases import json_path, plain_message
from models.domain.segment_values import at_zone
from models.store import contact_imports
from models.tables.contacts import ContactImport

router = APIRouter(prefix="/contact-imports", tags=["contact-imports"])

Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_OPTIONS_HELP = (
    "JSON: delimiter, encoding, mapping (header to field, null to ignore), default_country, dry_run, consent. "
    'For example {"mapping": {"Mail": "email"}, "dry_run": true}. See docs/contacts.md.'
)


class ConsentOptionIn(BaseModel):
    """Without all of these an import grants nothing."""

    model_config = ConfigDict(extra="forbid")

    topic: Annotated[str, StringConstraints(max_length=63)]
    channel: Literal["email", "sms"]
    method: Annotated[str, StringConstraints(min_length=1, max_length=50)]
    source: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    date: date | AwareDatetime


class OptionsIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    delimiter: Literal[",", ";", "\t", "|"] | None = None
    encoding: Encoding | None = None
    mapping: dict[Text, Text | None] = Field(default_factory=dict, max_length=200)
    default_country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    dry_run: bool = False
    consent: ConsentOptionIn | None = None


class ImportedColumn(BaseModel):
    header: str
    field: str


class ImportedConsent(BaseModel):
    """What became of each taken row. `kept_withdrawn`: withdrawn or suppressed before, which an import never takes back."""

    granted: int
    unchanged: int
    kept_withdrawn: int
    without_address: int


class RefusedRow(BaseModel):
    line: int = Field(description="Of the file, as an editor counts: the header is usually 1.")
    column: str | None = Field(description="The column's header; null when it concerns the whole row.")
    code: str
    message: str


class ImportSummary(BaseModel):
    """rows = created + updated + unchanged + refused."""

    id: UUID
    file_name: str
    status: str
    dry_run: bool
    rows: int
    created: int
    updated: int
    unchanged: int
    refused: int
    created_at: datetime


class ImportOut(ImportSummary):
    """`refusals` are the first 1,000; a row with several bad cells has one line for each."""

    encoding: str = Field(description="As the option `encoding` takes it.", examples=["windows-1252"])
    delimiter: str
    columns: list[ImportedColumn]
    ignored_columns: list[str]
    consent: ImportedConsent | None
    refusals: list[RefusedRow]


def _render(row: ContactImport) -> ImportOut:
    return ImportOut(**_summary(row), **row.details, refusals=[RefusedRow(**refusal) for refusal in row.refusals])


def _summary(row: ContactImport) -> dict[str, Any]:
    return row.model_dump(include=set(ImportSummary.model_fields))


# The parts of a form are kept in memory, up to 1 MB each: as many as there may be.
@router.post("", status_code=201, form_limits={"max_files": 1, "max_fields": 10})
async def create_import(
    caller: Annotated[Caller, authorize("contacts.write")],
    file: Annotated[UploadFile, File(description="CSV as spreadsheets write it; the first line names the columns.")],
    options: Annotated[str, Form(max_length=50_000, description=_OPTIONS_HELP)] = "{}",
) -> ImportOut:
    """Merge a file of contacts. Rows that cannot be taken are refused one by one, with line and reason; the others are
    taken. The same file again changes nothing. Granting consent also needs the permission consents.write."""
    chosen = _read_options(options)
    if chosen.consent is not None and "consents.write" not in caller.permissions:
        raise NotAllowed("Granting consent needs the permission consents.write; leave options.consent out.")
    row = await import_contacts(caller, file.file, (file.filename or "")[:200], chosen)
    return _render(row)


def _read_options(given: str) -> ImportOptions:
    try:
        read = OptionsIn.model_validate_json(given or "{}")
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise Invalid([Problem(json_path(("options", *one["loc"])), one["type"], plain_message(one)) for one in problems]) from None
    if read.default_country is not None and read.default_country not in COUNTRIES:
        raise Invalid.field("options.default_country", "unknown_country", "Give two letters of ISO 3166-1, such as US or DE.")
    stated = read.consent
    consent = None if stated is None else ConsentOption(stated.topic, stated.channel, stated.method, stated.source, _moment(stated.date))
    return ImportOptions(read.delimiter, read.encoding, read.mapping, read.default_country, read.dry_run, consent)


def _moment(given: date | datetime) -> datetime:
    return at_zone(given, UTC) if isinstance(given, datetime) else datetime(given.year, given.month, given.day, tzinfo=UTC)


@router.get("")
async def list_imports(caller: Annotated[Caller, authorize("contacts.read")], query: PageOf) -> Page[ImportSummary]:
    async with caller.session() as session:
        found = await contact_imports.list_imports(session, query.limit + 1, query.after)
    return page([ImportSummary(**_summary(row)) for row in found], [row.id for row in found], query)


@router.get("/{import_id}")
async def read_import(caller: Annotated[Caller, authorize("contacts.read")], import_id: UUID) -> ImportOut:
    """The report of an import."""
    async with caller.session() as session:
        return _render(await contact_imports.get(session, import_id))
