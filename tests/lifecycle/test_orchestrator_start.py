"""All services: who starts when, and when all are ready."""

from __future__ import annotations

import anyio
import attrs
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import service, started
from kernel.declare.serving import Serving
from kernel.lifecycle.events import State
from kernel.lifecycle.units import Unit
from tests.harness import Lab, crash_after
from tests.lifecycle.parts import Config, crashing_at, fail, named, nothing, provider, sleeper

pytestmark = pytest.mark.anyio


# -- start -------------------------------------------------------------------------------------------------------------


async def test_start_is_dataflow(lab: Lab) -> None:
    """A service starts the moment its own dependencies are ready; nothing waits for a level."""
    services = [
        sleeper("slow", opening=10),
        sleeper("fast", opening=1),
        sleeper("after-fast", "fast", opening=1),
        sleeper("after-that", "after-fast"),
        sleeper("after-both", "slow", "after-fast"),
    ]
    await lab.stop_at(20).run(*services)
    assert [lab.when(one.name, "starting") for one in services] == [0, 0, 1, 2, 10]
    assert lab.all_ready[0].seconds == pytest.approx(10)
    assert lab.all_ready[0].chain == ("slow", "after-both")


async def test_the_order_in_which_services_are_given_means_nothing(lab: Lab) -> None:
    """A dependent may be given before what it depends on."""
    await lab.stop_at(5).run(sleeper("b", "a"), sleeper("a", opening=1))
    assert lab.order("starting") == ["a", "b"]


async def test_values_are_handed_over(lab: Lab) -> None:
    """A parameter that is named after a dependency takes the value that it serves; config comes from the unit."""
    got: dict[str, object] = {}

    @service
    async def the_db(serving: Serving[list[int]]) -> None:
        async with serving([1, 2]):
            await anyio.sleep(5)

    @service(depends=["the-db"])
    async def api(config: Config, the_db: list[int], other: int = 7, *, serving: Serving[None]) -> None:
        got.update(config=config, the_db=the_db, other=other)
        async with serving():
            await anyio.sleep(1)

    await lab.run(the_db, Unit(api, config=Config(80)))
    assert got == {"config": Config(80), "the_db": [1, 2], "other": 7}


async def test_started_waits_for_the_launch_only(lab: Lab) -> None:
    """An edge of `started` is met when the other is launched, and stays met whatever becomes of it."""

    @service(retries=Retry(times=1, delay=5, jitter=0))
    async def db(serving: Serving[None]) -> None:
        await crash_after(1, ValueError())

    one = named("one", service(depends=[started("db")])(nothing))
    two = named("two", service(depends=[started("db"), "slow"])(nothing))
    db = attrs.evolve(db, allowed_failure=True)
    await lab.stop_at(20).run(db, one, two, sleeper("slow", opening=3))
    assert lab.when("one", "starting") == 0
    assert lab.when("two", "starting") == 3


async def test_started_by_a_service_that_is_never_launched(lab: Lab) -> None:
    """A dependency that ends without having been launched lets go those who wait for its launch."""

    @service(allowed_failure=True)
    async def db(serving: Serving[str]) -> None:
        raise ValueError

    @service(depends=["db"], allowed_failure=True)
    async def consumer(db: str) -> None:
        lab.mark("never")

    @service(depends=[started("consumer")])
    async def watcher() -> None:
        lab.mark("watches")

    await lab.run(db, consumer, watcher)
    assert lab.path("consumer") == "waiting failed"
    assert lab.marked == ["watches"]
    assert lab.notices == ["watcher: starting even though consumer failed"]


@pytest.mark.parametrize("delay", [1, 20])
async def test_started_stays_met(lab: Lab, delay: float) -> None:
    """A crash of what was launched, and its next attempt, change nothing for who waits for the launch only."""
    late = named("late", service(depends=[started("db"), "slow"])(nothing))
    db = provider(lab, failing=lambda: lab.now < 4, retries=Retry(times=1, delay=delay, jitter=0))
    await lab.stop_at(40).run(db, sleeper("slow", opening=9), late)
    assert lab.when("db", "backoff") == 6
    assert lab.when("late", "starting") == 9


async def test_started_is_met_once(lab: Lab) -> None:
    """The end of what was launched meets it no second time: the dependent still waits for the others."""
    late = named("late", service(depends=[started("quick"), "slow"])(nothing))
    await lab.stop_at(20).run(named("quick", service(nothing)), sleeper("slow", opening=9), late)
    assert lab.when("quick", "done") == 1
    assert lab.when("late", "starting") == 9


async def test_oneshots_come_before_their_dependents(lab: Lab) -> None:
    """A dependent of a one-shot starts when that has returned well, and it does not matter that it is gone."""
    migrate = service(oneshot=True)(nothing)
    await lab.stop_at(9).run(named("migrate", migrate), sleeper("api", "migrate"), sleeper("late", "api", "migrate"))
    assert lab.when("api", "starting") == 1
    assert lab.notices == []
    assert lab.exit_code == 0


