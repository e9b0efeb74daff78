"""Entries: whoever is to enter a journey is written down first, then judged by its entry rules, in order."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.journey.entry import LEADING, EventTrigger, Past, SegmentTrigger, Trigger
from models.store.events import SO_FAR
from models.store.ids import UUID7_NOW
from models.store.journeys import CANCELLED_WITH
from models.store.rowset import rowset
from models.store.segment_sql import CompiledRule, compile_rule
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.events import JourneyTrigger


def key_of(document: str, name: str) -> str:
    """The entry key, as an SQL expression, that a member of a JSON document makes: text as it is, a number by its value (`12` and `12.0`
    are 12, whatever its size), anything else as PostgreSQL writes it (`true`, `{"a": 1}`). NULL where it is missing or null. The same
    wherever it comes from, or a contact would enter twice."""
    written = f"({document} ->> CAST({name} AS text))"
    number = f"CAST(trim_scale(CAST({written} AS numeric)) AS text)"
    return f"CASE jsonb_typeof({document} -> CAST({name} AS text)) WHEN 'number' THEN {number} ELSE {written} END"


@dataclass(frozen=True)
class Proposal:
    """Somebody who is to enter. (journey, trigger, source, contact) identifies it: proposed twice, it counts once. `version_id`: the
    newest then; who waits while another is published enters by that one. `key`: the parent run's variable that is the entry key."""

    journey_id: UUID
    version_id: UUID
    contact_id: UUID
    source: str
    source_id: UUID | None
    trigger_id: UUID | None = None
    key: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    hidden: bool = False
    parent_run_id: UUID | None = None


_PROPOSE = text(
    f"""
    INSERT INTO entries (id, organization_id, journey_id, version_id, contact_id, source, source_id, event_seq, trigger_id, entry_key,
      variables, hidden, parent_run_id, outcome)
    SELECT a.id, :o, a.journey_id, a.version_id, a.contact_id, a.source, a.source_id, {SO_FAR}, a.trigger_id,
      (SELECT {key_of("r.variables", "a.key")} FROM runs r WHERE r.organization_id = :o AND r.id = a.parent_run_id),
      a.variables, a.hidden, a.parent_run_id, 'pending'
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, journey_id uuid, version_id uuid, contact_id uuid, source text,
      source_id uuid, trigger_id uuid, key text, variables jsonb, hidden boolean, parent_run_id uuid)
    ORDER BY a.id
    ON CONFLICT DO NOTHING
    """
)
_EVENT_KEY = key_of("e.properties", ":key")
# Properties that have a variable's name become the run's variables.
_PROPOSE_BY_EVENTS = """
    INSERT INTO entries (id, organization_id, journey_id, version_id, contact_id, source, source_id, event_seq, trigger_id, entry_key,
      variables, hidden, outcome)
    SELECT {uuid7}, :o, :journey_id, :version_id, e.contact_id, 'event', e.id, e.seq, :trigger_id, {key},
      coalesce((SELECT jsonb_object_agg(p.key, p.value) FROM jsonb_each(e.properties) p WHERE p.key ~ '^[a-z][a-z0-9_]{{0,62}}$'), '{{}}'),
      :hidden OR e.hidden, 'pending'
    FROM events e JOIN contacts c ON c.organization_id = :o AND c.id = e.contact_id
    WHERE e.organization_id = :o AND e.id = ANY(CAST(:events AS uuid[])) AND e.name = :name AND ({rule})
      AND NOT EXISTS (SELECT 1 FROM entries x WHERE x.organization_id = :o AND x.contact_id = e.contact_id
                      AND x.journey_id = :journey_id AND x.source = 'event' AND x.source_id = e.id)
    ORDER BY e.seq
    ON CONFLICT DO NOTHING
"""


async def propose(session: OrganizationSession, proposals: Sequence[Proposal]) -> None:
    """They are to enter. Safe to repeat for those with a source."""
    rows = [{**vars(proposal), "id": new_id()} for proposal in proposals]
    await session.execute(_PROPOSE, {"o": session.organization_id, "rows": rowset(rows)})


