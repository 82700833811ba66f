"""The watch over the event loop, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from kernel.process import loop_watch as module
from kernel.process.loop_watch import LIMIT, LoopWatch
from tests.process.threads import Threads


class Loop:
    """A loop that is blocked at some times, and whatever the watch says of it."""

    def __init__(self, threads: Threads, *blocked: tuple[float, float]) -> None:
        self.threads = threads
        self.blocked = blocked
        self.said: list[tuple[float, str]] = []
        self.alive: list[float] = []
        self.rests = False
        self.watch = LoopWatch(self.wake, self._tell("blocked"), self._tell("free"), lambda: self.rests, self._is_alive)

    def wake(self, call: Callable[[], None]) -> None:
        """Call it soon, or when the loop is not blocked any more."""
        now = self.threads.now
        free = next((end for begin, end in self.blocked if begin <= now < end), now)
        self.threads.at(free, call)

    def _tell(self, what: str) -> Callable[[float], None]:
        def tell(seconds: float) -> None:
            self.said.append((round(self.threads.now, 6), f"{what} {seconds:.6g}"))

        return tell

    def _is_alive(self) -> None:
        self.alive.append(round(self.threads.now, 6))

    def run(self, until: float = 20.0) -> list[tuple[float, str]]:
        """Watch it for so long."""
        self.threads.at(until, self.watch.end)
        self.watch._watch()
        assert self.threads.now == until
        return self.said


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """Virtual time for the watch."""
    threads = Threads()
    threads.install(monkeypatch, module.__name__)
    monkeypatch.setattr("kernel.process.contain._said", set())
    return threads


def test_a_free_loop_is_asked_four_times_a_second(threads: Threads) -> None:
    """Each response is a sign of life, and there is nothing to say."""
    loop = Loop(threads)
    assert (loop.watch.silent, loop.watch.delay) == (0, 0)
    assert loop.run(1.0) == []
    assert loop.alive == [0.25, 0.5, 0.75]
    assert loop.watch.delay == 0
    (given,) = threads.started
    assert given["daemon"]
    assert threads.joined == [0.1]


def test_a_blocked_loop_is_told_of_once(threads: Threads) -> None:
    """After a second, while it is blocked; and how long it was, when it answers again. The next time counts anew."""
    assert math.isclose(LIMIT, 1.0)
    loop = Loop(threads, (5.25, 8.0), (10.0, 11.3))
    seen: list[float] = []
    for when in (5.7, 8.1):
        threads.at(when, lambda: seen.append(loop.watch.silent))
    assert loop.run() == [(6.25, "blocked 1"), (8.0, "free 2.75"), (11.0, "blocked 1"), (11.3, "free 1.3")]
    assert seen == [0.25, 0.0]
    assert 8.0 in loop.alive


def test_what_the_last_response_took(threads: Threads) -> None:
    """It is known as soon as it has come."""
    loop = Loop(threads, (5.0, 5.6))
    loop.run(5.7)
    assert round(loop.watch.delay, 6) == 0.6


@pytest.mark.parametrize("until", [5.9, 5.99])
def test_a_loop_that_was_late_is_not_told_of(threads: Threads, until: float) -> None:
    """What takes less than a second is no block; two of those are not one."""
    assert Loop(threads, (5.0, until), (6.5, 7.4)).run() == []


def test_the_end_comes_while_the_loop_is_blocked(threads: Threads) -> None:
    """Then nobody wants to know that it is free."""
    assert Loop(threads, (5.0, 90.0)).run() == [(6.0, "blocked 1")]


def test_the_loop_is_closed(threads: Threads) -> None:
    """There is nothing to watch any more."""

    def closed(_: Any) -> None:
        raise RuntimeError("Event loop is closed")

    watch = LoopWatch(closed, lambda _: None, lambda _: None)
    watch._watch()
    assert threads.now == 0.25


def test_under_a_debugger_it_rests(threads: Threads) -> None:
    """Whoever looks at a breakpoint blocks the loop on purpose; the watch goes on afterwards."""
    loop = Loop(threads, (5.0, 9.0), (12.0, 14.0))
    loop.rests = True
    threads.at(10.0, lambda: setattr(loop, "rests", False))
    assert loop.run() == [(13.0, "blocked 1"), (14.0, "free 2")]


def test_a_debugger_that_is_attached_while_the_loop_is_blocked(threads: Threads) -> None:
    """It rests from then on, and until the answer has come."""
    loop = Loop(threads, (5.0, 9.0))
    threads.at(5.6, lambda: setattr(loop, "rests", True))
    threads.at(6.6, lambda: setattr(loop, "rests", False))
    assert loop.run() == []


def test_who_listens_may_fail(threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    """The watch goes on, and says it once."""
    calls: list[str] = []

    def fails(*_: Any) -> Any:
        calls.append("called")
        raise LookupError

    loop = Loop(threads, (5.0, 7.0), (8.0, 10.0))
    loop.watch._blocked = loop.watch._free = loop.watch._resting = loop.watch._alive = fails
    loop.run()
    assert len(calls) > 4
    assert sorted(caplog.messages) == [
        f"{what} failed; continuing"
        for what in ("the check for a debugger", "the event loop watch", "the liveness callback")
    ]


def test_without_a_thread_there_is_no_watch(threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    """The app runs without."""
    threads.fails = True
    Loop(threads).watch.end()
    assert caplog.messages == ["the event loop watch failed; continuing"]
    assert threads.joined == []
