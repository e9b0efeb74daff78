"""`/v1/journeys`: drafts, their check, published versions, the journey's pause, and the cancellation of its runs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.commands import journeys as commands
from api.commands import runs as run_commands
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.brakes import PausedBecause, paused_because
from api.rest.headers import CommandKey, IfMatch, OptionalIfMatch, PostKey, etag
from api.rest.names import Name
from api.rest.reasons import ReasonAsked, StatedReason
from api.rest.runs import RunView
from models.domain.errors import Invalid, NotFound
from models.domain.journey.draft import MAX_BYTES, storable
from models.domain.journey.entry import MAX_KEY
from models.domain.journey.variables import Variables, variable_problems
from models.store import brakes, goals, journey_versions, journeys
from models.tables.failures import Braking
from models.tables.journeys import Journey

router = APIRouter(prefix="/journeys", tags=["journeys"])

DRAFT_EXAMPLE = {
    "start": "welcome",
    "steps": {
        "welcome": {
            "kind": "send",
            "template_id": "0190a1b2-0000-7000-8000-000000000001",
            "topic_id": "0190a1b2-0000-7000-8000-000000000002",
            "next": "pause",
        },
        "pause": {"kind": "wait", "duration": "P3D", "next": "is_customer"},
        "is_customer": {
            "kind": "branch",
            "conditions": [{"name": "customers", "when": {"tag": "customer"}, "next": "goodbye"}],
            "otherwise": None,
        },
        "goodbye": {"kind": "exit", "reason": "already_customer"},
    },
}
Draft = Annotated[
    dict[str, Any],
    Field(description="A definition (docs/journeys.md), which need not be valid yet; at most 256 KB.", examples=[DRAFT_EXAMPLE]),
]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewJourney(Request):
    name: Name = Field(examples=["Welcome"])
    draft: Draft = Field(default_factory=dict)


class DraftChange(Request):
    """What is left out stays as it is."""

    name: Name = Field("", validate_default=False)
    draft: Draft = Field(default_factory=dict)


class Reason(Request):
    reason: StatedReason | None = None


class NewRun(Request):
    contact_id: UUID
    version: Annotated[int, Field(ge=1, le=2_147_483_647, description="Left out: the newest.", examples=[1])] | None = None
    key: (
        Annotated[str, Field(min_length=1, max_length=MAX_KEY, description="Tells two runs of one contact apart, such as an order's id.")]
        | None
    ) = None
    variables: Variables = Field(
        default_factory=dict,
        description="For branches and templates, as run.<name>. At most 32 KB together.",
        examples=[{"order": "A-1042"}],
    )


class GoalCount(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    version: int
    goal: str = Field(examples=["bought"])
    runs: int = Field(description="Runs of the version, whatever became of them.")
    reached: int = Field(description="Of these, those that reached it in time.")


class GoalCounts(BaseModel):
    items: list[GoalCount]


class ProblemView(BaseModel):
    path: str = Field(examples=["steps.welcome.next"])
    code: str = Field(examples=["unknown_step"])
    message: str = Field(examples=["There is no step 'pause'; add it, or name another."])


class JourneySummary(BaseModel):
    id: UUID
    name: str
    revision: int
    newest_version: int | None = Field(description="Null before the first publication.")
    paused_at: datetime | None
    paused_because: PausedBecause | None
    owner_id: UUID | None = Field(description="The member who answers for it.")
    archived_at: datetime | None
    created_at: datetime
    updated_at: datetime


class JourneyView(JourneySummary):
    draft: dict[str, Any]


class CheckView(BaseModel):
    """`revision` is the one that was checked; no problems: it can be published."""

    revision: int
    problems: list[ProblemView]


class VersionSummary(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    journey_id: UUID
    number: int
    content_hash: str = Field(description="Hex SHA-256 over the definition and the contents of the templates that it names.")
    published_by: UUID | None
    revision: int | None = Field(description="Of the draft that was published; null for versions of before this was kept.")
    created_at: datetime


class VersionView(VersionSummary):
    definition: dict[str, Any]


async def view(caller: Caller, journey: Journey, response: Response) -> JourneyView:
    async with caller.session() as session:
        newest = await journey_versions.newest_by_journey(session, [journey.id])
        braked = await brakes.in_force(session, [journey.id])
    response.headers["ETag"] = etag(journey.revision)
    return JourneyView(**_fields(journey, braked), newest_version=newest.get(journey.id), draft=journey.draft)


def _fields(journey: Journey, braked: Mapping[UUID, Braking]) -> dict[str, Any]:
    shown = journey.model_dump(include={"id", "name", "revision", "paused_at", "owner_id", "archived_at", "created_at", "updated_at"})
    return {**shown, "paused_because": paused_because(journey.paused_at, braked.get(journey.id))}


def _require_storable(value: Any, path: str, max_bytes: int) -> None:
    if problems := storable(value, path, max_bytes):
        raise Invalid(problems)


@router.post("", status_code=201)
async def create_journey(caller: Annotated[Caller, authorize("journeys.write")], new: NewJourney, response: Response) -> JourneyView:
    """A journey with a draft, which nobody runs through before it is published."""
    _require_storable(new.draft, "draft", MAX_BYTES)
    journey = await commands.create_journey(caller, new.name, new.draft)
    response.headers["Location"] = f"/v1/journeys/{journey.id}"
    return await view(caller, journey, response)


@router.get("")
async def list_journeys(
    caller: Annotated[Caller, authorize("journeys.read")],
    query: PageOf,
    archived: Annotated[bool | None, Query(description="Left out: all.")] = None,
) -> Page[JourneySummary]:
    async with caller.session() as session:
        found = await journeys.page(session, query.limit + 1, query.after, archived)
        newest = await journey_versions.newest_by_journey(session, [journey.id for journey in found])
        braked = await brakes.in_force(session, [journey.id for journey in found if journey.paused_at is not None])
    items = [JourneySummary(**_fields(journey, braked), newest_version=newest.get(journey.id)) for journey in found]
    return page(items, [journey.id for journey in found], query)


@router.get("/{journey_id}")
async def read_journey(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, response: Response) -> JourneyView:
    """The journey with its draft. The ETag is the draft's revision."""
    async with caller.session() as session:
        journey = await journeys.get(session, journey_id)
    return await view(caller, journey, response)


