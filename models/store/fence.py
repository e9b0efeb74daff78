"""The last check before a message could be accepted: consent, topic, suppression, address, pause and ownership, in the
one statement that marks it as handed over."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from models.domain.decision import Reason
from models.store.deliveries import pause_in
from models.store.eligibility import HOURS, suppression_channels
from models.store.journeys import CANCELLED_WITH
from models.store.rowset import rowset
from models.store.session import OrganizationSession


@dataclass(frozen=True)
class Passage:
    """A message that is ready to be handed over."""

    id: UUID  # of the delivery
    attempt: UUID
    channel: str
    address_hash: bytes  # what a suppression would know it by
    address: str = field(repr=False)  # as composed; the contact's must still be the same
    hours: str | None = None  # `Recipient.hours`, which must still be the same; None: its hours do not matter
    again: bool = False  # it has passed, and its first byte is still to be written


class Word(StrEnum):
    GO = "go"
    REFUSED = "refused"
    PAUSED = "paused"  # with everything of its campaign, journey or organization
    HELD = "held"  # this one message, for now
    LOST = "lost"  # another attempt owns it now


@dataclass(frozen=True)
class Verdict:
    word: Word
    reason: str | None = None


GO = Verdict(Word.GO)

# Rows are found one by one by their key, whatever the planner believes: without fresh statistics it would rather read
# every claimed row of the organization. Locked in the order given.
_ROWS = """mine AS MATERIALIZED (
      SELECT a.hash, a.channels, a.attempt AS asking, CASE WHEN a.again THEN 'transmitting' ELSE 'claimed' END AS from_state, a.address,
        a.hours, d.*
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, attempt uuid, hash text, channels text[], address text, hours text,
        again boolean)
      CROSS JOIN LATERAL (
        SELECT d.id, d.attempt, d.state, d.run_id, d.purpose, d.contact_id, d.channel, d.topic_id, d.journey_id, d.campaign_id
        FROM deliveries d WHERE d.organization_id = :o AND d.id = a.id LIMIT 1 FOR UPDATE) d)"""
_SUPPRESSED = """(SELECT true FROM suppressions s WHERE s.organization_id = :o AND s.released_at IS NULL
          AND s.channel = ANY(m.channels) AND s.address_hash = decode(m.hash, 'hex') LIMIT 1)"""
_CONSENT = """(SELECT k.status FROM consents k WHERE k.organization_id = :o AND k.contact_id = m.contact_id AND k.channel = m.channel
          AND k.topic_id = m.topic_id ORDER BY k.occurred_at DESC, k.id DESC LIMIT 1)"""
# Addresses are compared by their digests, so that no error and no log of a statement quotes one.
_SAME_ADDRESS = """EXISTS (SELECT 1 FROM contacts c WHERE c.organization_id = :o AND c.id = m.contact_id AND m.address =
          encode(sha256(convert_to(CASE m.channel WHEN 'email' THEN c.email ELSE c.phone END, 'UTF8')), 'hex'))"""
_SAME_HOURS = f"""(m.hours IS NULL OR m.hours = (SELECT {HOURS} FROM organizations o JOIN contacts c ON c.organization_id = o.id
          WHERE o.id = :o AND c.id = m.contact_id))"""
_WITH_JOURNEY = f"""EXISTS (SELECT 1 FROM journeys j WHERE j.organization_id = :o AND j.id = r.journey_id AND {CANCELLED_WITH})"""
# The update names its rows by an array: joined to `passing` instead, a plan made when the table was small may read every row
# of the organization, and ask for consent once for each.
_PASS = text(
    f"""
    WITH {_ROWS},
    passing AS MATERIALIZED (
      SELECT m.id FROM mine m
      WHERE m.attempt = m.asking AND m.state = m.from_state
        AND EXISTS (SELECT 1 FROM organizations o WHERE o.id = :o AND o.status = 'active')
        AND NOT EXISTS (SELECT 1 FROM journeys j WHERE j.organization_id = :o AND j.id = m.journey_id AND j.paused_at IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM campaigns c WHERE c.organization_id = :o AND c.id = m.campaign_id
                        AND (c.paused_at IS NOT NULL OR c.cancelled_at IS NOT NULL))
        AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.organization_id = :o AND r.id = m.run_id
                        AND (r.status IN ('paused', 'cancelled') OR r.cancel_requested_at IS NOT NULL OR r.exit_requested_at IS NOT NULL
                             OR r.replayed_by IS NOT NULL OR {_WITH_JOURNEY}))
        AND {_SAME_ADDRESS}
        AND {_SAME_HOURS}
        AND {_SUPPRESSED} IS NULL
        AND (m.purpose = 'transactional' OR (
          EXISTS (SELECT 1 FROM topics t WHERE t.organization_id = :o AND t.id = m.topic_id AND t.archived_at IS NULL)
          AND {_CONSENT} = 'granted')))
    UPDATE deliveries d SET state = 'transmitting', transmitting_at = clock_timestamp()
    WHERE d.organization_id = :o AND d.id = ANY(ARRAY(SELECT id FROM passing))
    RETURNING d.id
    """
)
_WHY_NOT = text(
    f"""
    WITH {_ROWS}
    SELECT m.id, m.attempt IS NOT DISTINCT FROM m.asking AND m.state = m.from_state AS mine, m.purpose,
           o.status AS organization_status, j.paused_at AS journey_paused, c.paused_at AS campaign_paused, c.cancelled_at AS cancelled,
           r.status = 'paused' AS run_paused,
           r.status = 'cancelled' OR r.cancel_requested_at IS NOT NULL OR {_WITH_JOURNEY} AS run_cancelled,
           r.exit_requested_at IS NOT NULL OR r.replayed_by IS NOT NULL AS run_left,
           {_SAME_ADDRESS} AS same_address, {_SUPPRESSED} IS NOT NULL AS suppressed,
           t.id AS topic, t.archived_at AS topic_archived, {_CONSENT} AS consent
    FROM mine m
    JOIN organizations o ON o.id = :o
    LEFT JOIN journeys j ON j.organization_id = :o AND j.id = m.journey_id
    LEFT JOIN campaigns c ON c.organization_id = :o AND c.id = m.campaign_id
    LEFT JOIN runs r ON r.organization_id = :o AND r.id = m.run_id
    LEFT JOIN topics t ON t.organization_id = :o AND t.id = m.topic_id
    """
)


async def let_pass(session: OrganizationSession, passages: Sequence[Passage]) -> dict[UUID, Verdict]:
    """By delivery: GO (the row says `transmitting` once this transaction commits), or why it must stay.

    One statement for all; a second one names the reasons of those that stay. Not safe to repeat: a row that has passed
    is no longer `claimed`, so whoever does not hear the answer must not send. Who has heard GO and was kept waiting asks `again`; what then
    stays still says `transmitting`: settle or release it.
    """
    ordered = sorted(passages, key=lambda one: one.id)  # locked in one order: two attempts at the same rows do not deadlock
    parameters = {"o": session.organization_id, "rows": rowset([_row(one) for one in ordered])}
    verdicts = dict.fromkeys((await session.execute(_PASS, parameters)).scalars(), GO)
    if len(verdicts) < len(passages):
        staying = rowset([_row(one) for one in ordered if one.id not in verdicts])
        rows = await session.execute(_WHY_NOT, {"o": session.organization_id, "rows": staying})
        verdicts |= {row.id: _why_not(row) for row in rows}
    return verdicts


def _row(passage: Passage) -> dict[str, Any]:
    return {
        "id": passage.id,
        "attempt": passage.attempt,
        "hash": passage.address_hash.hex(),
        "channels": suppression_channels(passage.channel),
        "address": sha256(passage.address.encode()).hexdigest(),
        "hours": passage.hours,
        "again": passage.again,
    }


def _why_not(row: Row[Any]) -> Verdict:
    if not row.mine:
        return Verdict(Word.LOST)
    if (paused := pause_in(dict(row._mapping))) is not None:
        return Verdict(Word.PAUSED, paused)
    if (held := _held(row)) is not None:
        return Verdict(Word.HELD, held)
    if (refused := _refused(row)) is not None:
        return Verdict(Word.REFUSED, refused)
    return Verdict(Word.HELD, "changed")  # its hours are others now, or what stood in the way has just gone: ask again


def _held(row: Row[Any]) -> str | None:
    if row.run_cancelled:
        return "run_cancelled"
    if row.run_left:
        return "run_left"  # a rule of the journey, or its replay, ended it; the workflow is being told
    if row.run_paused:
        return "run_paused"
    return None if row.same_address else "contact_changed"


def _refused(row: Row[Any]) -> Reason | None:
    if row.suppressed:
        return Reason.SUPPRESSED
    if row.purpose == "transactional":
        return None
    if row.topic is None:
        return Reason.NO_TOPIC
    if row.topic_archived is not None:
        return Reason.TOPIC_ARCHIVED
    if row.consent == "granted":
        return None
    return Reason.NO_CONSENT if row.consent is None else Reason.CONSENT_WITHDRAWN
