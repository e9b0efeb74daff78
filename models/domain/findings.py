"""Findings: what can be wrong with the engine, said in words, and what a person should do. Pure.

A cause or action names ids, codes, counts and times only: findings are read by people who may see no contact.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class Kind(StrEnum):
    OVERDUE_WAKE = "overdue_wake"
    WAIT_WITHOUT_EVENT = "wait_without_event"
    WORKFLOW_TASK_FAILING = "workflow_task_failing"
    ACTIVITY_FAILING = "activity_failing"
    WORKFLOW_CLOSED = "workflow_closed"
    ROW_WITHOUT_WORKFLOW = "row_without_workflow"
    WORKFLOW_WITHOUT_ROW = "workflow_without_row"
    VOLUME_FELL = "volume_fell"
    GOING_ROUND = "going_round"
    CONSERVATION = "conservation"
    HISTORY_MISSING = "history_missing"
    OCCURRENCE_MISSED = "occurrence_missed"
    SCHEDULE_STOPPED = "schedule_stopped"
    OPERATION_FAILING = "operation_failing"
    PUBLISH_PLAN_FAILING = "publish_plan_failing"
    BRAKING_FAILING = "braking_failing"


class Severity(StrEnum):
    PROBLEM = "problem"
    SUSPICION = "suspicion"  # it may be as it is meant


@dataclass(frozen=True)
class Sighting:
    """A trouble as it was just seen. (kind, subject_id) identifies it among those that are open."""

    kind: Kind
    subject_kind: str  # workflow | step | journey | campaign | run_operation | publish_plan | braking | organization
    subject_id: str
    details: Mapping[str, Any] = field(default_factory=dict)
    journey_id: UUID | None = None
    runs: int = 0
    severity: Severity = Severity.PROBLEM


REPLAY = "POST /v1/runs/{run_id}/replays"
LOST = "workflow_lost"  # the reason of runs whose workflow is gone for good


def cause(sighting: Sighting) -> str:
    """What is wrong and why, in one or two sentences."""
    return _WORDS[sighting.kind][0](sighting)


def action(sighting: Sighting) -> str:
    """What a person should do, with the route."""
    return _WORDS[sighting.kind][1](sighting)


def _runs(count: int, verb: tuple[str, str] | None = None) -> str:
    """How many, with the verb in the form that fits: ("waits", "wait")."""
    words = "1 run" if count == 1 else f"{count:,} runs"
    return words if verb is None else f"{words} {verb[count != 1]}"


WAIT, STAND = ("waits", "wait"), ("stands", "stand")


def _at(value: Any) -> str:
    """A time, as `details` hold it."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.astimezone(UTC).strftime("%-d %b %Y %H:%M:%S UTC") if isinstance(at, datetime) else "an unknown time"


def _queues(details: Mapping[str, Any]) -> str:
    return ", ".join(map(str, details.get("unpolled", ())))


# --- overdue wake -----------------------------------------------------------------------------------------------------


def _overdue_cause(seen: Sighting) -> str:
    told = seen.details
    late = f"{_runs(seen.runs)} should have gone on since {_at(told.get('since'))}, and {('has', 'have')[seen.runs != 1]} recorded nothing"
    match told.get("why"):
        case "unpolled":
            return f"{late}: no worker polls the task queue {_queues(told)}."
        case "behind":
            return f"{late}: a task waits on the task queue {told.get('task_queue')}, whose workers do not come to it."
    return f"{late}: the workflow runs, but nothing is in flight in it, and no timer has ended."


def _overdue_action(seen: Sighting) -> str:
    match seen.details.get("why"):
        case "unpolled":
            return (
                f"Start a worker for it (leadstats worker, with LEADSTATS_TASK_QUEUE={seen.details.get('task_queue')}); "
                "`leadstats doctor` looks at the workers. The runs then go on by themselves."
            )
        case "behind":
            return "Look at the workers' logs and load; start more of them (leadstats worker). The runs then go on by themselves."
    return (
        "Have the workflow look again: PUT /v1/runs/{run_id}/pause, then DELETE /v1/runs/{run_id}/pause. If that does not help, cancel the "
        f"run (PUT /v1/runs/{{run_id}}/cancellation) and replay it ({REPLAY})."
    )


