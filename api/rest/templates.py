"""`/v1/templates`"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from api.commands import templates as commands
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.names import Name
from models.domain.audit import NewEntry
from models.domain.journey.content_hash import TemplateContent
from models.domain.template import LIMIT, SUBJECT_LIMIT
from models.store import audit, templates
from models.store.templates import StoredTemplate, StoredVersion

router = APIRouter(prefix="/templates", tags=["templates"])

Number = Annotated[int, Path(ge=1, le=1_000_000)]
_EXAMPLE: dict[str, Any] = {
    "subject": "Welcome, {{ contact.first_name | default: 'friend' }}",
    "html": '<p>Your plan: {{ contact.attributes.plan }}</p><p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>',
}


class NewVersion(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    subject: str = Field("", max_length=SUBJECT_LIMIT, description="Liquid, not escaped. Email only.")
    html: str = Field("", max_length=LIMIT, description="Liquid; values are escaped. Email only.")
    text: str = Field("", max_length=LIMIT, description="Liquid, not escaped. Made from `html` when left empty.")


class NewTemplate(NewVersion):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Welcome", "channel": "email", **_EXAMPLE}]})

    name: Name
    channel: Literal["email", "sms"] = "email"


class TemplateChange(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"archived": True}]})

    name: Name = Field("", validate_default=False)
    archived: bool = False


class VersionOut(BaseModel):
    id: UUID
    template_id: UUID
    number: int
    channel: str
    subject: str
    html: str
    text: str
    variables: list[str] = Field(description="Paths that the template prints or tests.")
    content_hash: str
    created_by: UUID | None
    created_at: datetime

    @classmethod
    def of(cls, version: StoredVersion) -> Self:
        return cls.model_validate(version, from_attributes=True)


class TemplateOut(BaseModel):
    id: UUID
    name: str
    channel: str
    newest_version: int
    archived_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, template: StoredTemplate) -> Self:
        return cls.model_validate(template, from_attributes=True)


class TemplateWithVersion(TemplateOut):
    version: VersionOut


class PreviewRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"contact_id": "01930a5e-7b1c-7cc2-8f6e-0a4d5e6f7a8b", "run": {"order": {"number": "A-17"}}}]},
    )

    contact_id: UUID
    version: int | None = Field(None, ge=1, le=1_000_000, description="The newest when left out.")
    run: dict[str, Any] = Field(default_factory=dict, max_length=200, description="What the template reads under `run`.")


class ProblemOut(BaseModel):
    path: str
    code: str
    message: str


class PreviewOut(BaseModel):
    version: int
    subject: str | None
    html: str | None
    text: str | None
    problems: list[ProblemOut]


@router.post("", status_code=201)
async def create_template(caller: Annotated[Caller, authorize("templates.write")], body: NewTemplate) -> TemplateWithVersion:
    content = TemplateContent(body.channel, body.subject, body.html, body.text)
    template_id = await commands.create_template(caller, body.name, content)
    return await read_template(caller, template_id)


@router.get("")
async def list_templates(
    caller: Annotated[Caller, authorize("templates.read")],
    query: PageOf,
    channel: Annotated[Literal["email", "sms"] | None, Query()] = None,
) -> Page[TemplateOut]:
    async with caller.session() as session:
        found = await templates.list_page(session, channel, query.limit + 1, query.after)
    return page([TemplateOut.of(template) for template in found], [template.id for template in found], query)


@router.get("/{template_id}")
async def read_template(caller: Annotated[Caller, authorize("templates.read")], template_id: UUID) -> TemplateWithVersion:
    """The template with its newest version."""
    async with caller.session() as session:
        template = await templates.get(session, template_id)
        version = await templates.get_version(session, template_id)
    return TemplateWithVersion(**TemplateOut.of(template).model_dump(), version=VersionOut.of(version))


@router.patch("/{template_id}")
async def change_template(caller: Annotated[Caller, authorize("templates.write")], template_id: UUID, body: TemplateChange) -> TemplateOut:
    """Rename or archive. What it says never changes: add a version instead."""
    async with caller.session() as session:
        template, changed = await templates.change(session, template_id, body.model_dump(exclude_unset=True))
        if changed:
            entry = NewEntry("template.changed", "template", str(template_id), caller.actor, {"fields": list(changed)})
            await audit.append(session, [entry])
    return TemplateOut.of(template)


@router.post("/{template_id}/versions", status_code=201)
async def add_version(caller: Annotated[Caller, authorize("templates.write")], template_id: UUID, body: NewVersion) -> VersionOut:
    return VersionOut.of(await commands.add_version(caller, template_id, body.subject, body.html, body.text))


@router.get("/{template_id}/versions")
async def list_versions(caller: Annotated[Caller, authorize("templates.read")], template_id: UUID, query: PageOf) -> Page[VersionOut]:
    async with caller.session() as session:
        await templates.get(session, template_id)
        found = await templates.list_versions(session, template_id, query.limit + 1, query.after)
    return page([VersionOut.of(version) for version in found], [version.id for version in found], query)


@router.get("/{template_id}/versions/{number}")
async def read_version(caller: Annotated[Caller, authorize("templates.read")], template_id: UUID, number: Number) -> VersionOut:
    async with caller.session() as session:
        return VersionOut.of(await templates.get_version(session, template_id, number))


@router.post("/{template_id}/previews")
async def preview_template(
    caller: Annotated[Caller, authorize("templates.read", "contacts.read")], template_id: UUID, body: PreviewRequest
) -> PreviewOut:
    """What this contact would get. Nothing is sent. Needs `contacts.read` too: a template can print any field of a contact."""
    shown = await commands.preview(caller, template_id, body.contact_id, body.version, body.run)
    rendered = shown.rendered
    return PreviewOut(
        version=shown.version.number,
        subject=rendered.subject if rendered else None,
        html=rendered.html if rendered else None,
        text=rendered.text if rendered else None,
        problems=[ProblemOut(path=problem.path, code=problem.code, message=problem.message) for problem in shown.problems],
    )
