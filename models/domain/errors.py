"""The error tree. Each class is one thing a caller can act on; `api/errors.py` holds the only mapping to HTTP.

LeadStatsError
├── NotFound              nothing with this id in this organization (a stranger's id included)
├── NotAllowed            the caller is known but lacks the permission
├── NotAuthenticated      no valid session or API key
├── TooManyAttempts       slow down; carries `retry_after`
├── Invalid               the input breaks a rule; carries one `Problem` per field
│   ├── KeyReused         its Idempotency-Key was used for another request
│   └── Unpublishable     a journey definition that `check` refuses
│       └── CasesFailed   one whose saved cases come to something else
├── Conflict              the thing is in a state that does not allow this
│   ├── ApprovalRequired  another person has to approve this first
│   ├── PlanOutdated      what the plan was made from has changed
│   ├── PreviewOutdated   what the preview counted has changed
│   └── StaleRevision     somebody else saved first
└── Unavailable           a part we depend on (Temporal, database, provider) cannot answer now
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Self


@dataclass(frozen=True)
class Problem:
    """One broken rule: where (`path`, dotted or JSON-pointer like), which (`code`), and what to do (`message`)."""

    path: str
    code: str
    message: str


class LeadStatsError(Exception):
    """Base of everything the product raises on purpose."""

    code = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(LeadStatsError):
    code = "not_found"

    def __init__(self, kind: str, identifier: object = None) -> None:
        super().__init__(f"There is no {kind} with this id." if identifier is None else f"There is no {kind} {identifier}.")
        self.kind = kind


class NotAllowed(LeadStatsError):
    code = "not_allowed"

    @classmethod
    def lacking(cls, permission: str) -> Self:
        return cls(f"This needs the permission {permission}; ask an admin of the organization, or use a key with that scope.")


class NotAuthenticated(LeadStatsError):
    code = "not_authenticated"


class TooManyAttempts(LeadStatsError):
    code = "too_many_attempts"

    def __init__(self, message: str, retry_after: timedelta) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Invalid(LeadStatsError):
    code = "invalid"

    def __init__(self, problems: Sequence[Problem], message: str | None = None) -> None:
        super().__init__(message or "; ".join(f"{problem.path}: {problem.message}" for problem in problems))
        self.problems = tuple(problems)

    @classmethod
    def field(cls, path: str, code: str, message: str) -> "Invalid":
        return cls([Problem(path, code, message)])


class KeyReused(Invalid):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        message = "This Idempotency-Key was used for another request; choose a new one."
        super().__init__([Problem("header.Idempotency-Key", self.code, message)], message)


class Unpublishable(Invalid):
    code = "unpublishable"


class CasesFailed(Unpublishable):
    code = "cases_failed"


class Conflict(LeadStatsError):
    code = "conflict"


class AttributeInUse(Conflict):
    code = "attribute_in_use"


class ApprovalRequired(Conflict):
    code = "approval_required"


class PlanOutdated(Conflict):
    code = "plan_outdated"


class PreviewOutdated(Conflict):
    code = "preview_outdated"


class StaleRevision(Conflict):
    code = "stale_revision"


class Unavailable(LeadStatsError):
    code = "unavailable"
