"""`send`: one message over one channel, after every check. Pure."""

from collections.abc import Iterator
from typing import ClassVar, Literal, Self
from uuid import UUID

from models.domain.errors import Problem
from models.domain.journey.facts import Facts, TemplateFact
from models.domain.journey.steps.base import Channel, Exits, Purpose, StepId, StepModel

UNSUBSCRIBE_LINK = "unsubscribe_url"  # the name that a template prints the recipient's own link by


class SendStep(StepModel):
    says: ClassVar[frozenset[str]] = frozenset({"not_sent", "sent"})

    kind: Literal["send"] = "send"
    channel: Channel = "email"
    template_id: UUID
    template_version_id: UUID | None = None  # None in a draft: the newest; always set in a published version
    purpose: Purpose = "marketing"
    topic_id: UUID | None = None  # required for marketing
    connection_id: UUID | None = None  # None: the organization's default connection of the channel
    in_quiet_hours: Literal["hold", "drop"] = "hold"  # whether a message that comes too late waits for the morning, or is not sent
    on_refused: Literal["continue", "exit", "path"] = "continue"  # what a run does when the message must not be sent
    not_sent: StepId | None = None  # with "path": where it goes
    next: StepId | None = None  # None: the run completes

    def exits(self) -> Exits:
        yield "next", self.next
        if self.on_refused == "path":
            yield "not_sent", self.not_sent

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        yield from self._template(path, facts)
        yield from self._topic(path, facts)
        yield from connection_problems(path, self.channel, self.connection_id, facts)
        if self.on_refused != "path" and self.not_sent is not None:
            yield Problem(f"{path}.not_sent", "unused", 'Only on_refused "path" leads there; say so, or remove it.')

    def frozen(self, facts: Facts) -> Self:
        version_id = self.template_version_id or facts.templates[self.template_id].newest_version_id
        connection_id = self.connection_id or facts.default_connection(self.channel)
        return self.model_copy(update={"template_version_id": version_id, "connection_id": connection_id})

    def _template(self, path: str, facts: Facts) -> Iterator[Problem]:
        found = facts.templates.get(self.template_id)
        if found is None:
            yield Problem(f"{path}.template_id", "unknown_template", "There is no template with this id.")
        elif found.archived:
            yield Problem(f"{path}.template_id", "archived_template", "This template is archived; choose another.")
        elif found.channel != self.channel:
            message = f"This is a template for {found.channel}, but the step sends by {self.channel}."
            yield Problem(f"{path}.template_id", "wrong_channel", message)
        elif found.newest_version_id is None:
            yield Problem(f"{path}.template_id", "empty_template", "This template has no version yet; save its contents first.")
        else:
            yield from self._template_version(path, found)

    def _template_version(self, path: str, template: TemplateFact) -> Iterator[Problem]:
        version_id = self.template_version_id or template.newest_version_id
        names = None if version_id is None else template.versions.get(version_id)
        if names is None:
            yield Problem(f"{path}.template_version_id", "unknown_template_version", "The template has no version with this id.")
        elif self.channel == "email" and self.purpose == "marketing" and UNSUBSCRIBE_LINK not in names:
            message = f"A marketing email shows a way out: print {{{{ {UNSUBSCRIBE_LINK} }}}} in the template."
            yield Problem(f"{path}.template_id", "no_unsubscribe_link", message)

    def _topic(self, path: str, facts: Facts) -> Iterator[Problem]:
        if self.topic_id is not None:
            yield from topic_problems(path, self.topic_id, facts)
        elif self.purpose == "marketing":
            yield Problem(f"{path}.topic_id", "required", "A marketing message names the topic that its recipients agreed to.")


def topic_problems(path: str, topic_id: UUID, facts: Facts) -> Iterator[Problem]:
    if topic_id not in facts.topics:
        yield Problem(f"{path}.topic_id", "unknown_topic", "There is no topic with this id.")
    elif facts.topics[topic_id].archived:
        yield Problem(f"{path}.topic_id", "archived_topic", "This topic is archived; choose another.")


def connection_problems(path: str, channel: str, connection_id: UUID | None, facts: Facts) -> Iterator[Problem]:
    if connection_id is not None:
        found = facts.connections.get(connection_id)
        if found is None:
            yield Problem(f"{path}.connection_id", "unknown_connection", "There is no connection with this id.")
        elif found.channel != channel:
            message = f"This connection sends {found.channel}, but the step sends {channel}."
            yield Problem(f"{path}.connection_id", "wrong_channel", message)
    elif facts.default_connection(channel) is None:
        there_is_one = any(connection.channel == channel for connection in facts.connections.values())
        message = "choose one here, or make one the default" if there_is_one else f"connect an account for {channel} first"
        yield Problem(f"{path}.connection_id", "no_connection", f"No default connection can send {channel}: {message}.")
