import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.environment import ROOT

WORK = """
import sys
from pathlib import Path
from deploy.worker_command import _keep_bytecode
_keep_bytecode(Path(sys.argv[1]))
import workflows.clock
"""


@pytest.mark.parametrize("unwritten", [True, False])
def test_bytecode_is_kept_in_the_state_directory_where_it_is_not_written_beside_its_source(tmp_path: Path, unwritten: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    environment = {"PATH": os.environ["PATH"], "PYTHONPYCACHEPREFIX": str(elsewhere)}
    if not unwritten:
        subprocess.run([sys.executable, "-c", "import workflows.journey"], cwd=ROOT, env=environment, check=True)
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"} if unwritten else {}
    subprocess.run([sys.executable, "-c", WORK, str(tmp_path / "state")], cwd=ROOT, env=environment, check=True)
    assert bool(list(tmp_path.glob("state/bytecode/**/clock.*.pyc"))) is unwritten
