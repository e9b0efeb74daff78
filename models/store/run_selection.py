"""Whom an operation on many runs is for: where the runs stand that a selection fits, and why the command makes no sense for some."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.errors import Invalid
from models.domain.journey.operations import UNKNOWN_RESEND, UNKNOWN_STEP, RunSelection
from models.store import run_applicability
from models.store.limits import within
from models.store.segments import compile_segment
from models.store.session import OrganizationSession

LOOK = timedelta(seconds=30)  # how long counting may take before it is given up

# One line per field of `RunSelection`, about `r`, a row of runs. The segment's rule is put in by `_where`.
CONDITIONS: Mapping[str, str] = {
    "journey_id": "r.journey_id = :journey_id",
    "version_id": "r.version_id = :version_id",
    "campaign_id": "r.campaign_id = :campaign_id",
    "step_id": "r.step_id = :step_id",
    "statuses": "r.status = ANY(CAST(:statuses AS text[]))",
    "reasons": "(r.reason = ANY(CAST(:reasons AS text[])) OR split_part(r.reason, ':', 1) = ANY(CAST(:reasons AS text[])))",
    "failure_classes": "r.failure_class = ANY(CAST(:failure_classes AS text[]))",
    "failure_fingerprints": "r.failure_fingerprint = ANY(CAST(:failure_fingerprints AS text[]))",
    "run_ids": "r.id = ANY(CAST(:run_ids AS uuid[]))",
    "contact_ids": "r.contact_id = ANY(CAST(:contact_ids AS uuid[]))",
    "entered_from": "r.created_at >= CAST(:entered_from AS timestamptz)",
    "entered_before": "r.created_at < CAST(:entered_before AS timestamptz)",
    "updated_from": "r.updated_at >= CAST(:updated_from AS timestamptz)",
    "updated_before": "r.updated_at < CAST(:updated_before AS timestamptz)",
    "finished_from": "r.finished_at >= CAST(:finished_from AS timestamptz)",
    "finished_before": "r.finished_at < CAST(:finished_before AS timestamptz)",
}
_FITTING = """
    SELECT r.id, r.journey_id, r.status, r.step_id, r.version_id, r.workflow_id, r.sequence, {why_not} AS why_not,
      {stays_paused} AS stays_paused, {goes_on_with} AS goes_on_with
    FROM runs r JOIN journeys journey ON journey.organization_id = :o AND journey.id = r.journey_id
    LEFT JOIN campaigns campaign ON campaign.organization_id = :o AND campaign.id = r.campaign_id WHERE {where}"""
_COUNTS = """
    SELECT f.status, f.step_id, v.number AS version, f.why_not, f.stays_paused, f.runs
    FROM (SELECT f.status, f.step_id, f.version_id, f.why_not, f.stays_paused, count(*) AS runs FROM ({fitting}) f GROUP BY 1, 2, 3, 4, 5) f
    JOIN journey_versions v ON v.organization_id = :o AND v.id = f.version_id
    ORDER BY v.number, f.step_id, f.status, f.why_not, f.stays_paused"""
_STEPS = """
    SELECT DISTINCT jsonb_object_keys(v.definition -> 'steps') FROM journey_versions v WHERE v.organization_id = :o AND v.id IN
      (SELECT f.goes_on_with FROM ({fitting}) f WHERE f.why_not IS NULL OR f.why_not = :unknown) ORDER BY 1"""

# The runs that the command is for: the oldest first.
TAKEN = """
    SELECT f.id, f.journey_id, f.workflow_id, f.step_id, f.sequence, f.goes_on_with
    FROM ({fitting}) f WHERE f.why_not IS NULL ORDER BY f.id LIMIT :maximum"""
# Of rows `t` of TAKEN: the same for the same runs on the same versions, in whatever order, and hardly ever for others.
FINGERPRINT = "coalesce(sum(CAST(hashtextextended(t.id || '/' || t.goes_on_with, 0) AS numeric)), 0)"


@dataclass(frozen=True)
class RunQuery:
    """What is to be done to whom. `maximum`: of runs, the oldest of those that fit; None: all."""

    command: str
    selection: RunSelection
    arguments: Mapping[str, Any] = field(default_factory=dict)
    maximum: int | None = None


@dataclass(frozen=True)
class Count:
    """`why_not`: why the command makes no sense for them; None: it will be said to them. `stays_paused`: those go on only when a pause is
    lifted."""

    status: str
    step_id: str | None
    version: int
    why_not: str | None
    stays_paused: bool
    runs: int


async def count(session: OrganizationSession, wanted: RunQuery) -> list[Count]:
    """Where the runs stand that the selection fits now.

    Raises:
        Invalid: the selection names what there is not, or a step is to be done again that none of the runs has.
        Unavailable: counting took longer than `LOOK`.
    """
    await _check(session, wanted.selection)
    async with within(session, LOOK):
        sql, parameters = await fitting(session, wanted)
        found = [Count(*row) for row in await session.execute(text(_COUNTS.format(fitting=sql)), parameters)]
        if any(each.why_not == UNKNOWN_RESEND for each in found):
            known = list(await session.scalars(text(_STEPS.format(fitting=sql)), {**parameters, "unknown": UNKNOWN_RESEND}))
            _refuse_unknown(sorted(set(wanted.arguments["resend"]).difference(known)), known)
    return found


def _refuse_unknown(steps: Sequence[str], known: Sequence[str]) -> None:
    """What only some of the runs have not is counted; what none has is a mistake."""
    if steps:
        there_is = ", ".join(known[:20])
        message = f"None of these runs has a step {steps[0]!r} that could be done again; name one of theirs ({there_is}), or leave it out."
        raise Invalid.field("arguments.resend", UNKNOWN_STEP, message)


async def obeying(session: OrganizationSession, wanted: RunQuery) -> list[UUID]:
    """The runs that the command would be said to now."""
    sql, parameters = await fitting(session, wanted)
    query = f"SELECT t.id FROM ({TAKEN.format(fitting=sql)}) t"
    return list((await session.execute(text(query), {**parameters, "maximum": wanted.maximum})).scalars())


async def bound(session: OrganizationSession, wanted: RunQuery) -> dict[str, Any]:
    """What a preview is bound to, as it is kept with it: a fingerprint of the runs that the command would be said to now and of the
    versions on which they would go on, and, by journey, the current one where that is asked for.

    Raises:
        Unavailable: looking took longer than `LOOK`.
    """
    versions = "jsonb_object_agg(t.journey_id, t.goes_on_with)" if wanted.arguments.get("version") == "current" else "NULL"
    async with within(session, LOOK):
        sql, parameters = await fitting(session, wanted)
        query = f"SELECT CAST({FINGERPRINT} AS text) AS fingerprint, {versions} AS versions FROM ({TAKEN.format(fitting=sql)}) t"
        row = (await session.execute(text(query), {**parameters, "maximum": wanted.maximum})).mappings().one()
    return {name: value for name, value in row.items() if value is not None}


_NAMED = {"journey_id": "journeys", "version_id": "journey_versions", "campaign_id": "campaigns", "segment_id": "segments"}


async def _check(session: OrganizationSession, selection: RunSelection) -> None:
    for name, table in _NAMED.items():
        identifier = getattr(selection, name)
        if identifier is None:
            continue
        query = text(f"SELECT 1 FROM {table} WHERE organization_id = :o AND id = :id")
        if (await session.execute(query, {"o": session.organization_id, "id": identifier})).first() is None:
            kind = name.removesuffix("_id")
            raise Invalid.field(f"filter.{name}", f"unknown_{kind}", f"There is no {kind} with this id.")


async def fitting(session: OrganizationSession, wanted: RunQuery) -> tuple[str, dict[str, Any]]:
    """A query for the runs that the selection fits, with what `run_applicability` says of each, and its parameters."""
    where, parameters = await _where(session, wanted.selection)
    sql = _FITTING.format(
        why_not=run_applicability.why_not(wanted.command, wanted.arguments),
        stays_paused=run_applicability.stays_paused(wanted.command),
        goes_on_with=run_applicability.goes_on_with(wanted.arguments),
        where=where,
    )
    return sql, parameters | run_applicability.parameters(wanted.command, wanted.arguments)


async def _where(session: OrganizationSession, selection: RunSelection) -> tuple[str, dict[str, Any]]:
    given = selection.given()
    parameters: dict[str, Any] = {"o": session.organization_id}
    conditions = ["r.organization_id = :o"]
    for name in given.keys() & CONDITIONS.keys():
        conditions.append(CONDITIONS[name])
        parameters[name] = given[name]
    if selection.segment_id is not None:
        rule = await compile_segment(session, selection.segment_id)
        conditions.append(f"EXISTS (SELECT 1 FROM contacts c WHERE c.organization_id = :o AND c.id = r.contact_id AND ({rule.sql}))")
        parameters |= rule.parameters
    return " AND ".join(conditions), parameters
