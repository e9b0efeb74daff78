"""Whom an operation on many runs is for: where the runs stand that a selection fits, and why the command makes no sense for some."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.errors import Invalid
from models.domain.journey.operations import OPERATIONS, UNKNOWN_STEP, WRONG_PHASE, RunSelection
from models.store.segments import compile_segment
from models.store.session import OrganizationSession

LOOK_SECONDS = 30  # how long counting may take before it fails as unavailable

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
# Why a command makes no sense for a run whose phase would let it, by the argument that it depends on.
_ARGUMENTS: Mapping[str, tuple[str, str]] = {
    "to_step": (
        UNKNOWN_STEP,
        """NOT EXISTS (SELECT 1 FROM journey_versions v WHERE v.organization_id = :o AND v.id = r.version_id
                       AND jsonb_exists(v.definition -> 'steps', :to_step))""",
    )
}
# And by the command itself.
_COMMANDS: Mapping[str, Sequence[tuple[str, str]]] = {
    "replay": (
        ("replayed_already", "r.replayed_by IS NOT NULL"),
        ("run_left", "r.finished_at IS NULL AND r.exit_requested_at IS NOT NULL"),
        ("run_cancelled", "r.finished_at IS NULL AND r.cancel_requested_at IS NOT NULL"),
        (
            "journey_archived",
            "EXISTS (SELECT 1 FROM journeys j WHERE j.organization_id = :o AND j.id = r.journey_id AND j.archived_at IS NOT NULL)",
        ),
        (
            "campaign_cancelled",
            "EXISTS (SELECT 1 FROM campaigns c WHERE c.organization_id = :o AND c.id = r.campaign_id AND c.cancelled_at IS NOT NULL)",
        ),
    )
}
_FITTING = "SELECT r.id, r.status, r.step_id, r.version_id, r.workflow_id, r.sequence, {why_not} AS why_not FROM runs r WHERE {where}"
_COUNTS = """
    SELECT f.status, f.step_id, v.number AS version, f.why_not, f.runs
    FROM (SELECT f.status, f.step_id, f.version_id, f.why_not, count(*) AS runs FROM ({fitting}) f GROUP BY 1, 2, 3, 4) f
    JOIN journey_versions v ON v.organization_id = :o AND v.id = f.version_id
    ORDER BY v.number, f.step_id, f.status, f.why_not"""


@dataclass(frozen=True)
class Wanted:
    """What is to be done to whom. `maximum`: of runs, the oldest of those that fit; None: all."""

    command: str
    selection: RunSelection
    arguments: Mapping[str, Any] = field(default_factory=dict)
    maximum: int | None = None


@dataclass(frozen=True)
class Count:
    """`why_not`: why the command makes no sense for them; None: it will be said to them."""

    status: str
    step_id: str | None
    version: int
    why_not: str | None
    runs: int


async def count(session: OrganizationSession, wanted: Wanted) -> list[Count]:
    """Where the runs stand that the selection fits now.

    Raises:
        Invalid: the selection names what there is not.
    """
    await _check(session, wanted.selection)
    await session.execute(text(f"SET LOCAL statement_timeout = '{LOOK_SECONDS}s'"))
    sql, parameters = await fitting(session, wanted)
    rows = await session.execute(text(_COUNTS.format(fitting=sql)), parameters)
    return [Count(row.status, row.step_id, row.version, row.why_not, row.runs) for row in rows]


async def obeying(session: OrganizationSession, wanted: Wanted) -> list[UUID]:
    """The runs that the command would be said to now."""
    sql, parameters = await fitting(session, wanted)
    query = f"SELECT f.id FROM ({sql}) f WHERE f.why_not IS NULL ORDER BY f.id LIMIT :maximum"
    return list((await session.execute(text(query), {**parameters, "maximum": wanted.maximum})).scalars())


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


async def fitting(session: OrganizationSession, wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """A query for the runs that the selection fits, with `why_not`, and its parameters."""
    where, parameters = await _where(session, wanted.selection)
    cases = [(WRONG_PHASE, "r.status <> ALL(CAST(:phases AS text[]))")]
    cases += [_ARGUMENTS[name] for name in wanted.arguments if name in _ARGUMENTS]
    cases += _COMMANDS.get(wanted.command, ())
    why_not = " ".join(f"WHEN {condition} THEN '{code}'" for code, condition in cases)
    parameters["phases"] = sorted(OPERATIONS[wanted.command].phases)
    parameters |= {name: value for name, value in wanted.arguments.items() if name in _ARGUMENTS}
    return _FITTING.format(why_not=f"CASE {why_not} END", where=where), parameters


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
