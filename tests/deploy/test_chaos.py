import json
from pathlib import Path

import pytest

from deploy.chaos.trial import Trial, run_trial
from deploy.trial.installation import NotStarted, private_installation


async def test_nobody_is_lost_or_written_to_twice_when_worker_temporal_and_postgres_are_killed(tmp_path: Path) -> None:
    """The servers during the bulk replay, which exercises what a campaign does as well."""
    said: list[str] = []
    trial = Trial(contacts=60, kills=1, seed=1, replay_kills=4, seconds_per_kill=15)  # what is killed is slow to be back on a busy machine
    report = await run_trial(trial, said.append)
    document = json.dumps(report.document())
    assert report.ok, f"{document}\n{said}"
    assert report.replay is not None
    assert {kill.part for kill in report.replay.phase.kills} == {"worker", "temporal", "postgres"}
    assert (report.campaign.kills_under_way, report.replay.phase.kills_under_way) == (1, 4), said
    assert report.replay.replayed == 60
    assert {name: json.loads(document)[name] for name in ("lost", "duplicates", "replay_lost", "replay_duplicates")} == {
        "lost": 0,
        "duplicates": 0,
        "replay_lost": 0,
        "replay_duplicates": 0,
    }


async def test_a_directory_that_exists_is_not_taken_for_a_trial(tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match="exists already"):
        async with private_installation(tmp_path):
            pass
