"""Journeys that are entered from outside, and the hand that routes to them: everything but the workflows."""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from activities.contracts.routing import Routing
from activities.routing import RoutingActivities
from activities.versions import Versions
from models.domain.journey.definition import Definition
from models.store import events, outbox, triggers
from models.store.events import NewEvent
from models.tables.base import new_id, utc_now
from models.tables.journeys import JourneyVersion
from tests.activities.world import World

LEAVE = {"x": {"kind": "exit", "reason": "x"}}


class Journeys:
    """Of one organization. What is said is matched by `route`."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def publish(self, draft: dict[str, Any], journey_id: UUID | None = None) -> UUID:
        """The journey's next version, or the first of a new journey; answers the journey."""
        definition = Definition.model_validate({"start": "x", "steps": LEAVE, **draft})
        journey_id = journey_id or new_id()
        await self.world.sql(
            "INSERT INTO journeys (id, organization_id, name, draft, revision) VALUES (:id, :o, :name, '{}', 1) ON CONFLICT DO NOTHING",
            id=journey_id,
            name=str(journey_id),
        )
        number = await self.world.one("SELECT count(*) + 1 FROM journey_versions WHERE journey_id = :id", id=journey_id)
        version = JourneyVersion(organization_id=self.world.organization_id, journey_id=journey_id, number=number, content_hash="")
        await self.world.sql(
            """INSERT INTO journey_versions (id, organization_id, journey_id, number, definition, content_hash)
               VALUES (:id, :o, :journey_id, :number, CAST(:definition AS jsonb), '')""",
            id=version.id,
            journey_id=journey_id,
            number=number,
            definition=definition.model_dump_json(by_alias=True),
        )
        async with self.world.database.organization(self.world.organization_id) as session:
            await triggers.put_in_force(session, version, definition)
        return journey_id

    async def contact(self, **values: Any) -> UUID:
        tags = values.pop("tags", [])
        run_id = await self.world.contact(**values)
        contact_id = self.world.contacts[run_id]
        await self.world.sql("DELETE FROM runs WHERE id = :id", id=run_id)
        await self.tag(contact_id, *tags)
        return contact_id

    async def tag(self, contact_id: UUID, *tags: str) -> None:
        """It has these tags and no others."""
        await self.world.sql("UPDATE contacts SET tags = CAST(:tags AS text[]) WHERE id = :id", id=contact_id, tags=list(tags))

    async def say(self, contact_id: UUID, name: str, properties: dict[str, Any] | None = None, **values: Any) -> UUID:
        """An event, accepted."""
        new = NewEvent(None, name, contact_id, None, None, properties or {}, False, values.get("occurred_at") or utc_now())
        async with self.world.database.organization(self.world.organization_id) as session:
            [accepted] = await events.accept(session, [new], make_contacts=False)
        assert accepted.id is not None
        return accepted.id

    async def route(self, *, timed: bool = False) -> None:
        """Whatever has happened has had its consequences; nobody is told."""
        activities = RoutingActivities(self.world.database, self.world.settings, Versions(), cast(Any, None))
        while await activities._route(Routing(organization_id=self.world.organization_id, timed=timed)):
            pass

    async def pause(self, journey_id: UUID, paused: bool = True) -> None:
        await self.world.sql(
            "UPDATE journeys SET paused_at = CASE WHEN :paused THEN now() END WHERE id = :id", id=journey_id, paused=paused
        )

    async def resume(self, journey_id: UUID) -> None:
        await self.pause(journey_id, paused=False)

    async def runs(self, journey_id: UUID) -> Sequence[Any]:
        """In the order in which they entered, each with its version's number."""
        return await self.world.sql(
            """SELECT r.*, v.number FROM runs r JOIN journey_versions v ON v.id = r.version_id
               WHERE r.journey_id = :id ORDER BY r.created_at, r.id""",
            id=journey_id,
        )

    async def outcomes(self, journey_id: UUID) -> list[tuple[str, str | None]]:
        """Of everybody who was to enter, in order."""
        rows = await self.world.sql("SELECT outcome, reason FROM entries WHERE journey_id = :id ORDER BY id", id=journey_id)
        return [(row["outcome"], row["reason"]) for row in rows]

    async def goals(self, journey_id: UUID) -> int:
        return int(await self.world.one("SELECT count(*) FROM goal_hits WHERE journey_id = :id", id=journey_id))

    async def ended(self, run_id: UUID) -> None:
        """As its workflow would say."""
        await self.world.sql("UPDATE runs SET finished_at = clock_timestamp(), status = 'completed' WHERE id = :id", id=run_id)

    async def words(self) -> list[str]:
        async with self.world.database.organization(self.world.organization_id) as session:
            return [message.kind for message in await outbox.pending(session, 1_000)]
