"""What still waits for what, as the operator is told while a start or a stop takes long."""

from __future__ import annotations

import anyio
import pytest

from kernel import Retry, Serving, service, started
from kernel.lifecycle.events import StillWaiting
from tests.harness import Lab, block_the_loop

pytestmark = pytest.mark.anyio


@service(retries=Retry(None, delay=60, jitter=0))
async def flaky(serving: Serving[None]) -> None:
    """Never comes up."""
    raise ConnectionError("refused\nand more")


@service
async def slow(serving: Serving[int]) -> None:
    """Takes its time to come up, and to go."""
    await anyio.sleep(30)
    async with serving(1):
        await anyio.sleep_forever()


@service
async def base(serving: Serving[int]) -> None:
    """Nothing is wrong with it."""
    async with serving(1):
        await anyio.sleep_forever()


@service(depends=[base])
async def lingers(base: int, serving: Serving[None]) -> None:
    """Closes slowly."""
    async with serving():
        await anyio.sleep_forever()
    await anyio.sleep(5)


@service(depends=[slow, flaky, started(base)])
async def front(slow: int) -> None:
    """Waits for two that are not ready."""


@service(depends=[slow])
async def second() -> None:
    """Waits for one of them."""


def told(lab: Lab) -> list[tuple[float, StillWaiting]]:
    """What was told, and when."""
    return [(when, event) for when, event in lab.log if isinstance(event, StillWaiting)]


async def test_a_long_start(lab: Lab) -> None:
    """It is explained after 5 s and whenever it took twice as long, down to the culprits, each described once."""
    await lab.stop_at(25).run(slow, flaky, base, front, second)
    assert [when for when, event in told(lab) if not event.stopping] == [5, 10, 20]
    _, event = told(lab)[1]
    lines = [line.partition(", at ")[0] for line in event.lines]
    assert event.seconds == 10
    assert lines == [
        "front: waiting for 10.0 s",
        "├─ slow: starting for 10.0 s",
        "└─ flaky: backoff for 10.0 s, next try in 20.0 s, last error: ConnectionError: refused",
        "second: waiting for 10.0 s",
        "└─ slow: see above",
    ]
    assert "tests/lifecycle/test_explain.py:24 in slow" in event.lines[1]


async def test_nothing_is_told_of_a_start_that_is_over(lab: Lab) -> None:
    """Nor of a stop that is quick."""
    await lab.stop_at(30).run(base)
    assert not told(lab)


async def test_a_start_timeout_is_explained(lab: Lab) -> None:
    """At once, before the one that took too long is cut."""

    @service(start_timeout=3, allowed_failure=True)
    async def late(serving: Serving[None]) -> None:
        await anyio.sleep(60)

    await lab.stop_at(4).run(late, base)
    ((when, event),) = told(lab)
    assert when == 3
    assert event.lines[0].startswith("late: starting for 3.0 s, at tests/lifecycle/test_explain.py:")


async def test_a_long_stop(lab: Lab) -> None:
    """It is explained after 2 s and whenever it took twice as long: who waits for whom, and where that stands."""
    await lab.stop_at(1).run(base, lingers)
    assert [(when, event.seconds) for when, event in told(lab)] == [(3, 2), (5, 4)]
    (_, event), _ = told(lab)
    assert event.stopping
    assert [line.partition(", at ")[0] for line in event.lines] == [
        "base: ready for 3.0 s",
        "└─ lingers: stopping for 2.0 s",
    ]


async def test_it_rests_under_a_debugger(lab: Lab) -> None:
    """Whoever steps through a start knows what it waits for."""
    await lab.stop_at(30).run(slow, resting=lambda: True)
    assert not told(lab)


async def test_a_large_tree_is_cut(lab: Lab) -> None:
    """Of a thousand that wait for one the first are shown, and the rest is counted."""

    async def waits() -> None:
        """Wait for one that is slow."""

    many = [service(depends=[slow])(waits).named(f"waits-{number}") for number in range(100)]
    await lab.stop_at(6).run(slow, *many)
    ((_, event),) = told(lab)
    assert len(event.lines) == 41
    assert event.lines[-1] == "... and 160 more lines"


async def test_after_a_blocked_loop(lab: Lab) -> None:
    """It is told late, and of what is so then."""

    @service
    async def blocks(serving: Serving[None]) -> None:
        block_the_loop(12)
        await anyio.sleep(1)
        async with serving():
            await anyio.sleep_forever()

    await lab.stop_at(20).run(blocks)
    ((when, event),) = told(lab)
    assert when == event.seconds == 12
