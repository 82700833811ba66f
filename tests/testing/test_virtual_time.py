"""Virtual time: what waits takes none of it that is real, and the clock moves only when nothing else can happen."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from kernel.testing import BACKENDS, VirtualLoop, backend_options

pytestmark = pytest.mark.anyio

YEAR = 31_536_000  # seconds
ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", [("asyncio", backend_options("asyncio"))], ids=["asyncio"])


def loop() -> VirtualLoop:
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualLoop)
    return running


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_begins_at_zero(backend: str) -> None:
    """And years are over at once."""

    async def main() -> tuple[float, float]:
        began = anyio.current_time()
        for _ in range(100):
            await anyio.sleep(YEAR)
        return began, anyio.current_time() - began

    real = time.monotonic()
    began, took = anyio.run(main, backend=backend, backend_options=backend_options(backend))
    assert took == 3_153_600_000
    assert began == 0 or backend == "trio"
    assert time.monotonic() - real < 60


def test_the_options_of_each_backend() -> None:
    """Those of `anyio.run`."""
    assert backend_options("asyncio") == {"loop_factory": VirtualLoop}
    options = backend_options("trio")
    assert list(options) == ["clock"]
    assert isinstance(options["clock"], MockClock)
    assert options["clock"].autojump_threshold == 0


@ON_ASYNCIO
async def test_timers_end_in_their_order() -> None:
    """Each at its own time; a timer that was cancelled is not waited for."""
    ended: list[tuple[float, int]] = []
    loop().call_later(1, ended.append, (0.0, 0)).cancel()

    async def waits(number: int) -> None:
        await anyio.sleep(number)
        ended.append((loop().time(), number))

    async with anyio.create_task_group() as tasks:
        for number in (3, 2, 5):
            tasks.start_soon(waits, number)
    assert ended == [(2, 2), (3, 3), (5, 5)]


@ON_ASYNCIO
async def test_code_that_blocks_makes_the_others_late() -> None:
    """The clock can be moved by hand, and never moves back."""
    loop().call_later(1, lambda: loop().advance(10))
    await anyio.sleep(2)
    assert loop().time() == 11
    await anyio.sleep(0.5)
    assert loop().time() == 11.5


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@ON_ASYNCIO
async def test_what_has_arrived_comes_before_what_is_due(sockets: tuple[socket.socket, socket.socket]) -> None:
    """What is real and there already takes no time, so no timer ends before it."""
    here, there = sockets
    arrived = loop().create_future()
    loop().add_reader(here, lambda: None if arrived.done() else arrived.set_result(here.recv(1)))
    there.send(b"x")
    with anyio.fail_after(0.001):
        assert await arrived == b"x"
    assert loop().time() == 0
    loop().remove_reader(here)


class Stubborn(asyncio.Future[None]):
    """A wait that cannot be cancelled."""

    def cancel(self, msg: Any = None) -> bool:
        return False


@ON_ASYNCIO
async def test_a_cancelled_wait_that_goes_on_takes_its_time() -> None:
    """It is cancelled again and again, in each turn of the loop, and the clock moves all the same."""
    future = Stubborn(loop=loop())
    loop().call_later(5, future.set_result, None)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await future
    assert scope.cancelled_caught
    assert loop().time() == 5


@ON_ASYNCIO
async def test_a_cancellation_takes_no_time() -> None:
    """Whatever else is due later."""
    loop().call_later(100, lambda: None)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await loop().create_future()
    assert scope.cancelled_caught
    assert loop().time() == 0


@ON_ASYNCIO
async def test_it_never_waits_in_reality(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a timer that was cancelled in the meantime."""
    waits: list[float | None] = []
    selector: Any = loop()._selector  # type: ignore[attr-defined]
    select = selector.select

    def at_once(timeout: float | None = None) -> Any:
        waits.append(timeout)
        return select(0)

    monkeypatch.setattr(selector, "select", at_once)
    late = loop().call_later(100, lambda: None)
    loop().call_later(50, late.cancel)
    await anyio.sleep(1_000)
    assert loop().time() == 1_000
    assert {*waits} == {0}


@ON_ASYNCIO
async def test_a_cancelled_wait_that_ends_in_the_same_moment() -> None:
    """Time does not move while something else has still to happen."""
    future, steps = Stubborn(loop=loop()), list[float]()

    async def follow() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
            steps.append(loop().time())
        future.set_result(None)

    loop().call_later(100, lambda: None)
    follower = asyncio.create_task(follow())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await future
    await follower
    assert steps == [0] * 5
    assert loop().time() == 0


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_task_may_raise_what_ends_a_process(error: type[BaseException]) -> None:
    """The task group gets it, and the loop goes on, as the kernel's own does."""
    ended: list[float] = []

    async def fails() -> None:
        await anyio.sleep(1)
        raise error

    async def main() -> None:
        with contextlib.suppress(BaseExceptionGroup):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fails)
                await anyio.sleep_forever()
        await anyio.sleep(1)
        ended.append(anyio.current_time())

    anyio.run(main, backend_options=backend_options("asyncio"))
    assert ended == [2]
