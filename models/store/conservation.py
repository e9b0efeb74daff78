"""Counting both sides of conservation, and how far the reconciler has come."""

from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

from sqlalchemy import text

from models.domain.conservation import Balance
from models.store.limits import within
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.findings import OrganizationCheck

# One statement, so one instant. The audit chain only grows: what was counted before is not counted again.
_BALANCE = text(
    """
    WITH checked AS (SELECT coalesce(max(counted_to), 0) AS counted_to, coalesce(max(started), 0) AS started,
                            coalesce(max(accepted), 0) AS accepted FROM organization_checks WHERE organization_id = :o),
    chain AS (
      SELECT count(*) FILTER (WHERE a.action = 'run.started') AS started,
        count(*) FILTER (WHERE a.action = 'delivery.accepted') AS accepted, coalesce(max(a.sequence), 0) AS sequence
      FROM audit_entries a WHERE a.organization_id = :o AND a.sequence > (SELECT counted_to FROM checked))
    SELECT clock_timestamp() AS taken_at,
      (SELECT coalesce(sum(audience), 0) FROM campaigns WHERE organization_id = :o) AS by_campaigns,
      checked.started + chain.started AS started, checked.accepted + chain.accepted AS accepted,
      greatest(checked.counted_to, chain.sequence) AS counted_to,
      (SELECT coalesce(jsonb_object_agg(s.status, s.runs), '{}') FROM
        (SELECT status, count(*) AS runs FROM runs WHERE organization_id = :o GROUP BY status) s) AS runs,
      (SELECT coalesce(jsonb_object_agg(s.state, s.deliveries), '{}') FROM
        (SELECT state, count(*) AS deliveries FROM deliveries WHERE organization_id = :o GROUP BY state) s) AS deliveries
    FROM checked, chain
    """
)
_CHECKED = text(
    """
    INSERT INTO organization_checks (organization_id, balanced_at, balance_ms, balance, counted_to, started, accepted)
    VALUES (:o, clock_timestamp(), :took, CAST(:balance AS jsonb), :counted_to, :started, :accepted)
    ON CONFLICT (organization_id) DO UPDATE SET balanced_at = EXCLUDED.balanced_at, balance_ms = EXCLUDED.balance_ms,
      balance = EXCLUDED.balance, counted_to = EXCLUDED.counted_to, started = EXCLUDED.started, accepted = EXCLUDED.accepted
    WHERE organization_checks.counted_to <= EXCLUDED.counted_to
    """
)
SHARE = 50  # a check that took a second is made again after 50: it takes a fiftieth of the time at most


LOOK = timedelta(seconds=10)  # how long somebody may wait for the numbers


async def balance(session: OrganizationSession) -> Balance:
    """Both sides as they stand at this instant. Changes nothing.

    Raises:
        Unavailable: counting took longer than `LOOK`.
    """
    async with within(session, LOOK, _INSTEAD):
        return _balance(await _count(session))


_INSTEAD = (
    "Repeat when the database is less busy. The reconciler counts, too, as long as that takes: GET /v1/findings?kind=conservation shows "
    "whether the numbers differed, and the metric leadstats_conservation_difference by how much."
)


async def check_balance(session: OrganizationSession) -> Balance:
    """Both sides, remembered for the metric and as the place to count on from. Safe to repeat."""
    began = perf_counter()
    row = await _count(session)
    found = _balance(row)
    told = {
        "o": session.organization_id,
        "took": int((perf_counter() - began) * 1000),
        "balance": rowset([found.details()])[1:-1],
        "counted_to": row.counted_to,
        "started": row.started,
        "accepted": row.accepted,
    }
    await session.execute(_CHECKED, told)
    return found


async def _count(session: OrganizationSession) -> Any:
    return (await session.execute(_BALANCE, {"o": session.organization_id})).one()


def _balance(row: Any) -> Balance:
    return Balance(row.taken_at, int(row.by_campaigns), int(row.started), row.runs, row.deliveries, int(row.accepted))


def is_due(check: OrganizationCheck | None, now: datetime) -> bool:
    """Whether conservation is to be checked again: seldom where that takes long."""
    if check is None or check.balanced_at is None:
        return True
    return now - check.balanced_at >= timedelta(milliseconds=check.balance_ms) * SHARE


async def last_check(session: OrganizationSession) -> OrganizationCheck | None:
    """How far the reconciler has come; None before its first round."""
    return await session.get(OrganizationCheck, session.organization_id)


_NOTE = """
    INSERT INTO organization_checks (organization_id, {column}, balance_ms, balance) VALUES (:o, clock_timestamp(), 0, '{{}}')
    ON CONFLICT (organization_id) DO UPDATE SET {column} = EXCLUDED.{column}"""
_NOTES = {name: text(_NOTE.format(column=f"{name}_at")) for name in ("workflows", "records", "volumes")}
_HISTORIES = text(
    """
    INSERT INTO organization_checks (organization_id, histories_to, balance_ms, balance) VALUES (:o, :to, 0, '{}')
    ON CONFLICT (organization_id) DO UPDATE SET histories_to = greatest(organization_checks.histories_to, EXCLUDED.histories_to)
    """
)
_LAST_BEFORE = text(
    """SELECT coalesce(max(sequence), 0) FROM audit_entries a WHERE a.organization_id = :o AND a.sequence > :after
       AND a.id < CAST(:before AS uuid)"""
)


async def note(session: OrganizationSession, what: str) -> None:
    """This part of the reconciler (workflows, records, volumes) has looked at the organization just now."""
    await session.execute(_NOTES[what], {"o": session.organization_id})


async def note_histories(session: OrganizationSession, to: int) -> None:
    """What ended until this entry of the audit chain has its history archived, or a finding."""
    await session.execute(_HISTORIES, {"o": session.organization_id, "to": to})


async def chain_before(session: OrganizationSession, after: int, before: Any) -> int:
    """The newest entry of the audit chain behind `after` that was made before the id `before`; `after` when there is none."""
    return max(after, int(await session.scalar(_LAST_BEFORE, {"o": session.organization_id, "after": after, "before": before}) or 0))
