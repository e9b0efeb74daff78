"""What a campaign would do if it were launched now. Two statements, however many contacts."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from models.store import contacts
from models.store.contacts import ContactFilter
from models.store.limits import within
from models.store.segment_sql import CompiledRule
from models.store.segments import LOOK
from models.store.selection import Selection
from models.store.session import OrganizationSession
from models.tables.contacts import Contact

_GROUPS = """
    SELECT people.timezone, people.why_not, count(*) AS contacts, o.timezone AS organization_timezone FROM (
      SELECT coalesce(c.timezone, '') AS timezone, {why_not} AS why_not FROM contacts c WHERE c.organization_id = :o AND ({fits})) people
    RIGHT JOIN organizations o ON true WHERE o.id = :o GROUP BY people.timezone, people.why_not, o.timezone
"""


@dataclass(frozen=True)
class Group:
    """Contacts that fit, of one zone as written ("" for none), and why they are left out; None: they are taken."""

    timezone: str
    why_not: str | None
    contacts: int


@dataclass(frozen=True)
class Crowd:
    organization_timezone: str
    groups: Sequence[Group]


async def crowd(session: OrganizationSession, chosen: Selection) -> Crowd:
    """Who fits, by zone and reason.

    Raises:
        Unavailable: counting took longer than `LOOK`.
    """
    statement = text(_GROUPS.format(why_not=chosen.why_not, fits=chosen.fitting.sql))
    async with within(session, LOOK):
        rows = (await session.execute(statement, {"o": session.organization_id, **chosen.parameters})).all()
    groups = [Group(row.timezone, row.why_not, row.contacts) for row in rows if row.timezone is not None]
    return Crowd(rows[0].organization_timezone, groups)


async def sample(session: OrganizationSession, chosen: Selection, passed: Sequence[str], limit: int) -> Sequence[Contact]:
    """The oldest few of those who are taken: not those in the zones that have `passed`."""
    sql = f"({chosen.fitting.sql}) AND ({chosen.why_not}) IS NULL AND coalesce(c.timezone, '') <> ALL(CAST(:passed AS text[]))"
    parameters = {**chosen.parameters, "passed": list(passed), "o": session.organization_id}
    used = {name: value for name, value in parameters.items() if f":{name}" in sql}
    return await contacts.list_contacts(session, ContactFilter(segment=CompiledRule(sql, used)), limit) if limit else []