async def propose_by_events(
    session: OrganizationSession, trigger: JourneyTrigger, events: Sequence[UUID], key: str | None, hidden: bool, now: datetime
) -> None:
    """The contacts of these events, where the trigger's rule holds, are to enter: once by an event, so the first of a journey's triggers
    that fits is asked first. Safe to repeat."""
    rule = compile_rule(trigger.rule, now) if trigger.rule else CompiledRule("TRUE", {})
    parameters = {
        "o": session.organization_id,
        "journey_id": trigger.journey_id,
        "version_id": trigger.version_id,
        "trigger_id": trigger.id,
        "name": trigger.event_name,
        "events": list(events),
        "key": key,
        "hidden": hidden,
        **rule.parameters,
    }
    await session.execute(text(_PROPOSE_BY_EVENTS.format(uuid7=UUID7_NOW, rule=rule.sql, key=_EVENT_KEY)), parameters)


# --- After a new version ----------------------------------------------------------------------------------------------

_OUTDATED = "x.organization_id = :o AND x.journey_id = :journey_id AND x.outcome = 'pending' AND x.version_id <> :version_id"
_BY_EVENT_ANEW = f"""
    UPDATE entries x SET version_id = :version_id, entry_key = {_EVENT_KEY}, hidden = :hidden OR e.hidden
    FROM events e JOIN contacts c ON c.organization_id = :o AND c.id = e.contact_id
    WHERE {_OUTDATED} AND x.source = 'event' AND e.organization_id = :o AND e.id = x.source_id AND e.name = :name AND ({{rule}})
"""
_ITS_SEGMENT = "v.definition #>> ARRAY['entry', 'triggers', CAST(t.position AS text), 'segment_id']"
# By the same segment, in the same direction. Where its rule is another one now, the contact must fit (or not) by that.
_BY_SEGMENT_ANEW = f"""
    UPDATE entries x SET version_id = :version_id
    FROM contacts c, journey_triggers t JOIN journey_versions v ON v.organization_id = :o AND v.id = t.version_id
    WHERE {_OUTDATED} AND x.source = 'segment' AND c.organization_id = :o AND c.id = x.contact_id
      AND t.organization_id = :o AND t.id = x.trigger_id AND t.direction = :direction
      AND {_ITS_SEGMENT} = :segment
      AND (t.rule IS NOT DISTINCT FROM CAST(:as_stored AS jsonb) OR ({{rule}}) = (:direction = 'entered'))
"""
_WITHOUT_TRIGGER = text(
    f"""
    UPDATE entries x SET outcome = 'refused', reason = 'trigger_gone', decided_at = clock_timestamp()
    WHERE {_OUTDATED} AND x.source IN ('event', 'segment')
      AND EXISTS (SELECT 1 FROM contacts c WHERE c.organization_id = :o AND c.id = x.contact_id)
    """
)
_ANEW = text(f"UPDATE entries x SET version_id = :version_id WHERE {_OUTDATED}")


async def renew(
    session: OrganizationSession, journey_id: UUID, version_id: UUID, triggers: Sequence[tuple[JourneyTrigger, Trigger]], now: datetime
) -> None:
    """Whoever waits to enter the journey by an older version is to enter by this one, the newest: by the first of its triggers that fits,
    or is refused where none does. Whom another journey led here needs no trigger. `triggers`: the version's, each as stored and as said."""
    mine = {"o": session.organization_id, "journey_id": journey_id, "version_id": version_id}
    for stored, said in triggers:
        rule = compile_rule(stored.rule, now) if stored.rule else CompiledRule("TRUE", {})
        if isinstance(said, EventTrigger):
            sql, about = _BY_EVENT_ANEW, {"name": said.event, "key": said.key, "hidden": said.hidden}
        else:
            about = {"direction": stored.direction, "segment": str(said.segment_id), "as_stored": json.dumps(stored.rule)}
            sql = _BY_SEGMENT_ANEW
        await session.execute(text(sql.format(rule=rule.sql)), {**mine, **about, **rule.parameters})
    await session.execute(_WITHOUT_TRIGGER, mine)
    await session.execute(_ANEW, mine)


