"""Who has not heard what is in force is told in this round, however many there are, and no organization waits for another's."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities import telling_untold
from activities.contracts.control import Control
from activities.control import ControlActivities
from activities.observed import MISSING, RUNNING, Examined, Listed, Observer
from activities.reconciler_rules import Patience
from activities.telling_untold import UntoldTelling
from models.domain.journey import workflow_id
from models.settings import Settings
from models.store.session import Database
from models.tables.base import new_id, utc_now
from tests.activities.world import World

LONG = timedelta(hours=1)


@dataclass
class Temporal:
    """Stands for client and observer: takes every signal, and knows who runs."""

    failing_names: Sequence[str] = ()
    running: Sequence[str] = ()
    said: list[Control] = field(default_factory=list)
    heard: list[tuple[str, str]] = field(default_factory=list)
    examined: list[str] = field(default_factory=list)

    def get_workflow_handle(self, name: str) -> "Handle":
        return Handle(self, name)

    async def start_workflow(self, *_: Any, **__: Any) -> None: ...

    async def failing(self) -> list[Listed]:
        return [Listed(name, "", "", RUNNING, None, None, None, None) for name in self.failing_names]

    async def examine_all(self, names: set[str]) -> dict[str, Examined]:
        self.examined += sorted(names)
        return {name: Examined(RUNNING if name in self.running else MISSING) for name in names}


@dataclass
class Handle:
    temporal: Temporal
    name: str

    async def signal(self, kind: str, said: Control) -> None:
        self.temporal.said.append(said)
        self.temporal.heard.append((self.name, said.command))


async def cancelled(world: World, count: int) -> list[str]:
    """Workflows of single runs whose journey was cancelled two minutes ago, of which nobody has told them."""
    names = [workflow_id.single_run(world.organization_id, new_id()) for _ in range(count)]
    contact_id = new_id()
    await world.sql("INSERT INTO contacts (id, organization_id, attributes) VALUES (:id, :o, '{}')", id=contact_id)
    await world.sql(
        """INSERT INTO runs (id, organization_id, journey_id, version_id, contact_id, workflow_id, page, status, sequence, variables,
                             created_at, updated_at)
           SELECT gen_random_uuid(), :o, :journey_id, :version_id, :contact_id, name, 0, 'waiting', 1, '{}',
                  now() - interval '1 hour', now() - interval '1 hour'
           FROM jsonb_array_elements_text(CAST(:names AS jsonb)) AS n(name)""",
        journey_id=world.journey_id,
        version_id=world.version_id,
        contact_id=contact_id,
        names=json.dumps(names),
    )
    await world.sql("UPDATE journeys SET runs_cancelled_at = now() - interval '2 minutes' WHERE id = :id", id=world.journey_id)
    return names


async def tell(world: World, temporal: Temporal, for_so_long: timedelta = LONG) -> list[str]:
    """Who was told to cancel, in order."""
    await UntoldTelling(world.database, cast(Client, temporal), Patience()).tell(cast(Observer, temporal), for_so_long)
    return [name for name, command in temporal.heard if command == "cancel"]


async def test_everybody_is_told_in_one_round_and_each_organization_in_its_turn(
    world: World, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling_untold, "TOLD_IN_TURN", 10)
    other = await World(database, settings).build()
    many, few = set(await cancelled(world, 250)), set(await cancelled(other, 5))
    temporal = Temporal()
    told = [name for name in await tell(world, temporal) if name in many | few]
    assert sorted(told) == sorted(many | few)
    assert max(told.index(name) for name in few) < 15 + 1  # nobody waits for more than one page of another organization
    control = workflow_id.control(world.organization_id, "journey", world.journey_id)
    assert temporal.examined.count(control) == 1


async def test_a_round_ends_in_time_and_the_next_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    names = set(await cancelled(world, 3))
    assert not names & set(await tell(world, Temporal(), timedelta(0)))
    assert names <= set(await tell(world, Temporal()))


async def test_nobody_is_told_while_somebody_is_at_it_and_none_whose_tasks_fail(world: World) -> None:
    first, *others = await cancelled(world, 3)
    control = workflow_id.control(world.organization_id, "journey", world.journey_id)
    assert not {first, *others} & set(await tell(world, Temporal(running=[control])))
    assert {first, *others} & set(await tell(world, Temporal(failing_names=[first]))) == set(others)


@pytest.mark.parametrize("kind", ["journey", "campaign"])
async def test_who_hears_of_a_resumption_later_keeps_the_moment_that_it_gave(world: World, kind: str) -> None:
    """And one that was not spread leaves nothing of the spread before it."""
    await world.campaign()
    subject = world.journey_id if kind == "journey" else world.campaign_id
    run_id = await world.contact()
    table = f"{kind}s"
    told: list[tuple[timedelta | None, bool]] = []
    for spread in (timedelta(minutes=10), None):
        await world.sql(f"UPDATE {table} SET paused_at = now(), pauses = pauses + 1 WHERE id = :id", id=subject)
        await world.sql("UPDATE runs SET status = 'paused', updated_at = now() - interval '1 hour' WHERE id = :id", id=run_id)
        word = {"organization_id": world.organization_id, "kind": kind, "id": subject, "command": "resume", "request_id": new_id()}
        control = Control.model_validate({**word, "spread": spread})
        before, temporal = utc_now(), Temporal()
        await ActivityEnvironment().run(ControlActivities(world.database, cast(Client, temporal)).apply_control, control)
        await tell(world, temporal)
        [said] = [each for each in temporal.said if (each.kind, each.id) == (kind, subject)]
        assert said.command == "resume" and (said.request_id == control.request_id) is (spread is not None)
        told.append((said.spread, said.said_at is not None and before <= said.said_at <= utc_now()))
    assert told == [(timedelta(minutes=10), True), (None, False)]
