"""`/v1/journeys/{id}/cases`: what a journey is expected to do, tried on every publish."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.commands import cases as commands
from api.commands.cases import Ran
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.domain.simulation.case import MAX_CASES, Case, Expected, expected_of
from models.store import journeys, simulation_cases
from models.tables.simulations import SimulationCase

router = APIRouter(prefix="/journeys", tags=["journeys"])

_EXAMPLE: JsonDict = {
    "name": "who agreed gets the welcome",
    "start": "2026-03-02T09:00:00Z",
    "given": {"contact": {"first_name": "Ada", "timezone": "Europe/Berlin", "consents": [{"topic": "news"}]}},
    "expected": {"messages": [{"step": "welcome"}], "end": {"phase": "completed"}},
}


class CaseIn(Case):
    """`expected` is what a simulation's answer holds under `expected`, less what may be anything."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})


class CaseView(BaseModel):
    id: UUID
    journey_id: UUID
    name: str
    start: datetime
    case: dict[str, Any] = Field(description="As it was given: it can be changed and sent back.")
    saved_by: UUID | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: SimulationCase) -> Self:
        case = simulation_cases.case_of(row).model_dump(mode="json", exclude_unset=True)
        return cls(**row.model_dump(exclude={"organization_id", "scenario", "expected"}), case=case)


class CaseRun(BaseModel):
    """Left out: the journey's own cases, against its draft."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": None}]})

    version: Annotated[int, Field(ge=1, le=2_147_483_647, description="Left out: the draft.")] | None = None
    cases: tuple[CaseIn, ...] | None = Field(None, max_length=MAX_CASES, description="These instead of the journey's own.")


class DifferenceView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    where: str = Field(examples=["path[2]"])
    code: str = Field(examples=["different"])
    message: str = Field(examples=["Expected sent at welcome, got not_sent at welcome (no_consent)."])
    expected: Any
    got: Any


class CaseResult(BaseModel):
    """`got` is what it came to, in the form of an expectation; null when the case itself cannot be run."""

    name: str
    passed: bool
    differences: list[DifferenceView]
    got: Expected | None

    @classmethod
    def of(cls, ran: Ran) -> Self:
        told = [DifferenceView.model_validate(difference) for difference in ran.differences]
        return cls(name=ran.case.name, passed=ran.passed, differences=told, got=None if ran.trip is None else expected_of(ran.trip))


class CaseResults(BaseModel):
    passed: int
    failed: int
    results: list[CaseResult]


@router.post("/{journey_id}/cases", status_code=201)
async def add_case(caller: Annotated[Caller, authorize("journeys.write")], journey_id: UUID, case: CaseIn, response: Response) -> CaseView:
    """A case that need not pass yet; from now on nothing of the journey is published that it does not pass."""
    row = await commands.add(caller, journey_id, case)
    response.headers["Location"] = f"/v1/journeys/{journey_id}/cases/{row.id}"
    return CaseView.of(row)


@router.get("/{journey_id}/cases")
async def list_cases(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, query: PageOf) -> Page[CaseView]:
    async with caller.session() as session:
        await journeys.get(session, journey_id)
        rows = await simulation_cases.page(session, journey_id, query.limit + 1, query.after)
    return page([CaseView.of(row) for row in rows], [row.id for row in rows], query)


@router.post("/{journey_id}/cases/runs")
async def run_cases(
    caller: Annotated[Caller, authorize("journeys.read", "templates.read")], journey_id: UUID, body: CaseRun | None = None
) -> CaseResults:
    """Tries every case, as publishing does, and says how what happens differs from what is expected. Nothing is sent or written."""
    wanted = body or CaseRun()
    ran = await commands.run(caller, journey_id, wanted.version, wanted.cases)
    passed = sum(one.passed for one in ran)
    return CaseResults(passed=passed, failed=len(ran) - passed, results=[CaseResult.of(one) for one in ran])


@router.get("/{journey_id}/cases/{case_id}")
async def read_case(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, case_id: UUID) -> CaseView:
    async with caller.session() as session:
        await journeys.get(session, journey_id)
        return CaseView.of(await simulation_cases.get(session, journey_id, case_id))


@router.put("/{journey_id}/cases/{case_id}")
async def change_case(caller: Annotated[Caller, authorize("journeys.write")], journey_id: UUID, case_id: UUID, case: CaseIn) -> CaseView:
    return CaseView.of(await commands.change(caller, journey_id, case_id, case))


@router.delete("/{journey_id}/cases/{case_id}", status_code=204)
async def remove_case(caller: Annotated[Caller, authorize("journeys.write")], journey_id: UUID, case_id: UUID) -> None:
    await commands.remove(caller, journey_id, case_id)
