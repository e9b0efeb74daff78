"""`/v1/runs/{id}/replays`: a run that failed or finished goes on in a new one, and nothing is done twice."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.commands import replays as commands
from api.commands.replays import Check, Preview
from api.dependencies import Caller, authorize
from api.rest.headers import PostKey
from api.rest.reasons import RequiredReason, StatedReason
from api.rest.runs import RunView
from models.domain.journey.happening import Happening, Names
from models.domain.journey.reasons import reason_words
from models.domain.journey.replay import Ahead, Standing
from models.domain.journey.sentences import sentence
from models.store.replay_plans import ReplayOptions

router = APIRouter(prefix="/runs", tags=["runs"])

StepName = Annotated[str, Field(max_length=63)]


class Replayed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    from_step: StepName | None = Field(None, description="Left out: where the run stopped.", examples=["reminder"])
    version: Literal["original", "current"] = Field(
        "original", description="original: the version that the run was on; current: the journey's newest."
    )
    resend: list[StepName] = Field(
        default=[], max_length=50, description="Steps whose effect is to be done once more although it was done, or may have been."
    )


class PreviewRequest(Replayed):
    """What the replay itself takes besides may stand here, too, and changes nothing."""

    version_id: UUID | None = Field(None, description="Of a replay's body; not looked at here.")
    reason: StatedReason | None = None


class ReplayRequest(Replayed):
    version_id: UUID | None = Field(
        None, description="`version.id` of the preview: 409 `preview_outdated` where the replay would go on upon another by now."
    )
    reason: RequiredReason = Field(examples=["the mail server was down"])


class VersionSaid(BaseModel):
    id: UUID
    number: int


class EffectAhead(BaseModel):
    """One effect ahead. kept: done already, and not repeated; resent: done already, and asked for once more; to_do; possible: to do, if
    the run comes this way; uncertain: nobody knows whether it was done, and the run needs attention there."""

    step_id: str
    name: str
    kind: str = Field(examples=["send"])
    visit: int
    standing: Standing
    run_id: UUID | None = Field(description="The run that did it, or may have.")
    at: datetime | None = Field(description="When that was.")
    reason: str | None
    content_differs: bool = Field(description="This step says or does something else than that of the version which the run was on.")
    sentence: str


class CheckNow(BaseModel):
    check: str = Field(examples=["consent"])
    outcome: str = Field(examples=["send"])
    reason: str | None
    hold_until: datetime | None
    sentence: str


class EndsAtOnce(BaseModel):
    reason: str = Field(examples=["exit_rule:bought"])
    sentence: str


class ReplayPreview(BaseModel):
    """What would happen if it were asked for now. The numbers count `effects` by their standing."""

    run_id: UUID
    from_step: str
    version: VersionSaid = Field(description="On which it would go on.")
    original: VersionSaid = Field(description="On which the run was.")
    content_differs: bool = Field(description="Between the two; false: the replay says exactly what the run would have said.")
    ends_at_once: EndsAtOnce | None = Field(
        description="An exit rule about the contact (or a goal that ends runs) holds already: the replay would end before it does anything "
        "and have no effects. Null: none does."
    )
    kept: int
    resent: int
    to_do: int
    possible: int
    uncertain: int
    effects: list[EffectAhead] = Field(description="The nearest first.")
    first_send: str | None = Field(description="The step of the first message that would be sent.")
    checks: list[CheckNow] = Field(description="What consent and quiet hours say about it now; all is asked again when it is its turn.")
    summary: str


@router.post("/{run_id}/replays/preview")
async def preview_replay(
    caller: Annotated[Caller, authorize("runs.read")], run_id: UUID, asked: PreviewRequest | None = None
) -> ReplayPreview:
    """What a replay would keep, do and leave in doubt, and what the first message would meet. Changes nothing."""
    found = await commands.preview(caller, run_id, _wanted(asked or PreviewRequest()))
    return _preview(found)


@router.post("/{run_id}/replays", status_code=201)
async def replay_run(
    caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, asked: ReplayRequest, key: PostKey, response: Response
) -> RunView:
    """A new run goes on from a step in the place of one that needs attention or has finished. What was done is not done again, unless
    `resend` names it; what may have been done is left to a person. After a 503, repeat with the same Idempotency-Key."""
    run = await commands.replay_run(caller, run_id, _wanted(asked, asked.reason), key, asked.version_id)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return RunView.model_validate(run)


def _wanted(asked: Replayed, reason: str = "") -> ReplayOptions:
    return ReplayOptions(asked.from_step, asked.version, frozenset(asked.resend), reason)


def _preview(found: Preview) -> ReplayPreview:
    plan = found.plan
    said = {
        "run_id": plan.old.id,
        "from_step": plan.from_step,
        "version": {"id": plan.version.id, "number": plan.version.number},
        "original": {"id": plan.original.id, "number": plan.original.number},
        "content_differs": found.differs,
        "ends_at_once": _ends_at_once(found),
        "effects": [_ahead(found, each) for each in found.ahead],
        "first_send": found.first_send,
        "checks": [_check(found, each) for each in found.checks],
        "summary": _summary(found),
    }
    return ReplayPreview.model_validate({**found.numbers, **said})


def _ends_at_once(found: Preview) -> dict[str, Any] | None:
    if found.ended is None:
        return None
    return {"reason": found.ended, "sentence": f"It would exit at once, with nothing done: {_why_ended(found)}"}


def _why_ended(found: Preview) -> str | None:
    return reason_words(Happening("exited", _names(found), reason=found.ended))


def _ahead(found: Preview, ahead: Ahead) -> dict[str, Any]:
    step, past = found.plan.definition.steps[ahead.step_id], ahead.past
    details = {"standing": ahead.standing, **({"run_id": str(past.run_id)} if past else {})}
    told = Happening("ahead", _names(found), ahead.step_id, ahead.visit, past.reason if past else None, past.at if past else None, details)
    return {
        "step_id": ahead.step_id,
        "name": step.name,
        "kind": step.kind,
        "visit": ahead.visit,
        "standing": ahead.standing,
        "run_id": past.run_id if past else None,
        "at": past.at if past else None,
        "reason": past.reason if past else None,
        "content_differs": found.step_differs(ahead),
        "sentence": sentence(told),
    }


def _check(found: Preview, check: Check) -> dict[str, Any]:
    decision = check.decision
    details = {"check": check.check, "outcome": decision.outcome}
    told = Happening("decision", _names(found), found.first_send, None, decision.reason, decision.hold_until, details, decision.inputs)
    return {
        "check": check.check,
        "outcome": decision.outcome,
        "reason": decision.reason,
        "hold_until": decision.hold_until,
        "sentence": sentence(told),
    }


def _names(found: Preview) -> Names:
    return Names(steps={step_id: step.name for step_id, step in found.plan.definition.steps.items() if step.name}, topics=found.topics)


_COUNTED = {
    Standing.KEPT: "kept as done",
    Standing.RESENT: "done once more",
    Standing.TO_DO: "to be done",
    Standing.POSSIBLE: "to be done if the run comes that way",
    Standing.UNCERTAIN: "uncertain, where the run needs attention",
}

_WORN_OUT = "nothing is done, for the run exits at once: it has come to this step as often as `max_visits` allows; begin at another"


def _summary(found: Preview) -> str:
    numbers = [f"{found.numbers[standing]} {words}" for standing, words in _COUNTED.items() if found.numbers[standing]]
    version, original = found.plan.version.number, found.plan.original.number
    which = f"version {version}, which the run was on" if version == original else f"version {version} instead of {original}"
    content = "whose content differs" if found.differs else "with the same content"
    ahead = ", ".join(numbers) or (_WORN_OUT if found.plan.worn_out else "nothing to be done")
    if found.ended is not None:
        ahead = f"nothing is done, for the run exits at once: {_why_ended(found)}"
    return f"From {_names(found).step(found.plan.from_step)} on {which}, {content}: {ahead}"
