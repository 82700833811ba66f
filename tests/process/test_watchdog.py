"""The watchdog: when it ends the process, and what it leaves to the last resort."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kernel.process import hard_exit
from kernel.process import watchdog as module
from kernel.process.watchdog import Watchdog, within
from tests.process.threads import Threads

Does = Callable[[Watchdog], object]


class Left(BaseException):
    """The process would be gone."""


class Watched:
    """A watchdog in virtual time, and whatever it has done: each time with what it was."""

    def __init__(self, threads: Threads) -> None:
        self.threads = threads
        self.rests = False
        self.done: list[tuple[float, str]] = []
        self.watchdog = Watchdog(lambda code: self.did(f"reports {code}"), lambda: self.rests)

    def did(self, what: str) -> None:
        self.done.append((round(self.threads.now, 6), what))

    def run(self, *plans: tuple[float, Does]) -> list[tuple[float, str]]:
        """Let the thread watch while *plans* happen, and return what came of it, without the last resort."""
        for when, does in plans:
            self.threads.at(when, lambda does=does: does(self.watchdog))  # type: ignore[misc]
        try:
            self.watchdog._watch()
        except Left:
            pass
        else:
            self.did("no more")
        return [(when, what) for when, what in self.done if not what.startswith(("arms", "loads"))]

    @property
    def last_resort(self) -> list[tuple[float, str]]:
        """What it has done about the last resort."""
        return [(when, what) for when, what in self.done if what.startswith(("arms", "loads", "disarms"))]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A watchdog whose thread has been started."""
    threads = Threads()
    threads.install(monkeypatch, module.__name__)
    watched = Watched(threads)

    def leave(code: int) -> None:
        watched.did(f"exits {code}")
        raise Left

    def in_time(seconds: float, call: Callable[[], Any]) -> None:
        watched.did(f"within {seconds}")
        call()

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(module, "within", in_time)
    monkeypatch.setattr(hard_exit, "arm", lambda seconds, code: watched.did(f"arms {seconds:.6g} {code}"))
    monkeypatch.setattr(hard_exit, "load", lambda: watched.did("loads"))
    monkeypatch.setattr(hard_exit, "disarm", lambda: watched.did("disarms"))
    return watched


def arm(*given: Any) -> Does:
    return lambda watchdog: watchdog.arm(*given)


def ends(when: float, code: int) -> list[tuple[float, str]]:
    """What it does at a deadline that has passed."""
    return [(when, "within 1.0"), (when, f"reports {code}"), (when, f"exits {code}")]


@pytest.mark.parametrize(
    ("plans", "outcome"),
    [
        ([(1, arm(2))], ends(3.5, 3)),
        ([(0, arm(2, 130))], ends(2.5, 130)),
        ([(0, arm(5)), (1, arm(2))], ends(3.5, 3)),
        ([(0, arm(2)), (1, arm(5))], ends(2.5, 3)),
        ([(0, arm(2)), (1, arm(5, 130))], ends(2.5, 130)),
        ([(0, arm(2, 130)), (1, arm(5))], ends(2.5, 130)),
        ([(0, arm(0))], ends(0.5, 3)),
        ([(0, arm(2)), (1, lambda one: one.postpone(3))], ends(4.5, 3)),
        ([(0, arm(9)), (1, lambda one: one.postpone(3))], ends(9.5, 3)),
        ([(0, arm(2)), (1, lambda one: one.told(3, 1))], [(4.5, "within 1.0"), (4.5, "exits 1")]),
        ([(0, arm(9, 130)), (1, lambda one: one.told(3, 0))], [(4.5, "within 1.0"), (4.5, "exits 0")]),
        ([(0, arm(2)), (1, lambda one: one.dismiss())], [(1, "disarms"), (1, "no more"), (1, "disarms")]),
        ([(1, lambda one: one.dismiss())], [(1, "disarms"), (1, "disarms"), (1, "no more")]),
        ([(0, arm(2)), (1, lambda one: one.stand_down(None))], [(1, "no more")]),
        ([(1, lambda one: one.stand_down(0))], [(1, "no more")]),
    ],
)
def test_when_the_process_ends(
    watched: Watched, plans: list[tuple[float, Does]], outcome: list[tuple[float, str]]
) -> None:
    """Half a second after the earliest deadline, with the highest code, unless something was reported or dismissed."""
    assert sorted(watched.run(*plans)) == sorted(outcome)


