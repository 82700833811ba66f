"""One service: its attempts, how it serves, what its errors are, and how its work ends."""

from __future__ import annotations

import asyncio
import contextvars
import linecache
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sniffio

from kernel.context import current_service
from kernel.declare.retry import Retry
from kernel.declare.service import Service, service
from kernel.declare.serving import Serving, Work
from kernel.errors import (
    NeverServed,
    ServedTwice,
    StartTimeout,
    StopTimeout,
    StrayCancellation,
    Uncancellable,
)
from kernel.lifecycle.events import Notice, State
from tests.harness import Lab, block_the_loop, crash_after, hang, marking, resource

pytestmark = pytest.mark.anyio

ONCE = Retry(times=1, delay=1, jitter=0)


def stood(where: str) -> str:
    """The source of the line that an error names."""
    found = re.match(r"(.+):(\d+) in ", where)
    assert found, where
    return linecache.getline(found[1], int(found[2])).strip()


async def bystander(serving: Serving[None]) -> None:
    """Something else that runs, so that the end of one service is not the end of all."""
    async with serving():
        await anyio.sleep_forever()


# -- ready -----------------------------------------------------------------------------------------------------------


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


# -- the work and the resources --------------------------------------------------------------------------------------


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


# -- drain -----------------------------------------------------------------------------------------------------------


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


# -- serving wrongly -------------------------------------------------------------------------------------------------


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


# -- start_timeout ---------------------------------------------------------------------------------------------------


async def test_start_timeout_names_the_line(lab: Lab) -> None:
    """A service that is not ready in time is cancelled, and the error names the line where it stood."""

    async def connect() -> None:
        await anyio.sleep(100)  # the line where it stands

    @service(start_timeout=7)
    async def db(serving: Serving[None]) -> None:
        await connect()
        async with serving():
            pass

    await lab.run(db)
    assert lab.path("db") == "waiting starting stopping failed"
    error = lab.error("db")
    assert isinstance(error, StartTimeout)
    assert lab.when("db", "failed") == 7
    assert error.__notes__ == ["in service db, starting, attempt 1"]
    assert "the line where it stands" in stood(error.where)
    assert error.where.endswith("connect")
    assert "was not ready after 7 s; it was at tests/test_supervisor.py:" in str(error)


async def test_start_timeout_of_a_oneshot(lab: Lab) -> None:
    """A one-shot must have returned in time."""

    @service(oneshot=True, start_timeout=7)
    async def migrate() -> None:
        await anyio.sleep_forever()

    assert isinstance((await lab.run(migrate)).error("migrate"), StartTimeout)


async def test_start_timeout_is_over_when_ready(lab: Lab) -> None:
    """What is ready in time may go on for ever."""

    @service(start_timeout=1)
    async def db(serving: Serving[None]) -> None:
        await anyio.sleep(0.9)
        async with serving():
            await anyio.sleep(100)

    @service(start_timeout=1)
    async def plain() -> None:
        await anyio.sleep(100)

    await lab.run(db, plain)
    assert lab.exit_code == 0


async def test_no_start_timeout(lab: Lab) -> None:
    """None is no limit."""

    @service(start_timeout=None)
    async def db(serving: Serving[None]) -> None:
        await anyio.sleep(10_000)
        async with serving():
            pass

    assert (await lab.run(db)).when("db", "ready") == 10_000


async def test_start_timeout_is_retried(lab: Lab) -> None:
    """A start that took too long is a crash like any other."""

    @service(start_timeout=7, retries=ONCE)
    async def db(serving: Serving[None]) -> None:
        lab.mark("start")
        if len(lab.marks) == 1:
            await anyio.sleep_forever()
        async with serving():
            await anyio.sleep(1)

    await lab.run(db)
    assert lab.path("db") == "waiting starting stopping backoff starting ready stopping done"
    assert lab.marks == [(0, "start"), (8, "start")]


async def test_start_timeout_that_is_swallowed(lab: Lab) -> None:
    """A service that swallows its cancellation and returns was still too slow."""

    @service(start_timeout=7)
    async def db(serving: Serving[None]) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return

    assert isinstance((await lab.run(db)).error("db"), StartTimeout)


async def test_start_timeout_then_serves(lab: Lab) -> None:
    """A service that serves too late, from behind a shield, serves nobody."""

    @service(start_timeout=7)
    async def db(serving: Serving[None]) -> None:
        await hang(9)
        async with serving():
            lab.mark("serving")
            await anyio.sleep(1)
            lab.mark("never")

    await lab.run(db)
    assert lab.path("db") == "waiting starting stopping failed"
    assert (lab.when("db", "stopping"), lab.when("db", "failed")) == (7, 9)
    assert lab.marks == [(9, "serving")]
    assert isinstance(lab.error("db"), StartTimeout)


