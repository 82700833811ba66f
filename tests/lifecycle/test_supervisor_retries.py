"""One service: when it is tried again."""

from __future__ import annotations

import math

import anyio
import anyio.lowlevel
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.lifecycle.events import State
from tests.harness import Lab, crash_after, hang
from tests.lifecycle.parts import ONCE, Part, chain

pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize(
    ("ready_for", "end"),
    [
        (59.5, "failed"),
        (60, "stopped"),
    ],
)
async def test_the_budget_of_a_consumer_is_full_again_though_it_was_restarted(
    lab: Lab, ready_for: float, end: str
) -> None:
    """Once ready for reset_after, a crash soon after the next restart is the first again."""
    db, cache = chain(db=Part(crashes=(1 + ready_for,)), cache=Part(crashes=(0, math.inf, 1), retries=ONCE))
    await lab.stop_at(100).run(db, cache)
    assert lab.when("cache", "waiting") - lab.when("cache", "ready", 2) == ready_for
    assert lab.ending("cache").state.value == end
