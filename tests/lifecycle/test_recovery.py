"""What is told of a recovery, and of a stop in the middle of one."""

from __future__ import annotations

import re

import anyio
import pytest

from kernel import Retry, Serving, service
from kernel.lifecycle.events import Event, ReadyAgain, State
from kernel.lifecycle.explain import describe_move
from kernel.lifecycle.recovery import Recovery
from kernel.lifecycle.units import Unit
from kernel.observe.lifecycle_log import LogObserver
from tests.harness import Lab, crash_after
from tests.lifecycle.parts import crashing_at, sleeper

pytestmark = pytest.mark.anyio


@service(retries=Retry(times=None, delay=5, factor=1, jitter=0))
async def db(serving: Serving[int]) -> None:
    """Crash each 10 s."""
    async with serving(1):
        await crash_after(10, ConnectionError("gone"))


@service(depends=[db], retries=Retry(times=None, delay=1, factor=1, jitter=0))
async def api(db: int, serving: Serving[None]) -> None:
    """Use the value."""
    async with serving():
        await anyio.sleep_forever()


async def test_all_ready_again(lab: Lab) -> None:
    """Said once for each recovery, with the time that it took and who was away."""
    await lab.stop_at(27).run(db, api)
    again = [(when, event.seconds, event.services) for when, event in lab.log if isinstance(event, ReadyAgain)]
    assert again == [(15, 5, ("api", "db"))]


async def test_one_recovery_after_another(lab: Lab) -> None:
    """Each is told with its own services and its own time; overlapping absences are one recovery."""
    services = crashing_at("a", 5), crashing_at("b", 30), crashing_at("c", 50), crashing_at("d", 53)
    await lab.stop_at(100).run(*services, sleeper("e"))
    again = [(when, event.seconds, event.services) for when, event in lab.log if isinstance(event, ReadyAgain)]
    assert again == [(15, 10, ("a",)), (40, 10, ("b",)), (63, 13, ("c", "d"))]


async def test_nothing_to_recover(lab: Lab) -> None:
    """A service of the kernel's own is not waited for: that it comes up later, or again, tells nothing."""
    own = Unit(crashing_at("own", 20), internal=True), Unit(sleeper("late", opening=5), internal=True)
    await lab.stop_at(60).run(sleeper("a"), *own)
    assert [event.seconds for event in lab.all_ready] == [0]
    assert lab.path("own") == "waiting starting ready stopping backoff starting ready stopping stopped"
    assert lab.when("late", "ready") == 5
    assert not [event for event in lab.events if isinstance(event, ReadyAgain)]
    assert lab.ending("a").state is State.STOPPED


def test_who_was_away() -> None:
    """Each is named once, in the order in which they left first; what was told is forgotten."""
    recovery, told = Recovery(), list[Event]()
    recovery.complete(1, told.append)
    for name, now in (("b", 2), ("a", 3), ("b", 4.5)):
        recovery.leaves(name, now)
    recovery.complete(9, told.append)
    recovery.complete(10, told.append)
    recovery.leaves("a", 20)
    recovery.complete(21.5, told.append)
    assert [(event.seconds, event.services) for event in told if isinstance(event, ReadyAgain)] == [
        (7, ("b", "a")),
        (1.5, ("a",)),
    ]
    assert len(told) == 2


async def test_a_stop_in_backoff(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """No recovery is told that did not come; what the log tells counts from the request, not from the crash."""
    caplog.set_level("INFO", logger="kernel")
    await lab.stop_at(14).run(db, api, observers=[LogObserver()])
    stopped = [record for record in caplog.records if record.__dict__.get("state") == "stopped"]
    assert {record.__dict__["service"] for record in stopped} == {"db", "api"}
    for record in stopped:
        assert record.__dict__["seconds"] < 1
        assert re.fullmatch(r"stopped after [\d.]+ ms", record.getMessage())
    assert not [event for event in lab.events if isinstance(event, ReadyAgain)]


async def test_from_backoff_to_waiting(lab: Lab) -> None:
    """The reason names what it waits for."""

    @service(depends=[db], retries=Retry(times=None, delay=1, jitter=0))
    async def flaky(serving: Serving[None]) -> None:
        async with serving():
            await crash_after(10.5 - lab.now, OSError("no route"))

    await lab.stop_at(12).run(db, flaky)
    (waiting,) = (move for move in lab.moves("flaky") if move.state is State.WAITING)
    assert (waiting.previous, waiting.reason) == (State.BACKOFF, "for db")
    assert describe_move(waiting) == "waiting (for db)"
