"""Exit rules and goals: what ends or counts a run from outside its steps, matched set-based."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlmodel import col

from models.store.outbox import OutboxMessage
from models.store.segment_sql import CompiledRule, compile_rule
from models.store.session import OrganizationSession
from models.tables.events import JourneyTrigger


@dataclass(frozen=True)
class Occasion:
    """Why rules are looked at: these events, what events these runs missed before they entered, these contacts' changes, or (all None)
    the passing of time."""

    events: Sequence[UUID] | None = None
    missed_by: Sequence[UUID] | None = None
    contacts: Sequence[UUID] | None = None


async def in_force(session: OrganizationSession, kind: str, event_names: Sequence[str] | None) -> Sequence[JourneyTrigger]:
    """The triggers of this kind about these events or (None) about contacts alone, each journey's in their order."""
    statement = select(JourneyTrigger).where(
        col(JourneyTrigger.organization_id) == session.organization_id, col(JourneyTrigger.kind) == kind, col(JourneyTrigger.active)
    )
    about = col(JourneyTrigger.event_name)
    statement = statement.where(about.is_(None) if event_names is None else about.in_(event_names))
    return (await session.execute(statement.order_by(col(JourneyTrigger.position), col(JourneyTrigger.id)))).scalars().all()


async def entry_triggers(session: OrganizationSession, version_id: UUID) -> Sequence[JourneyTrigger]:
    """The version's, in its own order."""
    statement = select(JourneyTrigger).where(
        col(JourneyTrigger.organization_id) == session.organization_id,
        col(JourneyTrigger.version_id) == version_id,
        col(JourneyTrigger.kind) == "entry",
    )
    return (await session.execute(statement.order_by(col(JourneyTrigger.position)))).scalars().all()


_AFTER_ENTRY = "coalesce(e.seq > r.entry_seq, e.created_at >= coalesce(r.entered_at, r.created_at))"
_BY_EVENT = f"""
      JOIN events e ON e.organization_id = :o AND e.contact_id = r.contact_id AND e.id = ANY(CAST(:events AS uuid[]))
        AND e.name = :name AND {_AFTER_ENTRY}"""
# Accepted and matched while the run's contact waited to be let in.
_MISSED = f"e.organization_id = :o AND e.contact_id = r.contact_id AND e.routed_at IS NOT NULL AND {_AFTER_ENTRY}"
_BY_MISSED_EVENT = f"""
      JOIN events e ON {_MISSED} AND e.name = :name"""
_MISSING = text(
    f"""
    SELECT DISTINCT t.id FROM runs r
    JOIN journey_triggers t ON t.organization_id = :o AND t.version_id = r.version_id AND t.kind IN ('exit', 'goal')
      AND t.event_name IS NOT NULL AND t.active
    JOIN events e ON {_MISSED} AND e.name = t.event_name
    WHERE r.organization_id = :o AND r.id = ANY(CAST(:runs AS uuid[]))
    """
)
_EXIT = """
    UPDATE runs x SET exit_requested_at = clock_timestamp(), exit_reason = :reason
    FROM (SELECT DISTINCT r.id FROM runs r JOIN contacts c ON c.organization_id = :o AND c.id = r.contact_id {by_event}
          WHERE r.organization_id = :o AND r.version_id = :version_id AND r.finished_at IS NULL AND r.exit_requested_at IS NULL
            AND {some} AND ({rule})) f
    WHERE x.organization_id = :o AND x.id = f.id AND x.exit_requested_at IS NULL
    RETURNING x.id"""
# By the clocks of those who say when something happened, where the run's entry has such a time: an event may be told late. A minute's
# grace for clocks that differ.
_SINCE_ENTRY = """e.occurred_at >= coalesce(
          (SELECT b.occurred_at FROM events b WHERE b.organization_id = :o AND b.id = r.entry_event_id),
          (SELECT n.created_at FROM entries n WHERE n.organization_id = :o AND n.contact_id = r.contact_id AND n.run_id = r.id),
          r.entered_at, r.created_at) - interval '1 minute'"""
_GOAL = """
    INSERT INTO goal_hits (id, organization_id, run_id, journey_id, version_id, goal, event_id, occurred_at)
    SELECT gen_random_uuid(), :o, f.* FROM (
      SELECT DISTINCT ON (r.id) r.id, r.journey_id, r.version_id, CAST(:goal AS text), {event_id}, {at}
      FROM runs r JOIN contacts c ON c.organization_id = :o AND c.id = r.contact_id {by_event}
      WHERE r.organization_id = :o AND r.version_id = :version_id
        AND {at} <= coalesce(r.entered_at, r.created_at) + CAST(:window AS interval)
        AND {since_entry} AND {some} AND ({rule})
      ORDER BY r.id{order}) f
    ON CONFLICT (run_id, goal) DO NOTHING
    RETURNING run_id"""
