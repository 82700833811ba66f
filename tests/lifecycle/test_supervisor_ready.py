"""One service: when it is ready, and what counts as serving."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kernel.context import current_service
from kernel.declare.service import Service, service
from kernel.declare.serving import Serving
from kernel.errors import (
    NeverServed,
    ServedTwice,
)
from kernel.lifecycle.events import State
from tests.harness import Lab, crash_after
from tests.lifecycle.parts import ONCE

pytestmark = pytest.mark.anyio


# -- ready -------------------------------------------------------------------------------------------------------------


async def test_a_plain_service_is_ready_when_launched(lab: Lab) -> None:
    """A service without `Serving` is ready as soon as it runs, and done when it returns."""

    @service
    async def hello() -> None:
        await anyio.sleep(5)

    await lab.run(hello)
    assert lab.path("hello") == "waiting starting ready stopping done"
    assert [move.reason for move in lab.moves("hello")] == ["", "", "returned", "returned by itself"]
    assert (lab.when("hello", "ready"), lab.when("hello", "done")) == (0, 5)
    assert lab.ending("hello").reason == "returned by itself"
    assert lab.exit_code == 0


async def test_a_service_that_serves_is_ready_when_it_says_so(lab: Lab) -> None:
    """With `Serving`, ready is the moment at which the block is entered."""

    @service
    async def db(serving: Serving[str]) -> None:
        await anyio.sleep(3)
        async with serving("pool"):
            await anyio.sleep(4)

    await lab.run(db)
    assert lab.path("db") == "waiting starting ready stopping done"
    assert (lab.when("db", "ready"), lab.when("db", "stopping")) == (3, 7)


async def test_a_oneshot_is_ready_when_it_has_returned_well(lab: Lab) -> None:
    """A one-shot goes from starting to done at once, and passes through no ready."""

    @service(oneshot=True)
    async def migrate() -> None:
        await anyio.sleep(2)

    await lab.run(migrate)
    assert lab.path("migrate") == "waiting starting done"
    assert lab.all_ready[0].seconds == pytest.approx(2)
    assert lab.ending("migrate").reason == ""


async def test_a_oneshot_that_crashes_is_not_ready(lab: Lab) -> None:
    """A one-shot that raises has failed."""

    @service(oneshot=True)
    async def migrate() -> None:
        await crash_after(2, ValueError("bad schema"))

    await lab.run(migrate)
    assert lab.path("migrate") == "waiting starting failed"
    assert not lab.all_ready
    assert lab.exit_code == 1


async def test_serving_without_a_value(lab: Lab) -> None:
    """`serving()` hands over nothing."""

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving() as work:
            assert callable(work.start_soon)

    assert (await lab.run(api)).ending("api").state is State.DONE


async def test_a_value_goes_with_its_attempt(lab: Lab) -> None:
    """Between two attempts, and after the last, there is none."""
    seen: list[object] = []

    @service(retries=ONCE)
    async def db(serving: Serving[str]) -> None:
        await anyio.sleep(1)
        async with serving(f"pool of {lab.now}"):
            await crash_after(1, ValueError())

    def look() -> None:
        seen.append(lab.orchestrator.supervisors["db"].value)

    lab.at(0.5, look).at(1.5, look).at(2.5, look).at(3.5, look).at(4.5, look)
    await lab.run(db)
    look()
    assert seen == [None, "pool of 1.0", None, None, "pool of 4.0", None]


async def test_uptime_counts_all_attempts(lab: Lab) -> None:
    """The report tells how long a service was ready, all attempts together, and how many there were."""

    @service(retries=ONCE)
    async def api(serving: Serving[None]) -> None:
        await anyio.sleep(1)
        async with serving():
            await crash_after(10, ValueError())

    await lab.run(api)
    assert lab.ending("api").uptime == pytest.approx(20)
    assert lab.ending("api").attempts == 2


async def test_each_move_tells_how_long_the_state_before_lasted(lab: Lab) -> None:
    """Whatever the loop's clock shows."""

    @service(retries=ONCE)
    async def api(serving: Serving[None]) -> None:
        await anyio.sleep(1.5)
        async with serving():
            await crash_after(10, ValueError())

    await anyio.sleep(1000)
    await lab.run(api)
    lasted = [(move.previous.value, round(move.seconds, 6)) for move in lab.moves("api")]
    once = [("starting", 1.5), ("ready", 10), ("stopping", 0)]
    assert lasted == [("waiting", 0), *once, ("backoff", 1), *once]


