"""The claim ledger: one row per message, inserted before the provider is called. No row, no call.

    claimed ──fence──> transmitting ──settle──> accepted | failed | unknown
       │  ^                 │
       │  └────release──────┘   (certainly not sent: may be tried again)
       └──settle──> refused | failed

A row belongs to one `attempt` of the activity, and only its owner fences, settles or releases it. `claimed` was
certainly not handed over, so another attempt may take it; `transmitting` may have been, so nobody else ever sends it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import NewEntry
from models.store.rowset import rowset
from models.store.session import OrganizationSession


@dataclass(frozen=True)
class Claim:
    """A message about to be sent. `round` is how often its visit has asked."""

    id: UUID  # of the row, if this claim makes it
    run_id: UUID
    contact_id: UUID
    step_id: str
    visit: int
    round: int
    channel: str
    purpose: str
    topic_id: UUID | None
    connection_id: UUID | None
    template_version_id: UUID


@dataclass(frozen=True)
class Owner:
    """Whose messages these are, and the attempt that wants to send them."""

    journey_id: UUID
    version_id: UUID
    campaign_id: UUID | None
    attempt: UUID


@dataclass(frozen=True)
class DeliveryRow:
    """A row as it stands."""

    id: UUID
    run_id: UUID
    state: str
    outcome: str | None
    reason: str | None
    attempt: UUID | None
    attempts: int
    lease_over: bool  # it was handed over longer ago than the lease


# A row that is locked is in the hands of another attempt at this moment: it is left to that one. So a claim waits for nobody but another
# claim's new rows, which all make in the order of runs, and never stands in the way of a ledger that waits for it.
# A row that is taken says what is asked now: its run may have come from another version, and the fence judges by the row.
_CLAIM = text(
    """
    WITH wanted AS MATERIALIZED (
      SELECT a.* FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, run_id uuid, contact_id uuid, step_id text, visit int,
        round int, channel text, purpose text, topic_id uuid, connection_id uuid, template_version_id uuid)),
    free AS MATERIALIZED (
      SELECT d.id, a.round, a.channel, a.purpose, a.topic_id, a.connection_id, a.template_version_id
      FROM wanted a CROSS JOIN LATERAL (
        SELECT d.id, d.state, d.round FROM deliveries d
        WHERE d.organization_id = :o AND d.run_id = a.run_id AND d.step_id = a.step_id AND d.visit = a.visit
        LIMIT 1 FOR UPDATE SKIP LOCKED) d
      WHERE d.state = 'claimed' OR (d.state IN ('failed', 'refused') AND d.round < a.round)),
    taken AS (
      UPDATE deliveries d SET attempt = :attempt, round = f.round, claimed_at = clock_timestamp(), version_id = :version_id,
        channel = f.channel, purpose = f.purpose, topic_id = f.topic_id, connection_id = f.connection_id,
        template_version_id = f.template_version_id,
        attempts = CASE d.state WHEN 'claimed' THEN d.attempts ELSE 0 END,
        state = 'claimed', outcome = NULL, reason = NULL, settled_at = NULL, transmitting_at = NULL
      FROM free f WHERE d.organization_id = :o AND d.id = f.id AND d.id = ANY(ARRAY(SELECT id FROM free))
      RETURNING d.id, d.run_id, d.attempts),
    made AS (
      INSERT INTO deliveries (id, organization_id, run_id, journey_id, version_id, campaign_id, contact_id, step_id, visit, round,
        channel, purpose, topic_id, connection_id, template_version_id, state, attempt, attempts, claimed_at)
      SELECT a.id, :o, a.run_id, :journey_id, :version_id, :campaign_id, a.contact_id, a.step_id, a.visit, a.round,
        a.channel, a.purpose, a.topic_id, a.connection_id, a.template_version_id, 'claimed', :attempt, 0, clock_timestamp()
      FROM wanted a ORDER BY a.run_id
      ON CONFLICT (run_id, step_id, visit) DO NOTHING
      RETURNING id, run_id, attempts)
    SELECT * FROM taken UNION ALL SELECT * FROM made
    """
)


@dataclass(frozen=True)
class Claimed:
    id: UUID
    run_id: UUID
    attempts: int  # tries before, in this round


async def claim(session: OrganizationSession, owner: Owner, claims: Sequence[Claim]) -> list[Claimed]:
    """The rows that this attempt owns now: new ones, those certainly not handed over yet, and those that failed or were refused when
    asked in an earlier round (a person retries them, or the run was moved here anew). Each says what is asked now, whatever it said
    before. Rows of `claims` that are not answered are settled or under way."""
    parameters = {"o": session.organization_id, **vars(owner), "rows": rowset([vars(one) for one in claims])}
    return [Claimed(row.id, row.run_id, row.attempts) for row in await session.execute(_CLAIM, parameters)]


# Rows are found one by one by their key, whatever the planner believes: without fresh statistics it would rather read
# every row of the organization.
_STANDINGS = text(
    """
    SELECT d.id, d.run_id, d.state, d.outcome, d.reason, d.attempt, d.attempts,
           coalesce(d.transmitting_at < clock_timestamp() - :lease, false) AS lease_over
    FROM jsonb_to_recordset(CAST(:keys AS jsonb)) AS a(run_id uuid, step_id text, visit int)
    CROSS JOIN LATERAL (
      SELECT * FROM deliveries d
      WHERE d.organization_id = :o AND d.run_id = a.run_id AND d.step_id = a.step_id AND d.visit = a.visit LIMIT 1) d
    """
)


async def standings(session: OrganizationSession, claims: Sequence[Claim], lease: timedelta) -> list[DeliveryRow]:
    """The rows of these messages."""
    keys = rowset([{"run_id": one.run_id, "step_id": one.step_id, "visit": one.visit} for one in claims])
    rows = await session.execute(_STANDINGS, {"o": session.organization_id, "keys": keys, "lease": lease})
    return [DeliveryRow(**row) for row in rows.mappings()]


# `_ABANDON` and `_SETTLE` lock their rows in the order given: sorted, so that two attempts at the same rows do not deadlock.
_ABANDON = text(
    """
    WITH lost AS MATERIALIZED (
      SELECT d.id
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, attempt uuid)
      CROSS JOIN LATERAL (
        SELECT d.id, d.attempt, d.state, d.transmitting_at
        FROM deliveries d WHERE d.organization_id = :o AND d.id = a.id LIMIT 1 FOR UPDATE) d
      WHERE d.attempt = a.attempt AND d.state = 'transmitting' AND d.transmitting_at < clock_timestamp() - :lease)
    UPDATE deliveries d SET state = 'unknown', outcome = 'unknown', reason = 'attempt_lost', attempts = d.attempts + 1,
      settled_at = clock_timestamp()
    FROM lost WHERE d.organization_id = :o AND d.id = lost.id AND d.id = ANY(ARRAY(SELECT id FROM lost))
    RETURNING d.id, d.run_id, d.contact_id, d.step_id, d.visit, d.state, d.outcome, d.reason, d.journey_id, d.campaign_id
    """
)


@dataclass(frozen=True)
class Settled:
    """A row as it stands after it was settled."""

    id: UUID
    run_id: UUID
    contact_id: UUID
    step_id: str
    visit: int
    state: str
    outcome: str | None
    reason: str | None
    journey_id: UUID
    campaign_id: UUID | None

    def entry(self) -> NewEntry:
        """For the audit chain: delivery.accepted, delivery.refused, delivery.failed or delivery.unknown."""
        details = {
            "run_id": str(self.run_id),
            "contact_id": str(self.contact_id),
            "step_id": self.step_id,
            "visit": self.visit,
            "outcome": self.outcome,
            "reason": self.reason,
        }
        return NewEntry(f"delivery.{self.state}", "delivery", str(self.id), details=details)


async def abandon(session: OrganizationSession, lost: Sequence[DeliveryRow], lease: timedelta) -> list[Settled]:
    """Messages whose attempt fell silent after handing over are `unknown`. Answers those.

    A row is left alone if its attempt has settled it meanwhile; that attempt may still say better later.
    """
    rows = rowset([{"id": one.id, "attempt": one.attempt} for one in sorted(lost, key=lambda one: one.id)])
    found = await session.execute(_ABANDON, {"o": session.organization_id, "rows": rows, "lease": lease})
    return [Settled(**row) for row in found.mappings()]


@dataclass(frozen=True)
class Settlement:
    """What is known of a message now. `state` claimed releases it: certainly not sent, nobody's, to be tried again."""

    id: UUID
    attempt: UUID
    state: str
    outcome: str
    reason: str | None = None
    provider_message_id: str | None = None
    tries: int = 0  # of the provider: to be added to `attempts`
    suppress: tuple[str, bytes] | None = None  # the channel and hash of an address that has opted out; the ledger's to write