# --- wait without a possible event ------------------------------------------------------------------------------------


def _wait_cause(seen: Sighting) -> str:
    told = seen.details
    if names := told.get("never_received"):
        events = ", ".join(map(str, names))
        return (
            f"{_runs(seen.runs, WAIT)} at the step {told.get('step_id')} without a timeout for the event {events}, "
            f"which the organization has not received in {told.get('days')} days."
        )
    ways = {"missing": "never opened", "closed": "closed", "matched": "ended by an event of which the run was not told"}
    counts = "; ".join(f"{ways[way]}: {told[way]}" for way in ways if told.get(way))
    return f"{_runs(seen.runs, WAIT)} at the step {told.get('step_id')} without a timeout, and nothing can end it. Their wait was {counts}."


def _wait_action(seen: Sighting) -> str:
    if seen.details.get("never_received"):
        return (
            "Check that the other system sends the event under exactly this name (POST /v1/events); if nobody ever will, publish a version "
            "with a timeout and move the runs (POST /v1/journeys/{journey_id}/publish-plans). If it is only rare, acknowledge this."
        )
    return f"Cancel the runs (PUT /v1/runs/{{run_id}}/cancellation) and replay them from this step ({REPLAY}), where they wait anew."


# --- what fails in a workflow -----------------------------------------------------------------------------------------


def _task_cause(seen: Sighting) -> str:
    told = seen.details
    what = {
        "nondeterminism": "its code no longer does what its history says (nondeterminism)",
        "exception": f"its code raises {told.get('failure') or 'an exception'}",
    }.get(str(told.get("why")), "its tasks fail or time out")
    return (
        f"A {told.get('workflow_type')} stands still: {what}, at attempt {told.get('attempt')}. "
        f"{_runs(seen.runs)} in it {WAIT[seen.runs != 1]} for it."
    )


def _task_action(seen: Sighting) -> str:
    back = "Deploy the release that ran before, or one that mends this"
    if seen.details.get("why") == "nondeterminism":
        back += ": the change needed workflow.patched (docs/decisions/changing-workflows.md)"
    return f"{back}; the workflow then goes on by itself, and nothing is lost. The worker's log has the whole error. Do not terminate it."


def _activity_cause(seen: Sighting) -> str:
    told = seen.details
    failure = f"with {told['failure']}" if told.get("failure") else "without an answer"
    return (
        f"The activity {told.get('activity')} of a {told.get('workflow_type')} has failed {told.get('attempt', 0) - 1} times in a row, "
        f"the last time {failure}, and is tried again for ever. {_runs(seen.runs)} in the workflow cannot go on."
    )


def _activity_action(seen: Sighting) -> str:
    return (
        "Look for the activity's name in the worker's log, which has the whole error, and mend its cause (database, disk, network, "
        "a defect of this release); the next attempt then goes on by itself. `leadstats doctor` looks at the parts."
    )


# --- workflows and rows that miss each other --------------------------------------------------------------------------

_CLOSED = {
    "terminated": "was terminated from outside",
    "failed": "failed",
    "canceled": "was cancelled from outside",
    "timed_out": "ran out of time",
    "completed": "has completed",
}


def _closed_cause(seen: Sighting) -> str:
    status = str(seen.details.get("status"))
    how = _CLOSED.get(status, f"is closed: {status}")
    if "campaign_id" in seen.details:
        return f"The workflow of a campaign {how} at {_at(seen.details.get('closed_at'))}, before the campaign was over. It begins anew."
    return f"The workflow that carried {_runs(seen.runs)} {how} at {_at(seen.details.get('closed_at'))}, before they were finished."


