"""Put `leadstats` beside the Python that runs this: `.venv/bin/leadstats` is `python leadstats.py` from anywhere."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def write_entry_point() -> Path:
    """The executable exists and runs this tree. Safe to repeat."""
    target = Path(sys.executable).parent / "leadstats"
    target.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT / "leadstats.py"}" "$@"\n')
    target.chmod(0o755)
    return target


if __name__ == "__main__":
    write_entry_point()