async def test_start_timeout_that_cannot_be_cut(lab: Lab) -> None:
    """A start that ignores its cancellation is given up as a stop would be."""

    @service(start_timeout=7, stop_timeout=2, allowed_failure=True)
    async def db(serving: Serving[None]) -> None:
        await hang(50)

    await lab.stop_at(20).run(db, service(bystander))
    assert lab.path("db") == "waiting starting stopping abandoned"
    assert lab.when("db", "abandoned") == 10
    error = lab.error("db")
    assert isinstance(error, Uncancellable)
    assert isinstance(error.__cause__, StartTimeout)


async def test_start_timeout_then_serves_and_cannot_be_cut(lab: Lab) -> None:
    """To serve too late gives it no more time, and that it started too slowly stays the reason."""

    @service(start_timeout=7, stop_timeout=4, allowed_failure=True)
    async def db(serving: Serving[None]) -> None:
        await hang(9)
        async with serving():
            await hang(50)

    await lab.stop_at(20).run(db, service(bystander))
    assert lab.when("db", "abandoned") == 12
    assert isinstance(lab.error("db").__cause__, StartTimeout)


# -- retries ---------------------------------------------------------------------------------------------------------


async def test_backoff(lab: Lab) -> None:
    """A crash is followed by backoff, whose delay doubles; then the policy gives up."""

    @service(retries=Retry(times=3, jitter=0))
    async def api(serving: Serving[None]) -> None:
        async with serving():
            raise ValueError("boom")

    await lab.run(api)
    attempt = "starting ready stopping"
    assert lab.path("api") == f"waiting {attempt} backoff {attempt} backoff {attempt} backoff {attempt} failed"
    assert [lab.when("api", "starting", n) for n in (1, 2, 3, 4)] == [0, 1, 3, 7]
    assert [move.attempt for move in lab.moves("api") if move.state is State.BACKOFF] == [1, 2, 3]
    assert [move.reason for move in lab.moves("api") if move.state is State.BACKOFF] == [
        "retry 1 of 3 in 1 s",
        "retry 2 of 3 in 2 s",
        "retry 3 of 3 in 4 s",
    ]
    assert lab.ending("api").reason == "after 4 attempts"
    assert lab.exit_code == 1


async def test_a_number_of_retries_has_the_defaults(lab: Lab) -> None:
    """`retries=2` means two retries after 1 s and 2 s, with a little jitter."""

    @service(retries=2)
    async def api() -> None:
        raise ValueError

    await lab.run(api)
    first, second, third = (lab.when("api", "starting", n) for n in (1, 2, 3))
    assert 0.9 <= second - first <= 1.1
    assert 1.8 <= third - second <= 2.2
    assert lab.ending("api").attempts == 3


async def test_no_retries_is_the_default(lab: Lab) -> None:
    """Without retries the first crash is the last."""

    @service
    async def api() -> None:
        raise ValueError("boom")

    await lab.run(api)
    assert lab.path("api") == "waiting starting ready stopping failed"
    assert lab.moves("api")[2].reason == "crashed"
    assert lab.ending("api").reason == ""


async def test_retries_for_ever(lab: Lab) -> None:
    """`times=None` never gives up."""

    @service(retries=Retry(times=None, delay=1, factor=1, jitter=0))
    async def api() -> None:
        raise ValueError("boom")

    await lab.stop_at(1000.5).run(api)
    assert lab.ending("api").attempts == 1001
    assert lab.path("api").endswith("backoff stopped")
    assert lab.moves("api")[3].reason == "retry 1 in 1 s"
    assert lab.exit_code == 0


async def test_a_crash_before_ready_is_retried(lab: Lab) -> None:
    """A failure before ready is a failure like any other."""

    @service(retries=ONCE)
    async def api(serving: Serving[None]) -> None:
        lab.mark("attempt")
        if len(lab.marks) == 1:
            raise ValueError("boom")
        async with serving():
            await anyio.sleep(1)

    await lab.run(api)
    assert lab.path("api") == "waiting starting backoff starting ready stopping done"
    assert [move.state for move in lab.moves("api") if move.error] == [State.BACKOFF]
    assert lab.ending("api").error is None
    assert lab.exit_code == 0


