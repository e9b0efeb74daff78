import json
from pathlib import Path

import pytest

from deploy.chaos.trial import Trial, run_trial
from deploy.trial.installation import NotStarted, private_installation


async def test_nobody_is_lost_or_written_to_twice_when_worker_temporal_and_postgres_are_killed(tmp_path: Path) -> None:
    said: list[str] = []
    report = await run_trial(Trial(contacts=60, kills=4, seed=1), said.append)
    document = json.dumps(report.document())
    assert report.ok, f"{document}\n{said}"
    assert {kill.part for kill in report.kills} == {"worker", "temporal", "postgres"}
    assert report.kills_under_way == 4, said
    assert json.loads(document)["lost"] == json.loads(document)["duplicates"] == 0


async def test_a_directory_that_exists_is_not_taken_for_a_trial(tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match="exists already"):
        async with private_installation(tmp_path):
            pass
