"""The app as a whole: nothing is wrong with how its services fit together, and the program starts and stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
APP = [sys.executable, "-m", "app"]


def test_app_check_finds_nothing_wrong() -> None:
    """Every service imports, its dependencies are there, and its config can be read."""
    done = subprocess.run([*APP, "check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_program_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    """It is told to stop as soon as it runs; the exit code tells that all of it ended in order."""
    env = {**os.environ, "LOG_FORMAT": "text", "LOG_LEVEL": "info", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*APP, "run"], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        said = [program.stderr.readline()]
        program.send_signal(signal.SIGTERM)
        said += program.stderr.readlines()
        assert program.wait(30) == 0, "".join(said)
