"""What lifting the pause of a journey or campaign would do: who is overdue, who would be left out and why; and leaving those out.

Those who are left out are marked in the transaction that lifts the pause: the last check before a send refuses them from that moment on.
Likewise those who waited to enter and are not to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text

from models.domain.connection import BROKEN_REASONS
from models.domain.journey.definition import KINDS, Definition, SendStep, WaitForStep, WaitStep
from models.domain.journey.entry import SegmentTrigger, Trigger
from models.domain.journey.interpreter import PAUSES
from models.store import entries, journey_versions, outbox
from models.store.outbox import OutboxMessage
from models.store.segment_sql import compile_rule
from models.store.selection import fitting
from models.store.session import OrganizationSession

Kind = Literal["journey", "campaign"]
OVERDUE, NO_LONGER_FITS = "overdue", "no_longer_fits"  # why a run exits
REMARKS = (  # kinds of lines of a timeline that leave the run where it stands, besides those of its pauses
    *("variables_changed", "step_cancelled", "step_restored"),
    *("cancel_requested", "skip_requested", "jump_requested", "skip_missed", "jump_missed"),
)
BUCKETS = (timedelta(0), timedelta(minutes=5), timedelta(hours=1), timedelta(days=1), timedelta(days=7))

_TABLE = {"journey": "journeys", "campaign": "campaigns"}
# A campaign's occurrences are paused and resumed with it.
_INSIDE = {
    "journey": "r.journey_id = :id",
    "campaign": """r.campaign_id = ANY(ARRAY(
        SELECT c.id FROM campaigns c WHERE c.organization_id = :o AND (c.id = :id OR c.parent_id = :id)))""",
}
# Why a run is held: the row of one that is paused says why it is paused, its record why it was held before.
_HELD_FOR = """CASE r.status WHEN 'held' THEN r.reason ELSE (
    SELECT e.details ->> 'reason' FROM run_events e
    WHERE e.organization_id = :o AND e.run_id = r.id AND e.kind = 'held' ORDER BY e.sequence DESC LIMIT 1) END"""
_MENDED = """EXISTS (
    SELECT 1 FROM journey_versions v JOIN connections c ON c.organization_id = :o AND c.status = 'active'
      AND CAST(c.id AS text) = v.definition #>> ARRAY['steps', r.step_id, 'connection_id']
    WHERE v.organization_id = :o AND v.id = r.version_id)"""
# Whom lifting the pause lets go at once, whenever they would look again: `interpreter.unhold`. One whose connection is broken still is
# held again at once.
_LET_GO = f"""CASE WHEN ({_HELD_FOR}) = ANY(CAST(:pause_reasons AS text[])) THEN TRUE
    WHEN ({_HELD_FOR}) = ANY(CAST(:broken_reasons AS text[])) THEN {_MENDED} ELSE FALSE END"""
# Whether it stands at a wait whose end it has not worked out yet: it came there beneath the pause, by a move, a jump or a skip.
# It names nothing of `r` inside: the definitions are taken apart once, not for each run.
_ARRIVED_TO_WAIT = """(r.version_id, r.step_id) IN (
    SELECT v.id, s.key FROM journey_versions v CROSS JOIN LATERAL jsonb_each(v.definition -> 'steps') AS s
    WHERE v.organization_id = :o AND s.value ->> 'kind' = ANY(CAST(:kinds_that_wait AS text[])) AND v.journey_id = ANY(ARRAY(
      SELECT j.id FROM journeys j WHERE j.organization_id = :o AND j.id = :id
      UNION SELECT c.journey_id FROM campaigns c WHERE c.organization_id = :o AND (c.id = :id OR c.parent_id = :id))))"""
# Since when it stands where it does: its newest line that is not only a remark.
_ARRIVED_AT = """(
    SELECT e.occurred_at FROM run_events e
    WHERE e.organization_id = :o AND e.run_id = r.id AND e.kind <> ALL(CAST(:remarks AS text[])) ORDER BY e.sequence DESC LIMIT 1)"""
# When a run would have gone on without the pause; NULL: not by itself, or nobody knows yet. One that was busy, or that nothing else
# holds, at once; one that came to its step beneath the pause, then.
_DUE = f"""CASE coalesce(r.beneath, r.status)
    WHEN 'active' THEN CASE WHEN {_ARRIVED_TO_WAIT} THEN NULL ELSE greatest(CAST(:paused_at AS timestamptz), {_ARRIVED_AT}) END
    WHEN 'needs_attention' THEN NULL
    WHEN 'held' THEN CASE WHEN {_LET_GO} THEN least(r.wake_at, CAST(:paused_at AS timestamptz)) ELSE r.wake_at END
    ELSE r.wake_at END"""
# Whom lifting the pause does not let go, whenever they look again: they are held anew.
_WAITS_FOR_CONNECTION = f"""CASE WHEN coalesce(r.beneath, r.status) = 'held' AND ({_HELD_FOR}) = ANY(CAST(:broken_reasons AS text[]))
    THEN NOT {_MENDED} ELSE FALSE END"""
_PARAMETERS = {  # of _DUE, with `paused_at`
    "pause_reasons": list(PAUSES),
    "broken_reasons": sorted(BROKEN_REASONS),
    "kinds_that_wait": [kind for kind, step in KINDS.items() if step.waits],
    "remarks": ["paused", "resumed", *REMARKS],
}
_STANDING = "r.organization_id = :o AND {inside} AND r.finished_at IS NULL AND r.exit_requested_at IS NULL"
_PAUSED = "SELECT paused_at FROM {table} WHERE organization_id = :o AND id = :id AND pauses = coalesce(CAST(:pauses AS integer), pauses)"
_COUNTS = f"""
    WITH standing AS MATERIALIZED (
      SELECT r.version_id, r.step_id, coalesce(r.beneath, r.status) AS status, {_DUE} AS due_at, {_WAITS_FOR_CONNECTION} AS cut_off
      FROM runs r WHERE {_STANDING})
    SELECT s.version_id, s.step_id, s.status, count(*) AS runs, count(*) FILTER (WHERE s.cut_off) AS cut_off,
      min(s.due_at) FILTER (WHERE NOT s.cut_off) AS oldest_due, count(*) FILTER (WHERE NOT s.cut_off AND s.due_at <= :now) AS due,
      {{buckets}}
    FROM standing s GROUP BY 1, 2, 3"""
_LEAVING = f"""SELECT r.id FROM runs r JOIN contacts c ON c.organization_id = :o AND c.id = r.contact_id
    WHERE {_STANDING} AND ({{rule}})"""
# Locked in the order of runs, as the record of transitions does.
_MARK = """
    UPDATE runs x SET exit_requested_at = clock_timestamp(), exit_reason = :reason
    FROM ({leaving} ORDER BY r.id FOR NO KEY UPDATE OF r) l
    WHERE x.organization_id = :o AND x.id = l.id AND x.exit_requested_at IS NULL RETURNING x.id"""
_TO_TELL = text(
    """SELECT workflow_id, id, coalesce(exit_reason, 'exit_rule') AS reason FROM runs
       WHERE organization_id = :o AND workflow_id = ANY(CAST(:names AS text[])) AND exit_requested_at IS NOT NULL AND finished_at IS NULL
       ORDER BY workflow_id, id"""
)


@dataclass(frozen=True)
class LeftOut:
    """Who is not to go on. None: nobody for being overdue."""

    drop_older_than: timedelta | None = None
    recheck_entry: bool = False


@dataclass(frozen=True)
class Rule:
    """An expression about `r`, a run, and `c`, its contact, under which it leaves."""

    reason: str
    sql: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class DueAtStep:
    """Runs at one step. `cut_off`: those held for a connection that is broken still; they count as nothing else. `overdue`: how many are
    due for longer than each of BUCKETS."""

    version_id: UUID
    step_id: str | None
    status: str
    runs: int
    cut_off: int
    oldest_due: datetime | None
    due: int
    overdue: Sequence[int]


async def paused_at(session: OrganizationSession, kind: Kind, subject_id: UUID, pauses: int | None = None) -> datetime | None:
    """Since when it is paused, as long as the pauses said are those that the asker knew of (None: whatever)."""
    query = text(_PAUSED.format(table=_TABLE[kind]))
    since: datetime | None = await session.scalar(query, {"o": session.organization_id, "id": subject_id, "pauses": pauses})
    return since


async def standing(session: OrganizationSession, kind: Kind, subject_id: UUID, since: datetime, now: datetime) -> list[DueAtStep]:
    """Where the unfinished runs stand, beneath the pause."""
    buckets = ", ".join(f"count(*) FILTER (WHERE NOT s.cut_off AND s.due_at <= :before_{index})" for index in range(len(BUCKETS)))
    parameters = {"o": session.organization_id, "id": subject_id, "paused_at": since, "now": now, **_PARAMETERS}
    parameters |= {f"before_{index}": now - age for index, age in enumerate(BUCKETS)}
    rows = await session.execute(text(_COUNTS.format(inside=_INSIDE[kind], buckets=buckets)), parameters)
    return [DueAtStep(row.version_id, row.step_id, row.status, row.runs, row.cut_off, row.oldest_due, row.due, row[7:]) for row in rows]


async def count_leaving(
    session: OrganizationSession, kind: Kind, subject_id: UUID, wanted: LeftOut, since: datetime, now: datetime
) -> dict[str, int]:
    """How many would be left out, by reason: each once, by the first that applies."""
    found: dict[str, int] = {}
    before: list[str] = []
    parameters: dict[str, Any] = {"o": session.organization_id, "id": subject_id}
    for rule in await _rules(session, kind, subject_id, wanted, since, now):
        parameters |= rule.parameters
        sql = " AND ".join([f"({rule.sql})", *(f"NOT ({one})" for one in before)])
        counted = f"SELECT count(*) FROM ({_LEAVING.format(inside=_INSIDE[kind], rule=sql)}) l"
        found[rule.reason] = found.get(rule.reason, 0) + int(await session.scalar(text(counted), parameters) or 0)
        before.append(f"coalesce(({rule.sql}), FALSE)")
    return found


async def leave_out(
    session: OrganizationSession, kind: Kind, subject_id: UUID, wanted: LeftOut, since: datetime, now: datetime
) -> dict[str, int]:
    """Those runs are marked as leaving, and their workflows will be told; how many, by reason. Belongs into the transaction that lifts
    the pause. Safe to repeat: who is marked already is left alone."""
    found: dict[str, int] = {}
    told: list[OutboxMessage] = []
    for rule in await _rules(session, kind, subject_id, wanted, since, now):
        leaving = _LEAVING.format(inside=_INSIDE[kind], rule=rule.sql)
        parameters = {"o": session.organization_id, "id": subject_id, "reason": rule.reason, **rule.parameters}
        marked = list((await session.execute(text(_MARK.format(leaving=leaving)), parameters)).scalars())
        found[rule.reason] = found.get(rule.reason, 0) + len(marked)
        told += [OutboxMessage(run_id, "exit", {"reason": rule.reason}) for run_id in marked]
    await outbox.add(session, told)
    return found


async def count_unfit_entries(session: OrganizationSession, journey_id: UUID, now: datetime) -> int:
    """How many of those who wait to enter the journey by a segment `refuse_unfit_entries` would refuse now."""
    return await entries.count_unfit(session, journey_id, await _triggers(session, journey_id), now)


async def refuse_unfit_entries(session: OrganizationSession, journey_id: UUID, now: datetime) -> int:
    """Those who wait to enter by a segment that they do not fit any more (or, one that they are to have left, fit again) are refused; how
    many. Belongs into the transaction that lifts the pause, after that: it holds the journey's row then. Safe to repeat."""
    return await entries.refuse_unfit(session, journey_id, await _triggers(session, journey_id), now)


