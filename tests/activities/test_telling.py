"""What the outbox tells workflows that are not there."""

from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from temporalio.service import RPCError, RPCStatusCode

from activities.telling import Teller
from activities.versions import Versions
from models.domain.findings import LOST
from models.store import outbox
from models.store.outbox import Told
from tests.activities.world import World


@pytest.mark.parametrize(
    ("status", "reason", "told"), [("waiting", None, 0), ("needs_attention", "bounced", 0), ("needs_attention", LOST, 1)]
)
async def test_a_word_for_a_workflow_that_is_gone_for_good_does_not_wait_for_ever(
    world: World, status: str, reason: str | None, told: int
) -> None:
    """A workflow that is only starting is told later; many words that nobody can ever hear would keep everybody else's back."""
    run = await world.contact()
    await world.sql("UPDATE runs SET status = :status, reason = :reason WHERE id = :id", status=status, reason=reason, id=run)
    async with world.database.organization(world.organization_id) as session:
        await outbox.put(session, [Told(run, "exit", {"reason": "goal:bought"})])
        waiting = await outbox.waiting(session, 100)
    signal = AsyncMock(side_effect=RPCError("gone", RPCStatusCode.NOT_FOUND, b""))
    temporal = Mock(get_workflow_handle=lambda name: Mock(signal=signal))
    assert len(await Teller(world.database, Versions(), cast(Any, temporal), "queue").tell(world.organization_id, waiting)) == told
    assert signal.await_count == 1