_REPLAY_LOST = (
    f"They are marked as needing attention (workflow_lost). Replay each ({REPLAY}), or end it (PUT /v1/runs/{{run_id}}/cancellation)."
)


def _closed_action(seen: Sighting) -> str:
    if campaign_id := seen.details.get("campaign_id"):
        return (
            "Nothing, if this goes away within two minutes. If it stays, the workflow fails again and again: the worker's log has the "
            f"whole error. Mend its cause, or cancel the campaign (PUT /v1/campaigns/{campaign_id}/cancellation) and launch another."
        )
    return f"{_REPLAY_LOST} Its history says who closed it: GET /v1/runs/{{run_id}}/histories."


def _row_cause(seen: Sighting) -> str:
    entered = f"{_runs(seen.runs)} entered at {_at(seen.details.get('since'))}"
    match seen.details.get("why"):
        case "not_started":
            return f"{entered}, and their workflow has still not been started."
        case "nobody_starts":
            return f"{entered}; their workflow was never started, and nothing will start it."
        case "hand_over":
            moved = f"{_runs(seen.runs, ('was', 'were'))} moved by a publish plan"
            return f"{moved}, and the workflow of their new version has still not been started."
    has, unfinished = ("has", "the run is") if seen.runs == 1 else ("have", "they are")
    return f"{_runs(seen.runs)} {has} no workflow: it is not in Temporal any more, although {unfinished} not finished."


def _row_action(seen: Sighting) -> str:
    if seen.details.get("why") in ("not_started", "hand_over"):
        return (
            "It is started by itself within a minute or two when the worker and Temporal work: `leadstats doctor` looks at them. If this "
            "stays, look for NotStarted in the worker's log."
        )
    return f"{_REPLAY_LOST} If many are concerned, Temporal's database may have been lost or restored: see docs/operating.md, Backup."


def _unknown_cause(seen: Sighting) -> str:
    if seen.details.get("finished"):
        return "A workflow still runs although all its runs are finished on record."
    return "A workflow runs that carries no run which the database knows."


def _unknown_action(seen: Sighting) -> str:
    return (
        "Was the database restored from an older moment than Temporal (docs/operating.md, Backup)? If nobody needs the workflow, end it: "
        f"temporal workflow terminate --workflow-id {seen.subject_id}"
    )


# --- numbers ----------------------------------------------------------------------------------------------------------


def _volume_cause(seen: Sighting) -> str:
    told = seen.details
    what = "Nobody has entered the journey" if told.get("measure") == "entries" else "The journey has sent nothing"
    before = f"in the same hours of the {told.get('periods')} {told.get('unit')} before"
    return (
        f"{what} in the last {told.get('hours')} hours, when {before} there were "
        f"at least {told.get('least')} each time (usually about {told.get('usual')})."
    )


def _volume_action(seen: Sighting) -> str:
    look = (
        "Does the other system still send its events (GET /v1/events)? Who was refused, and why: GET /v1/entries?journey_id={journey_id}."
        if seen.details.get("measure") == "entries"
        else "What became of its messages: GET /v1/deliveries?journey_id={journey_id}; are its connections mended: GET /v1/connections?"
    )
    return f"{look} If it is as you mean it, acknowledge this."


def _round_cause(seen: Sighting) -> str:
    told, others = seen.details, seen.details.get("others", ())
    count = told.get("contacts", 0)
    who = "1 contact was" if count == 1 else f"{count:,} contacts were"
    led = (
        f"{who} led into the journey {seen.subject_id} by segments or other journeys more than {told.get('most')} times within an hour, "
        f"and turned back since {_at(told.get('since'))}"
    )
    if others:
        ways = ", ".join(map(str, others))
        return f"{led}. Meanwhile they went again and again through the journeys {ways}, too: what one does leads into the next."
    return f"{led}. They went through no other journey as often: its own steps lead back, or another system changes them to and fro."


