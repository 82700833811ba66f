"""What `/status` tells of a service, at each moment of its life; in virtual time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.identity import Identity
from kernel.lifecycle.events import State, Transition
from kernel.lifecycle.units import Unit
from kernel.observe import status
from kernel.observe.status import Stats, View
from tests.harness import Lab, crash_after, resource

pytestmark = pytest.mark.anyio


class Loop:
    """Calls at once what it is asked to, or not at all; or it has ended."""

    def __init__(self, *, calls: bool = True, ended: bool = False) -> None:
        self.calls, self.ended = calls, ended

    def wake(self, call: Callable[[], object]) -> None:
        """Call it."""
        if self.ended:
            raise RuntimeError("the loop is closed")
        if self.calls:
            call()


class Run:
    """What of an orchestrator the status looks at."""

    def __init__(self, *, ready: bool = False, stopping: bool = False) -> None:
        self.ready, self.stopping, self.reason = ready, stopping, "SIGTERM"
        self.supervisors: dict[str, Any] = {}


class VirtualView(View):
    """Asked in the loop, whose clock is not the machine's."""

    def now(self) -> float:
        """Return the loop's time."""
        return anyio.current_time()


@pytest.mark.parametrize(
    ("loop", "silent", "error", "takes"),
    [
        (Loop(), 0.0, None, 1),
        (Loop(), 2.0, None, 1),
        (Loop(ended=True), 0.0, None, 1),
        (Loop(calls=False), 0.0, None, 1),
        (Loop(), 0.0, RuntimeError("changed size"), 2),  # the thread itself tries again
    ],
    ids=["answers", "blocked", "ended", "busy", "fails"],
)
async def test_a_snapshot(
    loop: Loop, silent: float, error: Exception | None, takes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken by the loop, or, if that does not answer soon, by whoever asks."""
    patience = 60.0 if error else 0.001  # an error is known at once
    monkeypatch.setattr(status, "PATIENCE", patience)
    began = time.monotonic()
    view = View(Identity("app", "1", ""), silent=lambda: silent)
    taken: list[int] = []

    def take() -> int:
        taken.append(1)
        if len(taken) == 1 and error is not None:
            raise error
        return len(taken)

    view.runs(Run(), loop.wake)  # type: ignore[arg-type]
    assert view.snapshot(take) == takes
    assert len(taken) == takes
    assert time.monotonic() - began < 60.0
    view.ended()
    loop.ended = True
    assert view.snapshot(take) == takes + 1


def test_data_that_changes_meanwhile() -> None:
    """It is looked at again, some times; what goes wrong then, or otherwise, is told."""
    view = View(Identity("app", "1", ""))
    tries: list[int] = []

    def take() -> int:
        tries.append(1)
        if len(tries) < 6:
            raise RuntimeError("changed size")
        return 7

    assert view.snapshot(take) == 7
    assert len(tries) == 6
    del tries[:]
    with pytest.raises(ZeroDivisionError):
        view.snapshot(lambda: take() if len(tries) < 3 else 1 // 0)
    assert len(tries) == 3


@pytest.mark.parametrize(
    ("run", "all_ready", "state", "reason"),
    [
        (None, None, "starting", "starting"),
        (Run(), None, "starting", ""),
        (Run(ready=True), 2.0, "ready", ""),
        (Run(), 2.0, "degraded", ""),
        (Run(stopping=True), 2.0, "stopping", "stopping: SIGTERM"),
        (Run(stopping=True), None, "stopping", "stopping: SIGTERM"),
    ],
    ids=["before", "starting", "ready", "degraded", "stopping", "cancelled"],
)
def test_the_state_of_the_app(run: Any, all_ready: float | None, state: str, reason: str) -> None:
    """From before the run until it stops."""
    view = View(Identity("app", "1", ""), orchestrator=run)
    view.stats.all_ready = all_ready
    found = view.status()
    assert (found["state"], found["reason"], found["all_ready_after"]) == (state, reason, all_ready)
    assert view.ready is (state == "ready")


def test_the_loop_of_the_app() -> None:
    """What blocks it, how late it answers, and who takes its time; the app's own code has the app's name."""
    view = View(Identity("app", "1", ""), delay=lambda: 0.25, shares=lambda: {"": 0.5, "db": 0.12345})
    assert view.status()["loop"] == {"delay": 0.25, "blocked": None, "shares": {"app": 0.5, "db": 0.1235}}
    view.silent, view.runner = lambda: 3.0, lambda: ("db", "db.py:7")
    loop = view.status()["loop"]
    assert (loop["delay"], loop["blocked"]) == (3.0, {"seconds": 3.0, "service": "db", "at": "db.py:7"})
    view.more["calls"] = lambda: [1]
    assert view.status()["calls"] == [1]


def test_durations() -> None:
    """Those of starts that came to something, and of stops; each is passed on, but for the kernel's own."""
    passed: list[tuple[str, str, float]] = []
    stats = Stats(lambda *about: passed.append(about))
    for previous, state, seconds, internal in (
        (State.STARTING, State.BACKOFF, 1, False),
        (State.STARTING, State.STOPPING, 2, False),
        (State.STARTING, State.READY, 3, False),
        (State.READY, State.DONE, 4, False),
        (State.STOPPING, State.STOPPED, 5, False),
        (State.STARTING, State.DONE, 6, True),
    ):
        stats(Transition("own" if internal else "db", previous, state, 1, seconds, internal=internal))
    assert passed == [("start", "db", 3), ("stop", "db", 5)]
    assert stats.last == {"start": {"db": 3, "own": 6}, "stop": {"db": 5}}


async def test_whose_services_they_are(lab: Lab) -> None:
    """The kernel's own are not told of by the probes, unless the app's start waits for them; the status has all."""
    view = View(Identity("app", "1", ""))

    def runs(name: str) -> Any:
        async def run(serving: Serving[None]) -> None:
            async with serving():
                await anyio.sleep_forever()

        run.__name__ = name
        return service(run)

    seen: list[dict[str, Any]] = []

    def look() -> None:
        view.orchestrator = lab.orchestrator
        seen[:] = [view.readiness()[1]["services"], view.status()["services"]]

    units = [Unit(runs("hidden"), internal=True), Unit(runs("lifespan"), internal=True, awaited=True), runs("db")]
    await lab.at(1, look).stop_at(2).run(*units)
    assert [[*names] for names in seen] == [["lifespan", "db"], ["hidden", "lifespan", "db"]]
    assert [about["state"] for about in seen[0].values()] == ["ready", "ready"]
    assert [about["internal"] for about in seen[1].values()] == [True, True, False]


async def test_the_numbers_of_a_service_through_its_life(lab: Lab) -> None:
    """Time in a state counts from its begin, uptime adds up over the attempts, the last start, stop and error are kept.

    The next step is the retry, the end of the patience with a start, or the cut.
    """
    view = VirtualView(Identity("app", "1", ""))
    seen: dict[float, dict[str, Any]] = {}
    attempts = iter([1, 2])

    @service(retries=Retry(times=1, delay=3, jitter=0))
    async def api(serving: Serving[None]) -> None:
        async with resource(lab, "pool", opening=2, closing=1), serving():
            await crash_after(5 if next(attempts) == 1 else 1000, ValueError("boom"))

    def look() -> None:
        view.orchestrator = lab.orchestrator
        seen[lab.now] = view.status()["services"]["api"]

    for moment in (1, 4, 7.25, 9, 12, 15, 20.5):
        lab.at(moment, look)
    await lab.stop_at(20).run(api, observers=[view.stats])
    told = ("state", "seconds_in_state", "attempt", "uptime", "last_start", "last_stop", "next_step_in", "last_error")
    assert {moment: tuple(one[name] for name in told) for moment, one in seen.items()} == {
        1: ("starting", 1, 1, 0, None, None, 59, None),
        4: ("ready", 2, 1, 2, 2, None, None, None),
        7.25: ("stopping", 0.25, 1, 5, 2, None, 29.75, None),
        9: ("backoff", 1, 1, 5, 2, 1, 2, "ValueError: boom"),
        12: ("starting", 1, 2, 5, 2, 1, 59, "ValueError: boom"),
        15: ("ready", 2, 2, 7, 2, 1, None, "ValueError: boom"),
        20.5: ("stopping", 0.5, 2, 12, 2, 1, 9, "ValueError: boom"),
    }
