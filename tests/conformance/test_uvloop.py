"""KERNEL_BACKEND=uvloop: asyncio on another loop, of which all holds that holds on asyncio."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.program import REPO, App

SAME = ("signals", "stopping", "life", "always_ends", "guests", "exit_codes", "child_processes", "corners", "watch")

SHOWS = """
import asyncio

@service
async def shows(serving: Serving[None]) -> None:
    log.info("on %s", type(asyncio.get_running_loop()).__mro__[1].__module__)
    async with serving():
        await anyio.sleep_forever()
"""


def test_it_runs_on_uvloop(app: App) -> None:
    """The loop is uvloop's, and stops at a signal."""
    app.service("shows", SHOWS)
    result = app.run(KERNEL_BACKEND="uvloop").stop()
    assert result.code == 0
    assert result.said("shows: on uvloop")


def test_where_it_is_not_installed(app: App, tmp_path: Path) -> None:
    """One error says so before anything is started."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['uvloop'] = None\n")
    app.service("shows", SHOWS)
    result = app.call("run", KERNEL_BACKEND="uvloop", LOG_FORMAT="text", PYTHONPATH=str(tmp_path))
    assert result.code == 2
    (error,) = result.errors
    assert error.startswith("KERNEL_BACKEND is uvloop, which is not installed; run `just deps-add uvloop`")


@pytest.mark.minutes
@pytest.mark.parametrize("name", SAME)
def test_all_that_holds_on_asyncio(name: str) -> None:
    """The tests of the real program, once more on this loop."""
    words = ["-q", "--no-cov", "-p", "no:cacheprovider", "-k", "not trio and not pyz and not binary"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, f"tests/conformance/test_{name}.py"],
        cwd=REPO,
        env=os.environ | {"CONFORMANCE_LOOP": "uvloop"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