@pytest.mark.parametrize(("ready_for", "attempts"), [(59.9, 3), (60, None)], ids=["too short", "long enough"])
async def test_reset_after(lab: Lab, ready_for: float, attempts: int | None) -> None:
    """The budget is full again once the service was ready for reset_after; the time before and after does not count."""

    @service(retries=Retry(times=2, jitter=0))
    async def api(serving: Serving[None]) -> None:
        await anyio.sleep(30)
        try:
            async with serving():
                await crash_after(ready_for, ValueError())
        finally:
            await anyio.sleep(20)

    await lab.stop_at(2000).run(api)
    if attempts:
        assert lab.ending("api").attempts == attempts
    else:
        assert lab.ending("api").attempts > 10
        assert {move.reason for move in lab.moves("api") if move.state is State.BACKOFF} == {"retry 1 of 2 in 1 s"}


async def test_reset_never(lab: Lab) -> None:
    """`reset_after=None` never forgives."""

    @service(retries=Retry(times=2, reset_after=None))
    async def api() -> None:
        await crash_after(10_000, ValueError())

    assert (await lab.run(api)).ending("api").attempts == 3


async def test_when_the_next_step_comes(lab: Lab) -> None:
    """A supervisor tells when its next try or its limit comes; while it is ready there is none."""
    seen: list[float | None] = []

    @service(retries=Retry(times=1, delay=3, jitter=0), stop_timeout=4)
    async def api() -> None:
        if lab.now < 1:
            raise ValueError
        try:
            await anyio.sleep_forever()
        finally:
            await hang(1)

    @service(start_timeout=7)
    async def slow(serving: Serving[None]) -> None:
        await anyio.sleep(2)
        async with serving():
            await anyio.sleep_forever()

    def look() -> None:
        supervisors = lab.orchestrator.supervisors
        seen.extend(supervisors[name].next_step_at for name in ("api", "slow"))

    began = anyio.current_time()
    await lab.at(1, look).at(5, look).stop_at(6).at(6.5, look).run(api, slow)
    assert seen[:2] == [began + 3, began + 7]
    assert seen[2:4] == [None, None]
    assert seen[4:] == [began + 10, None]


async def test_stop_in_backoff(lab: Lab) -> None:
    """A stop ends a backoff at once."""

    @service(retries=5)
    async def api() -> None:
        raise ValueError("boom")

    await lab.stop_at(0.5).run(api)
    assert lab.when("api", "stopped") == 0.5
    assert lab.path("api") == "waiting starting ready stopping backoff stopped"
    assert lab.ending("api").reason == ""


async def test_a_stop_wins_over_a_simultaneous_retry(lab: Lab) -> None:
    """A stop at the very moment of a retry lets no attempt begin."""

    @service(retries=Retry(times=5, delay=2, jitter=0))
    async def api() -> None:
        lab.mark("runs")
        raise ValueError("boom")

    await lab.stop_at(2).run(api)
    assert lab.ending("api").state is State.STOPPED
    assert lab.marks == [(0, "runs")]


# -- any exception ---------------------------------------------------------------------------------------------------