_SETTLE = text(
    """
    WITH told AS MATERIALIZED (
      SELECT a.*
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, attempt uuid, state text, outcome text, reason text,
        provider_message_id text, tries int)
      CROSS JOIN LATERAL (
        SELECT d.attempt, d.state FROM deliveries d WHERE d.organization_id = :o AND d.id = a.id LIMIT 1 FOR UPDATE) d
      WHERE d.attempt = a.attempt
        AND (d.state IN ('claimed', 'transmitting') OR (d.state = 'unknown' AND a.state IN ('accepted', 'failed')))),
    settled AS (
      UPDATE deliveries d SET state = a.state, outcome = a.outcome, reason = a.reason, provider_message_id = a.provider_message_id,
        attempts = d.attempts + CASE d.state WHEN 'unknown' THEN 0 ELSE a.tries END, -- a late answer is to the same try
        attempt = CASE a.state WHEN 'claimed' THEN NULL ELSE d.attempt END,
        transmitting_at = CASE a.state WHEN 'claimed' THEN NULL ELSE d.transmitting_at END,
        settled_at = CASE a.state WHEN 'claimed' THEN NULL ELSE clock_timestamp() END
      FROM told a WHERE d.organization_id = :o AND d.id = a.id AND d.id = ANY(ARRAY(SELECT id FROM told))
      RETURNING d.id, d.run_id, d.contact_id, d.step_id, d.visit, d.state, d.outcome, d.reason, d.journey_id, d.campaign_id)
    SELECT * FROM settled WHERE state <> 'claimed' ORDER BY id
    """
)