@pytest.mark.parametrize(
    ("plans", "outcome"),
    [
        ([(3, lambda one: one.dismiss())], [(1, "loads")]),  # nothing is armed without a deadline
        ([(0.1, arm(2))], [(0.1, "arms 2 3"), (0.2, "loads"), (0.2, "arms 1.9 3")]),
        ([(0.95, arm(2, 130))], [(0.95, "arms 2 130"), (1, "loads"), (1, "arms 1.95 130")]),
        ([(2, arm(2))], [(1, "loads"), (2, "arms 2 3"), (2.1, "loads"), (2.1, "arms 1.9 3")]),
        ([(2, arm(9)), (3, lambda one: one.postpone(20))], [(3, "arms 20 3")]),
        ([(2, arm(9)), (3, lambda one: one.told(4, 1))], [(3, "arms 4 1")]),
        ([(2, arm(0.5)), (2.4, lambda one: one.stand_down(0))], [(2.4, "arms 1 0")]),
        ([(2, arm(5)), (2.4, lambda one: one.stand_down(0))], [(2.4, "arms 4.6 0")]),
        ([(2, lambda one: one.stand_down(0))], [(1, "loads")]),
        ([(2, arm(0.5)), (2.4, lambda one: one.stand_down(None))], [(2.1, "arms 0.4 3")]),
    ],
)
def test_what_is_left_to_the_last_resort(
    watched: Watched, plans: list[tuple[float, Does]], outcome: list[tuple[float, str]]
) -> None:
    """It knows each deadline at once; the code that needs time to load is loaded when that delays nothing."""
    watched.run(*plans)
    found = [one for one in watched.last_resort if one[1] != "disarms"]
    assert found[-len(outcome) :] == outcome
    assert found.count((1, "loads")) <= 1


def test_under_a_debugger_nothing_is_armed_and_nobody_is_ended(watched: Watched) -> None:
    """What was armed before somebody attached one is disarmed."""
    watched.threads.at(2, lambda: setattr(watched, "rests", True))
    assert watched.run((1.5, arm(2)), (2.5, arm(1))) == [(4.0, "disarms"), (4.0, "no more")]
    assert [when for when, what in watched.last_resort if what.startswith("arms")] == [1.5, 1.6]


def test_who_stands_down_waits_for_its_thread_and_not_for_long(watched: Watched) -> None:
    """The interpreter may exit only when the thread has: 0.1 s."""
    watched.watchdog.stand_down(None)
    assert watched.threads.joined == [0.1]
    assert [given["daemon"] for given in watched.threads.started] == [True]
    watched.watchdog.dismiss()
    watched.done.clear()
    watched.watchdog._watch()
    assert watched.last_resort == [(0, "disarms")]  # both were asked for, and nothing may be left armed


def test_without_a_thread_the_last_resort_is_all_there_is(
    watched: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that may have no more threads is told so once, and still ended."""
    monkeypatch.setattr("kernel.process.contain._said", set())
    watched.threads.fails = True
    lonely = Watchdog(lambda _: None)
    lonely.arm(1)
    lonely.stand_down(0)
    assert watched.last_resort == [(0, "arms 1 3"), (0, "arms 1 0")]
    assert watched.threads.joined == []
    assert caplog.messages == ["the watchdog over the shutdown failed; continuing"]


# -- within ------------------------------------------------------------------------------------------------------


def test_within_waits_for_the_call_and_not_for_ever() -> None:
    """One that hangs goes on in a thread that keeps nobody from ending."""
    said: list[str] = []
    within(20, lambda: said.append(threading.current_thread().name))
    assert said != [threading.current_thread().name]
    release = threading.Event()
    threads = {*threading.enumerate()}
    within(0.001, release.wait)
    (thread,) = {*threading.enumerate()} - threads
    assert thread.daemon
    release.set()
    thread.join()


def test_within_calls_by_itself_where_there_can_be_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late is better than never."""
    threads = Threads()
    threads.fails = True
    threads.install(monkeypatch, module.__name__)
    said: list[str] = []
    within(1.0, lambda: said.append("said"))
    assert said == ["said"]