def _round_action(seen: Sighting) -> str:
    return (
        "See what the steps of these journeys change of their contacts, and by which segments and steps they are entered (GET "
        "/v1/journeys/{journey_id}; who: GET /v1/entries?journey_id={journey_id}). Break the circle: publish a version of "
        'one of them with entry.again "once", a cool_down or a maximum, with another segment, or without that step. Until then, pause one '
        "(PUT /v1/journeys/{journey_id}/pause). This goes away once nobody has been turned back for an hour."
    )


def _conservation_cause(seen: Sighting) -> str:
    told = seen.details
    found = []
    if told.get("difference"):
        found.append(f"{told.get('entered'):,} runs entered by the record of entries, but {told.get('present'):,} are in the table of runs")
    if told.get("deliveries_difference"):
        found.append(
            f"{told.get('accepted_recorded'):,} deliveries were accepted by the audit record, but {told.get('accepted'):,} are in the table"
        )
    return f"The numbers do not agree: {'; '.join(found)}."


def _conservation_action(seen: Sighting) -> str:
    return (
        "Rows were lost or invented, which the product itself never does: was the database restored in part, or changed by hand? Export "
        "the audit record, verify it (leadstats audit verify), compare it with GET /v1/conservation, and restore a backup "
        "(docs/operating.md, Backup)."
    )


def _history_cause(seen: Sighting) -> str:
    return f"The workflow that carried {_runs(seen.runs)} has closed, and its history could not be archived: Temporal has forgotten it."


def _history_action(seen: Sighting) -> str:
    return (
        "Timeline and decisions are complete; only the engine's own history is missing. Was the workflow deleted by hand, or Temporal's "
        "retention shorter than the worker's stop (`leadstats doctor`, history retention)? Acknowledge this when you know why."
    )


def _missed_cause(seen: Sighting) -> str:
    told = seen.details
    count = int(told.get("occurrences", 1))
    what = "An occurrence" if count == 1 else f"{count} occurrences"
    last = max(told.get("nominal_at", ()), default=None)
    return (
        f"{what} of a recurring campaign did not take place, the last one due at {_at(last)}: nobody started "
        f"{('them', 'it')[count == 1]} in time. Everything was down, or what was to start {('them', 'it')[count == 1]} was ended by hand."
    )


def _missed_action(seen: Sighting) -> str:
    return (
        "Nobody was sent anything, and nothing is sent late. To send it all the same, launch a campaign for one time "
        f"(POST /v1/campaigns, with what GET /v1/campaigns/{seen.subject_id} says). What is due from now on takes place. This is resolved "
        "a week after the occurrence, or when the campaign is cancelled."
    )


def _schedule_cause(seen: Sighting) -> str:
    what = "paused" if seen.details.get("why") == "paused" else "deleted"
    return f"The Temporal schedule {seen.details.get('schedule_id')}, which opens the days of a recurring campaign, was {what} in Temporal."


def _schedule_action(seen: Sighting) -> str:
    campaign = f"/v1/campaigns/{seen.subject_id}"
    return (
        "Nothing: it is made, or goes on, within two minutes by itself (that of a paused campaign, when it is resumed), and what it "
        f"did not make meanwhile is made. To stop the campaign, pause it (PUT {campaign}/pause) or cancel it "
        f"(PUT {campaign}/cancellation)."
    )


def _failing(seen: Sighting, job: str) -> str:
    """That the workflow of such a job fails again and again."""
    told = seen.details
    activity = f" in its activity {told['activity']}" if told.get("activity") else ""
    failure = f" with {told['failure']}" if told.get("failure") else ""
    how = "failed" if told.get("status") == "failed" else "was ended"
    return (
        f"The workflow of {job} has failed {told.get('failures')} times within an hour, begun anew each time. The last time it "
        f"{how}{activity}{failure}, at {_at(told.get('closed_at'))}."
    )


def _mend(seen: Sighting) -> str:
    named = seen.details.get("activity") or "the workflow"
    return f"Look for {named} in the worker's log, which has the whole error, and mend its cause"


