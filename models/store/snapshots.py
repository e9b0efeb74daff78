"""Taking a campaign's audience: when, whom, and when each run starts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import NewEntry
from models.domain.campaign_end import why_nobody
from models.domain.errors import NotFound
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.entry import EntryRules
from models.domain.schedule import (
    OFFSETS_APART,
    AtLocalTime,
    Once,
    Timing,
    common_start,
    has_passed,
    local_over,
    local_starts,
    looks,
    read_timing,
)
from models.store import audit, entry_pace, occurrences, selection
from models.store.ids import uuid7
from models.store.occurrences import Parent
from models.store.segment_sql import CompiledRule
from models.store.selection import AudienceQuery, Selection
from models.store.session import OrganizationSession

UNPLACED = "unplaced"


@dataclass(frozen=True)
class Snapshot:
    journey_id: UUID
    version_id: UUID
    runs: int
    pages: int
    on_error: Literal["park", "pause", "skip"] = "park"


_LOCK = text(
    """
    SELECT c.journey_id, c.version_id, c.segment_rule, c.exclusion_rule, c.schedule, c.page_size, c.audience, c.cancelled_at, c.on_error,
           v.definition, o.timezone, coalesce(CAST(:now AS timestamptz), clock_timestamp()) AS now,
           coalesce(p.created_at, c.created_at) AS launched_at
    FROM campaigns c JOIN journey_versions v ON v.organization_id = c.organization_id AND v.id = c.version_id
    JOIN organizations o ON o.id = c.organization_id
    LEFT JOIN campaigns p ON p.organization_id = c.organization_id AND p.id = c.parent_id
    WHERE c.organization_id = :o AND c.id = :id FOR UPDATE OF c
    """
)
# Entries of one journey are judged one after the other where that makes a difference.
_LOCK_JOURNEY = text("SELECT 1 FROM journeys WHERE organization_id = :o AND id = :journey_id FOR NO KEY UPDATE")
_ZONES = "SELECT DISTINCT coalesce(c.timezone, '') FROM contacts c WHERE c.organization_id = :o AND ({fits})"
# In the order of their starts, so that a page's runs share their instants, and their questions to activities with them.
_TAKE = """
    WITH people AS MATERIALIZED (
      SELECT c.id AS contact_id, coalesce(c.timezone, '') AS zone, {why_not} AS why_not
      FROM contacts c WHERE c.organization_id = :o AND ({fits})),
    placed AS MATERIALIZED (
      SELECT p.contact_id, coalesce(p.why_not, {not_placed}) AS why_not, {base} + {delay} AS starts_at FROM people p {places}),
    taken AS (
      INSERT INTO runs (id, organization_id, journey_id, version_id, campaign_id, contact_id, workflow_id, page, status, step_id,
                        sequence, variables, starts_at, entry_source, created_at, updated_at)
      SELECT {uuid7}, :o, :journey_id, :version_id, :campaign_id, s.contact_id, :prefix || s.page, s.page, 'active', :start,
             0, '{{}}', s.starts_at, 'campaign', now(), now()
      FROM (
        SELECT contact_id, starts_at,
               CAST((row_number() OVER (ORDER BY starts_at NULLS FIRST, contact_id) - 1) / :page_size AS int) AS page,
               lpad(to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)), 12, '0') AS milliseconds
        FROM placed WHERE why_not IS NULL ORDER BY starts_at NULLS FIRST, contact_id) s
      ON CONFLICT (campaign_id, contact_id) WHERE replay_of IS NULL DO NOTHING RETURNING starts_at)
    SELECT CAST(NULL AS text) AS why_not, count(*) AS contacts, count(*) FILTER (WHERE starts_at IS NULL) AS at_once,
           min(starts_at) AS first FROM taken
    UNION ALL SELECT why_not, count(*), 0, NULL FROM placed WHERE why_not IS NOT NULL GROUP BY why_not
