"""Whether a workflow that was looked at is in trouble: what Temporal says of it, beside what the rows say. Decides; asks nobody but
whether task queues are polled."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from activities.jobs import Job
from activities.observed import GOES_ON, MISSING, RUNNING, Examined, Listed, PendingActivity
from models.domain.findings import Kind, Severity, Sighting
from models.store.carriers import Carried, Late

Polled = Callable[[str, bool], Awaitable[bool]]


@dataclass(frozen=True)
class Patience:
    """How long what looks like trouble may be nothing but work under way."""

    grace: timedelta = timedelta(seconds=20)  # a record on its way, visibility behind
    late: timedelta = timedelta(seconds=45)  # a run whose time has come
    unstarted: timedelta = timedelta(seconds=60)  # a row whose workflow is to be started; upkeep comes every minute
    starting: timedelta = timedelta(minutes=5)  # a large campaign's last page
    behind: timedelta = timedelta(minutes=5)  # a task before workers that are busy
    archiving: timedelta = timedelta(minutes=3)  # a history that is to be archived
    polled: timedelta = timedelta(seconds=65)  # a task queue that no worker asks; a poll is held open for up to 60 s
    task_attempts: int = 3  # the second is usual after a worker's end
    activity_attempts: int = 6  # half a minute's worth
    failures: int = 3  # of a workflow that upkeep begins anew each minute, within the time below
    failures_within: timedelta = timedelta(hours=1)


async def in_trouble(name: str, seen: Examined, late: Late | None, polled: Polled, now: datetime, patience: Patience) -> Sighting | None:
    """The trouble of a workflow that runs, if any: the nearest cause counts."""
    journey_id, runs = (late.journey_id, late.runs) if late else (None, 0)
    if seen.status != RUNNING:
        return None
    if seen.task_attempt >= patience.task_attempts and await polled(seen.task_queue, True):
        told = {"workflow_type": seen.workflow_type, "attempt": seen.task_attempt}
        return Sighting(Kind.WORKFLOW_TASK_FAILING, "workflow", name, told, journey_id, runs)
    worst = max(seen.activities, key=lambda each: each.attempt, default=None)
    if worst is not None and worst.attempt >= patience.activity_attempts:
        return Sighting(Kind.ACTIVITY_FAILING, "workflow", name, _failing(seen, worst), journey_id, runs)
    return None if late is None else await _overdue(name, seen, late, polled, now, patience)


def _failing(seen: Examined, worst: PendingActivity) -> dict[str, Any]:
    return {"workflow_type": seen.workflow_type, "activity": worst.name, "attempt": worst.attempt, "failure": worst.failure}


async def _overdue(name: str, seen: Examined, late: Late, polled: Polled, now: datetime, patience: Patience) -> Sighting | None:
    told: dict[str, Any] = {"since": late.since.isoformat(), "task_queue": seen.task_queue}
    waiting = {(each.task_queue, False) for each in seen.activities if not each.started}
    if not seen.activities:  # a timer's end is a workflow task, too
        waiting.add((seen.task_queue, True))
    unpolled = sorted({queue for queue, workflows in waiting if not await polled(queue, workflows)})
    if unpolled:
        told |= {"why": "unpolled", "unpolled": unpolled}
    elif seen.task_since is not None and now - seen.task_since > patience.behind:
        told |= {"why": "behind"}
    elif not seen.idle:
        return None
    return Sighting(Kind.OVERDUE_WAKE, "workflow", name, told, late.journey_id, late.runs)


@dataclass(frozen=True)
class Diagnosis:
    """About rows whose workflow was not among those that run. `sighting` None: nothing is wrong, or it is too early to say (`early`).
    `lost`: the workflow is gone for good."""

    sighting: Sighting | None = None
    lost: bool = False
    early: bool = False


NOTHING = Diagnosis()
TOO_EARLY = Diagnosis(early=True)


@dataclass(frozen=True)
class Around:
    """What else is known: whether the campaign's workflow runs, which starts its pages, and whether the workflow that carried the rows
    before is handing runs over."""

    campaign_runs: bool
    handing_over: bool


def of_rows(rows: Carried, seen: Examined, around: Around, now: datetime, patience: Patience) -> Diagnosis:
    """What the rows' workflow, which did not seem to run, means for them."""
    if seen.status in GOES_ON:
        return NOTHING
    if now - rows.recorded_at < patience.grace:
        return TOO_EARLY
    if seen.status != MISSING:
        return _of_closed(rows, seen, now, patience)
    return _of_unstarted(rows, around, now, patience) if rows.unbegun == rows.runs else _of_missing(rows, around)


