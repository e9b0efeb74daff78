"""Exit rules and goals: what ends or counts a run from outside its steps, matched set-based."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlmodel import col

from models.domain.journey.definition import Definition
from models.store.outbox import OutboxMessage
from models.store.segment_sql import CompiledRule, compile_rule
from models.store.session import OrganizationSession
from models.tables.events import JourneyTrigger


@dataclass(frozen=True)
class Occasion:
    """Why rules are looked at: these events, the beginning of these runs (what events they missed before they entered, and what is so
    already), these contacts' changes, or (all None) the passing of time."""

    events: Sequence[UUID] | None = None
    beginning: Sequence[UUID] | None = None
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
# Accepted and matched while the run's contact waited to be let in, or while nobody saw the run yet.
_MISSED = f"e.organization_id = :o AND e.contact_id = r.contact_id AND e.routed_at IS NOT NULL AND {_AFTER_ENTRY}"
_BY_MISSED_EVENT = f"""
      JOIN events e ON {_MISSED} AND e.name = :name"""
_AT_BEGINNING = text(
    f"""
    SELECT t.id FROM journey_triggers t
    WHERE t.organization_id = :o AND t.kind IN ('exit', 'goal') AND t.event_name IS NULL AND t.active
      AND t.version_id IN (SELECT r.version_id FROM runs r WHERE r.organization_id = :o AND r.id = ANY(CAST(:runs AS uuid[])))
    UNION
    SELECT t.id FROM runs r
    JOIN journey_triggers t ON t.organization_id = :o AND t.version_id = r.version_id AND t.kind IN ('exit', 'goal')
      AND t.event_name IS NOT NULL AND t.active
    JOIN events e ON {_MISSED} AND e.name = t.event_name
    WHERE CAST(:missed AS boolean) AND r.organization_id = :o AND r.id = ANY(CAST(:runs AS uuid[]))
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
_ENDED = """
    SELECT r.id FROM runs r JOIN contacts c ON c.organization_id = :o AND c.id = r.contact_id
    WHERE r.organization_id = :o AND r.id = ANY(CAST(:runs AS uuid[])) AND {in_time} AND ({rule})"""
_IN_TIME = "clock_timestamp() <= coalesce(r.entered_at, r.created_at) + CAST(:window AS interval)"
_EXIT_RUNS = text(
    """
    UPDATE runs SET exit_requested_at = clock_timestamp(), exit_reason = :reason
    WHERE organization_id = :o AND id = ANY(CAST(:ids AS uuid[])) AND finished_at IS NULL AND exit_requested_at IS NULL
    RETURNING id
    """
)


_IN_ORDER = (col(JourneyTrigger.kind), col(JourneyTrigger.position), col(JourneyTrigger.id))
Definitions = Callable[[OrganizationSession, UUID], Awaitable[Definition]]  # by version


async def begin(
    session: OrganizationSession, definitions: Definitions, run_ids: Sequence[UUID], now: datetime, *, missed: bool = True
) -> list[OutboxMessage]:
    """These runs, which enter now or are on another version now, meet the exit rules and goals about contacts that hold already; with
    `missed`, also those about events which came since they were to enter and were matched without them: a journey may be paused, or its
    hour full. Whom to tell. Safe to repeat.

    The caller has taken the routing lock before it wrote anything: what routing took while these runs were not to be seen is seen here,
    and what it takes later meets them there. For journeys without such rules there is no need for either.
    """
    told: list[OutboxMessage] = []
    for trigger in await _at_beginning(session, run_ids, missed):
        told += await act(session, trigger, await definitions(session, trigger.version_id), Occasion(beginning=run_ids), now)
    return told


async def _at_beginning(session: OrganizationSession, run_ids: Sequence[UUID], missed: bool) -> Sequence[JourneyTrigger]:
    """Exit rules, then goals, each in their order."""
    found = await session.execute(_AT_BEGINNING, {"o": session.organization_id, "runs": list(run_ids), "missed": missed})
    ids = found.scalars().all()
    if not ids:
        return []
    statement = select(JourneyTrigger).where(
        col(JourneyTrigger.organization_id) == session.organization_id, col(JourneyTrigger.id).in_(ids)
    )
    return (await session.execute(statement.order_by(*_IN_ORDER))).scalars().all()


async def ends_at_once(
    session: OrganizationSession, definitions: Mapping[UUID, Definition], versions: Mapping[UUID, UUID], now: datetime
) -> dict[UUID, str]:
    """By run, the reason why `begin` (without `missed`) would end what goes on in its place now; those that it lets go on are not there.
    `versions`: of each run, the one that it would go on upon, and `definitions` of these. One statement for each rule. Writes nothing."""
    on: dict[UUID, list[UUID]] = {}
    for run_id, version_id in versions.items():
        on.setdefault(version_id, []).append(run_id)
    ended: dict[UUID, str] = {}
    for trigger in await _about_contacts(session, list(on)):
        goal = definitions[trigger.version_id].goals[trigger.position] if trigger.kind == "goal" else None
        if goal is None or goal.exit:
            reason = f"goal:{trigger.name}" if goal else f"exit_rule:{trigger.name}"
            for run_id in await _held_by(session, trigger, on[trigger.version_id], goal.window if goal else None, now):
                ended.setdefault(run_id, reason)
    return ended


async def _about_contacts(session: OrganizationSession, version_ids: Sequence[UUID]) -> Sequence[JourneyTrigger]:
    """Exit rules, then goals, each in their order: the first that holds is why."""
    statement = select(JourneyTrigger).where(
        col(JourneyTrigger.organization_id) == session.organization_id,
        col(JourneyTrigger.version_id).in_(version_ids),
        col(JourneyTrigger.kind).in_(("exit", "goal")),
        col(JourneyTrigger.event_name).is_(None),
        col(JourneyTrigger.active),
    )
    return (await session.execute(statement.order_by(*_IN_ORDER))).scalars().all()


async def _held_by(
    session: OrganizationSession, trigger: JourneyTrigger, run_ids: Sequence[UUID], window: timedelta | None, now: datetime
) -> Sequence[UUID]:
    rule = compile_rule(trigger.rule, now) if trigger.rule else CompiledRule("TRUE", {})
    wanted: dict[str, Any] = {"o": session.organization_id, "runs": list(run_ids), **rule.parameters}
    if window is not None:
        wanted["window"] = window
    ended = _ENDED.format(in_time="TRUE" if window is None else _IN_TIME, rule=rule.sql)
    return (await session.execute(text(ended), wanted)).scalars().all()


async def act(
    session: OrganizationSession, trigger: JourneyTrigger, definition: Definition, occasion: Occasion, now: datetime
) -> list[OutboxMessage]:
    """The exit rule or goal of this definition has been obeyed. Whom to tell."""
    if trigger.kind == "exit":
        return await end_runs(session, trigger, occasion, now)
    goal = definition.goals[trigger.position]
    return await count_goal(session, trigger, occasion, goal.window, goal.exit, now)


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
    by_event = bool(parts["by_event"])
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
    elif occasion.beginning is not None:
        parts |= {"by_event": _BY_MISSED_EVENT if trigger.event_name else "", "some": "r.id = ANY(CAST(:runs AS uuid[]))"}
        parameters |= {"runs": list(occasion.beginning), **({"name": trigger.event_name} if trigger.event_name else {})}
    elif occasion.contacts is not None:
        parts["some"] = "r.contact_id = ANY(CAST(:contacts AS uuid[]))"
        parameters["contacts"] = list(occasion.contacts)
    return parts, parameters


def _exit(run_id: UUID, reason: str) -> OutboxMessage:
    return OutboxMessage(run_id, "exit", {"reason": reason})