class Odd(BaseException):
    """An exception that `except Exception` does not catch."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "exception": lambda: ValueError("boom"),
    "group": lambda: ExceptionGroup("both", [ValueError("boom"), TypeError("bang")]),
    "base group": lambda: BaseExceptionGroup("both", [ValueError("boom"), SystemExit(3)]),
    "exit": lambda: SystemExit(3),
    "odd": lambda: Odd("boom"),
    "stop iteration": lambda: StopAsyncIteration("boom"),
    "cancelled by asyncio": lambda: asyncio.CancelledError("not by anyio"),
    "timeout": lambda: TimeoutError("boom"),
}


async def _early(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    raise error


async def _work(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    async with serving():
        await crash_after(1, error)


async def _clean_up(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    async with serving():
        await anyio.sleep(1)
    raise error


async def _background(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    async with serving() as work:
        work.start_soon(crash_after, 1, error)
        await anyio.sleep_forever()


async def _child_before_ready(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crash_after, 1, error)
        await anyio.sleep_forever()


async def _child_of_resource(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crash_after, 1, error)
        async with serving():
            await anyio.sleep_forever()


PLACES = {
    fn.__name__.strip("_"): fn
    for fn in (_early, _work, _clean_up, _background, _child_before_ready, _child_of_resource)
}
PHASES = {
    "early": "starting",
    "work": "serving",
    "clean_up": "serving",
    "background": "serving",
    "child_before_ready": "starting",
    "child_of_resource": "serving",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ERRORS)
async def test_any_exception_is_contained(lab: Lab, kind: str, place: str) -> None:
    """Whatever a service raises, and wherever, is its failure: the others run on, the error survives with a note."""
    if kind == "cancelled by asyncio":
        if sniffio.current_async_library() != "asyncio":
            pytest.skip("an asyncio.CancelledError means nothing to trio")
        if "child" in place:
            pytest.skip("the service's own task group takes it for the end of that child")
    error = ERRORS[kind]()

    @service(allowed_failure=True)
    async def api(serving: Serving[None]) -> None:
        await PLACES[place](lab, serving, error)

    await lab.stop_at(10).run(api, service(bystander))
    caught = lab.error("api")
    if kind == "cancelled by asyncio":
        assert isinstance(caught, StrayCancellation)
        assert isinstance(caught.__cause__, asyncio.CancelledError)
    else:
        if place.startswith("child"):
            assert isinstance(caught, BaseExceptionGroup)
            (inner,) = caught.exceptions
        else:
            inner = caught
        if isinstance(error, BaseExceptionGroup):  # trio copies it on its way
            assert isinstance(inner, BaseExceptionGroup)
            assert inner.exceptions == error.exceptions
        else:
            assert inner is error
    assert lab.notices == []
    assert caught.__notes__ == [f"in service api, {PHASES[place]}, attempt 1"]
    if place not in {"early", "clean_up"} and kind != "cancelled by asyncio":
        assert "crash_after" in "".join(traceback.format_exception(caught))
    assert lab.when("api", "failed") == (0 if place == "early" else 1)
    assert lab.ending("bystander").state is State.STOPPED
    assert lab.exit_code == 0


async def test_two_background_tasks_that_crash_at_once(lab: Lab) -> None:
    """Where several tasks crash at once, the group of their errors is the crash."""
    now = anyio.Event()

    async def crash(error: Exception) -> None:
        await now.wait()
        raise error

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving() as work:
            work.start_soon(crash, ValueError("one"))
            work.start_soon(crash, TypeError("two"))
            await anyio.sleep(1)
            now.set()
            await anyio.sleep_forever()

    error = (await lab.run(api)).error("api")
    assert isinstance(error, ExceptionGroup)
    assert {type(one) for one in error.exceptions} == {ValueError, TypeError}


async def test_the_cause_survives(lab: Lab) -> None:
    """A crash keeps its cause, its traceback, and no cancellation by which the block learnt of it."""

    def parse() -> None:
        try:
            int("x")
        except ValueError as error:
            raise RuntimeError("bad config") from error

    async def background() -> None:
        await anyio.sleep(1)
        parse()

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving() as work:
            work.start_soon(background)
            await anyio.sleep_forever()

    error = (await lab.run(api)).error("api")
    text = "".join(traceback.format_exception(error))
    assert isinstance(error.__cause__, ValueError)
    assert "in parse" in text
    assert "Cancelled" not in text
    assert "in service api, serving, attempt 1" in text


async def test_an_error_that_comes_again_is_noted_once(lab: Lab) -> None:
    """An error object that is raised at each attempt carries one note of ours, the latest."""
    error = ValueError("the same")
    error.add_note("the user's own")

    @service(retries=ONCE)
    async def api() -> None:
        raise error

    await lab.run(api)
    assert lab.error("api").__notes__ == ["the user's own", "in service api, running, attempt 2"]


async def test_an_error_that_is_retried_is_noted(lab: Lab) -> None:
    """Also a crash that is not the end tells where it came from."""

    @service(retries=ONCE)
    async def api(serving: Serving[None]) -> None:
        if lab.now < 1:
            raise ValueError("boom")
        async with serving():
            await anyio.sleep(1)

    await lab.run(api)
    backoff = lab.moves("api")[1]
    assert isinstance(backoff.error, ValueError)
    assert backoff.error.__notes__ == ["in service api, starting, attempt 1"]


async def test_a_group_of_the_services_own_class(lab: Lab) -> None:
    """A group that has nothing of ours in it is the error itself, no copy that would lose its class."""

    class Rejected(ExceptionGroup[Exception]):
        """A group with a meaning."""

    error = Rejected("two rows", [ValueError("one"), ValueError("two")])

    @service
    async def api() -> None:
        raise error

    assert (await lab.run(api)).error("api") is error


async def test_a_crash_that_the_service_deals_with(lab: Lab) -> None:
    """A service that catches the crash of its own block and returns is done."""

    @service
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await crash_after(0, ValueError("boom"))
        except ValueError:
            lab.mark("dealt with")

    await lab.run(api)
    assert lab.ending("api").state is State.DONE
    assert lab.marked == ["dealt with"]


# -- stray cancellations ---------------------------------------------------------------------------------------------


async def _captured() -> BaseException:
    """A cancellation that belongs to a scope which is gone."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class() as error:
            kept = error
            raise
    return kept


