"""What of published versions is looked for outside their steps: entries, exit rules, goals, and whether contacts' changes matter."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlmodel import col, update

from models.domain.journey.definition import Definition, WaitForStep, WaitStep
from models.domain.journey.entry import EventTrigger, Happens, SegmentTrigger
from models.store import changes, membership
from models.store.limits import within
from models.store.session import OrganizationSession
from models.tables.base import utc_now
from models.tables.events import JourneyTrigger
from models.tables.journeys import JourneyVersion

PATIENCE = timedelta(seconds=10)  # with whoever is changing contacts just now
_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('listening/' || CAST(:o AS text), 0))")
_LISTEN = text("UPDATE organizations SET listening = true WHERE id = :o AND NOT listening")


async def put_in_force(session: OrganizationSession, version: JourneyVersion, definition: Definition) -> None:
    """The version's entries are looked for from now on, and those of the versions before no more; its exit rules and goals beside
    theirs, whose runs are under way. The caller holds the journey's lock."""
    older = (
        update(JourneyTrigger)
        .where(col(JourneyTrigger.organization_id) == session.organization_id)
        .where(col(JourneyTrigger.journey_id) == version.journey_id, col(JourneyTrigger.kind) == "entry")
        .values(active=False)
    )
    await session.execute(older)
    if listens(definition):
        await listen(session)
    new = list(_triggers(version, definition))
    session.add_all(new)
    await session.flush()
    for trigger in new:
        if trigger.direction is not None:
            await membership.take_down(session, trigger, utc_now())


async def listen(session: OrganizationSession) -> None:
    """Every change of a contact is noted from now on, those included that are not committed yet: who is at it is waited for, and who begins
    meanwhile waits. The first time only; later it costs a look. Best said in a transaction that holds nothing.

    Raises:
        Unavailable: somebody changes contacts for longer than `PATIENCE`. The transaction is lost.
    """
    if await changes.listening(session):
        return
    async with within(session, PATIENCE, "Something changes contacts just now, an import for instance; publish again when it is done."):
        await session.execute(_ALONE, {"o": session.organization_id})
    await session.execute(_LISTEN, {"o": session.organization_id})


def listens(definition: Definition) -> bool:
    """Whether anything in it depends on how contacts change."""
    waits = any(
        (isinstance(step, WaitStep) and step.planned) or (isinstance(step, WaitForStep) and step.conditions)
        for step in definition.steps.values()
    )
    return waits or listens_to_runs(definition) or any(isinstance(trigger, SegmentTrigger) for trigger in definition.entry.triggers)


def listens_to_runs(definition: Definition) -> bool:
    """Whether exit rules or goals depend on how a contact is: then a new run is looked at when it enters, too."""
    return any(rule.when is not None for rule in (*definition.exits, *definition.goals))


def listens_to_events(definition: Definition) -> bool:
    """Whether exit rules or goals wait for events: then no new run may be hidden from routing while it takes one."""
    return any(rule.event is not None for rule in (*definition.exits, *definition.goals))


def _triggers(version: JourneyVersion, definition: Definition) -> Iterator[JourneyTrigger]:
    for position, trigger in enumerate(definition.entry.triggers):
        yield _row(version, "entry", position, **_entry(trigger))
    for kind, rules in (("exit", definition.exits), ("goal", definition.goals)):
        for position, rule in enumerate(rules):
            yield _row(version, kind, position, **_happens(rule))


def _row(version: JourneyVersion, kind: str, position: int, **fields: Any) -> JourneyTrigger:
    return JourneyTrigger(
        organization_id=version.organization_id,
        journey_id=version.journey_id,
        version_id=version.id,
        kind=kind,
        position=position,
        timed=is_timed(fields.get("rule")),
        **fields,
    )


def _entry(trigger: EventTrigger | SegmentTrigger) -> dict[str, Any]:
    if isinstance(trigger, SegmentTrigger):
        direction = trigger.kind.removeprefix("segment_")
        return {"direction": direction, "rule": trigger.rule, "include_existing": trigger.include_existing}
    return {"event_name": trigger.event, "rule": trigger.where}


def _happens(rule: Happens) -> dict[str, Any]:
    return {"name": rule.name, "event_name": rule.event, "rule": rule.when if rule.event is None else rule.where}


def is_timed(rule: Mapping[str, Any] | None) -> bool:
    """Whether the rule may become true or false by the passing of time alone."""
    if rule is None:
        return False
    parts = [*rule.get("all", ()), *rule.get("any", ()), *([rule["not"]] if "not" in rule else ())]
    event = rule.get("event") or {}
    moving = rule.get("is") in ("within_last", "not_within_last", "within_next") or isinstance(rule.get("value"), Mapping)
    return moving or "within" in event or any(is_timed(part) for part in [*parts, event.get("where")])
