"""What came of a campaign in which parts were killed, judged by what the inbox received. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from models.domain.journey.run import Phase

# A send that hears nothing more is `unknown` after the lease of `activities.contracts.sending.TRANSMIT_LEASE`; the kill that silenced it
# came after the fence and before the answer was written down, which waits for an absent database.
SILENCED = frozenset({"worker", "postgres", "sandbox", "everything"})
SETTLED = ("accepted", "unknown")


@dataclass(frozen=True)
class Kill:
    """`at` and `back_at` (it answered again) are aware UTC."""

    part: str
    at: datetime
    back_at: datetime


@dataclass(frozen=True)
class Run:
    recipient: str  # lower case
    status: str
    reason: str | None = None


@dataclass(frozen=True)
class Delivery:
    id: UUID
    recipient: str
    step_id: str
    state: str
    transmitting_at: datetime | None = None
    run_id: UUID | None = None


@dataclass(frozen=True)
class Received:
    """One message in the inbox."""

    recipient: str
    subject: str
    delivery_id: UUID | None


@dataclass(frozen=True)
class Expected:
    """Who should get what: each of `recipients` one message for every subject, by send step; nobody else anything."""

    recipients: Collection[str]
    subjects: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """What the database and the inbox say in the end."""

    runs: Sequence[Run]
    deliveries: Sequence[Delivery]
    received: Sequence[Received]


@dataclass(frozen=True)
class Verdict:
    """Counts; zero is what is wanted of all but `unknown`, of which `unexplained` should be zero."""

    lost: int
    duplicates: int
    unknown: int
    unknown_received: int  # it had arrived: rightly not sent again
    unknown_not_received: int  # the kill came before the inbox had it
    unexplained: int  # unknown without a kill that could have caused it
    uninvited: int  # messages to somebody who should get none
    unrecorded: int  # messages in the inbox of which the ledger does not say that they left
    parked_otherwise: int  # runs that wait for a person for another reason than an unknown message
    unknown_longest_wait: float = 0.0  # seconds from handing an unknown message over to the kill that explains it
    lost_by: Mapping[str, int] = field(default_factory=dict)
    parked_by: Mapping[str, int] = field(default_factory=dict)  # `parked_otherwise` by reason

    @property
    def ok(self) -> bool:
        wrong = (self.lost, self.duplicates, self.unexplained, self.uninvited, self.unrecorded, self.parked_otherwise)
        return not any(wrong)


def judge(expected: Expected, outcome: Outcome, kills: Sequence[Kill], reach: timedelta) -> Verdict:
    """`reach`: how long before a kill a message may have been handed over for the kill to explain that its end is unknown."""
    steps = {subject: step_id for step_id, subject in expected.subjects.items()}
    arrived = Counter((message.recipient, steps.get(message.subject, message.subject)) for message in outcome.received)
    unknown = [delivery for delivery in outcome.deliveries if delivery.state == "unknown"]
    waits = [_until_killed(delivery, kills, reach) for delivery in unknown]
    lost = _lost(expected, outcome, arrived)
    parked = _parked_otherwise(outcome.runs, unknown)
    return Verdict(
        lost=sum(lost.values()),
        duplicates=_duplicates(arrived, outcome.received),
        unknown=len(unknown),
        unknown_received=sum(_key(delivery) in arrived for delivery in unknown),
        unknown_not_received=sum(_key(delivery) not in arrived for delivery in unknown),
        unexplained=sum(wait is None for wait in waits),
        uninvited=sum(message.recipient not in expected.recipients for message in outcome.received),
        unrecorded=_unrecorded(outcome),
        parked_otherwise=sum(parked.values()),
        unknown_longest_wait=max((round(wait.total_seconds(), 2) for wait in waits if wait is not None), default=0.0),
        lost_by={name: count for name, count in lost.items() if count},
        parked_by=dict(parked),
    )


def _key(delivery: Delivery) -> tuple[str, str]:
    return delivery.recipient, delivery.step_id


def _lost(expected: Expected, outcome: Outcome, arrived: Mapping[tuple[str, str], int]) -> dict[str, int]:
    completed = {run.recipient for run in outcome.runs if run.status == Phase.COMPLETED} & set(expected.recipients)
    claimed = {(recipient, step_id) for recipient in completed for step_id in expected.subjects}
    claimed |= {_key(delivery) for delivery in outcome.deliveries if delivery.state == "accepted"}
    return {
        "contacts_without_a_run": len(set(expected.recipients) - {run.recipient for run in outcome.runs}),
        "runs_stuck": sum(run.status not in (Phase.COMPLETED, Phase.NEEDS_ATTENTION) for run in outcome.runs),
        "messages_missing": len(claimed - set(arrived)),
    }


def _duplicates(arrived: Mapping[tuple[str, str], int], received: Sequence[Received]) -> int:
    """Told by recipient and subject, and by delivery id, whichever shows more."""
    deliveries = Counter(message.delivery_id for message in received if message.delivery_id is not None)
    return max(_surplus(arrived.values()), _surplus(deliveries.values()))


def _surplus(counts: Iterable[int]) -> int:
    return sum(count - 1 for count in counts)


def _until_killed(delivery: Delivery, kills: Sequence[Kill], reach: timedelta) -> timedelta | None:
    """From handing the message over to the kill that may have silenced it; None: there was none within `reach`."""
    at = delivery.transmitting_at
    if at is None:
        return None
    near = [max(timedelta(0), kill.at - at) for kill in kills if kill.part in SILENCED and at <= kill.back_at and kill.at <= at + reach]
    return min(near, default=None)


def _unrecorded(outcome: Outcome) -> int:
    recorded = {delivery.id for delivery in outcome.deliveries if delivery.state in SETTLED}
    return sum(message.delivery_id not in recorded for message in outcome.received)


def _parked_otherwise(runs: Sequence[Run], unknown: Sequence[Delivery]) -> Counter[str]:
    because = {delivery.recipient for delivery in unknown}
    return Counter(str(run.reason) for run in runs if run.status == Phase.NEEDS_ATTENTION and run.recipient not in because)
