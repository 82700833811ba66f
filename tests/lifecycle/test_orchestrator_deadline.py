"""All services: one deadline, shared out."""

from __future__ import annotations

import anyio
import attrs
import pytest

from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import StopTimeout, Uncancellable
from kernel.lifecycle.events import State
from kernel.lifecycle.units import Unit
from tests.harness import Lab, crash_after
from tests.lifecycle.parts import ONCE, crash_later, named, nothing, provider, sleeper, stubborn

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("seconds", "levels", "r"), [(10, 3, 1.0), (3, 3, 0.5), (10, 1, 1.0), (1, 1, 0.5), (60, 3, 1.0), (0.6, 3, 0.1)]
)
async def test_the_deadline_is_shared_out(lab: Lab, seconds: float, levels: int, r: float) -> None:
    """One with k levels below it is cut at T - (k + 1/2) r and given up at T - k r, with r = min(1 s, T / 2n)."""
    patient = {"stop_timeout": 1000.0}
    chain = [stubborn("s0", **patient), *(stubborn(f"s{k}", f"s{k - 1}", **patient) for k in range(1, levels))]
    await lab.stop_at(5).run(*chain, shutdown_timeout=seconds)
    for k in range(levels):
        assert lab.when(f"s{k}", "abandoned") == pytest.approx(5 + seconds - k * r)
        error = lab.error(f"s{k}")
        assert isinstance(error, Uncancellable)
        cut = error.__cause__
        assert isinstance(cut, StopTimeout)
        assert cut.seconds + lab.when(f"s{k}", "stopping") == pytest.approx(5 + seconds - (k + 0.5) * r)
    assert lab.report.stopping == pytest.approx(seconds)
    assert lab.exit_code == 3


async def test_a_hung_api_never_costs_the_database_its_clean_up(lab: Lab) -> None:
    """Whoever overruns is cut early enough that the levels below it still get their turn."""
    await lab.stop_at(5).run(sleeper("db", closing=0.4), stubborn("api", "db"))
    assert lab.when("api", "abandoned") == 14
    assert lab.when("db", "stopped") == 14.4
    assert lab.ending("db").state is State.STOPPED
    assert lab.exit_code == 3


async def test_the_own_stop_timeout_cuts_earlier(lab: Lab) -> None:
    """A service is cut at the earlier of its stop_timeout and its share of the deadline."""
    await lab.stop_at(5).run(
        sleeper("db"),
        sleeper("short", "db", closing=50, stop_timeout=2),
        sleeper("long", "db", closing=50, stop_timeout=20),
    )
    assert (lab.when("short", "failed"), lab.when("long", "failed")) == (7, 13.5)
    assert lab.ending("db").state is State.STOPPED
    assert lab.exit_code == 1


async def test_only_what_is_alive_counts(lab: Lab) -> None:
    """The longest chain is of those that run: what has ended, or never was started, takes no share."""
    done = named("done", service(oneshot=True)(nothing))
    services = [done, sleeper("a", "done", closing=50), sleeper("slow", "a", opening=50), sleeper("never", "slow")]
    await lab.stop_at(5).run(*services)
    # Alive are a and slow: n = 2, r = 1; slow is stopped within its grace, and a has no level below it.
    assert lab.when("a", "failed") == 14.5


async def test_the_deadline_when_a_failure_began_the_stop(lab: Lab) -> None:
    """It counts on every path, from when the stop was asked for."""
    await lab.run(stubborn("a"), named("bad", service(crash_later)))
    assert lab.when("a", "abandoned") == 12
    assert lab.exit_code == 3


async def test_the_deadline_when_everything_is_done(lab: Lab) -> None:
    """Also what belongs to the kernel has to end in time."""
    await lab.run(Unit(stubborn("admin"), internal=True), named("done", service(nothing)))
    assert lab.when("admin", "abandoned") == 11
    assert lab.exit_code == 3


async def test_clean_up_under_way_is_held_to_the_deadline(lab: Lab) -> None:
    """What was stopping already when the stop came is cut by the deadline too."""

    @service(stop_timeout=60, allowed_failure=True)
    async def a(serving: Serving[None]) -> None:
        async with serving():
            await crash_after(1, ValueError("boom"))

    @service(stop_timeout=60)
    async def b(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep(1)
        await anyio.sleep(100)

    await lab.stop_at(5).run(a, b)
    assert lab.when("b", "failed") == 14.5
    assert lab.exit_code == 1


async def test_a_consumer_that_stops_already_is_held_to_the_deadline(lab: Lab) -> None:
    """So is one that is stopping since its value goes; its own time is no longer for that."""
    api = attrs.evolve(service(depends=["db"], stop_timeout=60)(_slow_consumer), name="api")
    brief = attrs.evolve(service(depends=["db"], stop_timeout=3)(_slow_consumer), name="brief")
    await lab.stop_at(6).run(provider(lab, failing=lambda: True), api, brief)
    assert lab.when("api", "stopping") == lab.when("brief", "stopping") == 5
    assert (lab.when("api", "failed"), lab.when("brief", "failed")) == (14.5, 8)
    assert lab.exit_code == 1


async def _slow_consumer(db: str, serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep_forever()
    await anyio.sleep(50)


async def test_a_start_is_cut_by_the_deadline_too(lab: Lab) -> None:
    """Where the shutdown has less than the second that a service has to reach `serving`, the shutdown decides."""
    await lab.stop_at(5).run(sleeper("slow", opening=50), shutdown_timeout=1)
    assert lab.when("slow", "stopped") == 5.75


async def test_no_time_is_enough_when_nothing_runs(lab: Lab) -> None:
    """A timeout of 0 is not passed by an app that has ended by then."""
    await lab.run(named("a", service(nothing)), shutdown_timeout=0)
    assert not lab.report.late
    assert lab.exit_code == 0


async def test_no_time_at_all(lab: Lab) -> None:
    """A timeout of 0 cuts and gives up at once."""
    await lab.stop_at(5).run(sleeper("a", closing=1), shutdown_timeout=0)
    assert lab.when("a", "abandoned") == 5
    assert lab.exit_code == 3


async def test_deadlines_rest_for_a_debugger(lab: Lab) -> None:
    """With a debugger attached nothing is cut; retries and the drain delay go on."""

    @service(retries=ONCE)
    async def flaky(serving: Serving[None]) -> None:
        if lab.now < 1:
            raise ValueError
        async with serving():
            await anyio.sleep_forever()

    slow = sleeper("slow", opening=100, start_timeout=5)
    await lab.stop_at(200).run(flaky, slow, sleeper("db", closing=50), resting=lambda: True, drain_delay=1)
    assert lab.when("flaky", "ready") == 1
    assert lab.when("slow", "ready") == 100
    assert lab.when("db", "stopped") == 251
    assert lab.exit_code == 0
