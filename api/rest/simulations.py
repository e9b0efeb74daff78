"""`/v1/journeys/{id}/simulations`: a journey under a virtual clock. Nothing is sent, and nothing is written."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from api.commands import simulations as commands
from api.commands.simulations import Answer, Sample, SimulationRequest
from api.dependencies import Caller, authorize
from api.rest.journeys import ProblemView
from models.domain.journey.definition import Definition, in_reading_order
from models.domain.journey.happening import Happening, Names
from models.domain.journey.reasons import reason_words
from models.domain.journey.timeline import Entry
from models.domain.simulation.case import Expected, expected_of
from models.domain.simulation.report import StepCount, Summary, decided, told
from models.domain.simulation.scenario import USUAL, Invented, Moment, Offset, Script, World
from models.domain.simulation.trip import Sent, Trip
from models.tables.base import utc_now

router = APIRouter(prefix="/journeys", tags=["journeys"])

MAX_INVENTED = 100
MAX_NAMED = 1_000
MAX_SAMPLE = 5_000
MAX_TOLD = 100
_EXAMPLE: JsonDict = {
    "start": "2026-03-02T09:00:00Z",
    "contacts": [{"first_name": "Ada", "timezone": "Europe/Berlin", "consents": [{"topic": "news"}]}],
    "script": [{"after": "PT2H", "event": {"name": "opened"}}, {"after": "P3D", "change": {"attributes": {}}}],
}


class SampleIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=1, le=MAX_SAMPLE)
    segment_id: UUID | None = Field(None, description="Left out: of all contacts.")


class NewSimulation(World):
    """At least one of contacts, contact_ids and sample. Offsets are ISO 8601 durations ("PT2H", "P3D") or seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    version: Annotated[int, Field(ge=1, le=2_147_483_647, description="Left out: the draft.")] | None = None
    start: Moment | None = Field(None, description="Left out: now.")
    until: Offset = Field(USUAL, description="Nothing is looked at later than this after the start.")
    contacts: tuple[Invented, ...] = Field((), max_length=MAX_INVENTED, description="Invented ones.")
    contact_ids: tuple[UUID, ...] = Field((), max_length=MAX_NAMED, description="Real ones, as they are now. Needs contacts.read.")
    sample: SampleIn | None = Field(None, description="Of real ones. Needs contacts.read.")
    script: Script = Field((), description="What happens to each of them, and when.")
    paths: int = Field(20, ge=0, le=MAX_TOLD, description="How many contacts are told in full; all of them are counted.")

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not (self.contacts or self.contact_ids or self.sample):
            raise ValueError("Give at least one of contacts, contact_ids and sample.")
        return self

    def wanted(self) -> SimulationRequest:
        return SimulationRequest(
            version=self.version,
            start=self.start or utc_now(),
            until=self.until,
            world=World(**{name: getattr(self, name) for name in World.model_fields}),
            script=self.script,
            contacts=self.contacts,
            contact_ids=self.contact_ids,
            sample=None if self.sample is None else Sample(self.sample.size, self.sample.segment_id),
            keep=self.paths,
        )


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class PathEntry(View):
    """As in a run's timeline."""

    at: datetime
    kind: str = Field(examples=["waiting"])
    sentence: str = Field(examples=['Waits until 5 Mar 2026 09:00 UTC at "pause"'])
    source: str = Field(description="event or decision", examples=["event"])
    step_id: str | None
    visit: int | None
    reason: str | None
    until: datetime | None
    details: dict[str, Any]


class DecisionView(View):
    at: datetime
    check: str = Field(examples=["consent"])
    step_id: str
    visit: int
    round: int
    outcome: str = Field(description="send, hold or refuse", examples=["send"])
    reason: str | None
    words: str | None = Field(description="The reason, in words.")
    hold_until: datetime | None
    inputs: dict[str, Any] = Field(description="The facts it rests on.")


class MessageView(View):
    at: datetime
    step_id: str
    visit: int
    channel: str
    recipient: str
    subject: str
    text: str
    html: str
    outcome: str = Field(description="What the provider was taken to say.", examples=["accepted"])


class TripView(View):
    """`expected` is what it came to in the form of a case's expectation; its `path` or `messages` null where a case cannot hold so many."""

    contact_id: UUID
    invented: bool
    status: str = Field(description="completed, exited, waiting, held, needs_attention, cancelled or not_entered.", examples=["completed"])
    reason: str | None
    words: str | None = Field(description="The reason, in words.")
    step_id: str | None
    wake_at: datetime | None
    ended_at: datetime = Field(description="The last moment at which anything happened.")
    cut: bool = Field(description="It went on for so long that nothing more was looked at.")
    wakes: list[datetime]
    path: list[PathEntry]
    decisions: list[DecisionView]
    messages: list[MessageView] = Field(description="Handed to the provider, whatever it said: each with its `outcome`.")
    goals: dict[str, datetime]
    assumed: list[str] = Field(description="Steps whose webhook was taken to answer 200, for want of an answer in `webhooks`.")
    expected: Expected


class EndCount(BaseModel):
    status: str
    reason: str | None
    words: str | None
    contacts: int


