"""Merging a file of contacts, set by set: COPY into a temporary table, one plan for all of its rows, then one statement
for each thing the plan says. All of it happens in the caller's transaction.

    await prepare(session)                       # one import at a time per organization
    await stage(session, chunks)                 # models.contact_file makes them
    counts = await plan(session)                 # what would happen: that is all that a dry run does
    await apply(session)
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text
from sqlmodel import col

from models.contact_file.reading import STAGED, Refusal
from models.domain.audit import Actor
from models.domain.contact import FIELDS, MAX_TAGS
from models.domain.errors import NotFound
from models.store.session import OrganizationSession
from models.tables.contacts import ContactImport

_TYPES = {"line": "integer", "id": "uuid", "attributes": "jsonb", "tags": "text[]", "consent_id": "uuid", "address_hash": "bytea"}
_STAGING = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in STAGED)
_STAGING += ", email_key text GENERATED ALWAYS AS (lower(email)) STORED"
_COPY = f"COPY import_rows ({', '.join(STAGED)}) FROM STDIN (FORMAT csv)"

_SAME_TAGS = "c.tags @> t.tags"
_SAME_ATTRIBUTES = "(c.attributes || t.attributes) = c.attributes"
_SAME_FIELDS = " AND ".join(f"(t.{name} IS NULL OR t.{name} IS NOT DISTINCT FROM c.{name})" for name in FIELDS)
_PLAN = text(
    f"""
    CREATE TEMPORARY TABLE import_plan ON COMMIT DROP AS
    WITH same_external_id AS (
      SELECT external_id, max(line) AS line FROM import_rows WHERE external_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1
    ), same_email AS (
      SELECT email_key, max(line) AS line FROM import_rows WHERE email_key IS NOT NULL GROUP BY 1 HAVING count(*) > 1
    ), judged AS MATERIALIZED (
      SELECT s.*, coalesce(x.id, e.id) AS contact_id, greatest(a.line, b.line) AS latest_line,
             CASE WHEN greatest(a.line, b.line) > s.line THEN 'duplicate_in_file'
                  WHEN x.id <> e.id THEN 'identity_conflict'
                  WHEN x.id IS NULL AND e.external_id <> s.external_id THEN 'identity_conflict' END AS refusal
      FROM import_rows s
      LEFT JOIN same_external_id a ON a.external_id = s.external_id
      LEFT JOIN same_email b ON b.email_key = s.email_key
      LEFT JOIN contacts x ON x.organization_id = :o AND x.external_id = s.external_id
      LEFT JOIN contacts e ON e.organization_id = :o AND e.email_key = s.email_key
    ), same_contact AS (
      SELECT contact_id, max(line) AS line FROM judged WHERE refusal IS NULL AND contact_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1
    )
    SELECT t.line, t.id, {", ".join(f"t.{name}" for name in FIELDS)}, t.attributes, t.tags, t.consent_id, t.address_hash, t.contact_id,
           coalesce(t.refusal, CASE
             WHEN d.line > t.line THEN 'duplicate_in_file'
             WHEN c.id IS NULL OR t.tags IS NULL OR cardinality(c.tags) + cardinality(t.tags) <= {MAX_TAGS} THEN NULL
             WHEN cardinality(ARRAY(SELECT unnest(c.tags) UNION SELECT unnest(t.tags))) > {MAX_TAGS} THEN 'too_many_tags' END) AS refusal,
           CASE WHEN t.refusal = 'duplicate_in_file' THEN t.latest_line ELSE d.line END AS other_line,
           c.id IS NOT NULL AND {_SAME_FIELDS} AND (t.tags IS NULL OR {_SAME_TAGS})
             AND (t.attributes IS NULL OR {_SAME_ATTRIBUTES}) AS unchanged
    FROM judged t
    LEFT JOIN same_contact d ON d.contact_id = t.contact_id
    LEFT JOIN contacts c ON c.organization_id = :o AND c.id = t.contact_id
    """
)
_COUNT = text(
    """
    SELECT count(*) FILTER (WHERE refusal IS NULL AND contact_id IS NULL) AS created,
           count(*) FILTER (WHERE refusal IS NULL AND contact_id IS NOT NULL AND NOT unchanged) AS updated,
           count(*) FILTER (WHERE refusal IS NULL AND unchanged) AS unchanged,
           count(*) FILTER (WHERE refusal IS NOT NULL) AS refused
    FROM import_plan
    """
)
_REFUSALS = text("SELECT line, refusal, other_line FROM import_plan WHERE refusal IS NOT NULL ORDER BY line LIMIT :limit")
_CREATE = text(
    f"""
    INSERT INTO contacts (organization_id, id, {", ".join(FIELDS)}, attributes, tags, created_at, updated_at)
    SELECT :o, id, {", ".join(FIELDS)}, coalesce(attributes, '{{}}'), coalesce(tags, '{{}}'), now(), now()
    FROM import_plan WHERE refusal IS NULL AND contact_id IS NULL
    ORDER BY id
    """
)
_UPDATE = text(
    f"""
    UPDATE contacts c
    SET {", ".join(f"{name} = coalesce(p.{name}, c.{name})" for name in FIELDS)},
        attributes = c.attributes || coalesce(p.attributes, '{{}}'),
        tags = CASE WHEN p.tags IS NULL THEN c.tags
               ELSE ARRAY(SELECT tag COLLATE "C" FROM (SELECT unnest(c.tags) UNION SELECT unnest(p.tags)) AS both_of (tag) ORDER BY 1) END,
        updated_at = now()
    FROM import_plan p
    WHERE c.organization_id = :o AND c.id = p.contact_id AND p.refusal IS NULL AND NOT p.unchanged
    """
)


@dataclass(frozen=True)
class Counts:
    created: int
    updated: int
    unchanged: int
    refused: int


async def prepare(session: OrganizationSession) -> None:
    """The staging table exists, and no other import of the organization runs until this transaction ends."""
    await session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('contact-import/' || CAST(:o AS text), 0))"), {"o": session.organization_id}
    )
    await session.execute(text("SET LOCAL work_mem = '64MB'"))
    await session.execute(text(f"CREATE TEMPORARY TABLE import_rows ({_STAGING}) ON COMMIT DROP"))


async def stage(session: OrganizationSession, pieces: AsyncIterator[bytes]) -> None:
    """The rows of these pieces of CSV (`contact_file.reading.STAGED`) wait to be planned."""
    connection = await session.driver()
    async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        async for piece in pieces:
            await copy.write(piece)


async def plan(session: OrganizationSession) -> Counts:
    """For each staged row it is known whether it creates, updates, leaves or is refused. Nothing is changed yet.

    Of rows for one contact the last is taken; the others are refused, and name it.
    """
    await session.execute(text("ANALYZE import_rows"))
    await session.execute(_PLAN, {"o": session.organization_id})
    return Counts(*(await session.execute(_COUNT)).one())


async def refusals(session: OrganizationSession, limit: int) -> list[Refusal]:
    """The first `limit` rows that the plan refuses, by line."""
    rows = await session.execute(_REFUSALS, {"limit": limit})
    return [Refusal(line, None, code, _MESSAGES[code].format(other=other)) for line, code, other in rows]


_MESSAGES = {
    "duplicate_in_file": "Line {other} is about the same contact; the later line is taken.",
    "identity_conflict": "The external_id belongs to one contact and the email to another; correct one of the two.",
    "too_many_tags": f"The contact would have more than {MAX_TAGS} tags.",
}


async def apply(session: OrganizationSession) -> None:
    """The plan is carried out.

    When somebody else has just made one of the contacts, the database's own error leaves here (`faults.Fault.TAKEN`):
    roll back and merge again. (ON CONFLICT would probe every unique index twice for each row.)
    """
    await session.execute(_CREATE, {"o": session.organization_id})
    await session.execute(_UPDATE, {"o": session.organization_id})


@dataclass(frozen=True)
class GivenConsent:
    """What the importer vouches for, for every row of the file."""

    topic_id: UUID
    channel: str
    method: str
    source: str
    occurred_at: datetime


@dataclass(frozen=True)
class ConsentCounts:
    """What became of each taken row. `digest` (hex SHA-256) is over the granted lines' ids and contacts, in order of ids."""

    granted: int
    unchanged: int  # already granted
    kept_withdrawn: int  # withdrawn or suppressed before: an import never takes that back
    without_address: int
    digest: str


