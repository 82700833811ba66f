"""Somebody debugs: in dev, deadlines rest while a service is held, and ever after; in prod they do not."""

from __future__ import annotations

import os
import pty
import signal
import time

import pytest

from tests.conformance.program import App, Process

HOLD = 0.6  # seconds at the prompt; longer than each limit below
HELD = """
@service(start_timeout=0.3)
async def held(serving: Serving[None]) -> None:
    log.info("about to hold")
    breakpoint()
    await anyio.sleep(0.05)
    async with serving():
        await anyio.sleep_forever()
    await anyio.sleep(0.6)
    log.info("closed")
"""


def hold(run: Process, seconds: float = HOLD) -> None:
    """Stay at the prompt for a while: the one place where time itself is what is tested."""
    run.wait_for(r"^> .*services/held.py")  # the line differs: from Python 3.13 on it is that of the breakpoint
    time.sleep(seconds)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_deadlines_rest_in_dev(app: App, backend: str) -> None:
    """Neither the start nor the stop of a service that was held is cut, and one line says so."""
    app.service("held", HELD)
    main, other = pty.openpty()
    env = {"ENV": "dev", "KERNEL_BACKEND": backend, "RUNNER_SHUTDOWNTIMEOUT": "300ms", "ADMIN_ADDR": ""}
    run = app.open(("run",), env, stdin=other)
    hold(run)
    os.write(main, b"c\n")
    result = run.stop()
    os.close(main)
    os.close(other)
    assert result.code == 0, result.stderr
    assert result.said("held: closed")
    assert result.messages.count("a debugger is attached: deadlines are suspended") == 1


def test_deadlines_hold_in_prod(app: App) -> None:
    """There a service that was held is late like any other."""
    app.service("held", HELD)
    read, write = os.pipe()
    run = app.open(("run",), {}, stdin=read)
    hold(run)
    os.write(write, b"c\n")
    result = run.result()
    os.close(read)
    os.close(write)
    assert result.code == 1
    assert result.messages[-1].startswith("exit 1: held failed: was not ready after 0.3 s")
    assert "debugger" not in result.stderr


def test_held_while_closing(app: App) -> None:
    """Nor is a process ended whose clean-up is held, long after the deadline that the signal has set."""
    app.service(
        "held",
        """
        @service
        async def held(serving: Serving[None]) -> None:
            async with serving():
                await anyio.sleep_forever()
            breakpoint()
            await anyio.sleep(0.01)
            log.info("closed")
        """,
    )
    main, other = pty.openpty()
    run = app.open(("run",), {"ENV": "dev", "RUNNER_SHUTDOWNTIMEOUT": "200ms", "ADMIN_ADDR": ""}, stdin=other)
    run.wait_for("all ready")
    run.send(signal.SIGINT)
    hold(run, 2.0)
    os.write(main, b"c\n")
    result = run.result()
    os.close(main)
    os.close(other)
    assert result.code == 0, result.stderr
    assert result.said("held: closed")
    assert result.messages[-1] == "exit 0: stopped by SIGINT"
    assert result.messages.count("a debugger is attached: deadlines are suspended") == 1


def test_control_c_at_the_prompt(app: App) -> None:
    """It is heard, which is said at once, and the app stops when whoever debugs goes on."""
    app.service("held", HELD)
    main, other = pty.openpty()
    run = app.open(("run",), {"ENV": "dev", "ADMIN_ADDR": ""}, stdin=other)
    hold(run)
    run.send(signal.SIGINT)
    run.wait_for("SIGINT: a debugger is holding the app, which stops when it continues")
    os.write(main, b"c\n")
    result = run.result()
    os.close(main)
    os.close(other)
    assert result.code == 0, result.stderr
    assert result.messages[-1] == "exit 0: stopped by SIGINT"


def test_control_c_three_times_at_the_prompt(app: App) -> None:
    """The third ends the process at once, from the prompt."""
    app.service("held", HELD)
    main, other = pty.openpty()
    run = app.open(("run",), {"ENV": "dev", "ADMIN_ADDR": ""}, stdin=other)
    hold(run)
    for number in (1, 2, 3):
        run.send(signal.SIGINT)
        if number < 3:
            run.wait_for("a debugger is holding the app", times=number)
            time.sleep(0.5)  # the same within half a second is one
    assert run.result().code == 130
    os.close(main)
    os.close(other)
