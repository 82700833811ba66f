"""One service: the work is cancelled, the resources around it close calmly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest

from kernel.declare.service import service
from kernel.declare.serving import Serving, Work
from kernel.errors import (
    StopTimeout,
)
from kernel.lifecycle.events import State
from tests.harness import Lab, marking, resource

pytestmark = pytest.mark.anyio

FLAVOUR = ContextVar("flavour", default="plain")


# -- the work and the resources ----------------------------------------------------------------------------------------


async def test_the_work_is_cancelled_and_the_resources_close_calmly(lab: Lab) -> None:
    """On a stop the block is cancelled at once, and what surrounds it may await as it closes."""

    @service
    async def db(serving: Serving[str]) -> None:
        async with resource(lab, "pool", closing=3), serving("pool"):
            with marking(lab, "work"):
                await anyio.sleep_forever()

    await lab.stop_at(5).run(db)
    assert lab.path("db") == "waiting starting ready stopping stopped"
    assert lab.marks == [
        (0, "pool open"),
        (0, "work begins"),
        (5, "work ends"),
        (5, "pool closing"),
        (8, "pool closed"),
    ]
    assert lab.exit_code == 0


async def test_a_resource_with_tasks_of_its_own_closes_calmly(lab: Lab) -> None:
    """The tasks of a pool go on until the pool itself has closed, as a cancellation of the work never reaches them."""

    @asynccontextmanager
    async def pool() -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_alive)
            yield
            await anyio.sleep(2)
            lab.mark("pool closed")
            tasks.cancel_scope.cancel()

    async def keep_alive() -> None:
        with marking(lab, "keep-alive"):
            await anyio.sleep_forever()

    @service
    async def db(serving: Serving[None]) -> None:
        async with pool(), serving():
            await anyio.sleep_forever()

    await lab.stop_at(5).run(db)
    assert lab.marks == [(0, "keep-alive begins"), (7, "pool closed"), (7, "keep-alive ends")]
    assert lab.ending("db").state is State.STOPPED


async def test_background_tasks_belong_to_the_work(lab: Lab) -> None:
    """What `work.start_soon` started is cancelled with the work, before the resources close."""

    async def vacuum(table: str) -> None:
        with marking(lab, f"vacuum {table}"):
            await anyio.sleep_forever()

    @service
    async def db(serving: Serving[None]) -> None:
        async with resource(lab, "pool"), serving() as work:
            work.start_soon(vacuum, "users")
            work.start_soon(vacuum, "orders", name="vacuum of orders")
            await anyio.sleep(1)
            lab.mark(
                " ".join(sorted(str(task.name) for task in anyio.get_running_tasks() if "vacuum" in str(task.name)))
            )
            await anyio.sleep_forever()

    await lab.stop_at(5).run(db)
    assert sorted(lab.marked[-4:-2]) == ["vacuum orders ends", "vacuum users ends"]
    assert lab.marked[-2:] == ["pool closing", "pool closed"]
    assert "vacuum of orders" in lab.marks[3][1]


async def test_a_plain_service_is_cancelled_as_a_whole(lab: Lab) -> None:
    """Without `Serving` all of it is work: its clean-up runs in a cancelled scope."""

    @service
    async def hello() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            lab.mark("clean-up")
            await anyio.sleep(1)
            lab.mark("never")

    await lab.stop_at(5).run(hello)
    assert lab.marks == [(5, "clean-up")]
    assert lab.path("hello") == "waiting starting ready stopping stopped"


async def test_a_block_that_is_left_ends_its_background_tasks(lab: Lab) -> None:
    """A service that leaves its block by itself ends its work, as a stop would."""

    @service
    async def db(serving: Serving[None]) -> None:
        async with serving() as work:
            work.start_soon(anyio.sleep_forever)
            await anyio.sleep(2)
        lab.mark("left")

    await lab.run(db)
    assert lab.marks == [(2, "left")]
    assert lab.ending("db").state is State.DONE
    assert lab.ending("db").reason == "returned by itself"


async def test_what_follows_the_block_is_clean_up(lab: Lab) -> None:
    """After its block a service is stopping, and has stop_timeout for what it still does."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep(2)
        await anyio.sleep_forever()

    await lab.run(db)
    assert lab.when("db", "stopping") == 2
    assert lab.moves("db")[2].reason == "its work ended"
    assert lab.when("db", "failed") == 5
    assert isinstance(lab.error("db"), StopTimeout)


# -- drain -------------------------------------------------------------------------------------------------------------


async def test_drain(lab: Lab) -> None:
    """A service that drains is told, finishes what is in flight, and leaves the block by itself."""

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            work.start_soon(background)
            await work.stop_requested()
            lab.mark("told")
            await anyio.sleep(4)
            lab.mark("drained")

    async def background() -> None:
        with marking(lab, "background"):
            await anyio.sleep_forever()

    await lab.stop_at(5).run(api)
    assert lab.marks == [(0, "background begins"), (5, "told"), (9, "drained"), (9, "background ends")]
    assert lab.ending("api").state is State.STOPPED


