"""Segments: saved rules, and whom a rule selects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete as delete_from
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from models.domain.errors import Conflict, Invalid, NotFound, Problem
from models.domain.segment import ConsentRule, Vocabulary, parse_rule, walk
from models.store import contacts, topics
from models.store.contacts import ContactFilter
from models.store.limits import within
from models.store.segment_sql import CompiledRule, compile_rule
from models.store.session import OrganizationSession
from models.tables.base import utc_now
from models.tables.contacts import Contact, Segment

NAMED = 5  # journeys that a refusal names
LOOK = timedelta(seconds=10)  # how long a preview may take before it is given up


async def check_rule(session: OrganizationSession, rule: Mapping[str, Any]) -> None:
    """The rule fits the organization: its attributes, their types, its topics.

    Raises:
        Invalid: it does not; paths start with `rule`.
    """
    parsed = parse_rule(rule, Vocabulary(attributes=await contacts.attribute_schema(session)))
    asked = [(path, part.consent) for path, part in walk(parsed) if isinstance(part, ConsentRule)]
    keys = [question.topic for _, question in asked if question.topic]
    ids = [question.topic_id for _, question in asked if question.topic_id]
    known = await topics.find(session, keys, ids) if asked else {}
    problems = []
    for path, question in asked:
        name = "topic" if question.topic else "topic_id"
        if (question.topic or question.topic_id) not in known:
            problems.append(Problem(f"{path}.consent.{name}", "unknown_topic", "There is no such topic; GET /v1/topics lists them."))
    if problems:
        raise Invalid(problems)


async def create(session: OrganizationSession, name: str, rule: dict[str, Any]) -> Segment:
    """The new segment. The rule is checked.

    Raises:
        Invalid: the rule does not fit.
        Conflict: another segment has this name.
    """
    await check_rule(session, rule)
    row = Segment(organization_id=session.organization_id, name=name, rule=rule)
    query = insert(Segment).values(**row.model_dump()).on_conflict_do_nothing().returning(Segment)
    created = (await session.scalars(query)).one_or_none()
    if created is None:
        raise _name_taken()
    return created


def _name_taken() -> Conflict:
    return Conflict("There is a segment of this name already; choose another name.")


async def list_segments(session: OrganizationSession, limit: int, after: UUID | None = None) -> Sequence[Segment]:
    """At most `limit` segments, oldest first, after the id `after`."""
    query = select(Segment).where(col(Segment.organization_id) == session.organization_id)
    if after is not None:
        query = query.where(col(Segment.id) > after)
    return (await session.scalars(query.order_by(col(Segment.id)).limit(limit))).all()


async def get(session: OrganizationSession, segment_id: UUID) -> Segment:
    """Raises NotFound."""
    query = select(Segment).where(col(Segment.id) == segment_id, col(Segment.organization_id) == session.organization_id)
    found = (await session.scalars(query)).one_or_none()
    if found is None:
        raise NotFound("segment", segment_id)
    return found


async def change(session: OrganizationSession, segment_id: UUID, values: Mapping[str, Any]) -> tuple[Segment, tuple[str, ...]]:
    """The segment with the given `name` and `rule`, and the names of what is different now. Campaigns that were launched
    keep the rule they were launched with.

    Raises:
        NotFound, Invalid, Conflict: as for `create`.
    """
    segment = await get(session, segment_id)
    if "rule" in values:
        await check_rule(session, values["rule"])
    if await _is_taken(session, segment_id, values.get("name")):
        raise _name_taken()
    changed = tuple(sorted(name for name, value in values.items() if getattr(segment, name) != value))
    for name in changed:
        setattr(segment, name, values[name])
    if changed:
        segment.updated_at = utc_now()
        await session.flush()
    return segment, changed


async def _is_taken(session: OrganizationSession, segment_id: UUID, name: str | None) -> bool:
    query = select(col(Segment.id)).where(
        col(Segment.organization_id) == session.organization_id, col(Segment.name) == name, col(Segment.id) != segment_id
    )
    return name is not None and (await session.scalars(query)).first() is not None


async def delete(session: OrganizationSession, segment_id: UUID) -> None:
    """The segment is gone.

    Raises:
        NotFound: there is none.
        Conflict: a campaign was launched with it, or a journey that is not archived names it, in its draft or its newest version.
    """
    await get(session, segment_id)
    used = text("SELECT 1 FROM campaigns WHERE organization_id = :o AND segment_id = :id LIMIT 1")
    if (await session.execute(used, {"o": session.organization_id, "id": segment_id})).first():
        raise Conflict("A campaign was launched with this segment; it stays for the record. Rename it if it is in the way.")
    naming = await _naming(session, segment_id)
    if naming:
        more = f" and {len(naming) - NAMED} more" if len(naming) > NAMED else ""
        raise Conflict(
            f"Journeys name this segment: {', '.join(naming[:NAMED])}{more}. Take it out of them (publish, where a version has it), "
            "or archive them, before you delete it."
        )
    await session.execute(
        delete_from(Segment).where(col(Segment.id) == segment_id, col(Segment.organization_id) == session.organization_id)
    )


_NAMING = text(
    """
    SELECT j.name, position(:id IN CAST(j.draft AS text)) > 0 AS in_draft, v.number
    FROM journeys j LEFT JOIN LATERAL (
      SELECT v.number, v.definition FROM journey_versions v
      WHERE v.organization_id = :o AND v.journey_id = j.id ORDER BY v.number DESC LIMIT 1) v
      ON position(:id IN CAST(v.definition AS text)) > 0
    WHERE j.organization_id = :o AND j.archived_at IS NULL AND (position(:id IN CAST(j.draft AS text)) > 0 OR v.number IS NOT NULL)
    ORDER BY j.name
    """
)


async def _naming(session: OrganizationSession, segment_id: UUID) -> list[str]:
    """The journeys that name the segment, each with where. A version has the rules of segments, but still names those that lead in."""
    rows = await session.execute(_NAMING, {"o": session.organization_id, "id": str(segment_id)})
    return [f"{row.name!r} ({' and '.join(filter(None, [_in_draft(row), _in_version(row)]))})" for row in rows]


def _in_draft(row: Any) -> str | None:
    return "its draft" if row.in_draft else None


def _in_version(row: Any) -> str | None:
    return None if row.number is None else f"version {row.number}"


async def compile_segment(session: OrganizationSession, segment_id: UUID) -> CompiledRule:
    """The segment's rule as SQL, at the present moment. Raises NotFound."""
    return compile_rule((await get(session, segment_id)).rule, utc_now())


@dataclass(frozen=True)
class Preview:
    """How many contacts a rule selects now, and the oldest few of them."""

    count: int
    sample: Sequence[Contact]


async def preview(session: OrganizationSession, rule: Mapping[str, Any], sample: int) -> Preview:
    """Whom the rule selects now.

    Raises:
        Invalid: the rule does not fit the organization.
        Unavailable: counting took longer than `LOOK`.
    """
    await check_rule(session, rule)
    wanted = ContactFilter(segment=compile_rule(rule, utc_now()))
    async with within(session, LOOK):
        found = await contacts.list_contacts(session, wanted, sample) if sample else []
        return Preview(await contacts.count(session, wanted), found)