_EXIT_RUNS = text(
    """
    UPDATE runs SET exit_requested_at = clock_timestamp(), exit_reason = :reason
    WHERE organization_id = :o AND id = ANY(CAST(:ids AS uuid[])) AND finished_at IS NULL AND exit_requested_at IS NULL
    RETURNING id
    """
)


async def missed(session: OrganizationSession, run_ids: Sequence[UUID]) -> Sequence[JourneyTrigger]:
    """Exit rules, then goals, about whose events these runs, which enter now, have missed one: between the moment at which they were to
    enter and now, for a journey may be paused, or its hour full."""
    ids = (await session.execute(_MISSING, {"o": session.organization_id, "runs": list(run_ids)})).scalars().all()
    if not ids:
        return []
    statement = select(JourneyTrigger).where(
        col(JourneyTrigger.organization_id) == session.organization_id, col(JourneyTrigger.id).in_(ids)
    )
    return (await session.execute(statement.order_by(col(JourneyTrigger.kind), col(JourneyTrigger.id)))).scalars().all()


async def end_runs(session: OrganizationSession, trigger: JourneyTrigger, occasion: Occasion, now: datetime) -> list[OutboxMessage]:
    """Runs of the trigger's version that its rule ends are marked so: from the commit on, nothing of them is sent. Whom to tell."""
    reason = f"exit_rule:{trigger.name}"
    parts, parameters = _parts(session, trigger, occasion, now)
    ended = await session.execute(text(_EXIT.format(**parts)), {**parameters, "reason": reason})
    return [_exit(run_id, reason) for run_id in ended.scalars()]


async def count_goal(
    session: OrganizationSession, trigger: JourneyTrigger, occasion: Occasion, window: timedelta, ends: bool, now: datetime
) -> list[OutboxMessage]:
    """Runs of the trigger's version that reached the goal after their entry and within `window` of it are counted, once each. With
    `ends`, those under way are over: whom to tell."""
    parts, parameters = _parts(session, trigger, occasion, now)
    by_event = occasion.events is not None or occasion.missed_by is not None
    parts |= {"event_id": "e.id" if by_event else "CAST(NULL AS uuid)", "at": "e.occurred_at" if by_event else "clock_timestamp()"}
    parts |= {"order": ", e.seq" if by_event else "", "since_entry": _SINCE_ENTRY if by_event else "TRUE"}
    wanted = {**parameters, "goal": trigger.name, "window": window}
    reached = list((await session.execute(text(_GOAL.format(**parts)), wanted)).scalars())
    if not ends or not reached:
        return []
    reason = f"goal:{trigger.name}"
    ended = await session.execute(_EXIT_RUNS, {"o": session.organization_id, "ids": reached, "reason": reason})
    return [_exit(run_id, reason) for run_id in ended.scalars()]


def _parts(
    session: OrganizationSession, trigger: JourneyTrigger, occasion: Occasion, now: datetime
) -> tuple[dict[str, str], Mapping[str, Any]]:
    rule = compile_rule(trigger.rule, now) if trigger.rule else CompiledRule("TRUE", {})
    parameters: dict[str, Any] = {"o": session.organization_id, "version_id": trigger.version_id, **rule.parameters}
    parts = {"rule": rule.sql, "by_event": "", "some": "TRUE"}
    if occasion.events is not None:
        parts["by_event"] = _BY_EVENT
        parameters |= {"events": list(occasion.events), "name": trigger.event_name}
    elif occasion.missed_by is not None:
        parts |= {"by_event": _BY_MISSED_EVENT, "some": "r.id = ANY(CAST(:runs AS uuid[]))"}
        parameters |= {"runs": list(occasion.missed_by), "name": trigger.event_name}
    elif occasion.contacts is not None:
        parts["some"] = "r.contact_id = ANY(CAST(:contacts AS uuid[]))"
        parameters["contacts"] = list(occasion.contacts)
    return parts, parameters


def _exit(run_id: UUID, reason: str) -> OutboxMessage:
    return OutboxMessage(run_id, "exit", {"reason": reason})
