"""Waits for events and conditions: one row per visit, and whoever closes it first decides how the wait ended.

    open ──an event or condition──> matched
      ├────the time is over───────> timed_out
      └────the run is elsewhere───> closed (also from matched, where the run has left without heeding it)

A wait that is opened looks back, and a router looks at the waits that are open. Each takes `routing_lock` first, the waits together
and the router alone, so that one of the two always sees the other: no event falls between them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.journey.definition import Definition
from models.domain.journey.steps.wait_for import WaitForStep
from models.store.rowset import rowset
from models.store.segment_sql import CompiledRule, compile_rule
from models.store.session import OrganizationSession
from models.tables.base import new_id


@dataclass(frozen=True)
class NewWait:
    run_id: UUID
    contact_id: UUID
    step_id: str
    visit: int
    round: int
    deadline: datetime | None


@dataclass(frozen=True)
class Match:
    """A wait that has ended: the index of the way, and the event that did it (None: a condition)."""

    run_id: UUID
    step_id: str
    visit: int
    way: int
    event_id: UUID | None


async def routing_lock(session: OrganizationSession, *, alone: bool) -> None:
    """Held until the transaction ends; take it before anything else."""
    function = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
    await session.execute(text(f"SELECT {function}(hashtextextended(:name, 0))"), {"name": f"routing/{session.organization_id}"})


# A row that an earlier asking opened stays; one of another version's visit, or of an asking before a retry, is opened anew.
_OPEN = text(
    """
    INSERT INTO waits AS w (id, organization_id, run_id, version_id, contact_id, step_id, visit, round, state, event_names,
      has_condition, deadline)
    SELECT a.id, :o, a.run_id, :version_id, a.contact_id, a.step_id, a.visit, a.round, 'open',
      ARRAY(SELECT jsonb_array_elements_text(a.event_names)), a.has_condition, a.deadline
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, run_id uuid, contact_id uuid, step_id text, visit int, round int,
      event_names jsonb, has_condition boolean, deadline timestamptz)
    ORDER BY a.run_id
    ON CONFLICT (run_id, step_id, visit) DO UPDATE SET version_id = EXCLUDED.version_id, round = EXCLUDED.round, state = 'open',
      event_names = EXCLUDED.event_names, has_condition = EXCLUDED.has_condition, deadline = EXCLUDED.deadline, way = NULL,
      event_id = NULL, closed_at = NULL
    WHERE w.round < EXCLUDED.round
    """
)
_CLOSE_OTHERS = text(
    """
    UPDATE waits w SET state = 'closed', closed_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, step_id text, visit int)
    WHERE w.organization_id = :o AND w.run_id = a.run_id AND w.state = 'open' AND (w.step_id, w.visit) <> (a.step_id, a.visit)
    """
)
_MATCHED = text(
    """
    SELECT w.run_id, w.step_id, w.visit, w.way, w.event_id
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, step_id text, visit int)
    JOIN waits w ON w.organization_id = :o AND w.run_id = a.run_id AND w.step_id = a.step_id AND w.visit = a.visit
    WHERE w.state = 'matched'
    """
)
_TIME_OUT = text(
    """
    UPDATE waits w SET state = 'timed_out', closed_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, step_id text, visit int)
    WHERE w.organization_id = :o AND w.run_id = a.run_id AND w.step_id = a.step_id AND w.visit = a.visit AND w.state = 'open'
    """
)
# The run may have been told of what ended the wait while the skip or the jump was under way, and has not heeded it: then that is not
# consumed. Who did go by it says so in the timeline, in no later transaction than of the jump that came with it.
UNTAKEN = """(w.state = 'open' OR w.state = 'matched' AND NOT EXISTS (
        SELECT 1 FROM run_events t WHERE t.organization_id = :o AND t.run_id = w.run_id AND t.kind = 'matched' AND t.step_id = w.step_id
          AND t.visit = w.visit))"""
_LEAVE = text(
    f"""
    UPDATE waits w SET state = 'closed', way = NULL, event_id = NULL, closed_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, step_id text, visit int)
    WHERE w.organization_id = :o AND w.run_id = a.run_id AND w.step_id = a.step_id AND w.visit = a.visit AND {UNTAKEN}
    """
)


async def open_waits(
    session: OrganizationSession, version_id: UUID, definition: Definition, waits: Sequence[NewWait], now: datetime
) -> dict[UUID, Match]:
    """Every wait is open, or was over at once: those, by run. Safe to repeat: a wait that is over stays so."""
    await routing_lock(session, alone=False)
    mine = {"o": session.organization_id, "rows": rowset([_row(wait, definition) for wait in waits])}
    await session.execute(_CLOSE_OTHERS, mine)
    await session.execute(_OPEN, {**mine, "version_id": version_id})
    await _look(session, version_id, definition, waits, now)
    return await _matches(session, mine)


async def close_waits(
    session: OrganizationSession, version_id: UUID, definition: Definition, waits: Sequence[NewWait], now: datetime
) -> dict[UUID, Match]:
    """No wait is open any more. Those that something ended in time, by run: what was accepted before this counts."""
    await routing_lock(session, alone=False)
    mine = {"o": session.organization_id, "rows": rowset([_row(wait, definition) for wait in waits])}
    await _look(session, version_id, definition, waits, now)
    await session.execute(_TIME_OUT, mine)
    return await _matches(session, mine)


async def leave(session: OrganizationSession, visits: Sequence[tuple[UUID, str, int]]) -> None:
    """Runs have left these visits, by run, step and visit, without heeding what they waited for: they wait there no longer, and an event
    that has ended such a wait may end another. To be called in the transaction that has their timeline say so."""
    if visits:
        rows = [{"run_id": run_id, "step_id": step_id, "visit": visit} for run_id, step_id, visit in sorted(visits)]
        await session.execute(_LEAVE, {"o": session.organization_id, "rows": rowset(rows)})


async def _look(session: OrganizationSession, version_id: UUID, definition: Definition, waits: Sequence[NewWait], now: datetime) -> None:
    """The events that have come since each run began, and the conditions as they are."""
    by_step: defaultdict[str, list[UUID]] = defaultdict(list)
    for wait in waits:
        by_step[wait.step_id].append(wait.run_id)
    for step_id, run_ids in by_step.items():
        these = OpenWaits(version_id, step_id, "w.run_id = ANY(CAST(:run_ids AS uuid[]))", {"run_ids": run_ids})
        step = definition.step(step_id, WaitForStep)
        await match_events(session, these, step, now)
        await match_conditions(session, these, step, now)


async def _matches(session: OrganizationSession, mine: Mapping[str, Any]) -> dict[UUID, Match]:
    return {row.run_id: Match(*row) for row in await session.execute(_MATCHED, mine)}


def _row(wait: NewWait, definition: Definition) -> dict[str, Any]:
    step = definition.step(wait.step_id, WaitForStep)
    names = sorted({awaited.event for awaited in step.events})
    return {**vars(wait), "id": new_id(), "event_names": names, "has_condition": bool(step.conditions)}


@dataclass(frozen=True)
class OpenWaits:
    """Open waits at one step of one version; `test` narrows them (over w, and e where there are events)."""

    version_id: UUID
    step_id: str
    test: str
    parameters: Mapping[str, Any]


# After the run's entry (of a replay: of the first of its chain): by the order of acceptance where an event began it, else by time.
# Consumed by no other wait of the run, or of the chain.
_AFTER_ENTRY = "coalesce(e.seq > r.entry_seq, e.created_at >= coalesce(r.entered_at, r.created_at))"
_BY_THE_CHAIN = """r.root_run_id IS NOT NULL AND EXISTS (
          SELECT 1 FROM runs p JOIN waits x ON x.organization_id = :o AND x.run_id = p.id
          WHERE p.organization_id = :o AND (p.id = r.root_run_id OR p.root_run_id = r.root_run_id) AND p.id <> r.id
            AND x.event_id = e.id AND (x.step_id, x.visit) <> (w.step_id, w.visit))"""
_EVENT = """
    UPDATE waits w SET state = 'matched', way = f.way, event_id = f.event_id, closed_at = clock_timestamp()
    FROM (
      SELECT DISTINCT ON (w.id) w.id, e.id AS event_id, CASE {cases} END AS way
      FROM waits w
      JOIN runs r ON r.organization_id = :o AND r.id = w.run_id AND r.finished_at IS NULL
      JOIN contacts c ON c.organization_id = :o AND c.id = w.contact_id
      JOIN events e ON e.organization_id = :o AND e.contact_id = w.contact_id AND e.name = ANY(w.event_names)
      WHERE w.organization_id = :o AND w.version_id = :version_id AND w.step_id = :step_id AND w.state = 'open' AND {test}
        AND {after_entry} AND ({any})
        AND NOT EXISTS (SELECT 1 FROM waits x WHERE x.organization_id = :o AND x.run_id = w.run_id AND x.event_id = e.id)
        AND NOT ({by_the_chain})
      ORDER BY w.id, e.seq) f
    WHERE w.id = f.id AND w.state = 'open'
    RETURNING w.run_id, w.step_id, w.visit, w.way, w.event_id"""
_CONDITION = """
    UPDATE waits w SET state = 'matched', way = f.way, closed_at = clock_timestamp()
    FROM (
      SELECT w.id, CASE {cases} END AS way
      FROM waits w
      JOIN runs r ON r.organization_id = :o AND r.id = w.run_id AND r.finished_at IS NULL
      JOIN contacts c ON c.organization_id = :o AND c.id = w.contact_id
      WHERE w.organization_id = :o AND w.version_id = :version_id AND w.step_id = :step_id AND w.state = 'open' AND {test}
        AND ({any})) f
    WHERE w.id = f.id AND w.state = 'open'
    RETURNING w.run_id, w.step_id, w.visit, w.way, w.event_id"""


async def match_events(session: OrganizationSession, these: OpenWaits, step: WaitForStep, now: datetime) -> list[Match]:
    """These waits that an event ends are matched: the first accepted event, of its ways the first that fits."""
    tests: list[CompiledRule] = []
    for awaited in step.events:
        rule = compile_rule(awaited.where, now) if awaited.where else CompiledRule("TRUE", {})
        name = f"event_{len(tests)}"
        tests.append(CompiledRule(f"(e.name = :{name} AND {rule.sql})", {name: awaited.event, **rule.parameters}))
    return await _match(session, _EVENT, these, tests, first=0)


async def match_conditions(session: OrganizationSession, these: OpenWaits, step: WaitForStep, now: datetime) -> list[Match]:
    """These waits whose condition is true are matched."""
    tests = [compile_rule(condition.when, now) for condition in step.conditions]
    return await _match(session, _CONDITION, these, tests, first=len(step.events))


async def _match(session: OrganizationSession, sql: str, these: OpenWaits, tests: Sequence[CompiledRule], first: int) -> list[Match]:
    if not tests:
        return []
    cases = " ".join(f"WHEN {test.sql} THEN {first + index}" for index, test in enumerate(tests))
    either = " OR ".join(test.sql for test in tests)
    statement = text(sql.format(cases=cases, any=either, test=these.test, after_entry=_AFTER_ENTRY, by_the_chain=_BY_THE_CHAIN))
    parameters: dict[str, Any] = {"o": session.organization_id, "version_id": these.version_id, "step_id": these.step_id}
    for test in tests:
        parameters |= test.parameters
    rows = await session.execute(statement, {**parameters, **these.parameters})
    return [Match(*row) for row in rows]
