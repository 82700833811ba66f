"""A signal to the whole process group, as Ctrl+C in a terminal or systemd sends it, ends the child processes too."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.conformance.program import PATIENCE, App

WORK = {
    "run_process": "await anyio.run_process(['sleep', '60'], stdin=None)",
    "wait": """
        process = await anyio.open_process(["sleep", "60"], stdin=None)
        raise RuntimeError(f"it ended with {await process.wait()}")
    """,
    "in a thread": """
        import subprocess
        sleep = lambda: subprocess.run(["sleep", "60"], check=True)
        await anyio.to_thread.run_sync(sleep, abandon_on_cancel=True)
    """,
    "by a shell": "await anyio.run_process('sleep 60; exit $?', stdin=None)",
}
POOL = """
@service
async def pool(serving: Serving[int]) -> None:
    async with serving(1):
        await anyio.sleep_forever()
    log.info("pool closed")
"""


@pytest.mark.many
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("work", WORK)
def test_a_child_that_gets_the_signal_too(app: App, work: str, backend: str) -> None:
    """What a service says of its child's end is told, and is no failure: the app was stopped, and the code is 0."""
    app.service("pool", POOL)
    body = WORK[work].strip()
    app.service(
        "child",
        f"""
@service(depends=["pool"], retries=3)
async def child(pool: int, serving: Serving[None]) -> None:
    async with serving():
        await anyio.to_thread.run_sync(log.info, "runs")
        {body}
""",
    )
    runs = [app.open(("run",), {"KERNEL_BACKEND": backend}, start_new_session=True) for _ in range(3)]
    for run, number in zip(runs, (signal.SIGINT, signal.SIGTERM, signal.SIGINT), strict=True):
        run.wait_for("all ready")
        run.wait_for("runs")
        end = time.monotonic() + PATIENCE
        while not children(run.pid):
            assert time.monotonic() < end, "it starts no child"
        os.killpg(run.pid, number)
        result = run.result()
        assert result.code == 0, result.stderr
        assert result.messages[-1] == f"exit 0: stopped by {number.name}"
        assert result.ending("child") == "stopped"
        assert result.said("pool closed")


def children(pid: int) -> bool:
    """Whether the process has any that has become what it is to be."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    names = [Path(f"/proc/{child}/comm").read_text().strip() for one in lists for child in one.split()]
    return not {"sleep", "sh"}.isdisjoint(names)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_clean_up_that_fails_is_a_failure(app: App, backend: str) -> None:
    """Also right after a signal: what a service does because it is stopped is its own."""
    app.service(
        "odd",
        """
        @service
        async def odd(serving: Serving[None]) -> None:
            async with serving():
                try:
                    await anyio.sleep_forever()
                finally:
                    raise OSError("cannot say goodbye")
        """,
    )
    result = app.run(KERNEL_BACKEND=backend).stop()
    assert result.code == 1
    assert result.messages[-1] == "exit 1: odd failed while the app was stopping: OSError: cannot say goodbye"