@router.patch("/{journey_id}/draft")
async def save_draft(
    caller: Annotated[Caller, authorize("journeys.write")], journey_id: UUID, change: DraftChange, revision: IfMatch, response: Response
) -> JourneyView:
    """Saves over the revision named by If-Match. 412 when somebody else saved since: nothing is lost, read and merge."""
    given = change.model_dump(exclude_unset=True)
    _require_storable(change.draft, "draft", MAX_BYTES)
    journey = await commands.save_draft(caller, journey_id, revision, given.get("draft"), given.get("name"))
    return await view(caller, journey, response)


@router.get("/{journey_id}/check")
async def check_draft(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID) -> CheckView:
    """Everything that keeps the draft from being published."""
    journey, problems = await commands.check_draft(caller, journey_id)
    return CheckView(revision=journey.revision, problems=[ProblemView(**vars(problem)) for problem in problems])


@router.post("/{journey_id}/versions", status_code=201, responses={200: {"model": VersionView, "description": "It was published already."}})
async def publish_version(
    caller: Annotated[Caller, authorize("journeys.publish")], journey_id: UUID, revision: OptionalIfMatch, response: Response
) -> VersionView:
    """Freezes the draft and the template versions it names as the next version. 422 with every problem when it cannot be."""
    published = await commands.publish(caller, journey_id, revision)
    response.status_code = 201 if published.created else 200
    response.headers["Location"] = f"/v1/journeys/{journey_id}/versions/{published.version.number}"
    return VersionView.model_validate(published.version)