async def _triggers(session: OrganizationSession, journey_id: UUID) -> Sequence[Trigger]:
    """Of the newest version, by which those who wait would enter."""
    newest = await journey_versions.find_newest(session, journey_id)
    return () if newest is None else Definition.model_validate(newest.definition).entry.triggers


async def to_tell(session: OrganizationSession, workflow_ids: Sequence[str]) -> dict[str, list[tuple[UUID, str]]]:
    """By workflow: its unfinished runs that are marked as leaving, with the reason."""
    found: dict[str, list[tuple[UUID, str]]] = {}
    for row in await session.execute(_TO_TELL, {"o": session.organization_id, "names": list(workflow_ids)}):
        found.setdefault(row.workflow_id, []).append((row.id, row.reason))
    return found


# --- The rules ------------------------------------------------------------------------------------------------------


async def _rules(session: OrganizationSession, kind: Kind, subject_id: UUID, wanted: LeftOut, since: datetime, now: datetime) -> list[Rule]:
    rules = []
    if wanted.drop_older_than is not None:
        parameters = {"paused_at": since, "drop_before": now - wanted.drop_older_than, **_PARAMETERS}
        rules.append(Rule(OVERDUE, f"{_DUE} < CAST(:drop_before AS timestamptz)", parameters))
    if wanted.recheck_entry:
        rules += await _entry_rules(session, kind, subject_id, now)
    return rules


