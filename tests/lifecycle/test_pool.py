"""A naive service that holds a pool with tasks of its own closes it whole on every path on which the pool is sound."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import anyio
import attrs
import pytest
from anyio.abc import ObjectReceiveStream

from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving, Work
from kernel.declare.signature import Edge, Needs
from kernel.lifecycle.events import State
from kernel.lifecycle.units import Unit
from kernel.run.runner import around, command_unit
from tests.harness import Lab, crash_after, hang

pytestmark = pytest.mark.anyio

Lifespan: TypeAlias = Callable[[], AsyncGenerator[None, None]]
ONCE = Retry(times=1, delay=1, jitter=0)


class Pool:
    """Answers through a background task, so that whoever asks it once that is gone gets no answer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._ask, self._asked = anyio.create_memory_object_stream[anyio.Event](0)

    async def answer(self) -> None:
        """Be the background task."""
        asked: ObjectReceiveStream[anyio.Event]
        async with self._asked as asked:
            async for answered in asked:
                await anyio.sleep(0.1)
                answered.set()

    async def ask(self) -> None:
        """Wait for an answer; `anyio.BrokenResourceError` when nobody will give it."""
        answered = anyio.Event()
        await self._ask.send(answered)
        await answered.wait()

    def close(self) -> None:
        """Let no more questions come."""
        self._ask.close()


@attrs.define(eq=False)
class Stage:
    """The pool's service, two consumers of it, and what happens to them. Times are in seconds.

    What goes wrong goes wrong at 5, and only in the first attempt.
    """

    lab: Lab
    opening: float = 0.0
    work: str = "sleeps"  # crashes, returns, interrupts, or its background task crashes
    breaks: bool = False  # whether a task of the pool itself crashes
    options: dict[str, Any] = attrs.field(factory=dict)
    consumer: str = "sleeps"  # crashes, hangs, overruns, starts slowly; or both return
    retries: int | Retry = 0  # of the consumer
    pools: int = 0

    @asynccontextmanager
    async def open_pool(self) -> AsyncIterator[Pool]:
        """A pool, which says goodbye through its own background task."""
        await anyio.sleep(self.opening)
        self.pools += 1
        pool = Pool(self.pools)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.answer)
            if self.breaks and pool.number == 1:
                tasks.start_soon(crash_after, 5, OSError("connection lost"))
            await pool.ask()
            self.lab.mark(f"pool {pool.number} open")
            try:
                yield pool
            finally:
                self.lab.mark(f"pool {pool.number} closing")
                try:
                    await pool.ask()
                    self.lab.mark(f"pool {pool.number} whole")
                finally:
                    pool.close()
                    tasks.cancel_scope.cancel()

    def units(self) -> list[Unit]:
        """The pool's service, and its consumers."""
        open_pool, do_its_work = self.open_pool, self.do_its_work

        # At most 15 lines, by somebody who has not thought of any of this.
        @service(**self.options)
        async def pool(serving: Serving[Pool]) -> None:
            async with open_pool() as opened, serving(opened) as work:
                await do_its_work(work)

        @service(depends=["pool"], stop_timeout=2, retries=self.retries)
        async def one(pool: Pool, serving: Serving[None]) -> None:
            await self.hold("one", self.consumer, pool, serving)

        @service(depends=["pool"])
        async def two(pool: Pool, serving: Serving[None]) -> None:
            await self.hold("two", "returns" if self.consumer == "returns" else "sleeps", pool, serving)

        return [Unit(pool, internal=self.consumer == "returns"), Unit(one), Unit(two)]

    async def do_its_work(self, work: Work) -> None:
        """The work of the pool's service."""
        if self.pools > 1 or self.work == "sleeps":
            await anyio.sleep_forever()
        elif self.work == "crashes in the background":
            work.start_soon(crash_after, 5, ValueError("boom"))
            await anyio.sleep_forever()
        await anyio.sleep(5)
        if self.work != "returns":
            raise KeyboardInterrupt if self.work == "interrupts" else ValueError("boom")

    async def hold(self, name: str, how: str, pool: Pool, serving: Serving[None]) -> None:
        """Use the pool to the very end."""
        self.lab.mark(f"{name} takes {pool.number}")
        try:
            await anyio.sleep(50 if how == "starts slowly" else 0)
            async with serving():
                if how == "hangs":
                    await hang(100)
                await anyio.sleep(5 if how in {"crashes", "returns"} and self.lab.now < 5 else math.inf)
                if how == "crashes":
                    raise ValueError("boom")
        finally:
            try:
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await pool.ask()  # say, to write the rest, and to wait until it is written
                    self.lab.mark(f"{name} used {pool.number}")
                await anyio.sleep(100 if how == "overruns" else 0)
            finally:
                self.lab.mark(f"{name} leaves {pool.number}")


