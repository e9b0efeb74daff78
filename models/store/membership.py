"""Who fits the segments that journeys are entered or left by: kept as a set, compared as a set.

A version's trigger goes on with the set of the version before where it is about the same segment, so that nobody enters again, or is
overlooked, because a version was published.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.store.events import SO_FAR
from models.store.ids import UUID7_NOW
from models.store.segment_sql import compile_rule
from models.store.session import OrganizationSession
from models.tables.events import JourneyTrigger

# One statement reads who fits and writes only the differences, however many contacts there are.
_COMPARE = """
    WITH fitting AS MATERIALIZED (SELECT c.id FROM contacts c WHERE c.organization_id = :o AND {some_contacts} AND ({rule})),
    joined AS (
      INSERT INTO trigger_members (organization_id, trigger_id, contact_id)
      SELECT :o, :trigger_id, f.id FROM fitting f
      WHERE NOT EXISTS (SELECT 1 FROM trigger_members m WHERE m.organization_id = :o AND m.trigger_id = :trigger_id AND m.contact_id = f.id)
      ON CONFLICT DO NOTHING RETURNING contact_id),
    parted AS (
      DELETE FROM trigger_members m WHERE m.organization_id = :o AND m.trigger_id = :trigger_id AND {some_members}
        AND NOT EXISTS (SELECT 1 FROM fitting f WHERE f.id = m.contact_id) RETURNING contact_id)
    INSERT INTO entries (id, organization_id, journey_id, version_id, contact_id, source, event_seq, trigger_id, variables, hidden,
      outcome)
    SELECT {uuid7}, :o, :journey_id, :version_id, d.contact_id, 'segment', {so_far}, :trigger_id, '{{}}', false, 'pending'
    FROM (SELECT 'entered' AS direction, contact_id FROM joined UNION ALL SELECT 'left', contact_id FROM parted) d
    WHERE d.direction = :direction AND :counts
      AND EXISTS (SELECT 1 FROM contacts c WHERE c.organization_id = :o AND c.id = d.contact_id)
"""
_BASELINED = text("UPDATE journey_triggers SET baselined_at = now() WHERE organization_id = :o AND id = :id")


# This trigger and those of the journey's other versions about the same segment, in the same direction; one of each version.
_LINE = text(
    """
    SELECT DISTINCT ON (v.number) t.id, v.number, t.rule, t.include_existing, t.baselined_at IS NOT NULL AS compared
    FROM journey_triggers mine
    JOIN journey_versions v ON v.organization_id = :o AND v.journey_id = mine.journey_id
    JOIN journey_triggers t ON t.organization_id = :o AND t.version_id = v.id AND t.kind = 'entry' AND t.direction = mine.direction
    JOIN journey_versions w ON w.organization_id = :o AND w.id = mine.version_id AND w.number >= v.number
    WHERE mine.organization_id = :o AND mine.id = :id
      AND v.definition #>> ARRAY['entry', 'triggers', CAST(t.position AS text), 'segment_id']
        = w.definition #>> ARRAY['entry', 'triggers', CAST(mine.position AS text), 'segment_id']
    ORDER BY v.number, t.id <> mine.id, t.position
    """
)
_INHERIT = text(
    """
    INSERT INTO trigger_members (organization_id, trigger_id, contact_id)
    SELECT :o, :id, contact_id FROM trigger_members WHERE organization_id = :o AND trigger_id = :from_id
    """
)


async def take_down(session: OrganizationSession, trigger: JourneyTrigger, now: datetime) -> None:
    """The set is whoever fits at publication. They enter only where the trigger says so. The trigger stays without `baselined_at`
    until all contacts have been compared once more: one that was saved at the same moment, unseen and unnoted, comes in then.

    A trigger that goes on with an earlier one's set does so when it is first compared: under the routing lock that set is complete."""
    if await _inherited(session, trigger) is not None:
        return
    await _compare(session, trigger, now, None, counts=trigger.include_existing and trigger.direction == "entered")


async def compare(session: OrganizationSession, trigger: JourneyTrigger, now: datetime, contact_ids: Sequence[UUID] | None = None) -> None:
    """The set is as the rule says at `now` (aware UTC), of these contacts or (None, and the first time) of all. Whoever came in, or
    went out, is to enter the journey."""
    first = trigger.baselined_at is None
    if first and (earlier := await _inherited(session, trigger)) is not None:
        await session.execute(_INHERIT, {"o": session.organization_id, "id": trigger.id, "from_id": earlier})
    await _compare(session, trigger, now, None if first else contact_ids, counts=True)
    if first:
        await session.execute(_BASELINED, {"o": session.organization_id, "id": trigger.id})


async def _inherited(session: OrganizationSession, trigger: JourneyTrigger) -> UUID | None:
    """The earlier trigger whose set this one goes on with. With `include_existing`: where an earlier version had that, too, for who was
    let in then does not enter again. Without: where the version before had the same rule, for who came in, or went out, since the last
    look has not entered yet. None: it begins with a set of its own."""
    line = (await session.execute(_LINE, {"o": session.organization_id, "id": trigger.id})).all()
    holder: UUID | None = None  # of the set that the trigger before has, or will have
    before: Any = None
    for mine in line:
        if mine.include_existing and trigger.direction == "entered":
            goes_on = any(each.include_existing for each in line if each.number < mine.number)
        else:
            goes_on = before is not None and before.number == mine.number - 1 and before.rule == mine.rule
        if mine.id == trigger.id:
            return holder if goes_on else None
        if mine.compared or not goes_on:
            holder = mine.id
        before = mine
    return None


async def _compare(
    session: OrganizationSession, trigger: JourneyTrigger, now: datetime, contact_ids: Sequence[UUID] | None, *, counts: bool
) -> None:
    some = None if contact_ids is None else list(contact_ids)
    compiled = compile_rule(trigger.rule or {"all": []}, now)
    statement = _COMPARE.format(
        rule=compiled.sql,
        uuid7=UUID7_NOW,
        so_far=SO_FAR,
        some_contacts="TRUE" if some is None else "c.id = ANY(CAST(:some AS uuid[]))",
        some_members="TRUE" if some is None else "m.contact_id = ANY(CAST(:some AS uuid[]))",
    )
    parameters = {
        "o": session.organization_id,
        "trigger_id": trigger.id,
        "journey_id": trigger.journey_id,
        "version_id": trigger.version_id,
        "direction": trigger.direction,
        "counts": counts,
        **compiled.parameters,
        **({} if some is None else {"some": some}),
    }
    await session.execute(text(statement), parameters)