async def settle(session: OrganizationSession, settlements: Sequence[Settlement]) -> list[Settled]:
    """The rows are as these say, where they still belong to the attempt. Answers those that were settled, not the released ones.

    Safe to repeat: a row that is settled stays as it is, except that an answer heard late replaces `unknown`.
    """
    told = rowset([{**vars(one), "suppress": None} for one in sorted(settlements, key=lambda one: one.id)])
    rows = await session.execute(_SETTLE, {"o": session.organization_id, "rows": told})
    return [Settled(**row) for row in rows.mappings()]


RUN_ENDED = "run_ended"
# Found by their runs, whatever the planner believes. In the order of ids, as by everybody else.
_END = text(
    f"""
    WITH open AS MATERIALIZED (
      SELECT d.id FROM deliveries d
      WHERE d.organization_id = :o AND d.state = 'claimed' AND d.id = ANY(ARRAY(
        SELECT e.id FROM unnest(CAST(:runs AS uuid[])) AS a(run_id)
        CROSS JOIN LATERAL (SELECT d.id FROM deliveries d WHERE d.organization_id = :o AND d.run_id = a.run_id AND d.state = 'claimed') e))
      ORDER BY d.id FOR UPDATE)
    UPDATE deliveries d SET state = 'refused', outcome = 'refused', reason = '{RUN_ENDED}', attempt = NULL, settled_at = clock_timestamp()
    WHERE d.organization_id = :o AND d.id = ANY(ARRAY(SELECT id FROM open))
    RETURNING d.id, d.run_id, d.contact_id, d.step_id, d.visit, d.state, d.outcome, d.reason, d.journey_id, d.campaign_id
    """
)


async def end(session: OrganizationSession, run_ids: Sequence[UUID]) -> list[Settled]:
    """Of these runs, which have ended, nothing is about to be sent any more: what was claimed is refused, and an attempt that still has it
    neither hands it over nor settles it. What may have been handed over is left to its attempt. Answers those. Safe to repeat."""
    if not run_ids:
        return []
    rows = await session.execute(_END, {"o": session.organization_id, "runs": list(run_ids)})
    return sorted((Settled(**row) for row in rows.mappings()), key=lambda one: one.id)


_LOCK = text("SELECT 1 FROM deliveries WHERE organization_id = :o AND id = ANY(:ids) ORDER BY id FOR UPDATE")


async def lock(session: OrganizationSession, ids: Sequence[UUID]) -> None:
    """Nobody else changes these rows before this transaction ends. Taken in the one order, whatever is done with them afterwards."""
    await session.execute(_LOCK, {"o": session.organization_id, "ids": list(ids)})


async def paused_reason(session: OrganizationSession, journey_id: UUID, campaign_id: UUID | None) -> str | None:
    """Why nothing of this journey and campaign may leave just now, or None."""
    row = (await session.execute(_FLAGS, {"o": session.organization_id, "journey_id": journey_id, "campaign_id": campaign_id})).one()
    return pause_in(dict(row._mapping))


_FLAGS = text(
    """
    SELECT o.status AS organization_status, j.paused_at AS journey_paused, c.paused_at AS campaign_paused, c.cancelled_at AS cancelled
    FROM organizations o
    LEFT JOIN journeys j ON j.organization_id = o.id AND j.id = :journey_id
    LEFT JOIN campaigns c ON c.organization_id = o.id AND c.id = CAST(:campaign_id AS uuid)
    WHERE o.id = :o
    """
)


def pause_in(flags: dict[str, datetime | str | None]) -> str | None:
    """The reason in a row with the columns of `paused_reason`'s query."""
    if flags["organization_status"] != "active":
        return "organization_suspended"
    for name, reason in (("cancelled", "campaign_cancelled"), ("campaign_paused", "campaign_paused"), ("journey_paused", "journey_paused")):
        if flags[name] is not None:
            return reason
    return None
