"""`just nats`: a server on loopback that `just run` uses, until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.scripts.projects import Project

SHOWS = """\
'''Shows where it calls.'''

import os

from kernel import service


@service(oneshot=True)
async def once() -> None:
    '''Print it.'''
    print("url", os.environ.get("NATS_URL", ""))
"""


@pytest.fixture
def started(project: Project) -> Iterator[tuple[Project, int]]:
    """A project whose server runs, and its port."""
    port = free_port()
    program = project.machine.bin / "nats-server"  # the environments of tests lack what these do not need
    if not program.exists():
        program.symlink_to(Path(sys.executable).with_name("nats-server"))
    done = project.just("nats", f"PORT={port}")
    assert done.code == 0, done.err
    assert done.out.startswith(f"NATS is at nats://127.0.0.1:{port}; `just run` uses it")
    yield project, port
    project.just("nats-stop")


def shown(project: Project, **env: str) -> str:
    """The server that a run is told of."""
    project.write("services/once.py", SHOWS)
    done = project.just("run", "once", ADMIN_ADDR="off", **env)
    assert done.code == 0, done.err
    return next(line for line in done.out.splitlines() if line.startswith("url")).removeprefix("url").strip()


def test_started_used_and_stopped(started: tuple[Project, int]) -> None:
    """What NATS_URL says goes first; and no run is told of it when it is stopped."""
    project, port = started
    assert shown(project) == f"nats://127.0.0.1:{port}"
    assert shown(project, NATS_URL="nats://127.0.0.1:1") == "nats://127.0.0.1:1"
    assert f"it is running already: nats://127.0.0.1:{port}" in project.just("nats", f"PORT={free_port()}").err
    assert project.just("nats-stop").out == "NATS is stopped.\n"
    assert shown(project) == ""
    assert project.just("nats-stop").out == "NATS is not running.\n"


def test_one_that_was_killed_is_not_used(started: tuple[Project, int]) -> None:
    """A run says so, and goes on without it."""
    project, _ = started
    pid = int((Path(project.root) / ".kernel/nats").read_text().split()[1])
    os.kill(pid, signal.SIGKILL)
    project.write("services/once.py", SHOWS)
    done = project.just("run", "once", ADMIN_ADDR="off")
    assert done.code == 0
    assert "NATS does not respond any more" in done.err


@pytest.mark.parametrize("port", ["0", "x", "70000", "-1"])
def test_a_port_that_is_none(project: Project, port: str) -> None:
    """It says how to call it."""
    done = project.just("nats", f"PORT={port}")
    assert done.code == 2
    assert "is not a valid port; usage: just nats [PORT=4222]" in done.err
