"""Conservation: nobody is lost and nobody invented. Pure.

    entered = active + waiting + held + paused + needs_attention + completed + exited + cancelled

`entered` is counted where entries are recorded (the sizes of campaigns' snapshots, and `run.started` in the audit chain), the right
side in the table of runs: two records that are written in one transaction, and read in one statement. Likewise deliveries: those that
the audit chain says were accepted, and those that the table says. What was accepted was handed over, which a delivery's state says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from models.domain.journey.run import Phase


@dataclass(frozen=True)
class Balance:
    """The two sides, as they stood at one instant. `taken_at` is aware UTC."""

    taken_at: datetime
    by_campaigns: int
    by_others: int
    runs: Mapping[str, int] = field(default_factory=dict)  # by phase
    deliveries: Mapping[str, int] = field(default_factory=dict)  # by state
    accepted_recorded: int = 0

    @property
    def entered(self) -> int:
        return self.by_campaigns + self.by_others

    @property
    def present(self) -> int:
        return sum(self.runs.values())

    @property
    def difference(self) -> int:
        """Runs that entered and are nowhere; negative: runs that never entered."""
        return self.entered - self.present

    @property
    def accepted(self) -> int:
        return self.deliveries.get("accepted", 0)

    @property
    def deliveries_difference(self) -> int:
        """Accepted deliveries on the audit record that the table does not have; negative: the other way round."""
        return self.accepted_recorded - self.accepted

    @property
    def holds(self) -> bool:
        unknown = set(self.runs) - {str(phase) for phase in Phase}
        return self.difference == 0 and self.deliveries_difference == 0 and not unknown

    def details(self) -> dict[str, Any]:
        """As findings and the API show it."""
        return {
            "taken_at": self.taken_at.isoformat(),
            "entered": self.entered,
            "by_campaigns": self.by_campaigns,
            "by_others": self.by_others,
            "present": self.present,
            "runs": {str(phase): self.runs.get(phase, 0) for phase in Phase},
            "difference": self.difference,
            "deliveries": dict(self.deliveries),
            "accepted": self.accepted,
            "accepted_recorded": self.accepted_recorded,
            "deliveries_difference": self.deliveries_difference,
            "holds": self.holds,
        }