async def _entry_rules(session: OrganizationSession, kind: Kind, subject_id: UUID, now: datetime) -> list[Rule]:
    """A run that a segment brought in fits while its contact does; a campaign's while its contact would be selected. Runs that an event
    or a request brought in have nothing that could be checked again, but for the end of the journey."""
    inside = {"o": session.organization_id, "id": subject_id}
    versions = f"""SELECT v.id, v.definition FROM journey_versions v WHERE v.organization_id = :o AND v.id IN (
        SELECT DISTINCT r.version_id FROM runs r WHERE {_STANDING.format(inside=_INSIDE[kind])})"""
    campaigns = f"""SELECT c.id, c.segment_rule, c.exclusion_rule FROM campaigns c WHERE c.organization_id = :o
        AND (c.segment_rule IS NOT NULL OR c.exclusion_rule IS NOT NULL) AND c.id IN (
        SELECT DISTINCT r.campaign_id FROM runs r WHERE {_STANDING.format(inside=_INSIDE[kind])})"""
    rules: list[Rule] = []
    for row in await session.execute(text(versions), inside):
        rules += _of_version(len(rules), row.id, Definition.model_validate(row.definition), now)
    for row in await session.execute(text(campaigns), inside):
        fits, name = fitting(row.segment_rule, row.exclusion_rule, now), f"campaign_{len(rules)}"
        rules.append(Rule(NO_LONGER_FITS, f"r.campaign_id = :{name} AND NOT ({fits.sql})", {**fits.parameters, name: row.id}))
    return rules


