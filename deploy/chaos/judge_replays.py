"""What came of runs that were replayed in bulk while parts were killed. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from deploy.chaos.judge import SETTLED, Delivery, Kill, Run
from models.domain.journey.run import FINISHED


@dataclass(frozen=True)
class Link:
    """A run as one link of a chain of replays. `root_id`: the first of the chain, by its own word; None: it says to be the first."""

    id: UUID
    recipient: str  # lower case
    status: str
    reason: str | None = None
    replay_of: UUID | None = None
    replayed_by: UUID | None = None
    root_id: UUID | None = None


@dataclass(frozen=True)
class Operation:
    """A bulk replay as the API tells of it. `kept`, `to_do`: effects that its preview foretold. Times are aware UTC."""

    status: str
    runs: int
    done: int
    unchanged: int
    failed: int
    left_alone: int
    kept: int
    to_do: int
    executed_at: datetime | None = None
    completed_at: datetime | None = None


@dataclass(frozen=True)
class ReplayVerdict:
    """Counts; zero is what is wanted of each."""

    broken_chains: int  # recipients whose runs are not one chain from one beginning to one living end
    operations_wrong: int  # operations that did not complete, or whose numbers do not add up to the runs that they took
    replays_miscounted: int  # by how many the replays that there are differ from those that the operations say they made
    foretold_wrongly: int  # by how many effects the dry runs were wrong

    @property
    def ok(self) -> bool:
        return not any((self.broken_chains, self.operations_wrong, self.replays_miscounted, self.foretold_wrongly))


def ends(links: Sequence[Link]) -> list[Run]:
    """The living ends: the runs in whose place no other goes on."""
    return [Run(link.recipient, link.status, link.reason) for link in links if link.replayed_by is None]


def judge_replays(links: Sequence[Link], deliveries: Sequence[Delivery], operations: Sequence[Operation]) -> ReplayVerdict:
    """Whether chains and operations are whole. What was sent is judged by `judge`, over the chains' ends."""
    replays = sum(link.replay_of is not None for link in links)
    return ReplayVerdict(
        broken_chains=_broken_chains(links),
        operations_wrong=sum(_is_wrong(operation) for operation in operations),
        replays_miscounted=abs(sum(operation.done for operation in operations) - replays),
        foretold_wrongly=_foretold_wrongly(links, deliveries, operations),
    )


def kills_within(operations: Sequence[Operation], kills: Sequence[Kill]) -> int:
    """How many kills came while an operation was being carried out."""
    spans = [(one.executed_at, one.completed_at) for one in operations]
    return sum(any(began and ended and began <= kill.at <= ended for began, ended in spans) for kill in kills)


def _broken_chains(links: Sequence[Link]) -> int:
    chains: dict[str, list[Link]] = defaultdict(list)
    for link in links:
        chains[link.recipient].append(link)
    return sum(not _is_whole(chain) for chain in chains.values())


def _is_whole(chain: Sequence[Link]) -> bool:
    """One beginning, from which each link leads to the next, which says so too, to one end; all but the end are closed."""
    by_id = {link.id: link for link in chain}
    beginnings = [link for link in chain if link.replay_of is None]
    if len(beginnings) != 1:
        return False
    [link] = beginnings
    root, met = link.id, 1
    while link.replayed_by is not None:
        following = by_id.get(link.replayed_by)
        if following is None or (following.replay_of, following.root_id) != (link.id, root) or link.status not in FINISHED:
            return False
        link, met = following, met + 1
    return met == len(chain)


def _is_wrong(operation: Operation) -> bool:
    """Each run that it took was to be replayed and by nobody else, so each must be done."""
    told = operation.done + operation.unchanged + operation.failed + operation.left_alone
    return operation.status != "completed" or told != operation.runs or operation.done != operation.runs


def _foretold_wrongly(links: Sequence[Link], deliveries: Sequence[Delivery], operations: Sequence[Operation]) -> int:
    """Kept: what the replayed runs had sent. To do: what their replays then sent, or may have."""
    replayed = {link.id for link in links if link.replayed_by is not None}
    replays = {link.id for link in links if link.replay_of is not None}
    settled = [delivery.run_id for delivery in deliveries if delivery.state in SETTLED]
    kept = sum(run_id in replayed for run_id in settled)
    sent = sum(run_id in replays for run_id in settled)
    return abs(sum(one.kept for one in operations) - kept) + abs(sum(one.to_do for one in operations) - sent)
