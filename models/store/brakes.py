"""Brakes: how the latest messages of each journey and campaign fared, and the pause that follows when too many failed.

Counted in the transaction that settles the messages, and so is the pause: from its commit on, the last check before a send holds
everything of the journey or campaign. Messages of a campaign count for the campaign, all others for their journey.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from models.domain.audit import NewEntry
from models.domain.errors import NotFound
from models.domain.journey.brake import STOPS_ITS_RUN, Brake, BrakeReason, counted
from models.store.deliveries import Settled
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.failures import Braking

Kind = Literal["campaign", "journey"]


@dataclass(frozen=True)
class Braked:
    """A pause that was not there before. `id`: of the braking; `entry`: for the audit chain."""

    id: UUID
    entry: NewEntry


@dataclass
class _Tally:
    """Of one journey or campaign, in one transaction."""

    kind: Kind
    subject_id: UUID
    journey_id: UUID
    attempted: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    stopped: UUID | None = None  # a run that waits for a person now


# In the order of subjects, so that two writers do not deadlock.
_COUNT = text(
    """
    WITH told AS MATERIALIZED (
      SELECT a.*, j.brake, :times * coalesce(CAST(j.brake ->> 'at_least' AS integer), :at_least) AS window_size
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(kind text, subject_id uuid, journey_id uuid, attempted integer, failed integer)
      JOIN journeys j ON j.organization_id = :o AND j.id = a.journey_id),
    counted AS (
      INSERT INTO brake_counts AS b (organization_id, subject_id, subject_kind, window_size, attempted, failed, earlier_attempted,
        earlier_failed)
      SELECT :o, t.subject_id, t.kind, t.window_size, t.attempted, t.failed, 0, 0 FROM told t ORDER BY t.subject_id
      ON CONFLICT (organization_id, subject_id) DO UPDATE SET window_size = EXCLUDED.window_size,
        attempted = EXCLUDED.attempted + CASE WHEN b.attempted >= EXCLUDED.window_size THEN 0 ELSE b.attempted END,
        failed = EXCLUDED.failed + CASE WHEN b.attempted >= EXCLUDED.window_size THEN 0 ELSE b.failed END,
        earlier_attempted = CASE WHEN b.attempted >= EXCLUDED.window_size THEN b.attempted ELSE b.earlier_attempted END,
        earlier_failed = CASE WHEN b.attempted >= EXCLUDED.window_size THEN b.failed ELSE b.earlier_failed END
      RETURNING subject_id, attempted + earlier_attempted AS attempted, failed + earlier_failed AS failed)
    SELECT c.subject_id, c.attempted, c.failed, t.brake FROM counted c JOIN told t USING (subject_id) ORDER BY c.subject_id
    """
)


async def count(session: OrganizationSession, settled: Sequence[Settled]) -> list[Braked]:
    """These messages count, and what they brake is paused. One statement where none of them failed.

    Each settlement counts once: call it in the transaction that settles. Locks rows of `brake_counts` until that ends: call it late.
    """
    tallies = {one.subject_id: one for one in _tallies(settled)}
    if not tallies:
        return []
    rows = rowset(
        [
            {
                "kind": one.kind,
                "subject_id": one.subject_id,
                "journey_id": one.journey_id,
                "attempted": one.attempted,
                "failed": one.failed,
            }
            for one in tallies.values()
        ]
    )
    usual = Brake()
    parameters = {"o": session.organization_id, "rows": rows, "times": usual.window // usual.at_least, "at_least": usual.at_least}
    totals = (await session.execute(_COUNT, parameters)).all()
    stopped = {one.subject_id: one.stopped for one in tallies.values() if one.kind == "campaign" and one.stopped is not None}
    braked = await stop_at_first(session, stopped) if stopped else []
    for total in totals:
        tally, brake = tallies[total.subject_id], Brake.model_validate(total.brake or {})
        if tally.failed > 0 and brake.acts(total.attempted, total.failed):
            facts = {
                "attempted": total.attempted,
                "failed": total.failed,
                "share": brake.share,
                "failure": tally.reasons.most_common(1)[0][0],
            }
            braked += await _brake(session, tally.kind, tally.subject_id, "too_many_failures", facts)
    return braked


def _tallies(settled: Iterable[Settled]) -> list[_Tally]:
    found: dict[UUID, _Tally] = {}
    for one in settled:
        attempted, failed = counted(one.state, one.outcome, one.reason)
        if not attempted:
            continue
        kind: Kind = "journey" if one.campaign_id is None else "campaign"
        tally = found.setdefault(one.campaign_id or one.journey_id, _Tally(kind, one.campaign_id or one.journey_id, one.journey_id))
        tally.attempted += attempted
        tally.failed += failed
        if failed:
            tally.reasons[one.reason or one.outcome or one.state] += 1
            tally.stopped = one.run_id if one.outcome in STOPS_ITS_RUN else tally.stopped
    return list(found.values())


_OF_RUNS = text(
    """
    SELECT DISTINCT ON (r.campaign_id) r.campaign_id, r.id FROM runs r
    WHERE r.organization_id = :o AND r.id = ANY(CAST(:ids AS uuid[])) AND r.campaign_id IS NOT NULL ORDER BY r.campaign_id, r.id
    """
)


async def parked(session: OrganizationSession, run_ids: Collection[UUID]) -> list[Braked]:
    """These runs need attention: the campaigns among theirs that want so are paused. Harmless to repeat."""
    if not run_ids:
        return []
    rows = await session.execute(_OF_RUNS, {"o": session.organization_id, "ids": list(run_ids)})
    return await stop_at_first(session, {row.campaign_id: row.id for row in rows})


_LOCK = text(
    "SELECT 1 FROM brake_counts WHERE organization_id = :o AND subject_id = ANY(CAST(:ids AS uuid[])) ORDER BY subject_id FOR UPDATE"
)


async def stop_at_first(session: OrganizationSession, failed: dict[UUID, UUID]) -> list[Braked]:
    """Of these campaigns, each with a run that failed for good, those are paused that are to be at the first failure. Their counts are
    locked before they are, as by whoever counts: so two that brake the same do not deadlock."""
    query = "SELECT id FROM campaigns WHERE organization_id = :o AND id = ANY(CAST(:ids AS uuid[])) AND on_error = 'pause' ORDER BY id"
    wanted = (await session.execute(text(query), {"o": session.organization_id, "ids": list(failed)})).scalars().all()
    if wanted:
        await session.execute(_LOCK, {"o": session.organization_id, "ids": list(wanted)})
    return [one for id in wanted for one in await _brake(session, "campaign", id, "first_failure", {"run_id": str(failed[id])})]


_PAUSE: dict[Kind, str] = {
    "journey": """UPDATE journeys SET paused_at = now(), pauses = pauses + 1, updated_at = now()
        WHERE organization_id = :o AND id = :id AND paused_at IS NULL RETURNING id""",
    "campaign": """UPDATE campaigns SET paused_at = now(), pauses = pauses + 1, status = 'paused'
        WHERE organization_id = :o AND id = :id AND paused_at IS NULL AND cancelled_at IS NULL AND finished_at IS NULL
        RETURNING journey_id""",
}


async def _brake(session: OrganizationSession, kind: Kind, subject_id: UUID, reason: BrakeReason, facts: dict[str, Any]) -> list[Braked]:
    """Paused by the system, unless it is paused, or over, already."""
    journey_id = (await session.execute(text(_PAUSE[kind]), {"o": session.organization_id, "id": subject_id})).scalar_one_or_none()
    if journey_id is None:
        return []
    await lift(session, [subject_id])
    row = {
        "id": new_id(),
        "organization_id": session.organization_id,
        "subject_kind": kind,
        "subject_id": subject_id,
        "journey_id": journey_id,
        "reason": reason,
        "facts": facts,
        "unreachable": [],
    }
    await session.execute(insert(Braking).values(**row))
    return [Braked(row["id"], NewEntry(f"{kind}.paused", kind, str(subject_id), details={"reason": reason, **facts}))]


_FORGET = text("DELETE FROM brake_counts WHERE organization_id = :o AND subject_id = ANY(CAST(:ids AS uuid[]))")
_LIFT = text(
    """
    UPDATE brakings SET lifted_at = now()
    WHERE organization_id = :o AND subject_id = ANY(CAST(:ids AS uuid[])) AND lifted_at IS NULL
    """
)


async def lift(session: OrganizationSession, subject_ids: Collection[UUID]) -> None:
    """These journeys and campaigns go on, or have ended: nothing brakes them any more, and their messages are counted anew."""
    if subject_ids:
        parameters = {"o": session.organization_id, "ids": sorted(subject_ids)}
        await session.execute(_FORGET, parameters)
        await session.execute(_LIFT, parameters)


async def in_force(session: OrganizationSession, subject_ids: Collection[UUID]) -> dict[UUID, Braking]:
    """What brakes these journeys and campaigns now, by their ids."""
    wanted = (col(Braking.subject_id).in_(list(subject_ids)), col(Braking.lifted_at).is_(None))
    return {one.subject_id: one for one in (await session.execute(select(Braking).where(_mine(session), *wanted))).scalars()}


async def get(session: OrganizationSession, braking_id: UUID, *, lock: bool = False) -> Braking:
    """The braking; with `lock`, it stands still until this transaction ends.

    Raises:
        NotFound: no such braking in this organization.
    """
    statement = select(Braking).where(_mine(session), col(Braking.id) == braking_id)
    found = (await session.execute(statement.with_for_update() if lock else statement)).scalar_one_or_none()
    if found is None:
        raise NotFound("braking", braking_id)
    return found


async def untold(session: OrganizationSession, ids: Sequence[UUID]) -> Sequence[Braking]:
    """Those of the brakings that are in force and of which nobody has been told yet."""
    wanted = (_mine(session), col(Braking.finished_at).is_(None), col(Braking.lifted_at).is_(None), col(Braking.id).in_(ids))
    return (await session.execute(select(Braking).where(*wanted))).scalars().all()


async def unfinished(session: OrganizationSession, older_than: timedelta, limit: int) -> Sequence[UUID]:
    """Brakings of which nobody has been told for longer than this: their workflow may never have been started. Some by chance, where
    there are more than `limit`."""
    late = (col(Braking.finished_at).is_(None), col(Braking.created_at) < func.now() - older_than)
    return (
        (await session.execute(select(col(Braking.id)).where(_mine(session), *late).order_by(func.random()).limit(limit))).scalars().all()
    )


# --- who is told ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Responsible:
    """A member who may be told, and what makes them responsible: owner, creator or admin."""

    user_id: UUID
    email: str = field(repr=False)
    role: str


_RESPONSIBLE = text(
    """
    WITH named AS (
      SELECT j.owner_id AS user_id, 1 AS place, 'owner' AS role FROM journeys j WHERE j.organization_id = :o AND j.id = :journey_id
      UNION ALL
      SELECT coalesce(k.created_by, c.created_by), 2, 'creator' FROM campaigns c
        LEFT JOIN api_keys k ON k.organization_id = :o AND k.id = c.created_by
        WHERE c.organization_id = :o AND c.id = :subject_id
      UNION ALL
      SELECT d.saved_by, 3, 'creator' FROM draft_revisions d WHERE d.organization_id = :o AND d.journey_id = :journey_id AND d.revision = 1
      UNION ALL
      SELECT m.user_id, CASE m.role WHEN 'admin' THEN 4 ELSE 5 END, 'admin' FROM memberships m
        WHERE m.organization_id = :o AND m.role IN ('admin', 'owner')),
    people AS (
      SELECT DISTINCT ON (u.id) u.id AS user_id, u.email, n.role, n.place, m.created_at
      FROM named n JOIN memberships m ON m.organization_id = :o AND m.user_id = n.user_id
      JOIN users u ON u.id = m.user_id AND u.disabled_at IS NULL
      ORDER BY u.id, n.place)
    SELECT p.user_id, p.email, p.role FROM people p ORDER BY p.place, p.created_at, p.user_id
    """
)


async def responsible(session: OrganizationSession, braking: Braking) -> list[Responsible]:
    """Whom to tell, in this order: the journey's owner, who launched the campaign, who created the journey, the organization's admins,
    its owners. Each of them once, and only who is a member now and may log in."""
    parameters = {"o": session.organization_id, "journey_id": braking.journey_id, "subject_id": braking.subject_id}
    return [Responsible(row.user_id, row.email, row.role) for row in await session.execute(_RESPONSIBLE, parameters)]


def _mine(session: OrganizationSession) -> ColumnElement[bool]:
    return col(Braking.organization_id) == session.organization_id