@pytest.mark.parametrize("place", ["early", "work", "background", "clean_up"])
async def test_a_stray_cancellation_is_a_crash(lab: Lab, place: str) -> None:
    """A cancellation that comes out of a service when none of our scopes was cancelled is its crash."""

    @service(retries=Retry(times=5, delay=1, jitter=0))
    async def api(serving: Serving[None]) -> None:
        lab.mark("attempt")
        if len(lab.marks) == 1:
            await PLACES[place](lab, serving, await _captured())
        async with serving():
            await anyio.sleep_forever()

    await lab.stop_at(10).run(api)
    assert "backoff starting ready stopping stopped" in lab.path("api")
    crash = next(move.error for move in lab.moves("api") if move.state is State.BACKOFF)
    assert isinstance(crash, StrayCancellation)
    assert isinstance(crash.__cause__, anyio.get_cancelled_exc_class())


async def test_a_task_that_is_cancelled_behind_our_back(lab: Lab) -> None:
    """Asyncio's task.cancel() on a service's task is a crash, not a stop."""
    if sniffio.current_async_library() != "asyncio":
        pytest.skip("trio has no such thing")
    tasks: list[asyncio.Task[Any] | None] = []

    @service(retries=Retry(times=5, delay=1, jitter=0))
    async def api(serving: Serving[None]) -> None:
        tasks.append(asyncio.current_task())
        async with resource(lab, "pool", closing=1), serving():
            await anyio.sleep_forever()

    def cancel() -> None:
        assert tasks[0]
        tasks[0].cancel()

    await lab.at(3, cancel).stop_at(10).run(api)
    assert lab.path("api") == "waiting starting ready stopping backoff starting ready stopping stopped"
    assert lab.marks[:3] == [(0, "pool open"), (3, "pool closing"), (4, "pool closed")]


async def test_a_plain_service_that_is_cancelled_behind_our_back(lab: Lab) -> None:
    """The same without `Serving`."""
    if sniffio.current_async_library() != "asyncio":
        pytest.skip("trio has no such thing")

    @service
    async def api() -> None:
        task = asyncio.current_task()
        assert task
        asyncio.get_running_loop().call_later(1, task.cancel)
        await anyio.sleep_forever()

    await lab.run(api)
    assert isinstance(lab.error("api"), StrayCancellation)
    assert lab.exit_code == 1


async def test_a_cancellation_from_clean_up_during_a_stop_is_no_crash(lab: Lab) -> None:
    """When our own scope was cancelled, a cancellation that comes out later is taken for ours."""

    @service
    async def api(serving: Serving[None]) -> None:
        stray = await _captured()
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            raise stray

    await lab.stop_at(1).run(api)
    assert lab.ending("api").state is State.STOPPED


async def test_an_error_beside_our_own_cancellation(lab: Lab) -> None:
    """Of a group with our own cancellation in it only the rest is the service's error."""

    @service
    async def api(serving: Serving[None]) -> None:
        ours = await _captured()
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            raise BaseExceptionGroup("both", [ours, OSError("half written")])

    await lab.stop_at(1).run(api)
    error = lab.error("api")
    assert isinstance(error, ExceptionGroup)
    assert [type(one) for one in error.exceptions] == [OSError]


async def test_a_stray_cancellation_while_draining_is_a_crash(lab: Lab) -> None:
    """A service that drains is not cancelled, so a cancellation that comes out of it is none of ours."""

    @service
    async def api(serving: Serving[None]) -> None:
        stray = await _captured()
        async with serving(drain=True) as work:
            await work.stop_requested()
        raise stray

    await lab.stop_at(1).run(api)
    assert isinstance(lab.error("api"), StrayCancellation)


async def test_own_scopes_are_the_services_business(lab: Lab) -> None:
    """A service may cancel scopes of its own inside its work."""

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving():
            with anyio.move_on_after(2):
                await anyio.sleep_forever()
            lab.mark("went on")
            await anyio.sleep(1)

    await lab.run(api)
    assert lab.marks == [(2, "went on")]
    assert lab.ending("api").state is State.DONE


