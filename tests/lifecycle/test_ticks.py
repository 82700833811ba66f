"""When the ticks of `work.every` come, to the moment; what services make of them is in `test_work`."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kernel.lifecycle.ticks import Ticks
from tests.harness import block_the_loop

pytestmark = pytest.mark.anyio

Body: TypeAlias = Callable[[int], Awaitable[object]]


class Service:
    """What ticks know of the service that has them.

    Args:
        stop_at: When its stop is requested, in seconds from now.

    """

    def __init__(self, stop_at: float) -> None:
        self.began = anyio.current_time()
        self._stop_at = self.began + stop_at

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return round(anyio.current_time() - self.began, 6)

    def stopping(self) -> bool:
        """Return whether the stop was requested."""
        return anyio.current_time() >= self._stop_at

    async def stop_requested(self) -> None:
        """Wait until the stop is requested."""
        await anyio.sleep_until(self._stop_at)

    def ticks(self, seconds: float, jitter: float = 0.0) -> Ticks:
        """Return its ticks."""
        return Ticks(seconds, jitter, self.stopping, self.stop_requested)

    async def times(self, ticks: AsyncIterator[int], body: Body = lambda _: checkpoint()) -> list[tuple[float, int]]:
        """Return the time and the number of each tick, until the stop."""
        found: list[tuple[float, int]] = []
        async for number in ticks:
            found.append((self.now, number))
            await body(number)
        return found


@pytest.fixture(params=[0.0, 1000.5])
async def clock(request: pytest.FixtureRequest) -> float:
    """What the loop's clock is past, which makes no difference, nor do halves."""
    await anyio.sleep(request.param)
    return anyio.current_time()


@pytest.mark.parametrize("seconds", [0.25, 1.0, 2.5, 60.0])
@pytest.mark.usefixtures("clock")
async def test_each_tick(seconds: float) -> None:
    """Tick *n* comes *n* intervals after the first, which comes at once; the numbers have no gap."""
    service = Service(seconds * 4.5)
    assert await service.times(service.ticks(seconds)) == [(seconds * n, n) for n in range(5)]


@pytest.mark.parametrize(
    ("busy", "expected"),
    [
        pytest.param(7.5, [0, 4, 8, 12, 16, 20], id="more than one interval"),
        pytest.param(4.0, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20], id="exactly two"),
        pytest.param(2.0, list(range(22)), id="exactly one"),
        pytest.param(1.999, list(range(22)), id="almost one"),
        pytest.param(2.001, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20], id="a little more than one"),
        pytest.param(39.0, [0, 20], id="almost all"),
    ],
)
@pytest.mark.usefixtures("clock")
async def test_a_body_that_takes_long(busy: float, expected: list[int]) -> None:
    """The next tick is the first that has not passed when the body ends; those between are lost, and are counted."""
    service = Service(43)
    found = await service.times(service.ticks(2), lambda _: anyio.sleep(busy))
    assert found == [(2 * number, number) for number in expected]


async def test_one_body_that_takes_long() -> None:
    """It shifts no later tick, and none is made up for; it makes no difference whether the loop was blocked."""

    async def body(number: int) -> None:
        if number == 2:
            block_the_loop(31)
        await anyio.sleep(17 if number == 8 else 0)

    service = Service(115)
    found = await service.times(service.ticks(10), body)
    assert found == [(10 * number, number) for number in (0, 1, 2, 6, 7, 8, 10, 11)]


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
@pytest.mark.usefixtures("clock")
async def test_jitter(fraction: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tick, also the first, is late by what chance says, up to *jitter*; the next is not shifted."""
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low + fraction * (high - low)

    monkeypatch.setattr("random.uniform", uniform)
    service = Service(39)
    found = await service.times(service.ticks(10, 4))
    assert found == [(10 * number + 4 * fraction, number) for number in range(4)]
    assert {*asked} == {(0, 4)}


async def test_more_jitter_than_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick that is later than the next one takes its place: none comes twice, or out of order."""
    monkeypatch.setattr("random.uniform", lambda _, high: high)
    service = Service(70)
    assert await service.times(service.ticks(10, 25)) == [(25, 0), (55, 3)]


async def test_without_jitter_nothing_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked."""
    monkeypatch.delattr("random.uniform")
    service = Service(15)
    assert await service.times(service.ticks(10)) == [(0, 0), (10, 1)]


@pytest.mark.parametrize("stop_at", [0.0, 0.5, 10.0, 12.0])
async def test_a_stop_ends_them_at_once(stop_at: float) -> None:
    """Whether it is requested before the first tick, between two, or at the moment of one, which then does not come."""
    service = Service(stop_at)
    found = await service.times(service.ticks(10))
    assert found == [(n, n // 10) for n in (0, 10) if n < stop_at]
    assert service.now == stop_at


async def test_a_stop_while_the_body_runs() -> None:
    """It is let finish; no tick comes after it."""
    service = Service(12)
    assert await service.times(service.ticks(10), lambda number: anyio.sleep(5 * number)) == [(0, 0), (10, 1)]
    assert service.now == 15


async def test_two_loops_have_their_own_ticks() -> None:
    """Each begins when it is entered, not when it was made."""
    service = Service(40)
    first, second = service.ticks(10), service.ticks(10)
    await anyio.sleep(3)
    assert await anext(first) == 0
    await anyio.sleep(4)
    assert (await anext(second), service.now) == (0, 7)
    assert (await anext(first), service.now) == (1, 13)
    assert (await anext(second), service.now) == (1, 17)


@pytest.mark.parametrize("seconds", [0, -0.5, math.inf, math.nan])
async def test_an_interval_that_cannot_be(seconds: float) -> None:
    """It is named."""
    with pytest.raises(ValueError, match=rf"work\.every\({seconds}\): the interval must be a positive number"):
        Service(1).ticks(seconds)


@pytest.mark.parametrize("jitter", [-0.1, math.inf, math.nan])
async def test_a_jitter_that_cannot_be(jitter: float) -> None:
    """It is named."""
    with pytest.raises(ValueError, match=rf"work\.every\(jitter={jitter}\): the jitter must not be negative"):
        Service(1).ticks(1, jitter)
