import logging
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities.contracts.payload import Payload
from activities.contracts.upkeep import Upkeep
from api.commands.upkeep import UpkeepActivities
from api.dependencies import Services
from models.store import access
from models.store.session import Database
from tests.api.conftest import Cast, Person
from tests.api.rest import acme
from tests.api.rest.fake_temporal import FakeTemporal


class Picky(FakeTemporal):
    """Raises `trouble` for the workflows of one organization."""

    refused: UUID | None = None
    trouble: Exception = RuntimeError("alice@example.com is not welcome")

    async def start_workflow(self, workflow: str, argument: Payload | None = None, **options: Any) -> None:
        if self.refused is not None and options["id"].startswith(str(self.refused)):
            raise self.trouble
        await super().start_workflow(workflow, argument, **options)

    def of(self, person: Person) -> int:
        return sum(name.startswith(str(person.organization_id)) for name in self.started)


@pytest.fixture
def temporal() -> Picky:
    return Picky()


async def leave_unstarted(database: Database, temporal: Picky, person: Person, campaigns: int) -> None:
    journey = await acme.publish(person, await acme.surround(database, person))
    temporal.away()
    for number in range(campaigns):
        answer = await person.client.post("/v1/campaigns", json={"name": f"Lost {number}", "journey_id": journey})
        assert answer.status_code == 503
    temporal.back()


@pytest.fixture
def two(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> list[Person]:
    """Alice's organization and then Charlie's are those that have something to start; what other tests left is not looked at."""
    people = [cast.alice, cast.charlie]

    async def only_these(*_: AsyncSession | object) -> list[UUID]:
        return [person.organization_id for person in people]

    monkeypatch.setattr(access, "organizations_with_unstarted", only_these)
    return people


TROUBLES = [RPCError("gone", RPCStatusCode.UNAVAILABLE, b""), RuntimeError("alice@example.com is not welcome")]


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("trouble", TROUBLES, ids=["unavailable", "unexpected"])
async def test_one_organizations_trouble_stops_no_other(
    database: Database,
    services: Services,
    temporal: Picky,
    two: list[Person],
    caplog: pytest.LogCaptureFixture,
    failing: int,
    trouble: Exception,
) -> None:
    for person in two:
        await leave_unstarted(database, temporal, person, 1)
    unlucky, lucky = two[failing], two[1 - failing]
    temporal.refused, temporal.trouble = unlucky.organization_id, trouble
    with caplog.at_level(logging.ERROR), pytest.raises(ApplicationError, match="1 of 2") as caught:
        await ActivityEnvironment().run(UpkeepActivities(services).start_missing_workflows, Upkeep())
    assert (temporal.of(lucky), temporal.of(unlucky)) == (1, 0)
    assert not caught.value.non_retryable
    [said] = [record.getMessage() for record in caplog.records if record.name == "api.commands.upkeep"]
    assert str(unlucky.organization_id) in said and type(trouble).__name__.replace("RPCError", "Unavailable") in said
    assert "alice@example.com" not in said + str(caught.value)
    temporal.refused = None
    assert await ActivityEnvironment().run(UpkeepActivities(services).start_missing_workflows, Upkeep()) == 2
    assert temporal.of(unlucky) == 1


async def test_upkeep_says_that_it_is_alive_before_every_start(
    database: Database, services: Services, temporal: Picky, two: list[Person]
) -> None:
    await leave_unstarted(database, temporal, two[0], 5)
    environment = ActivityEnvironment()
    beats: list[int] = []
    environment.on_heartbeat = lambda *_: beats.append(temporal.of(two[0]))
    assert await environment.run(UpkeepActivities(services).start_missing_workflows, Upkeep()) == 5
    assert {0, 1, 2, 3, 4} <= set(beats)
