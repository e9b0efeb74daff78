"""Random journeys, contacts, events, failures, people, version moves and worker restarts: the simulator, the pure interpreter and Temporal
find the same path for each contact, and nobody is lost on the way.

What the world answers and what people say is drawn beforehand (`tests.workflows.worlds`). `LEADSTATS_PATHS=2000` walks more.
"""

import asyncio
import itertools
import os
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

import hypothesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from temporalio.testing import WorkflowEnvironment

from models.domain.journey.interpreter import Change
from tests.workflows.scripted import Scripted
from tests.workflows.simulating import simulate
from tests.workflows.walking import walk, walk_all
from tests.workflows.worlds import World, worlds

EXAMPLES = int(os.environ.get("LEADSTATS_PATHS", "100"))
SIMULATED = st.just(True)
AT_ONCE = 20  # journeys under way together
COMMON: dict[str, Any] = {
    "deadline": None,
    "phases": (hypothesis.Phase.generate,),  # to shrink takes longer than to read
    "suppress_health_check": list(HealthCheck),
    "derandomize": "LEADSTATS_PATHS" not in os.environ,
    "database": None,
}


@given(worlds(SIMULATED))
@settings(max_examples=EXAMPLES, **COMMON)
def test_the_simulator_and_the_interpreter_find_the_same_path_at_the_same_times(world: World) -> None:
    for run in world.contacts:
        walked = walk(world, run)
        assert _dated(simulate(world, run, walked)) == _dated(walked.lines)


def _dated(lines: list[tuple[datetime, Change]]) -> list[tuple[Any, ...]]:
    return [(at, change.kind, change.step_id, change.visit, change.phase, change.wake_at) for at, change in lines]


@given(st.lists(worlds(SIMULATED | st.just(False)), min_size=AT_ONCE, max_size=AT_ONCE))
@settings(max_examples=EXAMPLES // AT_ONCE + 1, **COMMON)  # the first is the simplest that there is, and no surprise
async def test_the_interpreter_and_temporal_find_the_same_path_for_each_contact(server: WorkflowEnvironment, drawn: list[World]) -> None:
    drawn = [_of_its_own(world, number) for number, world in enumerate(drawn)]
    fakes = await travel(server, drawn)
    runs: set[UUID] = set()
    for world in drawn:
        for contact in world.contacts:
            for run, walked in walk_all(world, contact).items():
                runs.add(run)
                assert fakes.path(run) == walked.path, (world, run)
                assert fakes.newest(run).phase == walked.state.phase
                assert sorted(fakes.lines[run]) == list(range(1, len(fakes.lines[run]) + 1))
                if world.simulated:
                    assert [(change.kind, change.step_id, change.visit) for _, change in simulate(world, run, walked)] == walked.path
    assert set(fakes.lines) == runs  # entered: everybody, and nobody else
    assert all(fakes.finished(run) for run in runs)
    assert set(fakes.given.values()) <= {1}  # at each place once, whoever of a run and its replays came there


def _of_its_own(world: World, number: int) -> World:
    """With runs that no other world of the same journey through Temporal has: hypothesis likes to repeat itself."""
    return replace(world, contacts=tuple(uuid5(UUID(int=number), f"{world.seed}/{index}") for index in range(len(world.contacts))))


async def travel(server: WorkflowEnvironment, drawn: list[World]) -> Scripted:
    """All journeys of these worlds, through Temporal, the workers restarted on the way; at every look, nobody is lost."""
    fakes = Scripted(server)
    for world in drawn:
        await fakes.enter(world)
    caches = itertools.cycle([0, 1_000])
    async with asyncio.timeout(300):
        while not fakes.over():
            until = _written(fakes) + 10 * AT_ONCE
            async with fakes.working(next(caches)):
                while not fakes.over() and _written(fakes) < until:
                    await fakes.operate()
                    fakes.conserves()
                    await asyncio.sleep(0.05)
    fakes.conserves()
    return fakes


def _written(fakes: Scripted) -> int:
    return sum(map(len, fakes.lines.values()))
