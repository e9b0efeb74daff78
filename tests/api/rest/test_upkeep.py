import logging
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities.contracts.payload import Payload
from activities.contracts.upkeep import Upkeep
from api.commands import campaigns, runs
from api.commands.starting import UNANSWERED, NotStarted
from api.commands.upkeep import ATTEMPTS, UpkeepActivities
from api.dependencies import Services
from models.store import access
from models.store.session import Database
from tests.api.conftest import Cast, Person
from tests.api.rest import acme
from tests.api.rest.fake_temporal import FakeTemporal


class Picky(FakeTemporal):
    """Raises `trouble` for the workflows of one organization, or for those whose id ends so."""

    refused: UUID | None = None
    refused_end: str | None = None
    trouble: Exception = RuntimeError("alice@example.com is not welcome")
    asked = 0

    async def start_workflow(self, workflow: str, argument: Payload | None = None, **options: Any) -> None:
        self.asked += 1
        if self.refused is not None and options["id"].startswith(str(self.refused)):
            raise self.trouble
        if self.refused_end is not None and options["id"].endswith(self.refused_end):
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


async def test_one_that_cannot_be_started_keeps_no_other_waiting(
    database: Database, services: Services, temporal: Picky, two: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    around = await acme.surround(database, two[0])
    journey = await acme.publish(two[0], around)
    temporal.away()
    for number in range(3):
        await two[0].client.post("/v1/campaigns", json={"name": f"Lost {number}", "journey_id": journey})
    await two[0].client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(around.contact_id)})
    temporal.back()
    oldest = min(campaign["id"] for campaign in (await two[0].client.get("/v1/campaigns")).json()["items"])
    [run] = (await two[0].client.get("/v1/runs")).json()["items"]
    monkeypatch.setattr(runs, "OVERDUE", timedelta(0))
    temporal.refused_end, temporal.trouble = oldest, RPCError("no such schedule", RPCStatusCode.INVALID_ARGUMENT, b"")
    with pytest.raises(ApplicationError, match="1 of 2"):
        await ActivityEnvironment().run(UpkeepActivities(services).start_missing_workflows, Upkeep())
    assert len(temporal.started) == 3 and run["workflow_id"] in temporal.started
    assert not any(name.endswith(oldest) for name in temporal.started)


async def test_what_lasts_keeps_the_rest_of_upkeep_waiting_for_a_few_attempts_only(
    database: Database, services: Services, temporal: Picky, two: list[Person]
) -> None:
    await leave_unstarted(database, temporal, two[0], 1)
    temporal.refused = two[0].organization_id
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=ATTEMPTS)
    await environment.run(UpkeepActivities(services).start_missing_workflows, Upkeep())
    assert temporal.of(two[0]) == 0


async def test_while_temporal_is_away_not_every_one_is_waited_for(
    database: Database, services: Services, temporal: Picky, two: list[Person]
) -> None:
    await leave_unstarted(database, temporal, two[0], UNANSWERED + 2)
    temporal.refused, temporal.trouble, temporal.asked = two[0].organization_id, TROUBLES[0], 0
    with pytest.raises(ApplicationError, match="1 of 2"):
        await ActivityEnvironment().run(UpkeepActivities(services).start_missing_workflows, Upkeep())
    assert temporal.asked == UNANSWERED


async def test_more_that_cannot_be_started_than_a_round_looks_at_hide_nothing_for_good(
    database: Database, services: Services, temporal: Picky, two: list[Person]
) -> None:
    """A round of one sees the campaign that can be started with a chance of one half: in none of 64 with one of 2 to the power of -64."""
    await leave_unstarted(database, temporal, two[0], 2)
    oldest = min((await two[0].client.get("/v1/campaigns")).json()["items"], key=lambda campaign: campaign["id"])
    temporal.refused_end = oldest["id"]
    for _ in range(64):
        with suppress(NotStarted):
            await campaigns.start_missing_workflows(services, two[0].organization_id, lambda: None, limit=1)
        if temporal.of(two[0]):
            break
    assert temporal.of(two[0]) == 1


async def test_one_organizations_routing_that_cannot_be_woken_keeps_no_other_asleep(
    services: Services, temporal: Picky, two: list[Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def both(*_: object) -> list[UUID]:
        return [person.organization_id for person in two]

    monkeypatch.setattr(access, "organizations_to_route", both)
    temporal.refused, temporal.asked = two[0].organization_id, 0
    with pytest.raises(ApplicationError, match="1 of 2"):
        await ActivityEnvironment().run(UpkeepActivities(services).wake_routing, Upkeep())
    assert (temporal.asked, temporal.of(two[1])) == (2, 1)


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