# --- After a pause ----------------------------------------------------------------------------------------------------

_UNFIT = """
    SELECT x.id FROM entries x JOIN contacts c ON c.organization_id = :o AND c.id = x.contact_id
      JOIN journey_triggers t ON t.organization_id = :o AND t.id = x.trigger_id
      JOIN journey_versions v ON v.organization_id = :o AND v.id = t.version_id
    WHERE x.organization_id = :o AND x.journey_id = :journey_id AND x.outcome = 'pending' AND x.source = 'segment' AND ({turned})"""
_TURNED = f"(t.direction = :direction_{{number}} AND {_ITS_SEGMENT} = :segment_{{number}} AND (({{rule}}) <> (t.direction = 'entered')))"
_REFUSE_UNFIT = """
    UPDATE entries x SET outcome = 'refused', reason = 'no_longer_fits', decided_at = clock_timestamp()
    FROM ({unfit} ORDER BY x.id FOR NO KEY UPDATE OF x) u
    WHERE x.organization_id = :o AND x.id = u.id AND x.outcome = 'pending' RETURNING x.id"""


async def count_unfit(session: OrganizationSession, journey_id: UUID, triggers: Sequence[Trigger], now: datetime) -> int:
    """How many wait to enter by a segment that they do not fit now (one that they are to have left: fit again), by the newest version's
    `triggers`. Whom none of those is about is left out: `renew` judges them."""
    unfit, parameters = _unfit(session, journey_id, triggers, now)
    return int(await session.scalar(text(f"SELECT count(*) FROM ({unfit}) u"), parameters) or 0)


async def refuse_unfit(session: OrganizationSession, journey_id: UUID, triggers: Sequence[Trigger], now: datetime) -> int:
    """Those are refused; how many. The caller holds the journey's row, as whoever lets contacts enter does. Safe to repeat."""
    unfit, parameters = _unfit(session, journey_id, triggers, now)
    return len(list((await session.execute(text(_REFUSE_UNFIT.format(unfit=unfit)), parameters)).scalars()))


def _unfit(session: OrganizationSession, journey_id: UUID, triggers: Sequence[Trigger], now: datetime) -> tuple[str, Mapping[str, Any]]:
    parameters: dict[str, Any] = {"o": session.organization_id, "journey_id": journey_id}
    turned = ["FALSE"]
    for number, trigger in enumerate(triggers):
        if isinstance(trigger, SegmentTrigger) and trigger.rule is not None:
            rule = compile_rule(trigger.rule, now)
            about = {f"direction_{number}": trigger.kind.removeprefix("segment_"), f"segment_{number}": str(trigger.segment_id)}
            parameters |= about | rule.parameters
            turned.append(_TURNED.format(number=number, rule=rule.sql))
    return _UNFIT.format(turned=" OR ".join(turned)), parameters


# --- Judging ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pending:
    id: UUID
    journey_id: UUID
    version_id: UUID
    contact_id: UUID
    source: str
    source_id: UUID | None
    event_seq: int | None
    entry_key: str | None
    variables: Mapping[str, Any]
    hidden: bool
    parent_run_id: UUID | None
    contact_exists: bool


@dataclass(frozen=True)
class JourneyStanding:
    archived: bool
    paused: bool