def _operation_cause(seen: Sighting) -> str:
    return f"{_failing(seen, 'an operation on many runs')} {_runs(seen.runs, WAIT)} for the operation."


def _operation_action(seen: Sighting) -> str:
    route = f"/v1/run-operations/{seen.subject_id}"
    return (
        f"{_mend(seen)}: the operation then goes on by itself where it stood. Or cancel it (PUT {route}/cancellation) and begin another. "
        f"What has been done: GET {route}/items. This is resolved when the operation is over."
    )


def _plan_cause(seen: Sighting) -> str:
    return f"{_failing(seen, 'a publish plan')} {_runs(seen.runs, STAND)} on an older version where the plan moves or ends them."


def _plan_action(seen: Sighting) -> str:
    return (
        f"{_mend(seen)}: the plan then goes on by itself where it stood. No other plan of the journey can be carried out meanwhile. "
        f"How far it is: GET /v1/journeys/{seen.journey_id}/publish-plans/{seen.subject_id}. This is resolved when the plan is over."
    )


def _braking_cause(seen: Sighting) -> str:
    maybe = seen.details.get("notice") == "transmitting"
    told = "a mail about it may have left, and that is not on record" if maybe else "nobody has been told of it by mail"
    return f"{_failing(seen, 'a braking')} The {seen.details.get('braked')} is paused and sends nothing; but {told}."


def _braking_action(seen: Sighting) -> str:
    braked = f"{seen.details.get('braked')}s/{seen.details.get('braked_id')}"
    return (
        f"{_mend(seen)}: what is left to do is then done by itself. Or look why it was braked, and resume it (DELETE /v1/{braked}/pause). "
        f"This is resolved when somebody was told, or nobody can be, or it goes on."
    )


_Words = Callable[[Sighting], str]
_WORDS: Mapping[Kind, tuple[_Words, _Words]] = {
    Kind.OVERDUE_WAKE: (_overdue_cause, _overdue_action),
    Kind.WAIT_WITHOUT_EVENT: (_wait_cause, _wait_action),
    Kind.WORKFLOW_TASK_FAILING: (_task_cause, _task_action),
    Kind.ACTIVITY_FAILING: (_activity_cause, _activity_action),
    Kind.WORKFLOW_CLOSED: (_closed_cause, _closed_action),
    Kind.ROW_WITHOUT_WORKFLOW: (_row_cause, _row_action),
    Kind.WORKFLOW_WITHOUT_ROW: (_unknown_cause, _unknown_action),
    Kind.VOLUME_FELL: (_volume_cause, _volume_action),
    Kind.GOING_ROUND: (_round_cause, _round_action),
    Kind.CONSERVATION: (_conservation_cause, _conservation_action),
    Kind.HISTORY_MISSING: (_history_cause, _history_action),
    Kind.OCCURRENCE_MISSED: (_missed_cause, _missed_action),
    Kind.SCHEDULE_STOPPED: (_schedule_cause, _schedule_action),
    Kind.OPERATION_FAILING: (_operation_cause, _operation_action),
    Kind.PUBLISH_PLAN_FAILING: (_plan_cause, _plan_action),
    Kind.BRAKING_FAILING: (_braking_cause, _braking_action),
}


# --- when a volume has fallen to nothing ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """How a volume is compared: nothing in the last `hours`, and each of `periods` earlier times, `apart` hours from one to the next,
    at least LEAST. With ten expected, chance alone gives nothing once in 20,000 times."""

    hours: int
    periods: int
    apart: int
    unit: str


SPANS = (
    Span(hours=6, periods=7, apart=24, unit="days"),  # the same hours of each of the last seven days, so that nights do not count
    Span(hours=24, periods=4, apart=168, unit="weeks"),  # the same day of each of the last four weeks, so that weekends do not count
)
LEAST = 10


def fell_to_nothing(now: int, before: Sequence[int]) -> bool:
    """Nothing now, and at least LEAST each time before."""
    return now == 0 and len(before) > 0 and min(before) >= LEAST