async def test_a_oneshot_that_failed_with_permission(lab: Lab) -> None:
    """Its dependents start with a warning."""

    @service(oneshot=True, allowed_failure=True)
    async def migrate() -> None:
        raise ValueError("no")

    await lab.stop_at(3).run(migrate, sleeper("api", "migrate"))
    assert lab.ending("api").state is State.STOPPED
    assert lab.notices == ["api: starting even though migrate failed"]
    assert lab.exit_code == 0


async def test_readiness_is_withdrawn(lab: Lab) -> None:
    """A crashed just before B became ready; C waits for both, until both are ready at once."""
    await lab.stop_at(20).run(crashing_at("a", 2.9), sleeper("b", opening=3), sleeper("c", "a", "b"))
    assert lab.when("b", "ready") == 3
    assert lab.when("c", "starting") == pytest.approx(12.9)


async def test_a_retry_checks_its_dependencies_again(lab: Lab) -> None:
    """A new attempt waits until the dependencies are ready again, at no cost in retries."""

    @service(depends=["a"], retries=Retry(times=1, delay=4, jitter=0))
    async def c() -> None:
        if lab.now < 3:
            await crash_after(3, ValueError())
        await anyio.sleep_forever()

    await lab.stop_at(20).run(crashing_at("a", 2), c)
    assert lab.path("c") == ("waiting starting ready stopping backoff waiting starting ready stopping stopped")
    assert (lab.when("c", "waiting"), lab.when("c", "starting", 2)) == (7, 12)
    assert lab.ending("c").attempts == 2


async def test_after_a_crash_it_is_not_ready_until_it_serves_again(lab: Lab) -> None:
    """What starts while its dependency is in backoff waits."""
    await lab.stop_at(20).run(crashing_at("a", 2), sleeper("b", opening=5), sleeper("c", "b", "a"))
    assert lab.when("c", "starting") == 12


# -- all ready ---------------------------------------------------------------------------------------------------------


async def test_all_ready_names_the_chain(lab: Lab) -> None:
    """It tells the time and the services that took it, each having waited for the one before."""
    services = [sleeper("a", opening=1), sleeper("b", "a", opening=2), sleeper("c", "a"), sleeper("d", "c", "b")]
    await lab.stop_at(9).run(*services)
    assert lab.all_ready[0].seconds == pytest.approx(3)
    assert lab.all_ready[0].chain == ("a", "b", "d")


async def test_all_ready_comes_once(lab: Lab) -> None:
    """A service that crashes and comes back does not make all ready a second time."""

    @service(retries=5)
    async def a(serving: Serving[None]) -> None:
        async with serving():
            await crash_after(2, ValueError())

    await lab.stop_at(20).run(a, sleeper("b"))
    assert len(lab.all_ready) == 1


async def test_all_ready_waits_for_those_that_come_back(lab: Lab) -> None:
    """Ready, done, or failed with permission, all at the same time."""
    failed = named("failed", service(allowed_failure=True)(fail))
    done = named("done", service(nothing))
    await lab.stop_at(20).run(crashing_at("a", 2), failed, done, sleeper("b", opening=5))
    assert lab.all_ready[0].seconds == pytest.approx(12)


async def test_never_all_ready(lab: Lab) -> None:
    """What stops before all are ready was never all ready."""
    await lab.stop_at(1).run(sleeper("a"), sleeper("b", opening=5))
    assert lab.all_ready == []


async def test_the_kernels_own_services_do_not_count(lab: Lab) -> None:
    """They count neither in "all ready", nor in "everything done", nor in "every service failed"."""
    admin = Unit(sleeper("admin", opening=50), internal=True)
    await lab.run(admin, named("done", service(nothing)))
    assert lab.all_ready[0].seconds == 0
    assert lab.stop_began.reason == "every service has ended"
    assert lab.stopped_at == 1
    assert lab.exit_code == 0

    other = Lab()
    failed = named("failed", service(allowed_failure=True)(fail))
    await other.run(Unit(sleeper("admin"), internal=True), failed)
    assert other.exit_code == 1


async def test_after_orders_internal_services(lab: Lab) -> None:
    """A unit starts after the internal services that it is told to, and ends before them."""
    lifespan = Unit(sleeper("lifespan", opening=3, closing=1), internal=True)
    await lab.stop_at(5).run(lifespan, Unit(sleeper("api", closing=2), after=("lifespan",)))
    assert lab.when("api", "starting") == 3
    assert lab.all_ready[0].chain == ("api",)
    assert (lab.when("api", "stopped"), lab.when("lifespan", "stopped")) == (7, 8)


async def test_an_internal_service_that_fails(lab: Lab) -> None:
    """A hook that fails before its `yield` lets nothing start, and makes exit code 1."""
    lifespan = named("lifespan", service(_fail_before_serving))
    await lab.run(Unit(lifespan, internal=True), Unit(sleeper("api"), after=("lifespan",)))
    assert lab.path("api") == "waiting stopped"
    assert lab.report.first == "lifespan"
    assert lab.exit_code == 1


async def _fail_before_serving(serving: Serving[None]) -> None:
    raise ValueError("boom")