# -- what else runs --------------------------------------------------------------------------------------------------


def third(error: BaseException | None = None, **options: Any) -> list[Unit]:
    """A service that has nothing to do with the pool, and fails or never is ready."""

    async def fails() -> None:
        await (crash_after(5, error) if error else anyio.sleep_forever())

    return [Unit(attrs.evolve(service(**options)(fails), name="third"))]


def command() -> list[Unit]:
    """A command that asks for the pool, and returns."""

    async def use(pool: Pool) -> None:
        await anyio.sleep(5)
        await pool.ask()

    return [command_unit("pool use", Needs(edges=(Edge("pool", parameter="pool"),)), use)]


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def lifespan(fails: str) -> Lifespan:
    """A lifespan that fails before its `yield`, meanwhile, or after it."""

    async def hook() -> AsyncGenerator[None, None]:
        if fails == "before":
            raise OSError("no disk")
        async with anyio.create_task_group() if fails == "meanwhile" else _nothing() as tasks:
            if tasks is not None:
                tasks.start_soon(crash_after, 5, OSError("disk full"))
            yield
        raise OSError("no disk")

    return hook


# -- the paths -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Path:
    """One way on which it all may end.

    Args:
        code: The exit code.
        pools: How many pools are opened, and closed whole.
        broken: How many of them are not whole.
        stage: What is odd about the pool and its consumers.
        others: What runs besides.
        lifespan: What surrounds it all.
        stop: When a signal comes, in seconds.
        drain_delay: In seconds.
        unused: Consumers that cannot use the pool any more as they end.
        ends: In which states services end that are not stopped.

    """

    code: int = 0
    pools: int = 1
    broken: int = 0
    stage: dict[str, Any] = attrs.field(factory=dict)
    others: list[Unit] = attrs.field(factory=list)
    lifespan: Lifespan | None = None
    stop: float | None = None
    drain_delay: float = 0.0
    unused: frozenset[str] = frozenset()
    ends: dict[str, str] = attrs.field(factory=dict)


