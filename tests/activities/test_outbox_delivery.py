from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import pytest

from activities import routing
from activities.contracts.routing import Routed
from activities.routing import RoutingActivities
from activities.versions import Versions
from models.store import outbox
from models.store.outbox import OutboxMessage, PendingMessage
from tests.activities.world import World


class Telling:
    """Workflows that answer, but for those of `silent` runs."""

    def __init__(self, silent: Sequence[UUID]) -> None:
        self.silent = silent
        self.heard: list[UUID] = []

    async def tell(self, organization_id: UUID, waiting: Sequence[PendingMessage]) -> list[UUID]:
        told = [message for message in waiting if message.run_id not in self.silent]
        self.heard += [message.run_id for message in told]
        return [message.id for message in told]


async def test_words_that_cannot_be_told_yet_keep_nobody_elses_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the pages of a large campaign are being started."""
    monkeypatch.setattr(routing, "MESSAGES_AT_ONCE", 2)
    silent, others = await world.people(5), await world.people(3)
    async with world.database.organization(world.organization_id) as session:
        await outbox.add(session, [OutboxMessage(run, "reconsider") for run in (*silent, *others)])
    activities = RoutingActivities(world.database, world.settings, Versions(), cast(Any, None))
    telling = Telling(silent)
    monkeypatch.setattr(activities, "delivery", telling)
    assert await activities._tell(world.organization_id) == Routed(more=True, stuck=True)
    assert telling.heard == others
    assert await world.one("SELECT count(*) FROM run_messages") == 5
    assert await activities._tell(world.organization_id) == Routed(more=False, stuck=True)
    telling.silent = ()
    assert await activities._tell(world.organization_id) == Routed(more=True, stuck=False)
    while (await activities._tell(world.organization_id)).more:
        pass
    assert await world.one("SELECT count(*) FROM run_messages") == 0