async def test_an_error_in_a_task_of_asyncio_moves_no_state(lab: Lab) -> None:
    """A task that was made with asyncio.create_task is nobody's child: its error changes no service."""
    if sniffio.current_async_library() != "asyncio":
        pytest.skip("trio has no such thing")
    seen: list[dict[str, Any]] = []

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving():
            task = asyncio.create_task(crash_after(1, ValueError("boom")))
            await anyio.sleep(5)
            seen.append({"error": task.exception()})

    await lab.run(api)
    assert lab.ending("api").state is State.DONE
    assert isinstance(seen[0]["error"], ValueError)


# -- KeyboardInterrupt -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
async def test_keyboard_interrupt_is_a_signal(lab: Lab, place: str) -> None:
    """A KeyboardInterrupt that comes up in a service asks the app to stop, and is no crash."""

    @service(retries=5)
    async def api(serving: Serving[None]) -> None:
        await PLACES[place](lab, serving, KeyboardInterrupt())

    await lab.run(api, service(bystander))
    assert lab.ending("api").state is State.STOPPED
    assert lab.ending("bystander").state is State.STOPPED
    assert lab.ending("api").attempts == 1
    assert lab.stop_began.reason == "KeyboardInterrupt"
    assert not lab.stop_began.failure
    assert lab.exit_code == 0


async def test_keyboard_interrupt_while_stopping(lab: Lab) -> None:
    """During a stop it changes nothing any more."""

    @service
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    await lab.stop_at(1).run(api, service(bystander))
    assert lab.ending("api").state is State.STOPPED
    assert lab.exit_code == 0


# -- clean-up that fails ---------------------------------------------------------------------------------------------


async def test_clean_up_fails_after_a_crash(lab: Lab) -> None:
    """The crash comes first; what clean-up raised after it is noted, and it is one failed attempt."""

    @service(retries=ONCE)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                raise ValueError("the crash")
        finally:
            raise OSError("the clean-up")

    await lab.run(api)
    error = lab.error("api")
    assert isinstance(error, ValueError)
    assert "its clean-up then raised OSError: the clean-up" in error.__notes__
    assert lab.moves("api")[2].reason == "crashed"
    assert lab.ending("api").attempts == 2
    assert lab.ending("api").reason == "after 2 attempts"
    assert lab.notices == ["api: clean-up failed after the crash"] * 2
    assert all(isinstance(one.error, OSError) for one in lab.events if isinstance(one, Notice))


@pytest.mark.parametrize("crash", [ValueError("the crash"), ExceptionGroup("two", [ValueError(), OSError()])], ids=repr)
async def test_clean_up_that_wraps_the_crash(lab: Lab, crash: Exception) -> None:
    """A resource that raises the crash within a group, as task groups do, adds nothing that failed."""

    @service
    async def api(serving: Serving[None]) -> None:
        async with anyio.create_task_group(), serving():
            raise crash

    await lab.run(api)
    error = lab.error("api")
    assert isinstance(error, ExceptionGroup)
    assert isinstance(error.exceptions[0], type(crash))
    assert error.__notes__ == ["in service api, serving, attempt 1"]
    assert lab.notices == []


async def test_clean_up_fails_on_a_stop(lab: Lab) -> None:
    """Clean-up that fails on a stop is a failure, which is not retried."""

    @service(retries=5)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            raise OSError("the clean-up")

    await lab.stop_at(1).run(api, service(bystander))
    assert lab.path("api") == "waiting starting ready stopping failed"
    assert isinstance(lab.error("api"), OSError)
    assert lab.error("api").__notes__ == ["in service api, stopping, attempt 1"]
    assert lab.exit_code == 1


async def test_clean_up_fails_on_a_stop_with_permission(lab: Lab) -> None:
    """One that may fail may fail there too."""

    @service(allowed_failure=True)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            raise OSError("the clean-up")

    await lab.stop_at(1).run(api, service(bystander))
    assert lab.ending("api").state is State.FAILED
    assert lab.exit_code == 0


async def test_clean_up_of_a_crash_that_hangs(lab: Lab) -> None:
    """The clean-up after a crash is on the clock too, and the crash comes first."""

    @service(stop_timeout=4)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await crash_after(1, ValueError("the crash"))
        finally:
            await anyio.sleep_forever()

    await lab.run(api)
    assert lab.when("api", "failed") == 5
    assert isinstance(lab.error("api"), ValueError)


