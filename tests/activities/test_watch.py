"""One look at pauses and connections serves every batch that would look at the same."""

import asyncio
from typing import Any

import pytest

from activities.watch import LONG_AGO, Seen, Watch
from models.domain.errors import Unavailable
from models.settings import Settings
from models.store import connections, deliveries
from models.store.connections import SendingConnection
from models.store.session import Database
from tests.activities.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECENT = 1e9


async def loaded(world: World) -> SendingConnection:
    async with world.database.organization(world.organization_id) as session:
        return await connections.load_for_sending(session, world.connection_id, "email", world.settings.derive_key("connection-secrets"))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each look at the flags."""
    seen: list[object] = []
    really = deliveries.paused_reason

    async def paused_reason(*given: Any) -> str | None:
        seen.append(given)
        return await really(*given)

    monkeypatch.setattr(deliveries, "paused_reason", paused_reason)
    return seen


async def test_batches_that_look_at_once_or_soon_after_share_a_look(world: World, looks: list[object]) -> None:
    watch, connection = Watch(world.database), await loaded(world)
    both = await asyncio.gather(*(watch.look(world.scope, connection, LONG_AGO, RECENT) for _ in range(50)))
    assert {(one.paused, one.current) for one in both} == {(None, True)} and len(looks) == 1
    assert await watch.look(world.scope, connection, both[0].at - 1, RECENT) is both[0] and len(looks) == 1


async def test_what_was_seen_before_a_batch_looked_last_or_too_long_ago_is_looked_at_again(world: World, looks: list[object]) -> None:
    watch, connection = Watch(world.database), await loaded(world)
    first = await watch.look(world.scope, connection, LONG_AGO, RECENT)
    await world.sql("UPDATE journeys SET paused_at = now()")
    await world.change_connection(sender_address="new@acme.example")
    second = await watch.look(world.scope, connection, first.at, RECENT)
    assert (second.paused, second.current) == ("journey_paused", False) and len(looks) == 2
    await world.sql("UPDATE journeys SET paused_at = NULL")
    third = await watch.look(world.scope, connection, LONG_AGO, 0.0)
    assert (third.paused, third.current) == (None, False) and len(looks) == 3


async def test_another_journey_and_a_connection_as_it_is_now_are_looked_at_for_themselves(world: World, looks: list[object]) -> None:
    watch, old, scope = Watch(world.database), await loaded(world), world.scope
    await world.change_connection(sender_address="new@acme.example")
    new, campaign = await loaded(world), await world.campaign()
    subjects = [(scope, old), (scope, new), (scope.model_copy(update={"campaign_id": campaign}), new)]
    seen: list[Seen] = await asyncio.gather(*(watch.look(of, by, LONG_AGO, RECENT) for of, by in subjects))
    assert [one.current for one in seen] == [False, True, True] and len(looks) == 3


async def test_a_look_is_as_old_as_its_reading_however_long_it_waited_for_the_database(world: World, settings: Settings) -> None:
    """Or each message of a batch would wait for a look of its own where the database is slow."""
    busy = Database(settings.database_url.get_secret_value(), pool_size=1)
    watch, connection, loop = Watch(busy), await loaded(world), asyncio.get_running_loop()
    async with busy.organization(world.organization_id):
        first = asyncio.create_task(watch.look(world.scope, connection, LONG_AGO, RECENT))
        await asyncio.sleep(0.05)
        asked = loop.time()  # later than the first, and served by it all the same: it is still to read
        second = asyncio.create_task(watch.look(world.scope, connection, asked, RECENT))
        await asyncio.sleep(0.05)
        freed = loop.time()
    assert await first is await second and (await first).at > freed
    await busy.close()


async def test_whose_look_failed_is_told_and_who_joined_it_looks_once_more(
    world: World, looks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, connection = Watch(world.database), await loaded(world)
    really = deliveries.paused_reason

    async def away_once(*given: Any) -> str | None:
        monkeypatch.setattr(deliveries, "paused_reason", really)
        raise Unavailable("The database did not answer.")

    monkeypatch.setattr(deliveries, "paused_reason", away_once)
    told = await asyncio.gather(*(watch.look(world.scope, connection, LONG_AGO, RECENT) for _ in range(20)), return_exceptions=True)
    assert isinstance(told[0], Unavailable) and len(looks) == 1
    assert {(one.paused, one.current) for one in told[1:] if isinstance(one, Seen)} == {(None, True)}
    assert all(isinstance(one, Seen) for one in told[1:])


async def test_a_batch_that_is_cancelled_takes_nobodys_look_away(world: World) -> None:
    watch, connection = Watch(world.database), await loaded(world)
    first = asyncio.create_task(watch.look(world.scope, connection, LONG_AGO, RECENT))
    await asyncio.sleep(0)
    second = asyncio.create_task(watch.look(world.scope, connection, LONG_AGO, RECENT))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).current
    with pytest.raises(asyncio.CancelledError):
        await first
