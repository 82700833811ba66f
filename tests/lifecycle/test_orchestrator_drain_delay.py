"""All services: the drain delay."""

from __future__ import annotations

import anyio
import pytest

from kernel.declare.service import service
from kernel.lifecycle.events import StillWaiting
from tests.harness import Lab
from tests.lifecycle.parts import ONCE, crash_later, fail, named, nothing, provider, sleeper, stubborn

pytestmark = pytest.mark.anyio


async def test_the_drain_delay(lab: Lab) -> None:
    """On a requested stop nothing is launched any more, but what runs goes on for the delay; the deadline counts it."""
    await lab.stop_at(5).run(sleeper("a", closing=3), sleeper("b", opening=50), sleeper("c", "b"), drain_delay=2)
    assert lab.stopped_at == 5
    assert lab.when("c", "stopped") == 5
    assert lab.when("a", "stopping") == 7
    assert lab.report.stopping == pytest.approx(5)


async def test_the_loop_is_older_than_the_app(lab: Lab) -> None:
    """All times count from the begin of the app, or of the stop, not from that of the loop's clock."""
    await anyio.sleep(1000)
    slow = sleeper("slow", opening=12, closing=5)
    bad = named("bad", service(allowed_failure=True, retries=ONCE)(fail))
    await lab.stop_at(20).run(slow, bad, stubborn("stone", "slow"), drain_delay=1)
    told = [(when, one.seconds) for when, one in lab.log if isinstance(one, StillWaiting)]
    assert told == [(5, 5), (10, 10), (22, 2), (24, 4), (28, 8)]
    assert lab.all_ready[0].seconds == 12
    assert lab.when("bad", "failed") == 1
    assert (lab.when("stone", "stopping"), lab.when("stone", "abandoned")) == (21, 29)
    assert (lab.when("slow", "stopping"), lab.when("slow", "failed")) == (29, 29.5)
    assert (lab.report.seconds, lab.report.stopping) == (29.5, 9.5)
    assert lab.ending("slow").uptime == 17
    assert not lab.report.late


async def test_the_drain_delay_counts_towards_the_deadline(lab: Lab) -> None:
    """The budget that is shared out is what the delay has left."""
    await lab.stop_at(0).run(stubborn("a"), stubborn("b", "a"), drain_delay=8, shutdown_timeout=10)
    # 2 s are left for 2 levels: r = 0.5 s
    assert (lab.when("b", "abandoned"), lab.when("a", "abandoned")) == (9.5, 10)


async def test_a_failure_waits_for_no_drain_delay(lab: Lab) -> None:
    """A failure stops at once; and one during the delay ends it."""
    await lab.run(named("bad", service(crash_later)), sleeper("a"), drain_delay=5)
    assert lab.when("a", "stopping") == 2

    other = Lab()
    await other.stop_at(1).run(named("bad", service(crash_later)), sleeper("a"), drain_delay=5)
    assert other.when("a", "stopping") == 2
    assert other.exit_code == 1


async def test_the_deadline_is_shared_out_once(lab: Lab) -> None:
    """When a failure has ended the drain delay, the moment at which it would have ended changes nothing."""
    bad = named("bad", service(crash_later))
    chain = [stubborn("a", stop_timeout=60), stubborn("b", "a", stop_timeout=60)]
    await lab.stop_at(1).run(bad, *chain, drain_delay=4.5, shutdown_timeout=6)
    assert (lab.when("b", "abandoned"), lab.when("a", "abandoned")) == (6, 7)


async def test_everything_ends_during_the_drain_delay(lab: Lab) -> None:
    """When nothing runs any more the delay is over."""
    await lab.stop_at(0.5).run(named("a", service(oneshot=True)(nothing)), sleeper("b", "a"), drain_delay=5)
    assert lab.now == 1
    assert lab.exit_code == 0


async def test_a_value_that_goes_during_the_drain_delay(lab: Lab) -> None:
    """Its consumers are stopped as always, but none waits for its return."""

    @service(depends=["db"])
    async def api(db: str) -> None:
        await anyio.sleep_forever()

    await lab.stop_at(4).run(provider(lab, failing=lambda: True, retries=9), api, sleeper("x"), drain_delay=5)
    assert lab.path("api") == "waiting starting ready stopping waiting stopped"
    assert lab.path("db") == "waiting starting ready stopping failed"
    assert lab.ending("api").reason == ""
    assert (lab.when("api", "stopped"), lab.when("x", "stopping")) == (5, 6)
