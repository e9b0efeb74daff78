"""Lifting the pause of a journey or campaign with care: what that would do, and how it is to be done."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from api.dependencies import Caller
from models.domain.errors import Conflict
from models.domain.journey.definition import Definition
from models.domain.journey.resumption import Manner
from models.store import audit, campaigns, entries, journey_versions, journeys, resumptions
from models.store.limits import within
from models.store.resumptions import BUCKETS, Kind, LeftOut
from models.store.session import OrganizationSession
from models.tables.base import utc_now

LOOK = timedelta(seconds=10)  # how long somebody may wait for a dialog's numbers
REPEAT = "Repeat when the database is less busy; the pause can be lifted without these numbers."
LIFTED_WITHIN = timedelta(seconds=30)  # a pause that is not lifted by then may lack its workflow: somebody else may try


@dataclass(frozen=True)
class Outlook:
    """What resuming now would do. `due` runs go on at once; `waiting_for_connection`: held by one that is broken still, and held on,
    whenever they look again. `overdue`: how many runs are due for at least so long. `sends_due`: of those due, how many would send a
    message first. `entries_waiting`: contacts that will enter then; `entries_no_longer_fit`: of those, whom checking the entry rules again
    refuses."""

    paused_at: datetime | None
    runs: int
    by_status: Mapping[str, int]
    due: int
    waiting_for_connection: int
    oldest_due_at: datetime | None
    overdue: Sequence[tuple[timedelta, int]]
    sends_due: int
    would_drop: int
    no_longer_fit: int
    entries_waiting: int
    entries_no_longer_fit: int


async def outlook(caller: Caller, kind: Kind, subject_id: UUID, drop_older_than: timedelta | None) -> Outlook:
    """Of a journey or campaign that is not paused, as if it had just been. Changes nothing.

    Raises:
        NotFound: no such journey or campaign.
        Invalid: `drop_older_than` is negative.
        Unavailable: counting took longer than `LOOK`.
    """
    Manner(drop_older_than=drop_older_than).check()
    now = utc_now()
    async with caller.session() as session:
        await (journeys.get(session, subject_id) if kind == "journey" else campaigns.get(session, subject_id))
        since = await resumptions.paused_at(session, kind, subject_id)
        async with within(session, LOOK, REPEAT):
            places = await resumptions.standing(session, kind, subject_id, since or now, now)
            leaving = await resumptions.count_leaving(session, kind, subject_id, LeftOut(drop_older_than, True), since or now, now)
            waiting = await entries.count_pending(session, subject_id) if kind == "journey" else 0
            unfit = await resumptions.count_unfit_entries(session, subject_id, now) if waiting else 0
        versions = await journey_versions.by_id(session, list({place.version_id for place in places}))
    definitions = {id: Definition.model_validate(version.definition) for id, version in versions.items()}
    by_status: Counter[str] = Counter()
    for place in places:
        by_status[place.status] += place.runs
    due = [place for place in places if place.due]
    return Outlook(
        paused_at=since,
        runs=sum(by_status.values()),
        by_status=by_status,
        due=sum(place.due for place in due),
        waiting_for_connection=sum(place.cut_off for place in places),
        oldest_due_at=min((place.oldest_due for place in due if place.oldest_due is not None), default=None),
        overdue=[(age, sum(place.overdue[index] for place in places)) for index, age in enumerate(BUCKETS)],
        sends_due=sum(place.due for place in due if resumptions.sends_next(definitions[place.version_id], place.step_id)),
        would_drop=leaving.get(resumptions.OVERDUE, 0),
        no_longer_fit=leaving.get(resumptions.NO_LONGER_FITS, 0),
        entries_waiting=waiting,
        entries_no_longer_fit=unfit,
    )


async def is_news(session: OrganizationSession, kind: Kind, subject_id: UUID, asked: Mapping[str, Any]) -> bool:
    """Whether nobody has asked for this resumption yet; False: this repeats the request that is being obeyed. `asked`: as the audit chain
    is told, with the `pauses` that are to be lifted and the `request_id`. The caller holds the subject's lock until what is news is on
    the chain, so that of two requests one comes first.

    Raises:
        Conflict: another request is being obeyed, or this one asked for another manner before.
    """
    wanted = audit.EntryFilter(kind, str(subject_id), f"{kind}.resume_requested", since=utc_now() - LIFTED_WITHIN)
    last = next(iter(await audit.list_entries(session, wanted, 1, newest_first=True)), None)
    if last is None or last.details.get("pauses") != asked["pauses"]:
        return True
    if last.details == asked:
        return False
    raise Conflict(
        f"This {kind} is being resumed already, as another request has asked; the audit record says how, and by whom. Read it again: if "
        f"it is still paused in {int(LIFTED_WITHIN.total_seconds())} seconds, ask once more."
    )
