"""The facts that decide whether a message may leave, for a whole batch in a constant number of statements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from models.domain.decision import ConsentFacts, ConsentLine
from models.domain.journey.definition import Purpose
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.store.suppressions import address_hash


@dataclass(frozen=True)
class Asked:
    """One message somebody wants to send."""

    run_id: UUID
    contact_id: UUID
    channel: str
    purpose: Purpose
    topic_id: UUID | None


_FACTS = text(
    """
    SELECT a.run_id, c.id AS contact_id, CASE a.channel WHEN 'email' THEN c.email ELSE c.phone END AS address,
           o.status AS organization_status, t.id AS topic_id, t.archived_at, k.id AS consent_id, k.status AS consent_status, k.occurred_at
    FROM jsonb_to_recordset(CAST(:asked AS jsonb)) AS a(run_id uuid, contact_id uuid, channel text, topic_id uuid)
    JOIN organizations o ON o.id = :o
    LEFT JOIN LATERAL (SELECT c.id, c.email, c.phone FROM contacts c WHERE c.organization_id = :o AND c.id = a.contact_id LIMIT 1) c ON true
    LEFT JOIN topics t ON t.organization_id = :o AND t.id = a.topic_id
    LEFT JOIN LATERAL (
      SELECT k.id, k.status, k.occurred_at FROM consents k
      WHERE k.organization_id = :o AND k.contact_id = a.contact_id AND k.channel = a.channel AND k.topic_id = a.topic_id
      ORDER BY k.occurred_at DESC, k.id DESC LIMIT 1) k ON true
    """
)
_SUPPRESSED = text(
    """
    SELECT address_hash, id FROM suppressions
    WHERE organization_id = :o AND released_at IS NULL AND channel = ANY(CAST(:channels AS text[]))
      AND address_hash = ANY(CAST(:hashes AS bytea[]))
    """
)


# A phone number that is suppressed on one of its channels is suppressed on all: the hash is the same for each.
EMAIL_CHANNELS = ("email",)
PHONE_CHANNELS = ("sms", "mms", "voice", "phone")


def suppression_channels(channel: str) -> tuple[str, ...]:
    """The channels on which a suppression of the same address forbids this one."""
    return EMAIL_CHANNELS if channel == "email" else PHONE_CHANNELS


async def load_consent_facts(session: OrganizationSession, asked: Sequence[Asked], suppression_key: bytes) -> dict[UUID, ConsentFacts]:
    """By run: what is known about each recipient now. `suppression_key` is settings.derive_key("suppressions")."""
    parameters = {"o": session.organization_id, "asked": rowset([vars(one) for one in asked])}
    rows = {row.run_id: row for row in await session.execute(_FACTS, parameters)}
    hashes = {
        one.run_id: address_hash(suppression_key, one.channel, row.address)
        for one in asked
        if (row := rows[one.run_id]).address is not None
    }
    suppressed = await _suppressions(session, list(hashes.values()))
    return {one.run_id: _facts(one, rows[one.run_id], suppressed.get(hashes.get(one.run_id, b""))) for one in asked}


async def _suppressions(session: OrganizationSession, hashes: Sequence[bytes]) -> dict[bytes, UUID]:
    channels = [*EMAIL_CHANNELS, *PHONE_CHANNELS]
    rows = await session.execute(_SUPPRESSED, {"o": session.organization_id, "channels": channels, "hashes": list(hashes)})
    return {bytes(row.address_hash): row.id for row in rows}


def _facts(asked: Asked, row: Row[Any], suppression_id: UUID | None) -> ConsentFacts:
    return ConsentFacts(
        channel=asked.channel,
        purpose=asked.purpose,
        topic_id=asked.topic_id,
        organization_status=row.organization_status,
        contact_exists=row.contact_id is not None,
        has_address=row.address is not None,
        suppression_id=suppression_id,
        topic_exists=row.topic_id is not None,
        topic_archived=row.archived_at is not None,
        consent=None if row.consent_id is None else ConsentLine(row.consent_id, row.consent_status, row.occurred_at),
    )


@dataclass(frozen=True)
class Places:
    """Where contacts are, as they say, and what their organization permits."""

    organization_timezone: str
    quiet_hours: Mapping[str, Any]
    timezones: Mapping[UUID, str | None]  # by contact


async def load_places(session: OrganizationSession, contact_ids: Sequence[UUID]) -> Places:
    """The organization's quiet hours and zone, and each contact's zone."""
    organization = (
        await session.execute(text("SELECT timezone, quiet_hours FROM organizations WHERE id = :o"), {"o": session.organization_id})
    ).one()
    zones = await session.execute(
        text("SELECT id, timezone FROM contacts WHERE organization_id = :o AND id = ANY(CAST(:ids AS uuid[]))"),
        {"o": session.organization_id, "ids": list(contact_ids)},
    )
    return Places(organization.timezone, organization.quiet_hours, {row.id: row.timezone for row in zones})


@dataclass(frozen=True)
class Recipient:
    """What a message to one contact is addressed to and rendered with."""

    contact: Mapping[str, Any]
    variables: Mapping[str, Any]
    hours: str  # what its hours are judged by, as a digest

    def address(self, channel: str) -> str | None:
        """Where a message over `channel` goes; None: there is no such address."""
        address: str | None = self.contact["email" if channel == "email" else "phone"]
        return address or None


@dataclass(frozen=True)
class Audience:
    """The recipients of a batch, by run (a contact that is gone is missing), and what their organization is called."""

    recipients: Mapping[UUID, Recipient]
    organization: Mapping[str, Any]
    quiet_hours: Mapping[str, Any]
    read_at: datetime  # aware UTC, the database's clock


# What the hours of a contact `c` of the organization `o` are judged by.
HOURS = "encode(sha256(convert_to(CAST(jsonb_build_array(o.quiet_hours, o.timezone, c.timezone) AS text), 'UTF8')), 'hex')"
# Read before the organization's own row: what changes between the two is not yet in the digest, and the fence sees that.
_RECIPIENTS = text(
    f"""
    SELECT a.run_id, c.id, c.external_id, c.email, c.phone, c.first_name, c.last_name, c.locale, c.timezone, c.country, c.region,
           c.postal_code, c.attributes, c.tags, coalesce(r.variables, '{{}}') AS variables, {HOURS} AS hours
    FROM jsonb_to_recordset(CAST(:asked AS jsonb)) AS a(run_id uuid, contact_id uuid)
    JOIN organizations o ON o.id = :o
    CROSS JOIN LATERAL (SELECT * FROM contacts c WHERE c.organization_id = :o AND c.id = a.contact_id LIMIT 1) c
    LEFT JOIN LATERAL (SELECT r.variables FROM runs r WHERE r.organization_id = :o AND r.id = a.run_id LIMIT 1) r ON true
    """
)


async def load_audience(session: OrganizationSession, contacts: Mapping[UUID, UUID]) -> Audience:
    """The recipients of the runs in `contacts` (run to contact)."""
    asked = rowset([{"run_id": run_id, "contact_id": contact_id} for run_id, contact_id in contacts.items()])
    rows = (await session.execute(_RECIPIENTS, {"o": session.organization_id, "asked": asked})).mappings()
    recipients = {}
    for row in rows:
        contact = dict(row)
        run_id, variables, hours = (contact.pop(name) for name in ("run_id", "variables", "hours"))
        recipients[run_id] = Recipient(contact, variables, hours)
    organization = (
        await session.execute(
            text("SELECT name, timezone, quiet_hours, clock_timestamp() AS read_at FROM organizations WHERE id = :o"),
            {"o": session.organization_id},
        )
    ).one()
    named = {"name": organization.name, "timezone": organization.timezone}
    return Audience(recipients, named, organization.quiet_hours, organization.read_at)