_JUDGE_CONSENTS = text(
    """
    CREATE TEMPORARY TABLE import_consents ON COMMIT DROP AS
    SELECT p.consent_id, coalesce(p.contact_id, p.id) AS contact_id,
           CASE WHEN p.address_hash IS NULL THEN 'without_address'
                WHEN latest.status = 'withdrawn' THEN 'kept_withdrawn'
                WHEN EXISTS (SELECT 1 FROM suppressions s WHERE s.organization_id = :o AND s.channel = :channel
                             AND s.address_hash = p.address_hash AND s.released_at IS NULL) THEN 'kept_withdrawn'
                WHEN latest.status = 'granted' THEN 'unchanged'
                ELSE 'granted' END AS verdict
    FROM import_plan p LEFT JOIN LATERAL (
      SELECT k.status FROM consents k
      WHERE k.organization_id = :o AND k.contact_id = p.contact_id AND k.channel = :channel AND k.topic_id = :topic_id
      ORDER BY k.occurred_at DESC, k.id DESC LIMIT 1) latest ON TRUE
    WHERE p.refusal IS NULL
    """
)
_COUNT_CONSENTS = text(
    """
    SELECT count(*) FILTER (WHERE verdict = 'granted'), count(*) FILTER (WHERE verdict = 'unchanged'),
           count(*) FILTER (WHERE verdict = 'kept_withdrawn'), count(*) FILTER (WHERE verdict = 'without_address'),
           encode(sha256(coalesce(string_agg(uuid_send(consent_id) || uuid_send(contact_id), '' ORDER BY consent_id)
                                  FILTER (WHERE verdict = 'granted'), '')), 'hex')
    FROM import_consents
    """
)
_GRANT = text(
    """
    INSERT INTO consents (organization_id, created_at, id, contact_id, topic_id, channel, status, method, source, evidence,
                          actor_kind, actor_id, occurred_at)
    SELECT :o, now(), consent_id, contact_id, :topic_id, :channel, 'granted', :method, :source,
           jsonb_build_object('contact_import_id', CAST(:import_id AS text)), :actor_kind, :actor_id, :occurred_at
    FROM import_consents WHERE verdict = 'granted'
    """
)