async def test_drain_tells_everybody(lab: Lab) -> None:
    """Every task may wait for the request to stop, and one that asks late learns at once."""

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving(drain=True) as work, anyio.create_task_group() as tasks:
            tasks.start_soon(wait, work, 0)
            tasks.start_soon(wait, work, 3)
            tasks.start_soon(wait, work, 7)

    async def wait(work: Work, delay: float) -> None:
        await anyio.sleep(delay)
        await work.stop_requested()
        lab.mark(f"told {delay}")

    await lab.stop_at(5).run(api)
    assert sorted(lab.marks) == [(5, "told 0"), (5, "told 3"), (7, "told 7")]


async def test_drain_when_nobody_asked_yet(lab: Lab) -> None:
    """A service that asks only after it was told learns at once."""

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            await anyio.sleep(7)
            await work.stop_requested()

    assert (await lab.stop_at(5).run(api)).when("api", "stopped") == 7


async def test_drain_that_does_not_end_is_cut(lab: Lab) -> None:
    """A service that drains for longer than its stop_timeout is cut."""

    @service(stop_timeout=3)
    async def api(serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            await work.stop_requested()
            await anyio.sleep_forever()

    await lab.stop_at(5).run(api)
    assert lab.when("api", "failed") == 8
    assert isinstance(lab.error("api"), StopTimeout)


async def test_drain_and_clean_up_share_the_stop_timeout(lab: Lab) -> None:
    """It counts from the request to stop, not from the end of the drain."""

    @service(stop_timeout=3)
    async def api(serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            await work.stop_requested()
            await anyio.sleep(2)
        await anyio.sleep_forever()

    await lab.stop_at(5).run(api)
    assert lab.when("api", "failed") == 8


async def test_drain_asked_while_starting(lab: Lab) -> None:
    """A service that was asked to stop before it served is told as soon as it serves."""

    @service
    async def api(serving: Serving[None]) -> None:
        await anyio.sleep(5.5)
        async with serving(drain=True) as work:
            await work.stop_requested()
            await anyio.sleep(1)
            lab.mark("drained")

    await lab.stop_at(5).run(api)
    assert lab.marks == [(6.5, "drained")]
    assert lab.path("api") == "waiting starting stopping stopped"


async def test_without_drain_the_wait_is_cancelled(lab: Lab) -> None:
    """Without drain, waiting for the request is work that is cancelled as any other."""

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving() as work:
            await work.stop_requested()
            lab.mark("never")

    await lab.stop_at(5).run(api)
    assert lab.marks == []
    assert lab.ending("api").state is State.STOPPED


async def test_an_error_of_a_group_inside_the_block_is_the_crash(lab: Lab) -> None:
    """What clean-up raises after it comes second, also where the crash came out of a group of the service's own."""

    async def crash() -> None:
        raise ValueError("first")

    @service
    async def db(serving: Serving[None]) -> None:
        try:
            async with serving(), anyio.create_task_group() as tasks:
                tasks.start_soon(crash)
                await anyio.sleep_forever()
        finally:
            await anyio.sleep(1)
            raise OSError("second")

    await lab.run(db)
    error = lab.ending("db").error
    assert isinstance(error, ExceptionGroup)
    assert [repr(leaf) for leaf in error.exceptions] == ["ValueError('first')"]


async def test_background_tasks_keep_the_context_they_were_started_in(lab: Lab) -> None:
    """Also the first of them, whose task group is not there yet."""
    seen: list[str] = []

    async def look() -> None:
        seen.append(FLAVOUR.get())

    @service
    async def db(serving: Serving[None]) -> None:
        async with serving() as work:
            for flavour in ("sweet", "sour"):
                FLAVOUR.set(flavour)
                work.start_soon(look)
            await anyio.sleep(1)
            FLAVOUR.set("bitter")
            work.start_soon(look)
            await anyio.sleep_forever()

    await lab.stop_at(5).run(db)
    assert sorted(seen) == ["bitter", "sour", "sweet"]


async def test_a_background_task_after_a_crash_of_another(lab: Lab) -> None:
    """Started while the crash cancels the work, it is cancelled at once, and the crash is what is told."""

    async def crash() -> None:
        raise ValueError("first")

    async def late() -> None:
        with marking(lab, "late"):
            await anyio.sleep_forever()

    @service
    async def db(serving: Serving[None]) -> None:
        async with serving() as work:
            work.start_soon(crash)
            try:
                await anyio.sleep_forever()
            finally:
                work.start_soon(late)

    await lab.run(db)
    assert repr(lab.ending("db").error) == "ValueError('first')"
    assert lab.now == 0


async def test_a_cancelled_attempt_takes_its_background_tasks_along(lab: Lab) -> None:
    """A block that drains for too long is cancelled with all that it started."""

    async def beat() -> None:
        with marking(lab, "beat"):
            await anyio.sleep_forever()

    @service(stop_timeout=2)
    async def db(serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            work.start_soon(beat)
            await anyio.sleep_forever()

    await lab.stop_at(5).run(db)
    assert lab.marks == [(0, "beat begins"), (7, "beat ends")]
    assert isinstance(lab.ending("db").error, StopTimeout)
