"""The sandbox's inbox: what it received, and how it was told to fail."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.errors import NotFound
from models.store.session import OrganizationSession
from models.tables.base import new_id


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message as the inbox took it. The id is given by the inbox, so that storing it twice changes nothing."""

    id: UUID
    sender: str
    recipient: str
    subject: str
    headers: Mapping[str, str]
    raw: bytes
    delivery_id: UUID | None


@dataclass(frozen=True)
class MessageHead:
    id: UUID
    sender: str
    recipient: str
    subject: str
    headers: dict[str, Any]
    delivery_id: UUID | None
    created_at: datetime


@dataclass(frozen=True)
class MessageFilter:
    """All given ones must hold. `received_after` is aware UTC, exclusive."""

    recipient: str | None = None
    delivery_id: UUID | None = None
    received_after: datetime | None = None


@dataclass(frozen=True)
class InjectedFault:
    """A scripted failure. `remaining` None: until deleted; 0: used up."""

    id: UUID
    phase: str
    action: str
    code: int | None
    message: str
    delay_ms: int | None
    recipient: str | None
    remaining: int | None
    created_at: datetime | None = None


async def store_messages(session: OrganizationSession, messages: Sequence[ReceivedMessage]) -> None:
    """The messages are in the inbox. Safe to repeat with the same ids."""
    await session.execute(
        text(
            """INSERT INTO sandbox_messages
                 (id, organization_id, channel, sender, recipient, subject, headers, text, html, raw, delivery_id)
               SELECT id, :o, 'email', sender, recipient, subject, headers, '', '', raw, delivery_id
               FROM unnest(CAST(:ids AS uuid[]), CAST(:senders AS text[]), CAST(:recipients AS text[]), CAST(:subjects AS text[]),
                           CAST(:headers AS jsonb[]), CAST(:raws AS bytea[]), CAST(:deliveries AS uuid[]))
                 AS m(id, sender, recipient, subject, headers, raw, delivery_id)
               ON CONFLICT (id) DO NOTHING"""
        ),
        {
            "o": session.organization_id,
            "ids": [message.id for message in messages],
            "senders": [message.sender for message in messages],
            "recipients": [message.recipient for message in messages],
            "subjects": [message.subject for message in messages],
            "headers": [json.dumps(dict(message.headers)) for message in messages],
            "raws": [message.raw for message in messages],
            "deliveries": [message.delivery_id for message in messages],
        },
    )


async def count_discarded(session: OrganizationSession, more: int) -> None:
    """`more` further messages were thrown away."""
    await session.execute(
        text(
            """INSERT INTO sandbox_discards (organization_id, received) VALUES (:o, :more)
               ON CONFLICT (organization_id) DO UPDATE SET received = sandbox_discards.received + excluded.received"""
        ),
        {"o": session.organization_id, "more": more},
    )


async def discarded(session: OrganizationSession) -> int:
    """How many messages were thrown away so far. The inbox writes this down every half second."""
    found = await session.scalar(text("SELECT received FROM sandbox_discards WHERE organization_id = :o"), {"o": session.organization_id})
    return int(found or 0)


async def list_messages(session: OrganizationSession, wanted: MessageFilter, limit: int, after: UUID | None) -> Sequence[MessageHead]:
    """Messages by age, oldest first, starting behind the message `after`."""
    rows = await session.execute(
        text(
            """SELECT id, sender, recipient, subject, headers, delivery_id, created_at FROM sandbox_messages
               WHERE organization_id = :o
                 AND (CAST(:after AS uuid) IS NULL OR id > :after)
                 AND (CAST(:recipient AS text) IS NULL OR lower(recipient) = lower(:recipient))
                 AND (CAST(:delivery_id AS uuid) IS NULL OR delivery_id = :delivery_id)
                 AND (CAST(:received_after AS timestamptz) IS NULL OR created_at > :received_after)
               ORDER BY id LIMIT :limit"""
        ),
        {
            "o": session.organization_id,
            "after": after,
            "recipient": wanted.recipient,
            "delivery_id": wanted.delivery_id,
            "received_after": wanted.received_after,
            "limit": limit,
        },
    )
    return [MessageHead(**row) for row in rows.mappings()]


