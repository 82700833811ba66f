"""One heap of alarms in one task."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from kernel.lifecycle.clock import COMPACT, Clock

pytestmark = pytest.mark.anyio


class Calls(list[tuple[float, str]]):
    """What was called, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.began = anyio.current_time()

    def __call__(self, name: str) -> None:
        self.append((round(anyio.current_time() - self.began, 6), name))


@asynccontextmanager
async def running(clock: Clock) -> AsyncIterator[None]:
    """A clock that runs."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.run)
        yield
        tasks.cancel_scope.cancel()


def nothing() -> None:
    """Do nothing."""


async def test_alarms_are_called_in_time_order() -> None:
    """Each is called when it is due, in whatever order they were set, before and after the clock began to run."""
    clock, calls = Clock(), Calls()
    now = anyio.current_time()
    clock.at(now + 3, lambda: calls("three"))
    clock.at(now + 1, lambda: calls("one"))
    async with running(clock):
        clock.at(now + 2, lambda: calls("two"))
        await anyio.sleep(1.5)
        clock.at(now + 1.75, lambda: calls("earlier than any"))
        await anyio.sleep(5)
        clock.at(now + 7, lambda: calls("after all"))
        await anyio.sleep(5)
    assert calls == [(1, "one"), (1.75, "earlier than any"), (2, "two"), (3, "three"), (7, "after all")]


async def test_equal_times_keep_their_order() -> None:
    """Alarms for the same time are called in the order in which they were set."""
    clock, calls = Clock(), Calls()
    async with running(clock):
        for name in "abc":
            clock.at(anyio.current_time() + 1, lambda name=name: calls(name))  # type: ignore[misc]
        await anyio.sleep(2)
    assert [name for _, name in calls] == ["a", "b", "c"]


async def test_an_alarm_in_the_past_is_called_at_once() -> None:
    """What is overdue is not lost."""
    clock, calls = Clock(), Calls()
    async with running(clock):
        await anyio.sleep(1)
        clock.at(anyio.current_time() - 5, lambda: calls("late"))
        await anyio.sleep(1)
    assert calls == [(1, "late")]


async def test_a_cancelled_alarm_is_not_called() -> None:
    """To cancel is final, and does nothing twice or after the call; nobody is told of a failure."""
    told: list[str] = []
    clock, calls = Clock(failed=lambda what, _: told.append(what)), Calls()
    async with running(clock):
        now = anyio.current_time()
        cancelled, called = clock.at(now + 1, lambda: calls("never")), clock.at(now + 2, lambda: calls("called"))
        cancelled.cancel()
        cancelled.cancel()
        await anyio.sleep(3)
        called.cancel()
    assert calls == [(2, "called")]
    assert not told


async def test_an_alarm_may_set_and_cancel_others() -> None:
    """A callback may do to the clock what everybody may."""
    clock, calls = Clock(), Calls()
    async with running(clock):
        now = anyio.current_time()
        victim = clock.at(now + 1, lambda: calls("never"))

        def first() -> None:
            calls("first")
            victim.cancel()
            clock.at(now + 2, lambda: calls("second"))
            clock.at(now, lambda: calls("at once"))

        clock.at(now + 1, first)
        later = clock.at(now + 1, lambda: calls("third"))
        victim.cancel()
        await anyio.sleep(5)
        later.cancel()
    assert calls == [(1, "first"), (1, "at once"), (1, "third"), (2, "second")]


async def test_never() -> None:
    """An alarm at infinity is never called, and harms nobody."""
    clock, calls = Clock(), Calls()
    async with running(clock):
        clock.at(math.inf, lambda: calls("never"))
        clock.at(anyio.current_time() + 1, lambda: calls("one"))
        await anyio.sleep(1000)
    assert calls == [(1, "one")]


async def test_deadlines_rest() -> None:
    """While somebody debugs, deadlines are dropped when they come due; other alarms are called."""
    resting = True
    clock, calls = Clock(lambda: resting), Calls()
    async with running(clock):
        now = anyio.current_time()
        clock.at(now + 1, lambda: calls("deadline"))
        clock.at(now + 1, lambda: calls("retry"), deadline=False)
        clock.at(now + 3, lambda: calls("later deadline"))
        await anyio.sleep(2)
        resting = False
        await anyio.sleep(2)
    assert calls == [(1, "retry"), (3, "later deadline")]


async def test_cancelled_alarms_are_thrown_out() -> None:
    """A service that restarts for ever fills no heap, and what is left is called all the same."""
    clock, calls = Clock(), Calls()
    async with running(clock):
        now = anyio.current_time()
        kept = [clock.at(now + 5 + i, lambda i=i: calls(str(i))) for i in range(3)]  # type: ignore[misc]
        for _ in range(10_000):
            clock.at(now + 1000, lambda: calls("never")).cancel()
        assert len(clock._heap) <= len(kept) + COMPACT + 1
        await anyio.sleep(10)
        assert clock._dead == sum(entry[2].callback is None for entry in clock._heap)
    assert calls == [(5, "0"), (6, "1"), (7, "2")]


@pytest.mark.parametrize(("kept", "most"), [(0, COMPACT), (COMPACT, COMPACT), (COMPACT + 1, COMPACT + 1), (200, 200)])
def test_when_cancelled_alarms_are_thrown_out(kept: int, most: int) -> None:
    """When more than half are cancelled, and enough of them to be worth it: the heap is not rebuilt at each one."""
    clock = Clock()
    for _ in range(kept):
        clock.at(5, nothing)
    for cancelled in range(1, most + 1):
        clock.at(9, nothing).cancel()
        assert len(clock._heap) == kept + cancelled
    clock.at(9, nothing).cancel()
    assert len(clock._heap) == kept


async def test_a_check_for_a_debugger_that_fails() -> None:
    """It is told, and deadlines hold."""

    def resting() -> bool:
        raise OSError("no such file")

    told: list[tuple[str, str]] = []
    clock, calls = Clock(resting, lambda what, error: told.append((what, str(error)))), Calls()
    async with running(clock):
        clock.at(anyio.current_time() + 1, lambda: calls("deadline"))
        await anyio.sleep(2)
    assert calls == [(1, "deadline")]
    assert told == [("the check for a debugger", "no such file")]


async def test_an_alarm_that_fails() -> None:
    """It is told, and the others are called."""

    def fails() -> None:
        raise SystemExit(3)

    told: list[tuple[str, str]] = []
    clock, calls = Clock(failed=lambda what, error: told.append((what, repr(error)))), Calls()
    async with running(clock):
        now = anyio.current_time()
        clock.at(now + 1, fails)
        clock.at(now + 1, lambda: calls("the next"))
        await anyio.sleep(2)
    assert calls == [(1, "the next")]
    assert told == [("an alarm of the kernel", "SystemExit(3)")]


async def test_the_time() -> None:
    """Once started, it is read from the running loop, which is not looked up again each time."""
    clock = Clock()
    assert clock.now is anyio.current_time
    clock.start()
    assert clock.now is not anyio.current_time
    await anyio.sleep(3)
    assert clock.now() == anyio.current_time()
