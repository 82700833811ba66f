"""One service: a start that takes too long."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import (
    StartTimeout,
    Uncancellable,
)
from tests.harness import Lab, hang
from tests.lifecycle.parts import ONCE, bystander, stood

pytestmark = pytest.mark.anyio


async def test_start_timeout_names_the_line(lab: Lab) -> None:
    """A service that is not ready in time is cancelled, and the error names the line where it stood."""

    async def connect() -> None:
        await anyio.sleep(100)  # the line where it stands

    @service(start_timeout=7)
    async def db(serving: Serving[None]) -> None:
        await connect()
        async with serving():
            pass

    await lab.run(db)
    assert lab.path("db") == "waiting starting stopping failed"
    error = lab.error("db")
    assert isinstance(error, StartTimeout)
    assert lab.when("db", "failed") == 7
    assert error.__notes__ == ["in service db, starting, attempt 1"]
    assert "the line where it stands" in stood(error.where)
    assert error.where.endswith("connect")
    assert "was not ready after 7 s; it was at tests/lifecycle/test_supervisor_start_timeout.py:" in str(error)


async def test_start_timeout_of_a_oneshot(lab: Lab) -> None:
    """A one-shot must have returned in time."""

    @service(oneshot=True, start_timeout=7)
    async def migrate() -> None:
        await anyio.sleep_forever()

    assert isinstance((await lab.run(migrate)).error("migrate"), StartTimeout)


async def test_start_timeout_is_over_when_ready(lab: Lab) -> None:
    """What is ready in time may go on for ever."""

    @service(start_timeout=1)
    async def db(serving: Serving[None]) -> None:
        await anyio.sleep(0.9)
        async with serving():
            await anyio.sleep(100)

    @service(start_timeout=1)
    async def plain() -> None:
        await anyio.sleep(100)

    await lab.run(db, plain)
    assert lab.exit_code == 0


async def test_no_start_timeout(lab: Lab) -> None:
    """None is no limit."""

    @service(start_timeout=None)
    async def db(serving: Serving[None]) -> None:
        await anyio.sleep(10_000)
        async with serving():
            pass

    assert (await lab.run(db)).when("db", "ready") == 10_000


async def test_start_timeout_is_retried(lab: Lab) -> None:
    """A start that took too long is a crash like any other."""

    @service(start_timeout=7, retries=ONCE)
    async def db(serving: Serving[None]) -> None:
        lab.mark("start")
        if len(lab.marks) == 1:
            await anyio.sleep_forever()
        async with serving():
            await anyio.sleep(1)

    await lab.run(db)
    assert lab.path("db") == "waiting starting stopping backoff starting ready stopping done"
    assert lab.marks == [(0, "start"), (8, "start")]


async def test_start_timeout_that_is_swallowed(lab: Lab) -> None:
    """A service that swallows its cancellation and returns was still too slow."""

    @service(start_timeout=7)
    async def db(serving: Serving[None]) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return

    assert isinstance((await lab.run(db)).error("db"), StartTimeout)


async def test_start_timeout_then_serves(lab: Lab) -> None:
    """A service that serves too late, from behind a shield, serves nobody."""

    @service(start_timeout=7)
    async def db(serving: Serving[None]) -> None:
        await hang(9)
        async with serving():
            lab.mark("serving")
            await anyio.sleep(1)
            lab.mark("never")

    await lab.run(db)
    assert lab.path("db") == "waiting starting stopping failed"
    assert (lab.when("db", "stopping"), lab.when("db", "failed")) == (7, 9)
    assert lab.marks == [(9, "serving")]
    assert isinstance(lab.error("db"), StartTimeout)


async def test_start_timeout_that_cannot_be_cut(lab: Lab) -> None:
    """A start that ignores its cancellation is given up as a stop would be."""

    @service(start_timeout=7, stop_timeout=2, allowed_failure=True)
    async def db(serving: Serving[None]) -> None:
        await hang(50)

    await lab.stop_at(20).run(db, service(bystander))
    assert lab.path("db") == "waiting starting stopping abandoned"
    assert lab.when("db", "abandoned") == 10
    error = lab.error("db")
    assert isinstance(error, Uncancellable)
    assert isinstance(error.__cause__, StartTimeout)


async def test_start_timeout_then_serves_and_cannot_be_cut(lab: Lab) -> None:
    """To serve too late gives it no more time, and that it started too slowly stays the reason."""

    @service(start_timeout=7, stop_timeout=4, allowed_failure=True)
    async def db(serving: Serving[None]) -> None:
        await hang(9)
        async with serving():
            await hang(50)

    await lab.stop_at(20).run(db, service(bystander))
    assert lab.when("db", "abandoned") == 12
    assert isinstance(lab.error("db").__cause__, StartTimeout)