async def get_message(session: OrganizationSession, message_id: UUID) -> tuple[MessageHead, bytes]:
    """The message and its bytes as they arrived. Raises NotFound."""
    row = (
        (
            await session.execute(
                text(
                    """SELECT id, sender, recipient, subject, headers, delivery_id, created_at, raw
                       FROM sandbox_messages WHERE organization_id = :o AND id = :id"""
                ),
                {"o": session.organization_id, "id": message_id},
            )
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise NotFound("sandbox message")
    values = dict(row)
    raw = bytes(values.pop("raw"))
    return MessageHead(**values), raw


async def clear_messages(session: OrganizationSession) -> int:
    """The inbox is empty. Returns how many messages were in it."""
    removed = await session.scalar(
        text("WITH gone AS (DELETE FROM sandbox_messages WHERE organization_id = :o RETURNING 1) SELECT count(*) FROM gone"),
        {"o": session.organization_id},
    )
    await session.execute(text("DELETE FROM sandbox_discards WHERE organization_id = :o"), {"o": session.organization_id})
    return int(removed or 0)


async def add_fault(session: OrganizationSession, fault: Mapping[str, Any]) -> UUID:
    """The inbox fails as told, within half a second."""
    identifier = new_id()
    await session.execute(
        text(
            """INSERT INTO sandbox_faults (id, organization_id, phase, action, code, message, delay_ms, recipient, remaining)
               VALUES (:id, :o, :phase, :action, :code, :message, :delay_ms, :recipient, :remaining)"""
        ),
        {"id": identifier, "o": session.organization_id, **fault},
    )
    return identifier


async def list_faults(session: OrganizationSession, limit: int = 500, after: UUID | None = None) -> Sequence[InjectedFault]:
    """Faults by age, oldest first, used up ones included."""
    rows = await session.execute(
        text(
            """SELECT id, phase, action, code, message, delay_ms, recipient, remaining, created_at FROM sandbox_faults
               WHERE organization_id = :o AND (CAST(:after AS uuid) IS NULL OR id > :after) ORDER BY id LIMIT :limit"""
        ),
        {"o": session.organization_id, "after": after, "limit": limit},
    )
    return [InjectedFault(**row) for row in rows.mappings()]


async def get_fault(session: OrganizationSession, fault_id: UUID) -> InjectedFault:
    """Raises NotFound."""
    row = (
        (
            await session.execute(
                text(
                    """SELECT id, phase, action, code, message, delay_ms, recipient, remaining, created_at FROM sandbox_faults
                       WHERE organization_id = :o AND id = :id"""
                ),
                {"o": session.organization_id, "id": fault_id},
            )
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise NotFound("sandbox fault")
    return InjectedFault(**row)


async def use_fault(session: OrganizationSession, fault_id: UUID) -> bool:
    """One use is taken from a counted fault. False when none is left: somebody else took the last one."""
    taken = await session.scalar(
        text("UPDATE sandbox_faults SET remaining = remaining - 1 WHERE organization_id = :o AND id = :id AND remaining > 0 RETURNING id"),
        {"o": session.organization_id, "id": fault_id},
    )
    return taken is not None


async def delete_fault(session: OrganizationSession, fault_id: UUID) -> None:
    """The fault is gone. Raises NotFound."""
    gone = await session.scalar(
        text("DELETE FROM sandbox_faults WHERE organization_id = :o AND id = :id RETURNING id"),
        {"o": session.organization_id, "id": fault_id},
    )
    if gone is None:
        raise NotFound("sandbox fault")


async def clear_faults(session: OrganizationSession) -> None:
    """The inbox works again."""
    await session.execute(text("DELETE FROM sandbox_faults WHERE organization_id = :o"), {"o": session.organization_id})
