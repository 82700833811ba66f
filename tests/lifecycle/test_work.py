"""What `work` offers: `every`, `stopping`, `unready`; in virtual time."""

from __future__ import annotations

import logging
import math
from typing import Any

import anyio
import pytest

from kernel import Serving, Work, service
from kernel.identity import Identity
from kernel.lifecycle.events import Notice
from kernel.observe.status import View
from kernel.testing import FakeServing, State, running

pytestmark = pytest.mark.anyio


async def ticks_of(
    fake: FakeServing, seconds: float, busy: dict[int, float], until: float, **options: Any
) -> list[Any]:
    """The times and numbers of the ticks, where the body of the loop takes so long in tick *busy*."""
    found: list[tuple[float, int]] = []

    async def worker(serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            began = anyio.current_time()
            async for number in work.every(seconds, **options):
                found.append((anyio.current_time() - began, number))
                await anyio.sleep(busy.get(number, 0))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker, fake)
        await anyio.sleep(until)
        fake.stop()
    return found


async def test_ticks_without_drift(fake_serving: FakeServing) -> None:
    """The first at once, the others at whole multiples, whatever the body takes."""
    found = await ticks_of(fake_serving, 10, {0: 3, 1: 9.5}, 35)
    assert found == [(0, 0), (10, 1), (20, 2), (30, 3)]


async def test_a_late_tick_is_skipped(fake_serving: FakeServing) -> None:
    """A body that oversleeps loses ticks; it gets none of them later, and none twice."""
    found = await ticks_of(fake_serving, 10, {1: 25}, 55)
    assert found == [(0, 0), (10, 1), (40, 4), (50, 5)]


async def test_jitter_does_not_add_up(fake_serving: FakeServing) -> None:
    """Each tick is late by at most the jitter, and the hundredth by no more than the first."""
    found = await ticks_of(fake_serving, 10, {}, 1001, jitter=2)
    late = [when - number * 10 for when, number in found]
    assert len(found) >= 100
    assert all(-1e-9 <= one <= 2 for one in late)
    assert len({round(one, 6) for one in late}) > 50


async def test_ticks_end_with_a_stop(fake_serving: FakeServing) -> None:
    """While they wait at once, and after the body where that is running."""
    done: list[str] = []

    async def worker(serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            async for _ in work.every(60):
                await anyio.sleep(5)
                done.append(str(work.stopping))
        done.append("left")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker, fake_serving)
        await anyio.sleep(2)
        fake_serving.stop()
    assert done == ["True", "left"]
    assert anyio.current_time() < 60


@pytest.mark.parametrize(("seconds", "jitter"), [(0, 0), (-1, 0), (math.nan, 0), (math.inf, 0), (1, -1), (1, math.nan)])
async def test_ticks_that_cannot_be(seconds: float, jitter: float, fake_serving: FakeServing) -> None:
    """They are refused where they are written."""
    async with fake_serving() as work:
        with pytest.raises(ValueError, match=r"work\.every"):
            work.every(seconds, jitter=jitter)


async def test_ticks_are_cancelled_with_the_work() -> None:
    """Without drain the loop is cancelled, as any work."""

    @service
    async def worker(serving: Serving[None]) -> None:
        async with serving() as work:
            async for _ in work.every(60):
                pass

    async with running(worker) as run:
        await anyio.sleep(100)
    assert run.states(worker)[-1] is State.STOPPED


async def test_stopping_is_for_loops_that_finish_what_they_have_begun() -> None:
    """False until a stop is requested, and True from then on."""
    seen: list[bool] = []

    @service
    async def consumer(serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            while not work.stopping:
                seen.append(work.stopping)
                await anyio.sleep(10)
            seen.append(work.stopping)

    async with running(consumer) as run:
        await anyio.sleep(25)
    assert seen == [False, False, False, True]
    assert run.states(consumer)[-1] is State.STOPPED


async def test_unready_is_told_and_moves_nothing() -> None:
    """`/readyz` says no and why; the consumer keeps the value; the log has a line for each end; blocks may overlap."""
    handed: list[Work] = []

    @service
    async def cache(serving: Serving[str]) -> None:
        async with serving("value") as work:
            handed.append(work)
            await anyio.sleep_forever()

    @service(depends=[cache])
    async def api(cache: str) -> None:
        await anyio.sleep_forever()

    async with running(cache, api) as run:
        view = View(Identity("app", "1", ""))
        view.orchestrator = run._orchestrator
        view.stats.all_ready = 1.0
        assert view.ready
        with handed[0].unready("redis is away"):
            await anyio.sleep(3)
            with handed[0].unready("and slow"):
                assert view.readiness()[1]["reason"] == "not ready: cache (redis is away; and slow)"
                assert view.status()["services"]["cache"]["reason"] == "redis is away; and slow"
            ready, told = view.readiness()
            assert (ready, told["reason"]) == (False, "not ready: cache (redis is away)")
            assert told["services"]["cache"] == {"state": "ready", "reason": "redis is away"}
            assert view.status()["state"] == "degraded"
        assert view.readiness() == (True, {**view.readiness()[1], "reason": ""})
        assert run.states(cache)[-1] is run.states(api)[-1] is State.READY
    notices = [(event.message, event.calm) for event in run.events if isinstance(event, Notice)]
    assert notices == [
        ("unready, but still serving: redis is away", False),
        ("unready, but still serving: and slow", False),
        ("ready again after 0 s: and slow", True),
        ("ready again after 3 s: redis is away", True),
    ]


async def test_unready_ends_with_a_crash() -> None:
    """The next attempt begins well; nobody says that the one which has crashed was ready again."""
    attempts: list[int] = []

    @service(retries=1)
    async def cache(serving: Serving[None]) -> None:
        async with serving() as work:
            attempts.append(len(attempts))
            if len(attempts) == 1:
                with work.unready("redis is away"):
                    await anyio.sleep(1)
                    raise ConnectionError("it stays away")
            await anyio.sleep_forever()

    async with running(cache) as run:
        await run.wait_for(cache, State.BACKOFF)
        await run.wait_for(cache, State.READY)
        assert run._orchestrator.ready


async def test_a_fake_knows_what_is_withheld(fake_serving: FakeServing, caplog: pytest.LogCaptureFixture) -> None:
    """So that a test of a service alone can look."""
    caplog.set_level(logging.INFO)
    async with fake_serving() as work:
        with work.unready("x"):
            assert list(fake_serving.withheld) == ["x"]
        assert not fake_serving.withheld
