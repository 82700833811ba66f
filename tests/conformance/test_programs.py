"""An external program under the real app: whatever ends the app, nothing of it is left."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from tests.conformance.program import PATIENCE, App
from tests.ports import free_port

DATABASE = """
CODE = '''
import os, signal, sys, time
def told(number, frame):
    print("told", signal.Signals(number).name)
    sys.exit(0)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, told)
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up")
time.sleep(99)
'''

@service
async def database(serving: Serving[None]) -> None:
    python = os.environ["PYTHON"]
    log.info("the kernel is %d", os.getpid())
    async with program(python, "-IuSc", CODE, ready=output("up"), stop_timeout=0.3, name="db"), serving():
        await anyio.sleep_forever()
"""


def with_mark(mark: str) -> list[str]:
    """The processes that have *mark* in their environment."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                environ, command = (path / "environ").read_bytes(), (path / "cmdline").read_bytes()
            except OSError:
                continue
            if f"MARK={mark}".encode() in environ:
                found.append(f"{path.name}: {command.decode()}")
    return found


def none_left(mark: str) -> None:
    """Wait until there is none."""
    end = time.monotonic() + PATIENCE
    while with_mark(mark):
        assert time.monotonic() < end, with_mark(mark)
        time.sleep(0.02)


@pytest.fixture
def mark(tmp_path: Path) -> str:
    """A value that no other process has."""
    return f"{tmp_path}-{time.monotonic_ns()}"


@pytest.fixture
def env(mark: str) -> dict[str, str]:
    """What the app is started with."""
    import sys

    return {"MARK": mark, "PYTHON": sys.executable}


@pytest.mark.core
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_killed_kernel_leaves_nothing(app: App, env: dict[str, str], mark: str, backend: str) -> None:
    """SIGKILL ends the app only; the program, its children and its guard follow."""
    app.service("database", DATABASE)
    run = app.run(KERNEL_BACKEND=backend, **env)
    run.wait_for("all ready")
    assert len(with_mark(mark)) >= 4
    found = re.search(r"the kernel is (\d+)", run.output)
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)  # where it is one file, its own parent unpacks it
    none_left(mark)
    assert run.result().code != 0


def test_control_c_reaches_it_by_the_kernel_only(app: App, env: dict[str, str], mark: str) -> None:
    """A terminal sends SIGINT to the whole group; the program gets SIGTERM, when it is its turn."""
    app.service("database", DATABASE)
    run = app.open(["run"], env, start_new_session=True)
    run.wait_for("all ready")
    os.killpg(run.pid, signal.SIGINT)
    result = run.result()
    assert result.code == 0
    assert result.in_order("database: stopping", "told SIGTERM", "database: stopped")
    assert not result.said("told SIGINT")
    none_left(mark)


def test_an_app_that_is_forced_leaves_nothing(app: App, env: dict[str, str], mark: str) -> None:
    """The second signal cancels the service as a whole, and leaves the program no minute to end."""
    app.service("database", DATABASE.replace("stop_timeout=0.3", "stop_timeout=60"))
    run = app.run(RUNNER_SHUTDOWNTIMEOUT="60s", **env)
    run.wait_for("all ready")
    run.send(signal.SIGTERM)
    run.wait_for("still stopping")
    run.send(signal.SIGINT)
    assert run.result().code == 130
    none_left(mark)


def test_its_pid_is_in_the_status(app: App, env: dict[str, str]) -> None:
    """Beside the service that runs it."""
    port = free_port()
    app.service("database", DATABASE)
    run = app.run(ADMIN_ADDR=f"127.0.0.1:{port}", **env)
    run.wait_for("all ready")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=PATIENCE) as answer:
        found = json.load(answer)["services"]["database"]["programs"]
    assert [one["name"] for one in found] == ["db"]
    assert f"MARK={env['MARK']}".encode() in Path(f"/proc/{found[0]['pid']}/environ").read_bytes()
    assert run.stop().code == 0
