"""Whose code the loop runs, told from its stack."""

from __future__ import annotations

import math
import sys
import threading
import time
from types import SimpleNamespace

import anyio
import pytest

from kernel.context import current_service
from kernel.observe import loop_shares
from kernel.observe.loop_shares import EVERY, MEMORY, UNKNOWN, Shares, busy_with

pytestmark = pytest.mark.anyio

PATIENCE = 10.0  # seconds in which what is expected comes, on any machine


def nobody(_: object) -> str:
    """No service has this code."""
    return ""


async def test_the_one_that_runs() -> None:
    """By the context of the step, also in a task of a task, and however deep it stands."""
    seen: list[list[str]] = []

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        else:
            seen.append([*busy_with(sys._getframe(), nobody)])

    async def child() -> None:
        deep(5)

    async def service(name: str) -> None:
        current_service.set(name)
        await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)

    async with anyio.create_task_group() as tasks:
        for name in ("a", "b"):
            tasks.start_soon(service, name)
    deep(0)
    assert sorted(seen) == [[""], ["a"], ["b"]]  # the app's own code is nobody's


def test_no_loop() -> None:
    """A thread that runs none is idle; so is one that has ended."""
    assert [*busy_with(sys._getframe(), nobody)] == []
    assert [*busy_with(None, nobody)] == []


def test_a_loop_that_does_not_show_its_steps() -> None:
    """As uvloop: then it is whoever has the code."""
    assert [*busy_with(sys._getframe(), lambda _: "api")] == ["api"]


def test_between_two_rounds() -> None:
    """Asked without patience, the steps that are ready count; asked with patience, there are none."""
    from kernel.observe.loop_shares import _LOOKS

    class Step:
        def __init__(self, name: str) -> None:
            import contextvars

            token = current_service.set(name)
            self._context = self.context = contextvars.copy_context()
            current_service.reset(token)

    class Loop:
        _ready = runq = (Step("a"), Step("b"))

    for look in ("_run_once", "run"):
        _, ready = _LOOKS[look]
        for timeout, steps in ((0, 2), (0.5, 0), (None, 0)):
            found = ready({"self": Loop, "runner": Loop, "timeout": timeout})
            assert len([*found]) == steps


def test_the_shares_add_up() -> None:
    """Each look counts as one, in parts where several were ready; what is old counts less."""
    shares = Shares(threading.get_ident(), nobody)
    shares.end()
    shares._looks, shares._seen, shares._worked, shares._seconds = 0.0, {}, 0.0, 0.0
    shares._look(["a"], 1.0)
    shares._look(["a", "b"], 1.0)
    shares._look([], 1.0)
    shares._look(["b"], 1.0)
    assert shares.shares() == {"a": 0.375, "b": 0.375}
    shares._look(["b"], 0.5)
    assert shares.shares() == {"a": pytest.approx(0.25), "b": pytest.approx(1.75 / 3)}


def test_what_was_not_seen_is_told() -> None:
    """The thread's clock knows of work that no look has met."""
    shares = Shares(threading.get_ident(), nobody)
    shares.end()
    for seen, worked, found in (
        ({"a": 2.0}, 5.0, {"a": 0.2, UNKNOWN: pytest.approx(0.3)}),
        ({"a": 2.0, UNKNOWN: 1.0}, 5.0, {"a": 0.2, UNKNOWN: pytest.approx(0.3)}),
        ({"a": 2.0}, 2.0, {"a": 0.2}),
        ({"a": 2.0}, 1.0, {"a": 0.2}),
        ({"a": 2.0}, 12.0, {"a": 0.2, UNKNOWN: pytest.approx(0.8)}),  # no more than there was
        ({}, 5.0, {UNKNOWN: 0.5}),
    ):
        shares._looks, shares._seen, shares._worked, shares._seconds = 10.0, seen, worked, 10.0
        assert shares.shares() == found


class Looks:
    """An event that is never set for some waits, which it remembers."""

    def __init__(self, many: int) -> None:
        self._many = many
        self.waits: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) > self._many


def test_the_clocks_are_read_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time and the work since the last one count in full, and those before less and less."""
    shares = Shares(threading.get_ident(), nobody)
    shares.end()
    shares._looks, shares._seen, shares._worked, shares._seconds = 0.0, {}, 0.0, 0.0
    times, works = iter([100.0, 110.0, 125.0]), iter([5.0, 7.0, 10.0])
    monkeypatch.setattr(loop_shares, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(shares, "_clock", lambda: next(works))
    monkeypatch.setattr(shares, "_ended", looks := Looks(2))
    shares._watch()
    assert all(0 <= seconds <= 2 * EVERY for seconds in looks.waits)
    fade = math.exp(-15 / MEMORY)
    assert shares.shares() == {UNKNOWN: pytest.approx((2 * fade + 3) / (10 * fade + 15))}


def test_it_looks_at_the_thread_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose code it finds there has the share; at the end no thread is left."""
    monkeypatch.setattr(loop_shares, "EVERY", 0.001)
    monkeypatch.setattr(loop_shares, "LAST", PATIENCE)
    busy = threading.Event()
    thread = threading.Thread(target=busy.wait, daemon=True)
    thread.start()
    shares = Shares(thread.ident or 0, lambda _: "api")
    until = time.monotonic() + PATIENCE
    while not shares.shares().get("api"):
        assert time.monotonic() < until
    shares.end()
    assert not shares._thread.is_alive()
    busy.set()
    thread.join()
    assert shares.shares()["api"] == pytest.approx(1.0)