# -- serving wrongly ---------------------------------------------------------------------------------------------------


async def test_never_served(lab: Lab) -> None:
    """A service that takes `Serving` and returns without entering it has failed."""

    @service
    async def api(serving: Serving[None]) -> None:
        await anyio.sleep(1)

    await lab.run(api)
    assert lab.path("api") == "waiting starting failed"
    assert isinstance(lab.error("api"), NeverServed)
    assert lab.exit_code == 1


async def test_called_serving_without_entering_it(lab: Lab) -> None:
    """To call `serving` alone is not to serve."""

    @service
    async def api(serving: Serving[None]) -> None:
        serving()

    assert isinstance((await lab.run(api)).error("api"), NeverServed)


async def test_never_served_is_retried(lab: Lab) -> None:
    """Never to serve is a crash like any other."""

    @service(retries=ONCE)
    async def api(serving: Serving[None]) -> None:
        lab.mark("called")
        if len(lab.marks) > 1:
            async with serving():
                await anyio.sleep(1)

    await lab.run(api)
    assert lab.path("api") == "waiting starting backoff starting ready stopping done"


@pytest.mark.parametrize("nested", [True, False], ids=["nested", "one after the other"])
async def test_served_twice(lab: Lab, nested: bool) -> None:
    """One attempt serves once."""

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving():
            if nested:
                async with serving():
                    lab.mark("never")
        async with serving():
            lab.mark("never")

    await lab.run(api)
    assert isinstance(lab.error("api"), ServedTwice)
    assert lab.marks == []
    assert lab.exit_code == 1


async def test_an_old_serving_does_not_serve(lab: Lab) -> None:
    """What an earlier attempt was given does not serve for a later one."""
    kept: list[Serving[None]] = []

    @service(retries=ONCE)
    async def api(serving: Serving[None]) -> None:
        kept.append(serving)
        async with kept[0]():
            raise ValueError

    await lab.run(api)
    assert isinstance(lab.error("api"), ServedTwice)


# -- context -----------------------------------------------------------------------------------------------------------


async def test_the_current_service_is_known_in_its_whole_task_tree(lab: Lab) -> None:
    """Code anywhere in a service knows its service; outside of any there is none."""
    seen: list[tuple[str, str]] = []

    async def background() -> None:
        seen.append(("background", current_service.get()))

    async def child() -> None:
        seen.append(("child", current_service.get()))

    @service
    async def db(serving: Serving[str]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
            async with serving("pool") as work:
                work.start_soon(background)
                await anyio.sleep(1)

    @service(depends=["db"])
    async def api(db: str) -> None:
        seen.append(("api", current_service.get()))

    await lab.run(db, api)
    assert sorted(seen) == [("api", "api"), ("background", "db"), ("child", "db")]
    assert current_service.get() == ""


async def test_each_attempt_has_a_context_of_its_own(lab: Lab) -> None:
    """What a service sets in its context is seen neither by its dependents nor by its next attempt."""
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    @service(retries=ONCE)
    async def db(serving: Serving[None]) -> None:
        seen.append(variable.get())
        variable.set("db's")
        async with serving():
            await crash_after(1, ValueError())

    @service(depends=["db"])
    async def api() -> None:
        seen.append(variable.get())

    outer = variable.set("the app's")
    await lab.run(db, api)
    variable.reset(outer)
    assert seen == ["the app's"] * 3


def test_a_service_is_called_like_its_function() -> None:
    """A service can be tested by calling it with fakes, without a kernel."""

    @asynccontextmanager
    async def fake(value: object = None, *, drain: bool = False) -> AsyncIterator[Any]:
        given.append(value)
        yield None

    given: list[object] = []

    @service
    async def db(serving: Serving[str]) -> None:
        async with serving("pool"):
            pass

    run: Callable[[Serving[str]], Awaitable[None]] = db
    anyio.run(run, fake)
    assert given == ["pool"]
    assert isinstance(db, Service)