def _of_closed(rows: Carried, seen: Examined, now: datetime, patience: Patience) -> Diagnosis:
    if seen.closed_at is not None and timedelta(0) <= now - seen.closed_at < patience.grace:
        return TOO_EARLY
    return Diagnosis(_about(Kind.WORKFLOW_CLOSED, rows, _closed(seen)), lost=True)


def _closed(seen: Examined) -> dict[str, Any]:
    return {"status": seen.status, "closed_at": None if seen.closed_at is None else seen.closed_at.isoformat()}


def _of_unstarted(rows: Carried, around: Around, now: datetime, patience: Patience) -> Diagnosis:
    starting = rows.campaign_id is not None and around.campaign_runs
    if now - rows.entered_at < (patience.starting if starting else patience.unstarted):
        return TOO_EARLY
    somebody = starting or rows.to_be_started or (rows.campaign_id is None and rows.over_api)
    told = {"why": "not_started" if somebody else "nobody_starts", "since": rows.entered_at.isoformat()}
    return Diagnosis(_about(Kind.ROW_WITHOUT_WORKFLOW, rows, told), lost=not somebody)


def _of_missing(rows: Carried, around: Around) -> Diagnosis:
    """It has recorded something, so it has been there; unless a publish plan has moved the rows, and its workflow is just about to be
    started by the one before, which waits for that."""
    told = {"recorded_at": rows.recorded_at.isoformat()}
    if rows.before is not None and around.handing_over:
        return Diagnosis(_about(Kind.ROW_WITHOUT_WORKFLOW, rows, {**told, "why": "hand_over"}))
    return Diagnosis(_about(Kind.ROW_WITHOUT_WORKFLOW, rows, {**told, "why": "gone"}), lost=True)


def _about(kind: Kind, rows: Carried, told: dict[str, Any]) -> Sighting:
    return Sighting(kind, "workflow", rows.workflow_id, told, rows.journey_id, rows.runs)


def without_row(name: str, seen: Examined, rows: int, journey_id: UUID | None) -> Sighting | None:
    """A workflow that runs and carries no unfinished row. One in which something is in flight may be about to record its end, or to hand
    its runs over."""
    if seen.status != RUNNING or not seen.idle:
        return None
    return Sighting(Kind.WORKFLOW_WITHOUT_ROW, "workflow", name, {"finished": rows > 0, "rows": rows}, journey_id, 0, Severity.PROBLEM)


def campaign_failed(name: str, campaign_id: UUID, journey_id: UUID, seen: Examined) -> Sighting:
    """A campaign's own workflow, which begins anew."""
    return Sighting(Kind.WORKFLOW_CLOSED, "workflow", name, {**_closed(seen), "campaign_id": str(campaign_id)}, journey_id)


def schedule_stopped(name: str, campaign_id: UUID, journey_id: UUID, why: str) -> Sighting:
    """A recurring campaign's Temporal schedule, which somebody deleted or paused in Temporal."""
    return Sighting(Kind.SCHEDULE_STOPPED, "campaign", str(campaign_id), {"schedule_id": name, "why": why}, journey_id)


def job_failing(job: Job, failed: Sequence[Listed], activity: str | None, failure: str | None) -> Sighting:
    """A job whose workflow failed these times, and will again. `fingerprint`: the same for all that fail alike."""
    last = failed[-1]
    alike = f"{last.workflow_type}/{last.status}/{activity}/{failure}"
    told = {
        **job.details,
        "workflow_id": last.workflow_id,
        "failures": len(failed),
        "status": last.status,
        "closed_at": None if last.closed_at is None else last.closed_at.isoformat(),
        "activity": activity,
        "failure": failure,
        "fingerprint": hashlib.sha256(alike.encode()).hexdigest()[:16],
    }
    return Sighting(job.kind, job.subject_kind, str(job.id), told, job.journey_id, job.runs)