"""
# As models.domain.schedule.spread_delay: the first 32 bits of a digest, as a part of the spread, in whole seconds.
_DELAY = """floor(CAST(:spread_seconds AS float8) * CAST(CAST('x' || left(encode(sha256(convert_to(
    CAST(:campaign_id AS text) || '/' || CAST(p.contact_id AS text), 'UTF8')), 'hex'), 8) AS bit(32)) AS bigint) / 4294967296)
    * interval '1 second'"""
_PLACES = """LEFT JOIN unnest(CAST(:zones AS text[]), CAST(:starts AS timestamptz[]), CAST(:passed AS boolean[]))
      AS z(zone, starts_at, passed) ON z.zone = p.zone"""
_NOT_PLACED = f"CASE WHEN z.zone IS NULL THEN '{UNPLACED}' WHEN z.passed THEN '{selection.PASSED}' END"
_TAKEN = text(
    """
    UPDATE campaigns SET audience = :audience, left_out = CAST(:left_out AS jsonb),
      started_at = CASE WHEN :started THEN now() END,
      status = CASE WHEN cancelled_at IS NOT NULL THEN 'cancelled' WHEN :audience = 0 THEN 'completed'
                    WHEN paused_at IS NOT NULL THEN 'paused' WHEN :started THEN 'running' ELSE 'scheduled' END,
      finished_at = CASE WHEN :audience = 0 THEN now() END
    WHERE organization_id = :o AND id = :id RETURNING status
    """
)


async def snapshot(session: OrganizationSession, campaign_id: UUID, now: datetime | None = None) -> Snapshot:
    """A run exists for every contact that the campaign takes at `now` (None: by the database's clock), in pages by start and contact
    id, each with its `starts_at` where it does not start at once. How many were left out, by reason, is on the campaign.

    Safe to repeat: a campaign whose audience is taken keeps it. A campaign cancelled before has no audience, and one
    that selects nobody is completed. An occurrence that was due while its recurring campaign was paused, or is while its journey is
    archived, does not take place: it is cancelled. Of one by local time that others are still to come to, only those are left out whose
    time came meanwhile. Appends to the audit chain: call it last in a transaction.

    Raises:
        NotFound: no such campaign.
        Invalid: its rule is malformed.
        ZonesChanged: repeat.
    """
    parent = await occurrences.lock_parent(session, campaign_id)
    locked = await session.execute(_LOCK, {"o": session.organization_id, "id": campaign_id, "now": now})
    campaign = locked.mappings().one_or_none()
    if campaign is None:
        raise NotFound("campaign", campaign_id)
    count = campaign["audience"]
    if count is None:
        void_until = None if parent is None else parent.void_at(campaign["now"])
        skipped = campaign["cancelled_at"] is None and _is_void(read_timing(campaign["schedule"]), void_until)
        nobody = campaign["cancelled_at"] is not None or skipped
        taken = Taken(0, {}, True) if nobody else await _take(session, campaign_id, {**campaign, "void_until": void_until})
        await _taken(session, campaign_id, taken, parent, skipped)
        count = taken.contacts
    return Snapshot(campaign["journey_id"], campaign["version_id"], count, ceil(count / campaign["page_size"]), campaign["on_error"])


def _is_void(timing: Timing, void_until: datetime | None) -> bool:
    return void_until is not None and isinstance(timing.schedule, Once | AtLocalTime) and has_passed(timing.schedule, void_until)


@dataclass(frozen=True)
class Taken:
    """`started`: the first of them starts at once. `postponed`: so many start later than their time, as the journey takes only so many
    contacts in an hour."""

    contacts: int
    left_out: Mapping[str, int]
    started: bool
    postponed: int = 0


class ZonesChanged(Exception):
    """A contact got a zone between two statements that no other contact had. Repeating helps."""


async def _take(session: OrganizationSession, campaign_id: UUID, campaign: dict[str, Any]) -> Taken:
    definition = Definition.model_validate(campaign["definition"])
    timing, now = read_timing(campaign["schedule"]), campaign["now"]
    if definition.entry != EntryRules(triggers=definition.entry.triggers):
        await session.execute(_LOCK_JOURNEY, {"o": session.organization_id, "journey_id": campaign["journey_id"]})
    chosen = selection.select(
        AudienceQuery(campaign["journey_id"], definition, campaign["segment_rule"], campaign["exclusion_rule"], now),
    )
    places = await _places(session, timing, chosen, campaign)
    parameters: dict[str, Any] = {
        "o": session.organization_id,
        "campaign_id": campaign_id,
        "prefix": workflow_id.campaign_page(session.organization_id, campaign_id, 0).removesuffix("0"),
        "start": definition.start,
        **{name: campaign[name] for name in ("journey_id", "version_id", "page_size")},
        **({} if timing.spread is None else {"spread_seconds": timing.spread.total_seconds()}),
    }
    statement = _TAKE.format(
        uuid7=uuid7("s.milliseconds"),
        fits=chosen.fitting.sql,
        why_not=chosen.why_not,
        delay="interval '0'" if timing.spread is None else _DELAY,
        **places.sql,
    )
    rows = (await session.execute(text(statement), parameters | chosen.parameters | places.parameters)).all()
    taken = _counted({row.why_not: row for row in rows}, now)
    return taken if definition.entry.per_hour is None else await _paced(session, campaign_id, campaign, definition.entry.per_hour, taken)


def _counted(rows: dict[str | None, Any], now: datetime) -> Taken:
    if UNPLACED in rows:
        raise ZonesChanged
    taken = rows.pop(None)
    left_out = {str(code): row.contacts for code, row in rows.items()}
    return Taken(taken.contacts, left_out, taken.contacts == 0 or taken.at_once > 0 or taken.first <= now)


async def _paced(session: OrganizationSession, campaign_id: UUID, campaign: Mapping[str, Any], per_hour: int, taken: Taken) -> Taken:
    """No more of them start in an hour than the journey takes."""
    postponed = await entry_pace.postpone(session, campaign["journey_id"], campaign_id, per_hour, campaign["now"])
    if not postponed:
        return taken
    so_many = sum(one.last - one.first + 1 for one in postponed)
    return replace(taken, started=taken.started and postponed[0].first > 1, postponed=so_many)


@dataclass(frozen=True)
class _Places:
    """Where the instants come from: the parts of `_TAKE` about them."""

    sql: Mapping[str, str]
    parameters: dict[str, Any]


async def _places(session: OrganizationSession, timing: Timing, chosen: Selection, campaign: Mapping[str, Any]) -> _Places:
    """Each distinct zone's instant is worked out here, and joined back to its contacts."""
    if not isinstance(timing.schedule, AtLocalTime):
        sql = {"places": "", "not_placed": "CAST(NULL AS text)", "base": "CAST(:starts_at AS timestamptz)"}
        return _Places(sql, {"starts_at": common_start(timing, campaign["now"])})
    zones = await _zones(session, chosen.fitting)
    not_before = campaign["launched_at"]
    if campaign["void_until"] is not None:  # that moment included
        not_before = max(not_before, campaign["void_until"] + timedelta(microseconds=1))
    starts = local_starts(timing.schedule, zones, campaign["timezone"], campaign["now"], not_before)
    sql = {"places": _PLACES, "not_placed": _NOT_PLACED, "base": "z.starts_at"}
    places = starts.values()
    parameters = {"zones": list(starts), "starts": [each.at for each in places], "passed": [each.passed for each in places]}
    return _Places(sql, parameters)


async def _zones(session: OrganizationSession, fitting: CompiledRule) -> list[str]:
    statement = text(_ZONES.format(fits=fitting.sql))
    return list((await session.execute(statement, {"o": session.organization_id, **fitting.parameters})).scalars())


async def _taken(session: OrganizationSession, campaign_id: UUID, taken: Taken, parent: Parent | None, skipped: bool) -> None:
    if skipped:
        await session.execute(_LEFT_OUT, {"o": session.organization_id, "id": campaign_id})
    parameters = {
        "o": session.organization_id,
        "id": campaign_id,
        "audience": taken.contacts,
        "left_out": json.dumps(taken.left_out),
        "started": taken.started,
    }
    status = await session.scalar(_TAKEN, parameters)
    details = {
        "audience": taken.contacts,
        **({"left_out": taken.left_out} if taken.left_out else {}),
        **({"postponed": taken.postponed} if taken.postponed else {}),
    }
    entries = [NewEntry("campaign.started", "campaign", str(campaign_id), details=details)]
    if status == "completed":
        why = why_nobody(taken.contacts, taken.left_out)
        entries.append(NewEntry("campaign.completed", "campaign", str(campaign_id), details={"audience": 0, "reason": why}))
    if parent is not None:
        entries += [occurrences.skipped(parent.id, parent.nominal_at, parent.stands or occurrences.PAUSED)] if skipped else []
        entries += await occurrences.complete_if_over(session, parent.id, parent.nominal_at)
    await audit.append(session, entries)


ARCHIVED_LOOK = timedelta(hours=1)  # restoring the journey wakes its campaigns; only where that word was lost do they wait for this
_LEFT_OUT = text("UPDATE campaigns SET cancelled_at = now() WHERE organization_id = :o AND id = :id AND cancelled_at IS NULL")
_PLAN = text(
    """
    SELECT c.schedule, c.audience_at, c.audience, c.cancelled_at, c.planned_at, c.segment_rule, c.exclusion_rule, o.timezone,
           j.archived_at IS NOT NULL AS archived, p.id AS parent_id, p.paused_at IS NOT NULL AS parent_paused
    FROM campaigns c JOIN organizations o ON o.id = c.organization_id
    JOIN journeys j ON j.organization_id = c.organization_id AND j.id = c.journey_id
    LEFT JOIN campaigns p ON p.organization_id = c.organization_id AND p.id = c.parent_id
    WHERE c.organization_id = :o AND c.id = :id
    """
)
_PLANNED = text("UPDATE campaigns SET planned_at = now() WHERE organization_id = :o AND id = :id AND planned_at IS NULL")


async def next_look(session: OrganizationSession, campaign_id: UUID, now: datetime) -> datetime | None:
    """When to look again whether the campaign starts, by its schedule and, for local times, by where its contacts are now; None: it
    starts. That of an archived journey does not start, and is looked at again until the journey is restored or the campaign cancelled.
    An occurrence starts, if only to be left out; one by local time not while its recurring campaign is paused or the journey archived,
    until it is over everywhere. That its workflow is under way is on record. Safe to repeat.

    Raises:
        NotFound: no such campaign.
    """
    parameters = {"o": session.organization_id, "id": campaign_id}
    campaign = (await session.execute(_PLAN, parameters)).one_or_none()
    if campaign is None:
        raise NotFound("campaign", campaign_id)
    look = await _next_look(session, campaign, now)
    if campaign.planned_at is None:
        await session.execute(_PLANNED, parameters)
    return look


async def _next_look(session: OrganizationSession, campaign: Any, now: datetime) -> datetime | None:
    if campaign.cancelled_at is not None or campaign.audience is not None or campaign.audience_at == "launch":
        return None
    look: datetime | None = None
    match read_timing(campaign.schedule).schedule:
        case Once(at=at):
            look = at if at > now else None
        case AtLocalTime() as local:
            look = await _next_local_look(session, local, campaign, now)
            stands = campaign.parent_id is not None and (campaign.parent_paused or campaign.archived)
            if look is None and stands and not local_over(local, now):
                await occurrences.void(session, campaign.parent_id, now)  # whose time has come: others may have theirs later
                return looks(local, now)
    return now + ARCHIVED_LOOK if look is None and campaign.archived and campaign.parent_id is None else look


async def _next_local_look(session: OrganizationSession, local: AtLocalTime, campaign: Any, now: datetime) -> datetime | None:
    """Contacts join and move: the easternmost of them are looked for at every moment at which it may be their time."""
    look = looks(local, now)
    if look - now > OFFSETS_APART:  # it is not yet that time anywhere
        return look
    fitting = selection.fitting(campaign.segment_rule, campaign.exclusion_rule, now)
    starts = local_starts(local, await _zones(session, fitting), campaign.timezone, now, now)
    if any(start.at is None or start.at <= now for start in starts.values()) or local_over(local, now):
        return None
    return min([look, *(start.at for start in starts.values() if start.at is not None)])
