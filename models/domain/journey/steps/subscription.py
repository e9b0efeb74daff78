"""`subscribe` and `unsubscribe`: a line in the consent ledger, with its evidence. Pure."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.steps.base import Channel
from models.domain.journey.steps.effect import EffectStep
from models.domain.journey.steps.send import topic_problems


class SubscribeStep(EffectStep):
    """Consent is evidence of what a person did, so the step says what that was: `evidence`, such as "ticked the box at checkout"."""

    done: ClassVar[str] = "subscribed"

    kind: Literal["subscribe"] = "subscribe"
    topic_id: UUID
    channel: Channel = "email"
    evidence: Annotated[str, Field(min_length=1, max_length=500)]

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        yield from topic_problems(path, self.topic_id, facts)
        if not self.evidence.strip():
            yield Problem(f"{path}.evidence", "required", "Say what the contact did to agree.")


class UnsubscribeStep(EffectStep):
    done: ClassVar[str] = "unsubscribed"

    kind: Literal["unsubscribe"] = "unsubscribe"
    topic_id: UUID
    channel: Channel = "email"
    evidence: Annotated[str, Field(max_length=500)] = ""

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        if self.topic_id not in facts.topics:
            yield Problem(f"{path}.topic_id", "unknown_topic", "There is no topic with this id.")