LOST = {"one": "failed", "two": "failed"}
RETRY = {"options": {"retries": ONCE}}
BOOM = ValueError("boom")
PATHS = {
    "signal": Path(stop=5),
    "drain delay": Path(stop=5, drain_delay=2),
    "everything done": Path(stage={"consumer": "returns"}, ends={"one": "done", "two": "done"}),
    "a command has ended": Path(others=command(), ends={"pool use": "done"}),
    "another fails": Path(1, others=third(BOOM), ends={"third": "failed"}),
    "another fails with permission": Path(stop=9, others=third(BOOM, allowed_failure=True), ends={"third": "failed"}),
    "another is not ready in time": Path(1, others=third(oneshot=True, start_timeout=5), ends={"third": "failed"}),
    "another interrupts": Path(others=third(KeyboardInterrupt())),
    "another exits": Path(1, others=third(SystemExit(0)), ends={"third": "failed"}),
    "its work crashes": Path(1, stage={"work": "crashes"}, ends={"pool": "failed"}),
    "its work crashes, with permission": Path(
        1, stage={"work": "crashes", "options": {"allowed_failure": True}}, ends={"pool": "failed", **LOST}
    ),
    "its work crashes, and is retried": Path(pools=2, stop=20, stage={"work": "crashes", **RETRY}),
    "its background task crashes": Path(1, stage={"work": "crashes in the background"}, ends={"pool": "failed"}),
    "its background task crashes, and is retried": Path(
        pools=2, stop=20, stage={"work": "crashes in the background", **RETRY}
    ),
    "its work returns": Path(1, stage={"work": "returns"}, ends={"pool": "done", **LOST}),
    "its work interrupts": Path(stage={"work": "interrupts"}),
    "a consumer crashes": Path(1, stage={"consumer": "crashes"}, ends={"one": "failed"}),
    "a consumer crashes, and is retried": Path(stop=20, stage={"consumer": "crashes", "retries": ONCE}),
    "a consumer overruns": Path(1, stop=5, stage={"consumer": "overruns"}, ends={"one": "failed"}),
    "a consumer overruns as the work crashes": Path(
        1, stage={"consumer": "overruns", "work": "crashes", **RETRY}, ends={"one": "failed", "pool": "failed"}
    ),
    "a consumer hangs": Path(
        3, stop=5, stage={"consumer": "hangs"}, unused=frozenset({"one"}), ends={"one": "abandoned"}
    ),
    "a consumer is starting": Path(stop=5, stage={"consumer": "starts slowly"}, unused=frozenset({"one"})),
    "a consumer is starting as the work crashes": Path(
        pools=2, stop=20, stage={"consumer": "starts slowly", "work": "crashes", **RETRY}, unused=frozenset({"one"})
    ),
    "the pool is opening": Path(pools=0, stop=5, stage={"opening": 50}),
    "the pool is nearly open": Path(stop=5, stage={"opening": 5.5}),
    "the pool is not open in time": Path(
        1, pools=0, stage={"opening": 50, "options": {"start_timeout": 5}}, ends={"pool": "failed"}
    ),
    "the lifespan fails before its yield": Path(
        1, pools=0, lifespan=lifespan("before"), ends={"app/init.py:hook": "failed"}
    ),
    "the lifespan fails meanwhile": Path(1, lifespan=lifespan("meanwhile"), ends={"app/init.py:hook": "failed"}),
    "the lifespan fails after its yield": Path(
        1, stop=5, lifespan=lifespan("after"), ends={"app/init.py:hook": "failed"}
    ),
    "the pool breaks": Path(1, broken=1, stage={"breaks": True}, ends={"pool": "failed"}),
    "the pool breaks, and is retried": Path(pools=2, broken=1, stop=20, stage={"breaks": True, **RETRY}),
}


@pytest.mark.parametrize("name", PATHS)
async def test_the_pool_closes_whole_after_its_consumers(lab: Lab, name: str) -> None:
    """Every pool that was opened says goodbye, unless it broke; each consumer has used it before, and has left it."""
    path = PATHS[name]
    stage = Stage(lab, **path.stage)
    units = [*stage.units(), *path.others]
    if path.lifespan:
        units = around(units, [path.lifespan], "app/init.py")
    if path.stop is not None:
        lab.stop_at(path.stop)
    await lab.run(*units, drain_delay=path.drain_delay)

    marked = lab.marked
    assert sum(mark.endswith("open") for mark in marked) == path.pools
    assert sum(mark.endswith("whole") for mark in marked) == path.pools - path.broken
    for number in range(1, path.pools + 1):
        closing = marked.index(f"pool {number} closing")
        for consumer in ("one", "two"):
            taken, left = f"{consumer} takes {number}", f"{consumer} leaves {number}"
            before = marked[:closing]
            if taken not in before:
                continue
            if lab.ending(consumer).state is State.ABANDONED:
                assert lab.when(consumer, "abandoned") <= lab.marked_at(f"pool {number} closing")
                continue
            assert before.count(left) == marked.count(taken)
            if consumer not in path.unused and number > path.broken:
                assert before.count(f"{consumer} used {number}") == marked.count(taken)
    ends = {ending.service: ending.state.value for ending in lab.report.endings}
    assert ends == {**dict.fromkeys(ends, "stopped"), **path.ends}
    assert lab.exit_code == path.code


@pytest.mark.parametrize(("second", "whole"), [(5.15, 0), (5.3, 1)], ids=["while it closes", "when it has closed"])
async def test_a_second_signal_cuts_the_pool_too(lab: Lab, second: float, whole: int) -> None:
    """It cuts everything now: what is not closed yet is not closed whole."""

    @service
    async def lingers(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        await anyio.sleep(50)

    await lab.stop_at(5).force_at(second).run(*Stage(lab).units(), lingers)
    assert lab.marked.count("pool 1 whole") == whole
    assert lab.now == second
    assert lab.exit_code == 130