async def test_clean_up_of_a_crash_that_cannot_be_cut(lab: Lab) -> None:
    """The crash survives also behind a clean-up that was given up."""

    @service(stop_timeout=2, allowed_failure=True)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await crash_after(1, ValueError("the crash"))
        finally:
            await hang(50)

    await lab.stop_at(20).run(api, service(bystander))
    assert lab.when("api", "abandoned") == 4
    assert isinstance(lab.error("api").__cause__, ValueError)


async def test_clean_up_of_a_crash_that_is_cut_by_a_stop(lab: Lab) -> None:
    """The crash survives also where its clean-up was cut in the course of a stop."""

    @service(stop_timeout=60)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await crash_after(1, ValueError("the crash"))
        finally:
            await anyio.sleep_forever()

    await lab.stop_at(2).run(api, service(bystander))
    assert lab.when("api", "failed") == 11.5
    error = lab.error("api")
    assert ValueError in {type(error), type(error.__cause__)}
    assert lab.exit_code == 1


@pytest.mark.parametrize("place", ["work", "background", "early"])
async def test_a_crash_in_the_same_tick_as_the_stop(lab: Lab, place: str) -> None:
    """A service that crashes in the very step in which it is asked to stop has failed."""

    @service(retries=5)
    async def api(serving: Serving[None]) -> None:
        if place == "early":
            await crash()
        async with serving() as work:
            if place == "background":
                work.start_soon(crash)
                await anyio.sleep_forever()
            await crash()

    async def crash() -> None:
        await anyio.sleep(1)
        lab.orchestrator.request_stop("asked")
        raise ValueError("boom")

    await lab.run(api, service(bystander))
    assert lab.ending("api").state is State.FAILED
    assert isinstance(lab.error("api"), ValueError)
    assert lab.ending("api").attempts == 1
    assert lab.exit_code == 1


async def test_a_crash_just_before_the_stop(lab: Lab) -> None:
    """A crash that is still unwinding when the stop comes makes the service failed."""

    @service(retries=5)
    async def api(serving: Serving[None]) -> None:
        async with resource(lab, "pool", closing=2), serving():
            await crash_after(1, ValueError("boom"))

    await lab.stop_at(2).run(api, service(bystander))
    assert lab.path("api") == "waiting starting ready stopping failed"
    assert lab.when("api", "failed") == 3
    assert lab.exit_code == 1


# -- stopping --------------------------------------------------------------------------------------------------------


async def test_a_stop_while_starting(lab: Lab) -> None:
    """A service that is starting has 1 s to reach `serving`; then its whole attempt is cancelled."""

    @service
    async def db(serving: Serving[None]) -> None:
        try:
            await anyio.sleep(50)
        finally:
            lab.mark("cancelled")
            await hang(2)

    await lab.stop_at(5).run(db)
    assert lab.path("db") == "waiting starting stopping stopped"
    assert lab.marks == [(6, "cancelled")]
    assert lab.when("db", "stopped") == 8
    assert lab.exit_code == 0


async def test_a_stop_while_starting_that_cannot_be_cut(lab: Lab) -> None:
    """One that ignores its cancellation after that second is given up at the deadline."""

    @service
    async def db(serving: Serving[None]) -> None:
        await hang(50)

    await lab.stop_at(5).run(db)
    assert lab.path("db") == "waiting starting stopping abandoned"
    assert lab.when("db", "abandoned") == 15
    assert lab.exit_code == 3


async def test_a_stop_while_starting_that_reaches_serving(lab: Lab) -> None:
    """One that reaches `serving` within that second closes its resources calmly, and never was ready."""

    @service
    async def db(serving: Serving[None]) -> None:
        async with resource(lab, "pool", opening=5.5, closing=3), serving():
            lab.mark("entered")
            await anyio.lowlevel.checkpoint()
            lab.mark("never")

    await lab.stop_at(5).run(db)
    assert lab.path("db") == "waiting starting stopping stopped"
    assert lab.marks == [(5.5, "pool open"), (5.5, "entered"), (5.5, "pool closing"), (8.5, "pool closed")]
    assert not lab.all_ready


async def test_a_stop_while_starting_that_gives_up_starting(lab: Lab) -> None:
    """One that returns within that second without having served was stopped, and has not failed."""

    @service
    async def db(serving: Serving[None]) -> None:
        await anyio.sleep(5.5)

    await lab.stop_at(5).run(db)
    assert lab.path("db") == "waiting starting stopping stopped"
    assert lab.when("db", "stopped") == 5.5
    assert lab.exit_code == 0