_JOURNEYS = text(
    """
    SELECT DISTINCT e.journey_id FROM entries e JOIN journeys j ON j.organization_id = :o AND j.id = e.journey_id
    WHERE e.organization_id = :o AND e.outcome = 'pending' AND j.paused_at IS NULL ORDER BY 1
    """
)
_PENDING = text(
    """
    SELECT e.id, e.journey_id, e.version_id, e.contact_id, e.source, e.source_id, e.event_seq, e.entry_key, e.variables, e.hidden,
      e.parent_run_id, EXISTS (SELECT 1 FROM contacts c WHERE c.organization_id = :o AND c.id = e.contact_id) AS contact_exists
    FROM entries e WHERE e.organization_id = :o AND e.outcome = 'pending' AND e.journey_id = :journey_id
    ORDER BY coalesce(e.event_seq, 0), e.id LIMIT :limit
    """
)
_STANDING = text(
    """
    SELECT j.archived_at IS NOT NULL AS archived, j.paused_at IS NOT NULL AS paused
    FROM journeys j WHERE j.organization_id = :o AND j.id = :journey_id FOR NO KEY UPDATE OF j
    """
)
# A run that a rule has ended is not under way any more, though its workflow may not have said so yet. A replay is no entry of its own,
# but under way it may be.
_PAST = text(
    """
    SELECT a.contact_id, a.entry_key, count(r.id) FILTER (WHERE r.replay_of IS NULL) AS entries,
      count(r.id) FILTER (WHERE r.entry_key IS NOT DISTINCT FROM a.entry_key AND r.replay_of IS NULL) AS same_key,
      count(r.id) FILTER (WHERE r.entry_key IS NOT DISTINCT FROM a.entry_key AND r.finished_at IS NULL AND r.exit_requested_at IS NULL)
        AS under_way,
      max(r.created_at) FILTER (WHERE r.entry_key IS NOT DISTINCT FROM a.entry_key AND r.replay_of IS NULL) AS last,
      count(r.id) FILTER (WHERE r.entry_key IS NOT DISTINCT FROM a.entry_key AND r.replay_of IS NULL
        AND r.entry_source = ANY(CAST(:leading AS text[])) AND r.created_at > clock_timestamp() - interval '1 hour') AS led
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(contact_id uuid, entry_key text)
    LEFT JOIN runs r ON r.organization_id = :o AND r.journey_id = :journey_id AND r.contact_id = a.contact_id
    GROUP BY a.contact_id, a.entry_key
    """
)
_SETTLE = text(
    """
    UPDATE entries e SET outcome = a.outcome, reason = a.reason, run_id = a.run_id, decided_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, outcome text, reason text, run_id uuid)
    WHERE e.organization_id = :o AND e.id = a.id
    """
)
_RUNS = text(
    """
    INSERT INTO runs (id, organization_id, journey_id, version_id, contact_id, workflow_id, page, status, step_id, sequence, variables,
      entry_source, entry_key, entry_event_id, entry_seq, parent_run_id, hidden, created_at, updated_at)
    SELECT a.id, :o, a.journey_id, a.version_id, a.contact_id, a.workflow_id, 0, 'active', a.step_id, 0, a.variables,
      a.source, a.entry_key, a.event_id, a.event_seq, a.parent_run_id, a.hidden, clock_timestamp(), clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, journey_id uuid, version_id uuid, contact_id uuid, workflow_id text,
      step_id text, variables jsonb, source text, entry_key text, event_id uuid, event_seq bigint, parent_run_id uuid, hidden boolean)
    ORDER BY a.id
    """
)


async def journeys_with_pending(session: OrganizationSession) -> list[UUID]:
    """Those that are not paused."""
    return list((await session.execute(_JOURNEYS, {"o": session.organization_id})).scalars())


async def pending(session: OrganizationSession, journey_id: UUID, limit: int) -> list[Pending]:
    """Up to `limit`, in the order in which they are to be judged."""
    rows = await session.execute(_PENDING, {"o": session.organization_id, "journey_id": journey_id, "limit": limit})
    return [Pending(*row) for row in rows]


async def standing(session: OrganizationSession, journey_id: UUID) -> JourneyStanding:
    """Locked: entries into one journey wait for each other."""
    row = (await session.execute(_STANDING, {"o": session.organization_id, "journey_id": journey_id})).one()
    return JourneyStanding(row.archived, row.paused)


Key = tuple[UUID, str | None]  # contact and entry key


async def pasts(session: OrganizationSession, journey_id: UUID, keys: Sequence[Key]) -> dict[Key, Past]:
    """What each contact has done in the journey until now. One statement."""
    rows = rowset([{"contact_id": contact_id, "entry_key": key} for contact_id, key in dict.fromkeys(keys)])
    wanted = {"o": session.organization_id, "journey_id": journey_id, "rows": rows, "leading": list(LEADING)}
    found = await session.execute(_PAST, wanted)
    return {(row.contact_id, row.entry_key): Past(row.entries, row.same_key, row.under_way, row.last, row.led) for row in found}