class StepView(BaseModel):
    step_id: str
    name: str
    kind: str
    arrived: int = Field(description="Visits.")
    sent: int
    held: int
    not_sent: dict[str, int] = Field(description="By reason.")
    ways: dict[str, int] = Field(description="By the step taken next; empty: the journey's end.")
    exits: dict[str, int] = Field(
        description="By the way out that was taken, where a step has several: tells two apart that lead to the same step.",
        examples=[{"arms[0].next": 9, "arms[1].next": 11}],
    )
    ended: int = Field(description="Runs that ended there.")
    still_there: int = Field(description="Runs that stand there when the simulation ends.")


class HourView(BaseModel):
    hour: datetime = Field(description="Its beginning, UTC.")
    channel: str
    messages: int


class SummaryView(BaseModel):
    contacts: int
    messages: int = Field(description="Sent, or maybe sent: `sends` says accepted or unknown.")
    cut: int = Field(description="Contacts at whom nothing more was looked at: the journey went on for too long.")
    ends: list[EndCount]
    steps: list[StepView]
    goals: dict[str, int]
    volume: list[HourView] = Field(description="The same messages by the hour; hours without any are left out.")


class SimulationView(BaseModel):
    journey_id: UUID
    version: int | None
    revision: int | None = Field(description="Of the draft, when that was simulated.")
    start: datetime
    until: datetime
    warnings: list[ProblemView] = Field(description="What still keeps the draft from being published.")
    summary: SummaryView
    contacts: list[TripView] = Field(
        description="The first `paths` of them: invented ones, those named, the sample. Fewer where their paths are very long."
    )


@router.post("/{journey_id}/simulations")
async def simulate_journey(
    caller: Annotated[Caller, authorize("journeys.read", "templates.read")], journey_id: UUID, body: NewSimulation
) -> SimulationView:
    """What the draft or a version would do: the same rules, decisions and templates under a virtual clock. Nothing is sent, called or
    written. Real contacts need `contacts.read` too."""
    wanted = body.wanted()
    return await asyncio.to_thread(view, await commands.run(caller, journey_id, wanted), wanted)  # long trips take a while to tell


def view(answer: Answer, wanted: SimulationRequest) -> SimulationView:
    definition, names = answer.stage.definition, answer.stage.names
    trips = answer.simulated.trips
    return SimulationView(
        journey_id=answer.journey.id,
        version=wanted.version,
        revision=answer.journey.revision if wanted.version is None else None,
        start=wanted.start,
        until=wanted.start + wanted.until,
        warnings=[ProblemView(**vars(problem)) for problem in answer.warnings],
        summary=_summary(answer.simulated.summary, definition, names),
        contacts=[_trip(trip, names, invented=number < len(wanted.contacts)) for number, trip in enumerate(trips)],
    )


def _trip(trip: Trip, names: Names, *, invented: bool) -> TripView:
    return TripView(
        contact_id=trip.contact_id,
        invented=invented,
        status=trip.status,
        reason=trip.reason,
        words=_words(trip.reason, names, {}),
        step_id=trip.state.step_id,
        wake_at=trip.state.wake_at,
        ended_at=trip.ended_at,
        cut=trip.cut,
        wakes=trip.wakes,
        path=[_entry(entry) for entry in told(trip, names)],
        decisions=_decisions(trip, names),
        messages=[_message(sent) for sent in trip.messages],
        goals=trip.goals,
        assumed=sorted(trip.assumed),
        expected=expected_of(trip),
    )


def _entry(entry: Entry) -> PathEntry:
    return PathEntry.model_validate(entry)


def _decisions(trip: Trip, names: Names) -> list[DecisionView]:
    found = []
    for one in trip.decisions:
        decision = decided(one)
        found.append(
            DecisionView(
                at=one.at,
                check=one.check,
                step_id=one.step_id,
                visit=one.visit,
                round=one.round,
                outcome=decision.outcome,
                reason=decision.reason,
                words=_words(decision.reason, names, decision.inputs),
                hold_until=decision.hold_until,
                inputs=dict(decision.inputs),
            )
        )
    return found


def _message(sent: Sent) -> MessageView:
    return MessageView.model_validate({**vars(sent), **vars(sent.message)})


def _words(reason: str | None, names: Names, inputs: Mapping[str, Any]) -> str | None:
    return None if reason is None else reason_words(Happening("decision", names, reason=reason, inputs=inputs))


def _summary(summary: Summary, definition: Definition, names: Names) -> SummaryView:
    order = in_reading_order(definition)
    steps = [(step_id, definition.steps[step_id], summary.steps.get(step_id, StepCount())) for step_id in order]
    return SummaryView(
        contacts=summary.contacts,
        messages=summary.messages,
        cut=summary.cut,
        ends=[
            EndCount(status=status, reason=reason, words=_words(reason, names, {}), contacts=count)
            for (status, reason), count in summary.ends.most_common()
        ],
        steps=[StepView(step_id=step_id, name=step.name, kind=step.kind, **vars(count)) for step_id, step, count in steps],
        goals=dict(summary.goals),
        volume=[HourView(hour=hour, channel=channel, messages=count) for (hour, channel), count in sorted(summary.volume.items())],
    )