async def plan_consents(session: OrganizationSession, consent: GivenConsent) -> ConsentCounts:
    """For each row that the plan takes it is known whether consent is granted. Nothing is changed yet."""
    parameters = {"o": session.organization_id, "channel": consent.channel, "topic_id": consent.topic_id}
    await session.execute(_JUDGE_CONSENTS, parameters)
    return ConsentCounts(*(await session.execute(_COUNT_CONSENTS)).one())


async def grant_consents(session: OrganizationSession, consent: GivenConsent, import_id: UUID, actor: Actor) -> None:
    """The consents that were planned stand in the ledger. Call it after `apply`, whose contacts they are about."""
    parameters = {
        "o": session.organization_id,
        "topic_id": consent.topic_id,
        "channel": consent.channel,
        "method": consent.method,
        "source": consent.source,
        "occurred_at": consent.occurred_at,
        "import_id": str(import_id),
        "actor_kind": actor.kind,
        "actor_id": actor.id,
    }
    await session.execute(_GRANT, parameters)


async def save(session: OrganizationSession, row: ContactImport) -> ContactImport:
    """The import's report is kept."""
    session.add(row)
    await session.flush()
    return row


async def list_imports(session: OrganizationSession, limit: int, after: UUID | None = None) -> Sequence[ContactImport]:
    """At most `limit` imports, oldest first, after the id `after`."""
    query = select(ContactImport).where(col(ContactImport.organization_id) == session.organization_id)
    if after is not None:
        query = query.where(col(ContactImport.id) > after)
    return (await session.scalars(query.order_by(col(ContactImport.id)).limit(limit))).all()


async def get(session: OrganizationSession, import_id: UUID) -> ContactImport:
    """Raises NotFound."""
    query = select(ContactImport).where(col(ContactImport.id) == import_id, col(ContactImport.organization_id) == session.organization_id)
    found = (await session.scalars(query)).one_or_none()
    if found is None:
        raise NotFound("contact import", import_id)
    return found
