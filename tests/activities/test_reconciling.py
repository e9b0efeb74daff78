"""Whom the reconciler gives up for lost: nobody whose workflow was being started while it looked."""

import tracemalloc
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from activities.contracts.journey import JOURNEY_WORKFLOW
from activities.observed import MISSING, RUNNING, Examined, Listed, Observer, PendingActivity
from activities.reconciling import Found, ReconcilingActivities, _landscapes
from models.domain.journey import workflow_id
from models.store.carriers import Carried
from models.tables.base import new_id, utc_now

LONG_AGO = utc_now() - timedelta(hours=1)
ACME, CAMPAIGN = new_id(), new_id()
PAGE = workflow_id.campaign_page(ACME, CAMPAIGN, 3)
ROWS = Carried(PAGE, new_id(), CAMPAIGN, 200, 200, 200, LONG_AGO, LONG_AGO, False, None, False)
MOVED = replace(ROWS, workflow_id="new", campaign_id=None, unbegun=0, before="old")
HANDING_OVER = Examined(RUNNING, activities=(PendingActivity("hand_over_runs", 2, None, True, "journeys"),))


class Lists:
    """Stands where an observer stands that lists `count` workflows of ACME's one journey, and what belongs to nobody."""

    def __init__(self, count: int) -> None:
        self.count = count

    async def running(self) -> AsyncIterator[list[Listed]]:
        journey = str(new_id())
        for first in range(0, self.count, 1000):
            yield [listed(workflow_id.single_run(ACME, new_id()), UUID(str(ACME)), UUID(journey)) for _ in range(first, first + 1000)]
        yield [listed("upkeep", None, None)]

    async def failing(self) -> list[Listed]:
        return [listed("upkeep", None, None)]

    async def failed(self, *_: Any) -> AsyncIterator[list[Listed]]:
        yield []

    async def schedules(self) -> dict[str, bool]:
        return {"upkeep": False}


def listed(name: str, organization_id: UUID | None, journey_id: UUID | None) -> Listed:
    return Listed(name, str(new_id()), JOURNEY_WORKFLOW, RUNNING, organization_id, journey_id, utc_now(), None)


async def test_a_round_keeps_little_of_each_workflow_that_runs() -> None:
    """A round holds them all: a million of them, as they are listed, took more than 600 MB."""
    tracemalloc.start()
    try:
        found = await _landscapes(cast(Observer, Lists(20_000)), LONG_AGO)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert list(found) == [ACME] and len(found[ACME].journeys) == 20_000
    assert held / 20_000 < 450


class Temporal:
    """Answers in turn, and then always the last."""

    def __init__(self, answers: Mapping[str, Sequence[Examined]]) -> None:
        self.answers = {name: list(each) for name, each in answers.items()}

    async def examine(self, name: str) -> Examined:
        left = self.answers.get(name, [Examined(MISSING)])
        return left.pop(0) if len(left) > 1 else left[0]


async def judged(rows: Carried, answers: Mapping[str, Sequence[Examined]], organization_id: UUID = ACME) -> Found:
    temporal, found, nobody = Temporal(answers), Found(), cast(Any, None)
    seen = await temporal.examine(rows.workflow_id)
    await ReconcilingActivities(nobody, nobody, "nowhere")._judge_rows(organization_id, rows, seen, cast(Observer, temporal), found)
    return found


async def test_a_campaign_that_began_after_workflows_were_listed_still_starts_its_pages() -> None:
    found = await judged(ROWS, {workflow_id.campaign(ACME, CAMPAIGN): [Examined(RUNNING)]})
    assert found.lost == [] and [one.details["why"] for one in found.sightings] == ["not_started"]


async def test_a_campaign_that_started_its_last_page_and_ended_between_two_looks_leaves_nobody_behind() -> None:
    ended = Examined("completed", closed_at=utc_now())
    found = await judged(ROWS, {PAGE: [Examined(MISSING), Examined(RUNNING)], workflow_id.campaign(ACME, CAMPAIGN): [ended]})
    assert (found.lost, found.sightings, found.keep) == ([], [], {PAGE})


async def test_a_hand_over_that_ended_between_two_looks_leaves_nobody_behind() -> None:
    found = await judged(MOVED, {"new": [Examined(MISSING), Examined(RUNNING)], "old": [Examined("completed", closed_at=utc_now())]})
    assert (found.lost, found.sightings, found.keep) == ([], [], {"new"})


async def test_a_hand_over_under_way_is_waited_for() -> None:
    found = await judged(MOVED, {"old": [HANDING_OVER]})
    assert found.lost == [] and [one.details["why"] for one in found.sightings] == ["hand_over"]


async def test_whose_workflow_nobody_has_and_nobody_starts_is_lost() -> None:
    assert (await judged(ROWS, {})).lost == [PAGE]
    assert (await judged(MOVED, {})).lost == ["new"]
