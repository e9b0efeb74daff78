"""Journeys from others, and journeys in git: `…/draft/restoration`, `…/duplicates`, `…/export` and `/v1/journey-imports`."""

import json
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from api.commands import portable as commands
from api.dependencies import Caller, authorize
from api.rest.cases import CaseIn
from api.rest.headers import IfMatch, OptionalIfMatch, etag
from api.rest.journeys import JourneyView, view
from api.rest.names import Called, Name
from models.domain.errors import Invalid
from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.draft import storable
from models.domain.journey.portable import FORMAT, ordered
from models.domain.simulation.case import MAX_CASES
from models.domain.template import LIMIT, SUBJECT_LIMIT
from models.store.portable import TopicWords

router = APIRouter(tags=["journeys"])

Number = Annotated[int, Field(ge=1, le=2_147_483_647)]
TopicKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
MAX_PARTS = 500


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True)


class Restoration(Closed):
    """Exactly one of them."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 1}, {"revision": 7}]})

    version: Number | None = Field(None, description="The draft that it was published from: what it leaves open is open again.")
    revision: Number | None = Field(None, description="As it was saved.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.version is None) == (self.revision is None):
            raise ValueError("Give exactly one of version and revision.")
        return self


class Duplicate(Closed):
    name: Name


class ContentDocument(Closed):
    channel: Literal["email", "sms"]
    subject: str = Field("", max_length=SUBJECT_LIMIT)
    html: str = Field("", max_length=LIMIT)
    text: str = Field("", max_length=LIMIT)


class TemplateDocument(Closed):
    content: ContentDocument | None = Field(None, description="Of the newest version; null when there is none.")
    pinned: dict[Annotated[str, StringConstraints(max_length=64)], ContentDocument] = Field(
        default_factory=dict, max_length=100, description="Of versions that the draft names, by their hash."
    )


class TopicDocument(Closed):
    name: Called
    description: str = Field("", max_length=2_000)


class JourneyDocument(Closed):
    """A journey's draft with everything that it names, by name: `"template_id": {"template": "Welcome"}`."""

    model_config = ConfigDict(
        extra="forbid",
        from_attributes=True,
        json_schema_extra={
            "examples": [{"format": FORMAT, "name": "Welcome", "draft": {"start": "bye", "steps": {"bye": {"kind": "exit"}}}}]
        },
    )

    format: Literal["leadstats.journey/1"]
    name: Name
    draft: dict[str, Any]
    templates: dict[Called, TemplateDocument] = Field(default_factory=dict, max_length=MAX_PARTS)
    topics: dict[TopicKey, TopicDocument] = Field(default_factory=dict, max_length=MAX_PARTS)
    segments: dict[Called, dict[str, Any]] = Field(default_factory=dict, max_length=MAX_PARTS, description="Their rules.")
    cases: tuple[CaseIn, ...] | None = Field(
        None, max_length=MAX_CASES, description="The journey has these and no others afterwards; left out: its cases stay as they are."
    )

    def given(self) -> commands.Document:
        return commands.Document(
            name=self.name,
            draft=self.draft,
            templates={name: _template(template) for name, template in self.templates.items()},
            topics={key: TopicWords(topic.name, topic.description) for key, topic in self.topics.items()},
            segments=self.segments,
            cases=self.cases,
        )


def _template(given: TemplateDocument) -> commands.PortableTemplate:
    content = None if given.content is None else TemplateContent(**given.content.model_dump())
    return commands.PortableTemplate(content, {hash: TemplateContent(**one.model_dump()) for hash, one in given.pinned.items()})


class NewImport(Closed):
    document: JourneyDocument
    replace: bool = Field(False, description="Change the draft of a journey of this name, whatever its revision.")
    dry_run: bool = Field(False, description="Only say what would become of it.")


class PartView(Closed):
    kind: str = Field(examples=["template"])
    name: str = Field(examples=["Welcome"])
    outcome: str = Field(description="found; differs: it is here, says something else, and was left as it is; created.")


class ImportView(BaseModel):
    outcome: str = Field(description="created, updated or unchanged; of a dry run: what it would have been.", examples=["updated"])
    dry_run: bool
    journey_id: UUID | None = Field(description="Null for a dry run that would create it.")
    revision: int = Field(description="Of the draft, afterwards.")
    parts: list[PartView]


@router.put("/journeys/{journey_id}/draft/restoration")
async def restore_draft(
    caller: Annotated[Caller, authorize("journeys.write")], journey_id: UUID, body: Restoration, revision: IfMatch, response: Response
) -> JourneyView:
    """The draft becomes what was published or saved then. What stands there now stays in the history."""
    return await view(caller, await commands.restore(caller, journey_id, revision, body.version, body.revision), response)


@router.post("/journeys/{journey_id}/duplicates", status_code=201)
async def duplicate_journey(
    caller: Annotated[Caller, authorize("journeys.write")], journey_id: UUID, body: Duplicate, response: Response
) -> JourneyView:
    """Another journey with the same draft, not published yet."""
    journey = await commands.duplicate(caller, journey_id, body.name)
    response.headers["Location"] = f"/v1/journeys/{journey.id}"
    return await view(caller, journey, response)


@router.get("/journeys/{journey_id}/export", response_model=JourneyDocument)
async def export_journey(
    caller: Annotated[Caller, authorize("journeys.read", "templates.read", "segments.read")], journey_id: UUID
) -> Response:
    """The draft and everything that it names, as one document to be kept in git: always in the same order. Members of the team stay ids."""
    document = commands.document_json(await commands.export(caller, journey_id))
    text = json.dumps(ordered({"format": FORMAT, **document}), indent=2, ensure_ascii=False)
    return Response(text + "\n", media_type="application/json")


@router.post("/journey-imports", status_code=201, responses={200: {"model": ImportView, "description": "Nothing was created."}})
async def import_journey(
    caller: Annotated[Caller, authorize("journeys.write")], body: NewImport, revision: OptionalIfMatch, response: Response
) -> ImportView:
    """Creates the journey, or changes the draft of the one of this name (with If-Match or `replace`). What the document names is looked
    for here by its name; missing topics, segments and templates are made from the document, which needs the permission for each."""
    parts = [
        ("document.draft", body.document.draft),
        *((f"document.segments.{name}", rule) for name, rule in body.document.segments.items()),
    ]
    if problems := [problem for path, part in parts for problem in storable(part, path)]:
        raise Invalid(problems)
    imported = await commands.import_journey(caller, body.document.given(), over=body.replace, revision=revision, dry_run=body.dry_run)
    response.status_code = 201 if imported.outcome == "created" and not body.dry_run else 200
    response.headers["ETag"] = etag(imported.revision)
    if imported.journey_id is not None:
        response.headers["Location"] = f"/v1/journeys/{imported.journey_id}"
    return ImportView(
        outcome=imported.outcome,
        dry_run=body.dry_run,
        journey_id=imported.journey_id,
        revision=imported.revision,
        parts=[PartView.model_validate(part) for part in imported.parts],
    )
