"""The app as a whole: how its services fit together, as far as can be told without their settings and without a run.

This file is yours. What your services do is tested beside them, with fakes: see docs/testing.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def app(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the app that starts no service."""
    return subprocess.run([sys.executable, "-m", "app", *words], cwd=ROOT, capture_output=True, text=True, check=False)


def test_app_check_finds_nothing_wrong() -> None:
    """Every service imports and its dependencies are there; what the environment says is not looked at."""
    done = app("check", "--no-settings")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [("--help",), ("graph", "*"), ("version",)])
def test_the_command_line_works(words: tuple[str, ...]) -> None:
    """What tells of the app tells it; a command in app/commands.py that is broken would be a warning."""
    done = app(*words)
    assert done.returncode == 0, done.stderr
    assert "warning: app/" not in done.stderr
    assert done.stdout
