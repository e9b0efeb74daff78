"""One message: what it says and where it goes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from activities.providers.port import Mailbox, OutgoingEmail
from models.domain.decision import has_hours
from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.definition import SendStep
from models.domain.template import Unsendable
from models.domain.unsubscribe import Unsubscribe, make_token
from models.message_content import printed_message
from models.rendering import Rendered
from models.settings import Settings
from models.store.connections import SendingConnection
from models.store.eligibility import Recipient


@dataclass(frozen=True)
class Message:
    """A claimed message, ready to be composed."""

    id: UUID  # of its delivery
    run_id: UUID
    contact_id: UUID
    step: SendStep
    template: TemplateContent | None
    recipient: Recipient | None  # None: the contact is gone
    attempts: int  # transient and throttled answers before
    allowed_until: datetime | None = None  # aware UTC, the workflow's clock: quiet hours begin
    round: int = 0  # how often its visit has asked before

    @property
    def address(self) -> str | None:
        return None if self.recipient is None else self.recipient.address(self.step.channel)

    @property
    def hours(self) -> str | None:
        """What its hours are judged by, as a digest. None: they do not matter."""
        return None if self.recipient is None or not has_hours(self.step.channel, self.step.purpose) else self.recipient.hours

    def too_late(self, now: datetime) -> bool:
        """The permitted hours that quiet-hours spoke of are over."""
        return self.allowed_until is not None and now >= self.allowed_until


def mail_from(connection: SendingConnection, id: UUID, recipient: str, said: Rendered, sent_at: datetime) -> OutgoingEmail:
    """A transactional mail by this connection. Its Message-ID is made of `id`: the same for every try, so that a repetition can be
    recognised. `sent_at` is aware UTC."""
    config = connection.config
    return OutgoingEmail(
        delivery_id=id,
        sender=Mailbox(config["sender_address"], config.get("sender_name") or ""),
        recipient=recipient,
        subject=said.subject,
        html=said.html,
        text=said.text,
        purpose="transactional",
        sent_at=sent_at,
        reply_to=config.get("reply_to"),
    )


class Composer:
    """Renders messages. Shared by all activities of a process."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.derive_key("unsubscribe-links")
        self._public_url = settings.public_url.rstrip("/")

    def compose(self, message: Message, connection: SendingConnection, organization: Mapping[str, Any], sent_at: datetime) -> OutgoingEmail:
        """The mail, with its unsubscribe link if it is marketing. `sent_at` (aware UTC) becomes its date.

        Raises:
            Unsendable: a printed value is missing, or the template cannot be rendered or sent over this channel.
        """
        assert message.recipient is not None and message.address is not None
        recipient, link = message.recipient, self._unsubscribe_link(message, connection.organization_id)
        rendered = printed_message(message.step, message.template, recipient.contact, recipient.variables, organization["name"], link)
        mail = mail_from(connection, message.id, message.address, rendered, sent_at)
        return replace(mail, purpose=message.step.purpose, unsubscribe_url=link)

    def _unsubscribe_link(self, message: Message, organization_id: UUID) -> str | None:
        if message.step.purpose != "marketing":
            return None
        if message.step.topic_id is None:
            raise Unsendable("no_topic")
        who = Unsubscribe(organization_id, message.contact_id, message.step.topic_id, message.step.channel, message.id)
        return f"{self._public_url}/u/{make_token(self._key, who)}"
