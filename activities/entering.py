"""Judging who enters a journey, in order, by its entry rules."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from activities.versions import Versions
from models.domain.audit import NewEntry
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.entry import LEADING, MAX_KEY, Past, refusal
from models.store import entries, entry_pace, journey_versions, outside_rules
from models.store.entries import EnteringRun, JourneyStanding, Key, Pending, Settled
from models.store.outbox import OutboxMessage
from models.store.session import OrganizationSession
from models.tables.base import new_id

ENTRIES_AT_ONCE = 1_000


class Entering:
    """Within one transaction, under the routing lock. `told` and `entries` are the caller's to write; `entered` are the runs."""

    def __init__(self, session: OrganizationSession, versions: Versions, page_size: int, now: datetime) -> None:
        self.session = session
        self.versions = versions
        self.page_size = page_size
        self.now = now
        self.told: list[OutboxMessage] = []
        self.entries: list[NewEntry] = []
        self.entered: list[UUID] = []

    async def decide(self) -> bool:
        """Up to `ENTRIES_AT_ONCE` of each journey have been judged; those of a paused journey wait. Whether there are more."""
        more = False
        for journey_id in await entries.journeys_with_pending(self.session):
            more = await self._decide(journey_id) or more
        return more

    async def _decide(self, journey_id: UUID) -> bool:
        standing = await entries.standing(self.session, journey_id)
        if standing.paused:
            return False
        version_id = (await journey_versions.newest_ids(self.session, [journey_id]))[journey_id]
        definition = await self.versions.definition(self.session, version_id)
        waiting = await entries.pending(self.session, journey_id, ENTRIES_AT_ONCE)
        if any(entry.version_id != version_id for entry in waiting):
            triggers = [
                (stored, definition.entry.triggers[stored.position])
                for stored in await outside_rules.entry_triggers(self.session, version_id)
            ]
            await entries.renew(self.session, journey_id, version_id, triggers, self.now)
            waiting = await entries.pending(self.session, journey_id, ENTRIES_AT_ONCE)
        pasts = await entries.pasts(self.session, journey_id, [(entry.contact_id, entry.entry_key) for entry in waiting])
        lately = 0 if definition.entry.per_hour is None else await entry_pace.fullest_hour(self.session, journey_id)
        judge = _Judge(standing, definition, pasts, self.now, lately)
        settled = [judge.settle(entry) for entry in waiting]
        await self._start(waiting, settled, definition)
        await entries.settle(self.session, settled)
        return len(waiting) == ENTRIES_AT_ONCE and not judge.full

    async def _start(self, waiting: Sequence[Pending], settled: Sequence[Settled], definition: Definition) -> None:
        entering = [(entry, outcome.run_id) for entry, outcome in zip(waiting, settled, strict=True) if outcome.run_id is not None]
        runs: list[EnteringRun] = []
        for first in range(0, len(entering), self.page_size):
            runs += self._page(entering[first : first + self.page_size], definition)
        if runs:
            await entries.add_runs(self.session, runs)
            self.entries += [_audited(run) for run in runs]
            self.entered += [run.id for run in runs]

    def _page(self, entering: Sequence[tuple[Pending, UUID]], definition: Definition) -> list[EnteringRun]:
        """The runs of one workflow."""
        first = entering[0][1]
        self.told.append(OutboxMessage(first, "start"))
        name = workflow_id.entry(self.session.organization_id, first)
        return [_run(entry, run_id, name, definition.start) for entry, run_id in entering]


class _Judge:
    """By the newest version's rules. Remembers what it has allowed, so that two entries of one batch meet the rules one after the other."""

    def __init__(self, standing: JourneyStanding, definition: Definition, pasts: dict[Key, Past], now: datetime, entered: int) -> None:
        self.standing = standing
        self.definition = definition
        self.pasts = pasts
        self.now = now
        self.entered = entered  # in the fullest hour that an entry now falls into
        self.full = False  # the hour's maximum is reached: the others enter later
        self._more: defaultdict[UUID, int] = defaultdict(int)  # by contact, whatever the key

    def settle(self, entry: Pending) -> Settled:
        if (reason := self._closed(entry)) is not None:
            return Settled(entry.id, "refused", reason)
        rules, key = self.definition.entry, (entry.contact_id, entry.entry_key)
        past = self.pasts.get(key, Past())
        past = replace(past, entries=past.entries + self._more[entry.contact_id])
        if (reason := refusal(rules, past, self.now, entry.source)) is not None:
            return Settled(entry.id, "refused", reason)
        if self.full or (rules.per_hour is not None and self.entered >= rules.per_hour):
            self.full = True
            return Settled(entry.id, "pending", "too_many_this_hour")
        self._allow(key, led=entry.source in LEADING)
        return Settled(entry.id, "entered", run_id=new_id())

    def _closed(self, entry: Pending) -> str | None:
        if not entry.contact_exists:
            return "contact_gone"
        if entry.entry_key is not None and len(entry.entry_key) > MAX_KEY:
            return "key_too_long"
        if self.standing.archived:
            return "journey_archived"
        return "journey_ended" if self.definition.has_ended(self.now) else None

    def _allow(self, key: Key, led: bool) -> None:
        past = self.pasts.get(key, Past())
        self.pasts[key] = Past(past.entries, past.same_key + 1, past.under_way + 1, self.now, past.led + led)
        self._more[key[0]] += 1
        self.entered += 1


def _run(entry: Pending, run_id: UUID, name: str, start: str) -> EnteringRun:
    return EnteringRun(
        id=run_id,
        journey_id=entry.journey_id,
        version_id=entry.version_id,
        contact_id=entry.contact_id,
        workflow_id=name,
        step_id=start,
        variables=entry.variables,
        source=entry.source,
        entry_key=entry.entry_key,
        event_id=entry.source_id if entry.source == "event" else None,
        event_seq=entry.event_seq,
        parent_run_id=entry.parent_run_id,
        hidden=entry.hidden,
    )


def _audited(run: EnteringRun) -> NewEntry:
    details = {
        "journey_id": str(run.journey_id),
        "version_id": str(run.version_id),
        "contact_id": str(run.contact_id),
        "source": run.source,
        **({"event_id": str(run.event_id)} if run.event_id else {}),
        **({"parent_run_id": str(run.parent_run_id)} if run.parent_run_id else {}),
    }
    return NewEntry("run.started", "run", str(run.id), details=details)
