"""All services: a dependency outlives its dependents, on every path."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import attrs
import pytest

from kernel.declare.service import service, started
from kernel.declare.serving import Serving
from kernel.errors import StartTimeout
from kernel.lifecycle.events import State, StillWaiting
from kernel.lifecycle.units import Unit
from tests.harness import Lab, crash_after, hang, resource
from tests.lifecycle.parts import Part, chain, named, sleeper, story

pytestmark = pytest.mark.anyio


# -- a dependency outlives its dependents, on every path ---------------------------------------------------------------


ENDS = ["stop", "failure", "done", "crash", "resource"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("holds", [True, False], ids=["value", "order"])
async def test_a_dependency_outlives_its_dependents(  # noqa: C901  (the paths are its point)
    lab: Lab, end: str, holds: bool
) -> None:
    """On every path the resources of a dependency close after its dependents have ended, at each level."""

    @asynccontextmanager
    async def pool() -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            if end == "resource":
                tasks.start_soon(crash_after, 5, ValueError("connection lost"))
            async with resource(lab, "a", closing=1):
                yield

    @service
    async def a(serving: Serving[str]) -> None:
        async with pool(), serving("a"):
            if end == "crash":
                await crash_after(5, ValueError("boom"))
            await anyio.sleep_forever()

    async def b(serving: Serving[str], a: str = "") -> None:
        async with resource(lab, "b", closing=2), serving("b"):
            await anyio.sleep_forever()

    async def c(serving: Serving[str], b: str = "") -> None:
        async with resource(lab, "c", closing=3), serving("c"):
            await anyio.sleep(5 if end == "done" else math.inf)

    async def b_orderly(serving: Serving[str]) -> None:
        await b(serving)

    async def c_orderly(serving: Serving[str]) -> None:
        await c(serving)

    services = [
        a,
        named("b", service(depends=["a"])(b if holds else b_orderly)),
        named("c", service(depends=["b"])(c if holds else c_orderly)),
    ]
    if end == "failure":
        services.append(named("third", service(_crash_at_five)))
    if end == "done":
        services = [services[0], services[1], Unit(services[2], command=True)]  # type: ignore[list-item]
    if end == "stop":
        lab.stop_at(5)
    await lab.run(*services)
    closing = lab.marks[3:]
    if end == "resource":
        assert "a closed" not in lab.marked  # what is inside the broken resource cannot await any more
        closing.append((11, "a closed"))
    if end in {"crash", "resource"} and not holds:
        # Those that wanted only the order run on until the failure is final; a's resources do not wait for them.
        final = 6 if end == "crash" else 5
        assert [mark for mark in closing if mark[1][0] != "a"] == [
            (final, "c closing"),
            (final + 3, "c closed"),
            (final + 3, "b closing"),
            (final + 5, "b closed"),
        ]
    else:
        assert closing == [
            (5, "c closing"),
            (8, "c closed"),
            (8, "b closing"),
            (10, "b closed"),
            (10, "a closing"),
            (11, "a closed"),
        ]
    assert lab.exit_code == (1 if end in {"failure", "crash", "resource"} else 0)


async def _crash_at_five() -> None:
    await crash_after(5, ValueError("boom"))


async def test_independent_services_stop_at_the_same_time(lab: Lab) -> None:
    """Stopping takes the critical path, not the sum and not a level."""
    services = [
        sleeper("a", closing=1),
        sleeper("b", "a", closing=4),
        sleeper("c", "a", closing=1),
        sleeper("d", "c", closing=1),
        sleeper("e", closing=3),
    ]
    await lab.stop_at(5).run(*services)
    assert {one.name: lab.when(one.name, "stopped") for one in services} == {"a": 10, "b": 9, "c": 7, "d": 6, "e": 8}
    assert lab.report.stopping == pytest.approx(5)


async def test_a_dependent_by_started_counts_too(lab: Lab) -> None:
    """A dependency outlives also those that only waited for its launch."""
    late = named("late", attrs.evolve(sleeper("x", closing=2), depends=(started("a"),)))
    await lab.stop_at(5).run(sleeper("a"), late)
    assert (lab.when("late", "stopped"), lab.when("a", "stopped")) == (7, 7)
    assert lab.order("stopped") == ["late", "a"]


async def test_nothing_is_launched_after_a_stop(lab: Lab) -> None:
    """What becomes ready during the stop launches nobody."""

    @service
    async def db(serving: Serving[None]) -> None:
        await anyio.sleep(5.5)
        async with serving():
            await anyio.sleep(1)

    await lab.stop_at(5).run(db, sleeper("api", "db"), sleeper("slow", opening=50))
    assert lab.path("api") == "waiting stopped"
    assert lab.ending("api").reason == "never started"
    assert lab.ending("api").attempts == 0


async def test_a_start_that_takes_too_long_during_a_stop(lab: Lab) -> None:
    """As long as it is not asked to stop, since its dependents still run, its start is held to its limit."""
    late = attrs.evolve(sleeper("late", closing=5), depends=(started("slow"),))
    await lab.stop_at(5).run(sleeper("slow", opening=50, start_timeout=8), late)
    assert lab.when("slow", "failed") == 8
    assert isinstance(lab.error("slow"), StartTimeout)
    assert not [one for when, one in lab.log if isinstance(one, StillWaiting) and when == 8]  # of a start
    assert lab.when("late", "stopped") == 10


@pytest.mark.parametrize("drain_delay", [0, 2])
async def test_a_keyboard_interrupt_in_a_dependency(lab: Lab, drain_delay: float) -> None:
    """It ends its service at once, as a stop does, though others depend on it."""

    @service
    async def db(serving: Serving[str]) -> None:
        async with serving("pool"):
            await crash_after(3, KeyboardInterrupt())

    await lab.run(db, sleeper("api", "db", closing=1), drain_delay=drain_delay)
    assert lab.path("db") == lab.path("api") == "waiting starting ready stopping stopped"
    assert lab.stop_began.reason == "KeyboardInterrupt"
    assert lab.when("api", "stopped") == 4 + drain_delay
    assert lab.exit_code == 0


@pytest.mark.parametrize("drain_delay", [0, 2])
async def test_a_keyboard_interrupt_while_starting(lab: Lab, drain_delay: float) -> None:
    """The same of one that is not ready yet, though another waited for its launch."""

    @service
    async def db(serving: Serving[str]) -> None:
        await crash_after(3, KeyboardInterrupt())

    late = attrs.evolve(sleeper("late", closing=1), depends=(started("db"),))
    await lab.run(db, late, drain_delay=drain_delay)
    assert lab.path("db") == "waiting starting stopping stopped"
    assert (lab.when("db", "stopped"), lab.when("late", "stopped")) == (3, 4 + drain_delay)
    assert lab.exit_code == 0


async def test_a_second_request_changes_nothing(lab: Lab) -> None:
    """The first request counts, with its reason and its deadline."""
    await lab.stop_at(5, "first").stop_at(6, "second").run(sleeper("a", closing=3))
    assert lab.stop_began.reason == "first"
    assert lab.when("a", "stopped") == 8


async def test_a_crash_during_the_stop_changes_only_its_service(lab: Lab) -> None:
    """A dependency that crashes while its dependents stop waits for them, and has failed."""

    @service(retries=9)
    async def a(serving: Serving[str]) -> None:
        async with resource(lab, "a"), serving("a"):
            await crash_after(6, ValueError("boom"))

    @service(depends=["a"])
    async def b(a: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        await anyio.sleep(3)
        lab.mark("b closed")

    await lab.stop_at(5).run(a, b)
    assert lab.marks == [(0, "a open"), (8, "b closed"), (8, "a closing"), (8, "a closed")]
    assert lab.path("a") == "waiting starting ready stopping failed"
    assert lab.ending("b").state is State.STOPPED
    assert lab.exit_code == 1


async def test_a_crash_during_the_stop_overtakes_nobody(lab: Lab) -> None:
    """A consumer whose value goes during the stop still outlives those that depend on it by order only."""

    @service
    async def db(serving: Serving[str]) -> None:
        async with resource(lab, "db"), serving("db"):
            await crash_after(6, ValueError("boom"))

    @service(depends=["db"])
    async def cache(db: str, serving: Serving[None]) -> None:
        async with resource(lab, "cache"), serving():
            await anyio.sleep_forever()

    await lab.stop_at(5).run(db, cache, sleeper("api", "cache", closing=3))
    assert lab.when("api", "stopped") == 8
    assert lab.marks[2:] == [(8, "cache closing"), (8, "cache closed"), (8, "db closing"), (8, "db closed")]


async def test_a_dependency_that_ends_by_itself_during_the_stop(lab: Lab) -> None:
    """A dependency whose work ends while its dependents still stop keeps its resources until they have."""

    @service
    async def a(serving: Serving[str]) -> None:
        async with resource(lab, "a"), serving("a"):
            await anyio.sleep(6)

    @service(depends=["a"])
    async def b(a: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        await anyio.sleep(3)

    await lab.stop_at(5).run(a, b)
    assert lab.marks[1:] == [(8, "a closing"), (8, "a closed")]
    assert lab.exit_code == 0


# -- abandoned ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [None, 5], ids=["in a restart", "in the stop"])
async def test_what_was_abandoned_while_starting_and_serves_later_serves_nobody(lab: Lab, stop: float | None) -> None:
    """It has ended for the kernel: what it does then is noticed, and the others go on, or close, as they would."""
    (db,) = chain(db=Part(crashes=() if stop else (1,), closing=0.4))

    @service(depends=["db"], stop_timeout=1, allowed_failure=True)
    async def cache(db: str, serving: Serving[None]) -> None:
        await hang(14.2 if stop else 6)
        async with serving():
            lab.mark("serves")
            await anyio.sleep_forever()

    await lab.stop_at(stop or 20).run(db, cache)
    assert story(lab, "cache") == f"starting@0 stopping@{stop or 1} abandoned@{14 if stop else 3}"
    assert story(lab, "db").endswith("stopping@14 stopped@14.4" if stop else "ready@4.4 stopping@20 stopped@20.4")
    assert lab.exit_code == 3
