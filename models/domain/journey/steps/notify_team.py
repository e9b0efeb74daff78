"""`notify_team`: a mail to colleagues about this run. Pure."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.steps.effect import EffectStep
from models.domain.journey.steps.send import connection_problems

MAX_MEMBERS = 20


class NotifyTeamStep(EffectStep):
    """`members`: users of this organization. `subject` and `text` are Liquid, printed for the contact."""

    slow: ClassVar[bool] = True
    done: ClassVar[str] = "team_notified"

    kind: Literal["notify_team"] = "notify_team"
    members: tuple[UUID, ...]
    subject: Annotated[str, Field(min_length=1, max_length=200)]
    text: Annotated[str, Field(min_length=1, max_length=10_000)]
    connection_id: UUID | None = None

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        if not 1 <= len(self.members) <= MAX_MEMBERS:
            yield Problem(f"{path}.members", "wrong_number", f"Name 1 to {MAX_MEMBERS} members.")
        for index, member in enumerate(self.members[:MAX_MEMBERS]):
            if facts.members is not None and member not in facts.members:
                yield Problem(f"{path}.members[{index}]", "unknown_member", "This organization has no member with this user id.")
        for name, source in (("subject", self.subject), ("text", self.text)):
            if problem := facts.malformed_liquid.get(source):
                yield Problem(f"{path}.{name}", "malformed_liquid", problem)
        yield from connection_problems(path, "email", self.connection_id, facts)

    def liquid(self) -> Iterator[str]:
        yield from (self.subject, self.text)

    def frozen(self, facts: Facts) -> "NotifyTeamStep":
        return self.model_copy(update={"connection_id": self.connection_id or facts.default_connection("email")})
