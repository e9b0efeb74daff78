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
from tests.activities.test_replays import replay
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


async def test_a_resume_while_a_replay_is_being_started_is_not_missed(world: World) -> None:
    """It reads that the journey is paused; before the workflow is there to hear of it, it is resumed."""
    run = await world.contact()
    await world.sql("UPDATE journeys SET paused_at = now() WHERE id = :id", id=world.journey_id)
    [new] = await replay(world, [run])
    said: list[str] = []

    async def start(*_: Any, **given: Any) -> None:
        said.append(f"start held by {_[1].held_by}")
        await world.sql("UPDATE journeys SET paused_at = NULL WHERE id = :id", id=world.journey_id)

    async def hear(name: str, word: Any) -> None:
        said.append(f"{word.command} {word.kind}")

    temporal = Mock(start_workflow=start, get_workflow_handle=lambda name: Mock(signal=hear))
    async with world.database.organization(world.organization_id) as session:
        waiting = [each for each in await outbox.waiting(session, 100) if each.run_id == new]
    await Teller(world.database, Versions(), cast(Any, temporal), "queue").tell(world.organization_id, waiting)
    assert said == ["start held by ['journey']", "resume journey"]
