"""How the pause of a journey or campaign is lifted. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from models.domain.errors import Conflict, Invalid

LONGEST_SPREAD = timedelta(days=30)
LONGEST_DUE = timedelta(days=3660)


@dataclass(frozen=True)
class Manner:
    """How a pause is lifted. `spread`: each run goes on at a moment of its own within it; None: at once."""

    spread: timedelta | None = None
    drop_older_than: timedelta | None = None
    recheck_entry: bool = False

    def check(self) -> None:
        """Raises Invalid."""
        if self.spread is not None and not timedelta(0) < self.spread <= LONGEST_SPREAD:
            raise Invalid.field("spread", "out_of_range", f"A spread is longer than nothing and at most {LONGEST_SPREAD.days} days.")
        if self.drop_older_than is not None and not timedelta(0) <= self.drop_older_than <= LONGEST_DUE:
            message = f"Nothing is due for less than no time, and this may be at most {LONGEST_DUE.days} days."
            raise Invalid.field("drop_older_than", "out_of_range", message)

    def refuse_unpaused(self, what: str) -> None:
        """Of a `what` that is not paused. Raises Conflict, for who asks for a manner must not believe that it was kept; without one there
        is nothing to do."""
        if self != Manner():
            raise Conflict(
                f"This {what} is not paused (any more), so nobody was spread or left out. If this repeats an earlier request, that one was "
                "obeyed: the audit record says what was asked for, and by whom."
            )

    def audited(self) -> dict[str, Any]:
        named = {"spread_seconds": self.spread, "drop_older_than_seconds": self.drop_older_than}
        found: dict[str, Any] = {name: int(value.total_seconds()) for name, value in named.items() if value is not None}
        return found | ({"recheck_entry": True} if self.recheck_entry else {})


AT_ONCE = Manner()
