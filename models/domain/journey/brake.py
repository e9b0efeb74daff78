"""When a journey or campaign is paused by itself, because too much of what it sends fails. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

from models.domain.journey.happening import Happening, Names
from models.domain.journey.reasons import reason_words

WINDOW = 5  # times `at_least`: after so many messages the next window begins; the present and the last one count
BrakeReason = Literal["too_many_failures", "first_failure"]
# Not the provider's failures: a recipient opted out, and a worker of ours that died while handing a message over.
NO_FAILURES = ("opted_out", "attempt_lost")
# Of those, what stops a run: a wrong address does not, the run goes on without the message.
STOPS_ITS_RUN = frozenset({"content_permanent", "gave_up", "unknown"})


class Brake(BaseModel):
    """Pauses when at least `share` of the latest messages failed for good, of which there were `at_least`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: StrictBool = True
    share: Annotated[StrictFloat, Field(gt=0, le=1)] = 0.35
    at_least: Annotated[StrictInt, Field(ge=1, le=10_000)] = 20

    @property
    def window(self) -> int:
        return WINDOW * self.at_least

    def acts(self, attempted: int, failed: int) -> bool:
        """Whether so many failures among so many messages are too many."""
        return self.enabled and failed > 0 and attempted >= self.at_least and failed >= self.share * attempted


def counted(state: str, outcome: str | None, reason: str | None) -> tuple[int, int]:
    """What a delivery that is settled like this counts for: as attempted, and as failed. What our own checks refuse was never
    attempted."""
    if outcome in NO_FAILURES or reason in NO_FAILURES or state not in ("accepted", "failed", "unknown"):
        return 0, 0
    return 1, int(state != "accepted")


def braking_words(reason: str, facts: Mapping[str, Any]) -> str:
    """Why it was braked, with the numbers."""
    words = reason_words(Happening("paused", Names(), reason=reason)) or reason
    if "attempted" not in facts:
        return words
    why = reason_words(Happening("parked", Names(), reason=facts.get("failure"))) or "for several reasons"
    return f"{words} ({facts['failed']} of the latest {facts['attempted']}; the limit is {facts['share'] * 100:g} %). Most often: {why}"