@router.get("/{journey_id}/versions")
async def list_versions(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, query: PageOf) -> Page[VersionSummary]:
    async with caller.session() as session:
        await journeys.get(session, journey_id)
        found = await journey_versions.page(session, journey_id, query.limit + 1, query.after)
    return page([VersionSummary.model_validate(version) for version in found], [version.id for version in found], query)


@router.get("/{journey_id}/versions/{version}")
async def read_version(
    caller: Annotated[Caller, authorize("journeys.read")],
    journey_id: UUID,
    version: Annotated[str, Path(max_length=64, description="Its number or its id.", examples=["1"])],
) -> VersionView:
    async with caller.session() as session:
        return VersionView.model_validate(await journey_versions.get(session, journey_id, _number_or_id(version)))


def _number_or_id(version: str) -> int | UUID:
    if version.isascii() and version.isdigit() and len(version) < 10:
        return int(version)
    try:
        return UUID(version)
    except ValueError:
        raise NotFound("version", None) from None


@router.post("/{journey_id}/runs", status_code=201)
async def start_run(
    caller: Annotated[Caller, authorize("runs.start")], journey_id: UUID, new: NewRun, key: PostKey, response: Response
) -> RunView:
    """Starts a run for one contact. After a 503, repeat with the same Idempotency-Key: the same run goes on."""
    if problems := variable_problems(new.variables):
        raise Invalid(problems)
    run = await run_commands.start_run(caller, journey_id, run_commands.NewRun(new.contact_id, new.version, new.variables, new.key), key)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return RunView.model_validate(run)


@router.get("/{journey_id}/goals")
async def read_goals(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID) -> GoalCounts:
    """How many runs of each version reached each of its goals."""
    async with caller.session() as session:
        await journeys.get(session, journey_id)
        found = await goals.counts(session, journey_id)
    return GoalCounts(items=[GoalCount.model_validate(count) for count in found])


@router.put("/{journey_id}/pause", status_code=202)
async def pause_journey(
    caller: Annotated[Caller, authorize("journeys.publish")],
    journey_id: UUID,
    response: Response,
    key: CommandKey = None,
    why: Reason | None = None,
) -> JourneyView:
    """Nothing of the journey is sent from now on; its runs keep their place. After a 503, repeat."""
    return await view(caller, await commands.pause(caller, journey_id, why.reason if why else None, key), response)


@router.delete("/{journey_id}/pause", status_code=202)
async def resume_journey(
    caller: Annotated[Caller, authorize("journeys.publish")],
    journey_id: UUID,
    response: Response,
    key: CommandKey = None,
    reason: ReasonAsked = None,
) -> JourneyView:
    """The pause is being lifted: `paused_at` is null as soon as it is. After a 503, repeat."""
    return await view(caller, await commands.resume(caller, journey_id, key, reason=reason), response)


@router.put("/{journey_id}/cancellation", status_code=202)
async def cancel_journey(
    caller: Annotated[Caller, authorize("journeys.publish")],
    journey_id: UUID,
    response: Response,
    key: CommandKey = None,
    why: Reason | None = None,
) -> JourneyView:
    """Every run of the journey that is under way is being cancelled, and so are its campaigns, for good. The journey itself stays:
    it can be entered again. After a 503, repeat."""
    return await view(caller, await commands.cancel(caller, journey_id, why.reason if why else None, key), response)


@router.put("/{journey_id}/archive")
async def archive_journey(caller: Annotated[Caller, authorize("journeys.write")], journey_id: UUID, response: Response) -> JourneyView:
    """The journey takes no new runs, campaigns or versions. Runs under way go on."""
    return await view(caller, await commands.set_archived(caller, journey_id, True), response)


@router.delete("/{journey_id}/archive")
async def restore_journey(caller: Annotated[Caller, authorize("journeys.write")], journey_id: UUID, response: Response) -> JourneyView:
    """The journey takes runs, campaigns and versions again. Campaigns whose time came meanwhile start now; what was due of recurring ones
    does not take place any more. After a 503, repeat."""
    return await view(caller, await commands.set_archived(caller, journey_id, False), response)
