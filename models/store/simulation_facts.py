"""What a simulation reads: the organization, its contacts and their pasts, set-based and in one go."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.decision import ConsentLine
from models.domain.journey.content_hash import template_version_ids
from models.domain.journey.definition import Definition
from models.domain.journey.facts import Facts
from models.domain.segment_memory import Happened
from models.domain.simulation.person import HeldConsent, Person, numbered
from models.domain.simulation.surroundings import Surroundings
from models.store import journey_versions
from models.store.segment_sql import CompiledRule
from models.store.session import OrganizationSession
from models.store.suppressions import address_hash

EVENTS_EACH = 1_000  # the newest of one name and contact: no rule counts further

_TOPIC_NAMES = text("SELECT id, name FROM topics WHERE organization_id = :o")
_TOPIC_KEYS = text("SELECT key, id FROM topics WHERE organization_id = :o")
_ORGANIZATION = text("SELECT name, timezone, quiet_hours, attribute_schema FROM organizations WHERE id = :o")
_PEOPLE = text(
    """
    SELECT c.id, c.external_id, c.email, c.phone, c.first_name, c.last_name, c.locale, c.timezone, c.country, c.region, c.postal_code,
           c.attributes, c.tags, c.created_at, c.updated_at
    FROM contacts c WHERE c.organization_id = :o AND c.id = ANY(CAST(:ids AS uuid[])) ORDER BY c.id
    """
)
_CONSENTS = text(
    """
    SELECT DISTINCT ON (k.contact_id, k.channel, k.topic_id) k.contact_id, k.channel, k.topic_id, k.id, k.status, k.occurred_at, k.method
    FROM consents k WHERE k.organization_id = :o AND k.contact_id = ANY(CAST(:ids AS uuid[]))
    ORDER BY k.contact_id, k.channel, k.topic_id, k.occurred_at DESC, k.id DESC
    """
)
_SUPPRESSED = text(
    """
    SELECT address_hash, id FROM suppressions
    WHERE organization_id = :o AND released_at IS NULL AND address_hash = ANY(CAST(:hashes AS bytea[]))
    """
)
_EVENTS = text(
    f"""
    SELECT e.contact_id, e.seq, e.name, e.created_at, e.occurred_at, e.properties
    FROM unnest(CAST(:ids AS uuid[])) AS p(contact_id) CROSS JOIN unnest(CAST(:names AS text[])) AS n(name)
    CROSS JOIN LATERAL (
      SELECT * FROM events e WHERE e.organization_id = :o AND e.contact_id = p.contact_id AND e.name = n.name
      ORDER BY e.seq DESC LIMIT {EVENTS_EACH}) e
    """
)
# The same sample every time, evenly spread over the segment.
_SAMPLE = "SELECT c.id FROM contacts c WHERE c.organization_id = :o AND ({rule}) ORDER BY md5(c.id::text), c.id LIMIT :size"


async def read_only(session: OrganizationSession) -> None:
    """Whatever this transaction still tries to write, the database refuses."""
    await session.execute(text("SET TRANSACTION READ ONLY"))


@dataclass(frozen=True)
class Around:
    """`topic_names`: by id."""

    organization_name: str
    topic_names: Mapping[str, str]
    surroundings: Surroundings


async def vocabulary(session: OrganizationSession) -> tuple[dict[str, UUID], dict[str, Any]]:
    """Topics by key, archived ones too, and the schema of custom attributes."""
    topics = await session.execute(_TOPIC_KEYS, {"o": session.organization_id})
    organization = (await session.execute(_ORGANIZATION, {"o": session.organization_id})).one()
    return {row.key: row.id for row in topics}, organization.attribute_schema


async def surroundings(session: OrganizationSession, definition: Definition, facts: Facts, tries: int) -> Around:
    """What a simulation of the (frozen) definition needs to know of the organization."""
    row = (await session.execute(_ORGANIZATION, {"o": session.organization_id})).one()
    found = Surroundings(
        timezone=row.timezone,
        quiet_hours=row.quiet_hours,
        attributes=row.attribute_schema,
        topics=facts.topics,
        published=frozenset(id for id, fact in (facts.journeys or {}).items() if fact.published),
        members=facts.members or frozenset(),
        templates=await journey_versions.template_contents(session, template_version_ids(definition)),
        tries=tries,
    )
    names = await session.execute(_TOPIC_NAMES, {"o": session.organization_id})
    return Around(row.name, {str(id): name for id, name in names}, found)


async def sample(session: OrganizationSession, rule: CompiledRule | None, size: int) -> list[UUID]:
    """Up to `size` contacts that fit (None: of all), always the same while nobody changes."""
    statement = text(_SAMPLE.format(rule="TRUE" if rule is None else rule.sql))
    parameters = {"o": session.organization_id, "size": size, **({} if rule is None else rule.parameters)}
    return list((await session.execute(statement, parameters)).scalars())


async def people(
    session: OrganizationSession, ids: Sequence[UUID], event_names: Collection[str], suppression_key: bytes
) -> dict[UUID, Person]:
    """These contacts as they are now, with the events of these names that they have met. Those that there are not are left out. A
    constant number of statements."""
    mine = {"o": session.organization_id, "ids": list(ids)}
    found = {row["id"]: _person(dict(row)) for row in (await session.execute(_PEOPLE, mine)).mappings()}
    for line in await session.execute(_CONSENTS, mine):
        if line.contact_id in found:
            left_at = line.occurred_at if line.status == "withdrawn" and line.method != "journey" else None
            standing = HeldConsent(ConsentLine(line.id, line.status, line.occurred_at), left_at)
            found[line.contact_id].consents[line.topic_id, line.channel] = standing
    await _add_suppressions(session, found, suppression_key)
    if event_names:
        await _add_events(session, found, mine, event_names)
    return found


def _person(row: dict[str, Any]) -> Person:
    identifier, attributes, tags = row.pop("id"), row.pop("attributes"), list(row.pop("tags"))
    return Person(identifier, row, attributes, tags)


async def _add_suppressions(session: OrganizationSession, found: Mapping[UUID, Person], key: bytes) -> None:
    by_hash: dict[bytes, list[tuple[Person, str]]] = {}
    for person in found.values():
        for channel in ("email", "sms"):
            if (address := person.address(channel)) is not None:
                by_hash.setdefault(address_hash(key, channel, address), []).append((person, channel))
    rows = await session.execute(_SUPPRESSED, {"o": session.organization_id, "hashes": list(by_hash)})
    for row in rows:
        for person, channel in by_hash[bytes(row.address_hash)]:
            person.suppress(channel, row.id)


async def _add_events(session: OrganizationSession, found: Mapping[UUID, Person], mine: Mapping[str, Any], names: Collection[str]) -> None:
    events: dict[UUID, list[Happened]] = {}
    for row in await session.execute(_EVENTS, {**mine, "names": sorted(names)}):
        event = Happened(row.seq, row.name, row.created_at, row.occurred_at, row.properties)
        events.setdefault(row.contact_id, []).append(event)
    for identifier, past in events.items():
        if identifier in found:
            found[identifier].events = numbered(past)