@dataclass(frozen=True)
class Settled:
    id: UUID
    outcome: str  # entered | refused | pending
    reason: str | None = None
    run_id: UUID | None = None


async def settle(session: OrganizationSession, settled: Sequence[Settled]) -> None:
    await session.execute(_SETTLE, {"o": session.organization_id, "rows": rowset([vars(one) for one in settled])})


@dataclass(frozen=True)
class EnteringRun:
    id: UUID
    journey_id: UUID
    version_id: UUID
    contact_id: UUID
    workflow_id: str
    step_id: str
    variables: Mapping[str, Any]
    source: str
    entry_key: str | None
    event_id: UUID | None
    event_seq: int | None
    parent_run_id: UUID | None
    hidden: bool


async def add_runs(session: OrganizationSession, entering: Sequence[EnteringRun]) -> None:
    await session.execute(_RUNS, {"o": session.organization_id, "rows": rowset([vars(run) for run in entering])})


@dataclass(frozen=True)
class StartingEntry:
    """A run whose workflow is to be started. `cancelled`, or `leaving` by a rule of the journey, for this reason: before it has begun."""

    run_id: UUID
    contact_id: UUID
    cancelled: bool
    leaving: str | None


@dataclass(frozen=True)
class StartingRuns:
    journey_id: UUID
    version_id: UUID
    runs: Sequence[StartingEntry]


_STARTING = text(
    f"""
    SELECT r.workflow_id, r.journey_id, r.version_id, r.id, r.contact_id,
      (r.cancel_requested_at IS NOT NULL OR coalesce({CANCELLED_WITH}, false)) AS cancelled,
      CASE WHEN r.exit_requested_at IS NOT NULL THEN coalesce(r.exit_reason, 'exit_rule') END AS leaving
    FROM runs r JOIN journeys j ON j.organization_id = :o AND j.id = r.journey_id
    WHERE r.organization_id = :o AND r.workflow_id = ANY(CAST(:names AS text[])) AND r.sequence = 0 AND r.replay_of IS NULL
      AND r.campaign_id IS NULL
    ORDER BY r.workflow_id, r.id
    """
)


async def starting(session: OrganizationSession, names: Sequence[str]) -> dict[str, StartingRuns]:
    """By workflow id: the runs that it is to carry, none of which has begun."""
    found: defaultdict[tuple[str, UUID, UUID], list[StartingEntry]] = defaultdict(list)
    for row in await session.execute(_STARTING, {"o": session.organization_id, "names": list(names)}):
        found[row.workflow_id, row.journey_id, row.version_id].append(StartingEntry(row.id, row.contact_id, row.cancelled, row.leaving))
    return {name: StartingRuns(journey_id, version_id, runs) for (name, journey_id, version_id), runs in found.items()}


async def page(session: OrganizationSession, journey_id: UUID | None, contact_id: UUID | None, limit: int, after: UUID | None) -> list[Any]:
    """Up to `limit` entries, oldest first, beginning after the id `after`: who was to enter, and what became of it."""
    query = text(
        """
        SELECT id, journey_id, version_id, contact_id, source, source_id, entry_key, outcome, reason, run_id, created_at, decided_at
        FROM entries WHERE organization_id = :o AND id > :after
          AND (CAST(:journey_id AS uuid) IS NULL OR journey_id = :journey_id)
          AND (CAST(:contact_id AS uuid) IS NULL OR contact_id = :contact_id)
        ORDER BY id LIMIT :limit
        """
    )
    wanted = {
        "o": session.organization_id,
        "journey_id": journey_id,
        "contact_id": contact_id,
        "limit": limit,
        "after": after or UUID(int=0),
    }
    return list((await session.execute(query, wanted)).mappings())


async def count_pending(session: OrganizationSession, journey_id: UUID) -> int:
    """How many contacts wait to be let into the journey."""
    query = text("SELECT count(*) FROM entries WHERE organization_id = :o AND journey_id = :id AND outcome = 'pending'")
    return int(await session.scalar(query, {"o": session.organization_id, "id": journey_id}) or 0)
