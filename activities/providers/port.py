"""What every provider looks like to the send pipeline.

A provider carries one message and says what became of it. It never retries: only Temporal does, and only where the
answer is certain that nothing was sent.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol
from uuid import UUID

from activities.contracts.sending import SendOutcome
from models.domain.connection import BrokenReason
from models.domain.journey.definition import Purpose

ABORTED: Final = "aborted"  # `transmit()` said no: certainly not sent, and nothing is wrong

Transmit = Callable[[], Awaitable[bool]]
"""The fence. Awaited right before the phase in which the provider could accept, and once more right before the message's first byte, since
the provider may have kept us waiting in between; False stops the message there. Asked again within moments it answers at once."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    address: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class OutgoingEmail:
    """One mail to one recipient, rendered. `sent_at` is aware UTC and becomes the Date header.

    `unsubscribe_url` is required for marketing and ignored for transactional mail.
    """

    delivery_id: UUID
    sender: Mailbox
    recipient: str
    subject: str
    html: str
    text: str
    purpose: Purpose
    sent_at: datetime
    unsubscribe_url: str | None = None
    reply_to: str | None = None


OutgoingMessage = OutgoingEmail


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """What became of one message.

    `reason` is a short code that never holds an address or the provider's words. `retry_after` comes with TRANSIENT
    and THROTTLED when the provider, or the kind of refusal, says how long to wait.
    """

    outcome: SendOutcome | Literal["aborted"]
    reason: str | None = None
    retry_after: timedelta | None = None
    provider_message_id: str | None = None


def broken(reason: BrokenReason) -> ProviderAnswer:
    """The connection itself does not work: its messages are held, for a reason by which they are found when it is mended."""
    return ProviderAnswer(SendOutcome.CONNECTION_BROKEN, reason)


class Provider(Protocol):
    """One connection's way out. Safe to use by many tasks at once."""

    async def send(self, message: OutgoingMessage, transmit: Transmit) -> ProviderAnswer:
        """Hand over the message, at most once. Never raises for what the provider or the network does.

        Cancelling it after `transmit()` returned True leaves the outcome unknown. ABORTED is certain: it said False before the first byte.
        """
        ...

    async def close(self) -> None:
        """Idle connections are closed; those in use close when they are done."""
        ...