async def test_a_stop_before_the_first_step(lab: Lab) -> None:
    """A service that was launched and asked to stop in one step does not run at all."""

    @service
    async def db(serving: Serving[None]) -> None:
        async with serving():  # launches its dependents
            lab.orchestrator.request_stop("at once")
            await anyio.sleep_forever()

    @service(depends=["db"])
    async def plain() -> None:
        lab.mark("never")

    @service(depends=["db"])
    async def api(serving: Serving[None]) -> None:
        lab.mark("never")

    await lab.run(db, plain, api)
    assert lab.path("plain") == lab.path("api") == "waiting starting stopping stopped"
    assert lab.marks == []
    assert lab.now == 0


async def test_a_oneshot_is_cancelled_at_once(lab: Lab) -> None:
    """A one-shot that runs when the stop comes is cancelled as a whole."""

    @service(oneshot=True)
    async def migrate() -> None:
        await anyio.sleep(50)

    await lab.stop_at(5).run(migrate)
    assert lab.path("migrate") == "waiting starting stopping stopped"
    assert lab.when("migrate", "stopped") == 5


async def test_a_oneshot_that_returns_in_spite_of_the_stop(lab: Lab) -> None:
    """A one-shot that finishes its work from behind a shield is done."""

    @service(oneshot=True)
    async def migrate() -> None:
        await hang(8)

    await lab.stop_at(5).run(migrate)
    assert lab.path("migrate") == "waiting starting stopping done"
    assert lab.when("migrate", "done") == 8


async def test_overran(lab: Lab) -> None:
    """A service whose clean-up takes longer than its stop_timeout is cut there, and has failed."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        try:
            await anyio.sleep(50)  # the slow clean-up
        finally:
            lab.mark("cut")

    await lab.stop_at(5).run(db, service(bystander))
    assert lab.path("db") == "waiting starting ready stopping failed"
    assert lab.marks == [(8, "cut")]
    error = lab.error("db")
    assert isinstance(error, StopTimeout)
    assert error.seconds == pytest.approx(3)
    assert "the slow clean-up" in stood(error.where)
    assert lab.ending("db").reason.startswith("db overran: cancelled 3 s after the stop was requested")
    assert lab.exit_code == 1


async def test_overran_with_permission(lab: Lab) -> None:
    """One that may fail may overrun."""

    @service(stop_timeout=3, allowed_failure=True)
    async def db() -> None:
        await hang(8.5)

    await lab.stop_at(5).run(db, service(bystander))
    assert lab.ending("db").state is State.FAILED
    assert lab.when("db", "failed") == 8.5
    assert lab.exit_code == 0


async def test_what_clean_up_raises_when_it_is_cut(lab: Lab) -> None:
    """What a service raises because it was cut is kept behind "overran"."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        try:
            await anyio.sleep(50)
        finally:
            raise OSError("half written")

    await lab.stop_at(5).run(db, service(bystander))
    error = lab.error("db")
    assert isinstance(error, StopTimeout)
    assert isinstance(error.__cause__, OSError)


async def test_abandoned(lab: Lab) -> None:
    """What ignores even the cut is abandoned, with the line where it stands; its late end is noticed."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await hang(50)

    await lab.stop_at(5).run(db, service(bystander))
    assert lab.path("db") == "waiting starting ready stopping abandoned"
    assert lab.when("db", "abandoned") == 15
    error = lab.error("db")
    assert isinstance(error, Uncancellable)
    assert "await anyio.sleep(seconds)" in stood(error.where)
    assert isinstance(error.__cause__, StopTimeout)
    assert lab.now == 50
    assert lab.notices == ["db: ended after it had been abandoned"]
    assert lab.exit_code == 3


async def test_abandoned_with_permission(lab: Lab) -> None:
    """That one may fail does not hide that it was abandoned."""

    @service(stop_timeout=3, allowed_failure=True)
    async def db() -> None:
        await hang(50)

    await lab.stop_at(5).run(db, service(bystander))
    assert lab.exit_code == 3


async def test_the_deadline_passed(lab: Lab) -> None:
    """A loop that was blocked beyond the deadline makes exit code 3, though every service ended well."""

    @service
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        block_the_loop(11)

    await lab.stop_at(5).run(db, shutdown_timeout=10.0)
    assert lab.ending("db").state is State.STOPPED
    assert lab.report.stopping == pytest.approx(11)
    assert lab.exit_code == 3


# -- context ---------------------------------------------------------------------------------------------------------


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