def _of_version(number: int, version_id: UUID, definition: Definition, now: datetime) -> list[Rule]:
    name = f"version_{number}"
    if definition.has_ended(now):
        return [Rule(NO_LONGER_FITS, f"r.version_id = :{name}", {name: version_id})]
    triggers = [each for each in definition.entry.triggers if isinstance(each, SegmentTrigger) and each.rule is not None]
    if not triggers:
        return []
    compiled = [(each.kind, compile_rule(each.rule or {}, now)) for each in triggers]
    fits = " OR ".join(f"({rule.sql})" if kind == "segment_entered" else f"NOT ({rule.sql})" for kind, rule in compiled)
    parameters = {key: value for _, rule in compiled for key, value in rule.parameters.items()}
    sql = f"r.version_id = :{name} AND r.entry_source = 'segment' AND NOT ({fits})"
    return [Rule(NO_LONGER_FITS, sql, {**parameters, name: version_id})]


def sends_next(definition: Definition, step_id: str | None) -> bool:
    """Whether what a run at this step does first, once it is due, is to send a message."""
    step = definition.steps.get(step_id or "")
    if isinstance(step, WaitStep):
        step = definition.steps.get(step.next or "")
    elif isinstance(step, WaitForStep):
        step = definition.steps.get(step.timeout_next or "")
    return isinstance(step, SendStep)
