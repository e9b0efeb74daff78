"""Reading what a run's timeline is made of."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlmodel import col

from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.happening import Names
from models.domain.journey.replay import REPLAYED
from models.domain.journey.timeline import MOVED, Decided, Delivered, Entry, Event, Reached, timeline
from models.store import journey_versions, publish_plans, replays
from models.store.session import OrganizationSession
from models.tables.events import GoalHit
from models.tables.journeys import JourneyVersion, Run, RunEvent
from models.tables.messaging import Decision, Delivery
from models.tables.publishing import PublishPlan

_TOPICS = text("SELECT id, name FROM topics WHERE organization_id = :organization_id")
_ACTORS = text("""
    SELECT user_id, coalesce(nullif(name, ''), 'a user') FROM memberships
    WHERE organization_id = :organization_id AND user_id = ANY(:ids)
    UNION ALL
    SELECT id, 'the API key ' || name FROM api_keys WHERE organization_id = :organization_id AND id = ANY(:ids)""")


async def read(session: OrganizationSession, run: Run) -> list[Entry]:
    """The run's timeline, oldest first."""
    events = await _linked(session, run, await _with_moves(session, run, await _events(session, run.id)))
    return timeline(
        events,
        await _decisions(session, run.id),
        await _deliveries(session, run.id),
        await _names(session, run, events),
        await _goals(session, run.id),
    )


async def _events(session: OrganizationSession, run_id: UUID) -> list[Event]:
    statement = select(RunEvent).where(col(RunEvent.organization_id) == session.organization_id, col(RunEvent.run_id) == run_id)
    rows = (await session.execute(statement.order_by(col(RunEvent.sequence)))).scalars()
    return [Event(row.sequence, row.kind, row.occurred_at, row.step_id, row.visit, row.details) for row in rows]


async def _with_moves(session: OrganizationSession, run: Run, events: list[Event]) -> list[Event]:
    """Each move with the version that the run came to and who chose it: the workflows that carried it are named by their plans."""
    plan_ids = [workflow_id.plan_of(name) for name in (*run.earlier_workflows, run.workflow_id)]
    statement = select(PublishPlan, col(JourneyVersion.number)).join(JourneyVersion, col(JourneyVersion.id) == col(PublishPlan.version_id))
    mine = (col(PublishPlan.organization_id) == session.organization_id, col(PublishPlan.id).in_({id for id in plan_ids if id is not None}))
    plans = (
        {plan.id: _move(plan, number) for plan, number in (await session.execute(statement.where(*mine))).all()} if any(plan_ids) else {}
    )
    moves = iter([plans.get(id, {}) for id in plan_ids if id is not None])
    return [replace(event, details={**event.details, **next(moves, {})}) if event.kind == MOVED else event for event in events]


def _move(plan: PublishPlan, number: int) -> dict[str, Any]:
    chosen = publish_plans.chosen(plan)
    actor = {} if chosen is None else {"actor_kind": chosen.actor.kind, "actor_id": chosen.actor.id and str(chosen.actor.id)}
    return {"plan_id": str(plan.id), "version_id": str(plan.version_id), "version": number, **actor}


async def _goals(session: OrganizationSession, run_id: UUID) -> list[Reached]:
    statement = select(GoalHit).where(col(GoalHit.organization_id) == session.organization_id, col(GoalHit.run_id) == run_id)
    rows = (await session.execute(statement.order_by(col(GoalHit.occurred_at), col(GoalHit.id)))).scalars()
    return [Reached(row.goal, row.occurred_at, str(row.event_id) if row.event_id else None) for row in rows]


async def _linked(session: OrganizationSession, run: Run, events: list[Event]) -> list[Event]:
    """With the replay that it is, first, and the one that goes on in its place, last: their workflows know nothing of each other."""
    if run.replay_of is not None and run.replay is not None:
        began = min([run.created_at, *(event.occurred_at for event in events[:1])])
        events = [Event(-1, "replays", began, run.replay["from_step"], None, _link(run.replay_of, run.replay)), *events]
    if run.replayed_by is not None and (found := await replays.replay_of_run(session, run.replayed_by)) is not None:
        last = events[-1].sequence if events else 0
        link = Event(last + 1, "replayed", found.at, found.terms.get("from_step"), None, _link(found.run_id, found.terms))
        # Its own end is a consequence, told by its workflow when that hears of the replay.
        ended = next((index for index, event in enumerate(events) if event.details.get("reason") == REPLAYED), len(events))
        events = [*events[:ended], link, *events[ended:]]
        events = [replace(event, sequence=index) for index, event in enumerate(events)]
    return events


def _link(run_id: UUID, terms: dict[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in terms.items() if name != "visits"}, "run_id": str(run_id)}


async def _decisions(session: OrganizationSession, run_id: UUID) -> list[Decided]:
    statement = select(Decision).where(col(Decision.organization_id) == session.organization_id, col(Decision.run_id) == run_id)
    rows = (await session.execute(statement.order_by(col(Decision.decided_at), col(Decision.id)))).scalars()
    return [
        Decided(
            check=row.check,
            outcome=row.outcome,
            decided_at=row.decided_at,
            step_id=row.step_id,
            visit=row.visit,
            round=row.round,
            reason=row.reason,
            hold_until=row.hold_until,
            inputs=row.inputs,
        )
        for row in rows
    ]


async def _deliveries(session: OrganizationSession, run_id: UUID) -> list[Delivered]:
    statement = select(Delivery).where(col(Delivery.organization_id) == session.organization_id, col(Delivery.run_id) == run_id)
    rows = (await session.execute(statement.order_by(col(Delivery.id)))).scalars()
    return [
        Delivered(
            id=str(row.id),
            state=row.state,
            at=row.settled_at or row.transmitting_at or row.claimed_at,
            step_id=row.step_id,
            visit=row.visit,
            outcome=row.outcome,
            reason=row.reason,
            details={"channel": row.channel, "purpose": row.purpose, "topic_id": row.topic_id and str(row.topic_id)},
        )
        for row in rows
    ]


async def topic_names(session: OrganizationSession) -> dict[str, str]:
    """What the organization calls its topics, by id as text."""
    return {str(id): name for id, name in await session.execute(_TOPICS, {"organization_id": session.organization_id})}


async def _names(session: OrganizationSession, run: Run, events: list[Event]) -> Names:
    mine = {"organization_id": session.organization_id}
    version_ids = [*run.earlier_versions, run.version_id]
    versions = await journey_versions.by_id(session, version_ids)
    steps = [_steps(versions[version_id]) for version_id in version_ids]
    unknown = len(run.earlier_workflows) - len(run.earlier_versions)  # it was moved before these were kept
    actors = [UUID(str(event.details["actor_id"])) for event in events if event.details.get("actor_id")]
    return Names(
        steps=steps[-1],
        by_move=[*steps[:1] * unknown, *steps],
        topics=await topic_names(session),
        actors={str(id): name for id, name in await session.execute(_ACTORS, {**mine, "ids": actors})} if actors else {},
    )


def _steps(version: JourneyVersion) -> dict[str, str]:
    return {step_id: step.name for step_id, step in Definition.model_validate(version.definition).steps.items() if step.name}
