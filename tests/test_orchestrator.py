"""All services together: who starts when, who stops when, and how it all ends."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import Service, service, started
from kernel.declare.serving import Serving
from kernel.errors import CycleError, StartTimeout, StopTimeout, Uncancellable, ValueLost
from kernel.lifecycle.events import AllReady, Ending, Event, Forced, Notice, State, StillWaiting, Transition
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.report import Report
from kernel.lifecycle.units import Unit
from tests.harness import Lab, block_the_loop, crash_after, hang, marking, resource

pytestmark = pytest.mark.anyio

ONCE = Retry(times=1, delay=1, jitter=0)
AnyService = Service[..., Any]


def sleeper(name: str, *depends: str, opening: float = 0.0, closing: float = 0.0, **options: Any) -> AnyService:
    """A service that takes time to start and to stop, and hands over its name."""

    async def sleep(serving: Serving[str]) -> None:
        await anyio.sleep(opening)
        async with serving(name):
            await anyio.sleep_forever()
        await anyio.sleep(closing)

    return named(name, service(depends=depends, **options)(sleep))


def stubborn(name: str, *depends: str, seconds: float = 100.0, **options: Any) -> AnyService:
    """A service that ignores every cancellation for so long once it works."""

    async def resist(serving: Serving[str]) -> None:
        async with serving(name):
            await hang(seconds)

    return named(name, service(depends=depends, **options)(resist))


def named(name: str, one: AnyService) -> AnyService:
    """The service under another name."""
    return attrs.evolve(one, name=name)


@attrs.frozen
class Config:
    """The config of some service."""

    port: int = 0


# -- start -----------------------------------------------------------------------------------------------------------


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

    one = named("one", service(depends=[started("db")])(_nothing))
    two = named("two", service(depends=[started("db"), "slow"])(_nothing))
    db = attrs.evolve(db, allowed_failure=True)
    await lab.stop_at(20).run(db, one, two, sleeper("slow", opening=3))
    assert lab.when("one", "starting") == 0
    assert lab.when("two", "starting") == 3


async def _nothing() -> None:
    await anyio.sleep(1)


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
    late = named("late", service(depends=[started("db"), "slow"])(_nothing))
    db = provider(lab, failing=lambda: lab.now < 4, retries=Retry(times=1, delay=delay, jitter=0))
    await lab.stop_at(40).run(db, sleeper("slow", opening=9), late)
    assert lab.when("db", "backoff") == 6
    assert lab.when("late", "starting") == 9


async def test_started_is_met_once(lab: Lab) -> None:
    """The end of what was launched meets it no second time: the dependent still waits for the others."""
    late = named("late", service(depends=[started("quick"), "slow"])(_nothing))
    await lab.stop_at(20).run(named("quick", service(_nothing)), sleeper("slow", opening=9), late)
    assert lab.when("quick", "done") == 1
    assert lab.when("late", "starting") == 9


async def test_oneshots_come_before_their_dependents(lab: Lab) -> None:
    """A dependent of a one-shot starts when that has returned well, and it does not matter that it is gone."""
    migrate = service(oneshot=True)(_nothing)
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

    @service(retries=Retry(times=1, delay=10, jitter=0))
    async def a(serving: Serving[None]) -> None:
        async with serving():
            if lab.now < 2:
                await crash_after(2.9, ValueError())
            await anyio.sleep_forever()

    await lab.stop_at(20).run(a, sleeper("b", opening=3), sleeper("c", "a", "b"))
    assert lab.when("b", "ready") == 3
    assert lab.when("c", "starting") == pytest.approx(12.9)


async def test_a_retry_checks_its_dependencies_again(lab: Lab) -> None:
    """A new attempt waits until the dependencies are ready again, at no cost in retries."""

    @service(retries=Retry(times=1, delay=10, jitter=0))
    async def a(serving: Serving[None]) -> None:
        async with serving():
            if lab.now < 2:
                await crash_after(2, ValueError())
            await anyio.sleep_forever()

    @service(depends=["a"], retries=Retry(times=1, delay=4, jitter=0))
    async def c() -> None:
        if lab.now < 3:
            await crash_after(3, ValueError())
        await anyio.sleep_forever()

    await lab.stop_at(20).run(a, c)
    assert lab.path("c") == ("waiting starting ready stopping backoff waiting starting ready stopping stopped")
    assert (lab.when("c", "waiting"), lab.when("c", "starting", 2)) == (7, 12)
    assert lab.ending("c").attempts == 2


async def test_after_a_crash_it_is_not_ready_until_it_serves_again(lab: Lab) -> None:
    """What starts while its dependency is in backoff waits."""

    @service(retries=Retry(times=1, delay=10, jitter=0))
    async def a(serving: Serving[None]) -> None:
        async with serving():
            if lab.now < 2:
                await crash_after(2, ValueError())
            await anyio.sleep_forever()

    await lab.stop_at(20).run(a, sleeper("b", opening=5), sleeper("c", "b", "a"))
    assert lab.when("c", "starting") == 12


# -- all ready -------------------------------------------------------------------------------------------------------


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

    @service(retries=Retry(times=1, delay=10, jitter=0))
    async def a(serving: Serving[None]) -> None:
        async with serving():
            if lab.now < 2:
                await crash_after(2, ValueError())
            await anyio.sleep_forever()

    failed = named("failed", service(allowed_failure=True)(_fail))
    done = named("done", service(_nothing))
    await lab.stop_at(20).run(a, failed, done, sleeper("b", opening=5))
    assert lab.all_ready[0].seconds == pytest.approx(12)


async def _fail() -> None:
    raise ValueError("boom")


async def test_never_all_ready(lab: Lab) -> None:
    """What stops before all are ready was never all ready."""
    await lab.stop_at(1).run(sleeper("a"), sleeper("b", opening=5))
    assert lab.all_ready == []


async def test_the_kernels_own_services_do_not_count(lab: Lab) -> None:
    """They count neither in "all ready", nor in "everything done", nor in "every service failed"."""
    admin = Unit(sleeper("admin", opening=50), internal=True)
    await lab.run(admin, named("done", service(_nothing)))
    assert lab.all_ready[0].seconds == 0
    assert lab.stop_began.reason == "every service has ended"
    assert lab.stopped_at == 1
    assert lab.exit_code == 0

    other = Lab()
    failed = named("failed", service(allowed_failure=True)(_fail))
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


# -- failures --------------------------------------------------------------------------------------------------------


async def test_a_fatal_failure_stops_the_app_in_mid_start(lab: Lab) -> None:
    """Nothing is launched after it, and dependents of what failed are never started."""
    doomed = named("doomed", service(_crash_later))
    services = [doomed, sleeper("other", opening=50), sleeper("dependent", "doomed"), sleeper("later", "other")]
    await lab.run(*services)
    assert lab.path("dependent") == lab.path("later") == "waiting stopped"
    assert lab.ending("later").reason == "never started"
    assert lab.ending("later").attempts == 0
    assert attrs.astuple(lab.stop_began) == ("doomed failed", 10.0, True)
    assert lab.stopped_at == 2
    assert lab.report.first == "doomed"
    assert lab.report.reason == "doomed failed"
    assert lab.exit_code == 1


async def _crash_later(serving: Serving[str]) -> None:
    await crash_after(2, ValueError("boom"))


async def test_an_allowed_failure_is_a_warning(lab: Lab) -> None:
    """The rest runs on; dependents that only wanted the order start."""
    flaky = named("flaky", service(allowed_failure=True)(_crash_later))
    await lab.stop_at(9).run(flaky, sleeper("other"), sleeper("dependent", "flaky"))
    assert lab.when("dependent", "starting") == 2
    assert lab.notices == ["dependent: starting even though flaky failed"]
    assert lab.all_ready[0].chain == ("flaky", "dependent")
    assert lab.report.first == "flaky"
    assert lab.exit_code == 0


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_dependent_that_needs_the_value_of_what_failed(lab: Lab, allowed: bool) -> None:
    """It fails with that reason, without retries, under its own allowance."""
    flaky = named("flaky", service(allowed_failure=True)(_crash_later))

    @service(depends=["flaky"], retries=5, allowed_failure=allowed)
    async def consumer(flaky: str) -> None:
        lab.mark("never")

    await lab.stop_at(9).run(flaky, consumer, sleeper("other"))
    assert lab.path("consumer") == "waiting failed"
    error = lab.error("consumer")
    assert isinstance(error, ValueLost)
    assert str(error) == "consumer needs the value of flaky, which failed: ValueError: boom"
    assert isinstance(error.__cause__, ValueError)
    assert lab.stopped_at == (9 if allowed else 2)
    assert lab.report.first == ("flaky" if allowed else "consumer")
    assert lab.exit_code == (0 if allowed else 1)


async def test_a_lost_value_is_waited_for_no_longer(lab: Lab) -> None:
    """Who needs it fails at once, whatever else it waits for."""
    flaky = named("flaky", service(allowed_failure=True)(_crash_later))

    @service(depends=["flaky", "slow"], allowed_failure=True)
    async def consumer(flaky: str) -> None:
        lab.mark("never")

    await lab.stop_at(20).run(flaky, sleeper("slow", opening=9), consumer)
    assert lab.when("consumer", "failed") == 2
    assert lab.marks == []


async def test_a_lost_value_is_lost_for_all_above(lab: Lab) -> None:
    """A chain of consumers fails one after the other, without retries."""
    flaky = named("flaky", service(allowed_failure=True)(_crash_later))

    @service(depends=["flaky"], allowed_failure=True)
    async def one(flaky: str, serving: Serving[str]) -> None:
        lab.mark("never")

    @service(depends=["one"], allowed_failure=True)
    async def two(one: str) -> None:
        lab.mark("never")

    await lab.stop_at(9).run(flaky, one, two, sleeper("other"))
    why = "one needs the value of flaky, which failed: ValueError: boom"
    assert str(lab.error("two")) == f"two needs the value of one, which failed: {why}"
    assert lab.marks == []


async def test_a_dependency_that_was_abandoned_with_permission(lab: Lab) -> None:
    """It is a failure as any other: who wanted the order starts with a warning, who needs the value fails."""

    @service(start_timeout=2, stop_timeout=2, allowed_failure=True)
    async def stuck(serving: Serving[str]) -> None:
        await hang(20)

    @service(depends=["stuck"], allowed_failure=True)
    async def consumer(stuck: str) -> None:
        lab.mark("never")

    await lab.stop_at(9).run(stuck, consumer, sleeper("orderly", "stuck"))
    assert lab.when("stuck", "abandoned") == lab.when("consumer", "failed") == lab.when("orderly", "starting") == 5
    assert str(lab.error("consumer")).startswith("consumer needs the value of stuck, which was abandoned: ")
    assert lab.notices[0] == "orderly: starting even though stuck was abandoned"
    assert lab.marks == []


async def test_a_value_with_a_default(lab: Lab) -> None:
    """A parameter with a default keeps it when the provider has failed with permission."""
    flaky = named("flaky", service(allowed_failure=True)(_crash_later))

    @service(depends=["flaky"])
    async def consumer(flaky: str = "none") -> None:
        lab.mark(flaky)

    await lab.stop_at(9).run(flaky, consumer)
    assert lab.marks == [(2, "none")]


async def test_a_value_with_a_default_and_something_else_to_wait_for(lab: Lab) -> None:
    """That the provider has failed leaves the default, and the wait for the others."""
    flaky = named("flaky", service(allowed_failure=True)(_crash_later))

    @service(depends=["flaky", "slow"])
    async def consumer(flaky: str = "none") -> None:
        lab.mark(flaky)

    await lab.stop_at(20).run(flaky, sleeper("slow", opening=9), consumer)
    assert lab.marks == [(9, "none")]


async def test_every_service_failed(lab: Lab) -> None:
    """Though each had permission, an app of which nothing is left has failed."""
    await lab.run(named("a", service(allowed_failure=True)(_fail)), named("b", service(allowed_failure=True)(_fail)))
    assert lab.stop_began.reason == "every service has ended"
    assert lab.exit_code == 1


async def test_everything_done(lab: Lab) -> None:
    """When every service has ended, the app ends."""
    await lab.run(named("a", service(_nothing)), named("b", service(oneshot=True)(_nothing)))
    assert lab.now == 1
    assert not lab.stop_began.failure
    assert lab.exit_code == 0


async def test_nothing_to_do(lab: Lab) -> None:
    """An app without services ends at once."""
    await anyio.sleep(1)
    await lab.run()
    assert lab.events == []
    assert lab.report.stopping == 0
    assert lab.exit_code == 0


async def test_first_is_the_first_that_may_not_fail(lab: Lab) -> None:
    """The report names the failure that mattered, not the allowed ones before it, nor those that followed from it."""

    async def fail_on_stop(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        raise OSError("as a consequence")

    await lab.run(
        named("allowed", service(allowed_failure=True)(_fail)),
        named("fatal", service(_crash_later)),
        named("follower", service(fail_on_stop)),
    )
    assert lab.report.first == "fatal"


async def test_the_end_of_an_internal_service_is_not_the_end(lab: Lab) -> None:
    """One that returns by itself leaves the others alone, and is no service that has ended."""
    await lab.stop_at(5).run(Unit(named("hook", service(_nothing)), internal=True), sleeper("a"))
    assert lab.when("hook", "done") == 1
    assert lab.when("a", "stopped") == 5
    assert lab.stop_began.reason == "asked"


async def test_what_was_abandoned_has_ended(lab: Lab) -> None:
    """An app in which nothing is left but what could not be cut does not idle."""

    @service(start_timeout=2, stop_timeout=2, allowed_failure=True)
    async def stuck(serving: Serving[str]) -> None:
        await hang(20)

    await lab.run(stuck, named("done", service(_nothing)))
    assert lab.stopped_at == 5
    assert lab.stop_began.reason == "every service has ended"
    assert lab.exit_code == 3


async def test_a_dependency_that_is_left_out(lab: Lab) -> None:
    """An edge to what is not among the units is skipped."""
    await lab.stop_at(5).run(sleeper("a", "missing"))
    assert lab.when("a", "ready") == 0


async def test_a_cycle_is_refused() -> None:
    """Services that wait for each other are refused before anything runs."""
    with pytest.raises(CycleError, match="services wait for each other: a -> b -> a"):
        Orchestrator([Unit(sleeper("a", "b")), Unit(sleeper("b", "a"))])


# -- consumers end first -----------------------------------------------------------------------------------------------


def provider(lab: Lab, name: str = "db", *, failing: Callable[[], bool] = bool, **options: Any) -> AnyService:
    """A service that gives a value, and crashes 5 s after it is ready as long as *failing*."""

    async def give(serving: Serving[str]) -> None:
        async with resource(lab, name, closing=1), serving(f"{name} of {lab.now}"):
            if failing():
                await crash_after(5, ValueError("boom"))
            await anyio.sleep_forever()

    return named(name, service(**{"retries": ONCE, **options})(give))


async def test_consumers_end_before_the_resources_close(lab: Lab) -> None:
    """When a provider crashes, the consumers stop first, at every level, then its resources close; all start again."""

    @service(depends=["db"])
    async def cache(db: str, serving: Serving[str]) -> None:
        async with resource(lab, "cache", closing=2), serving("cache"):
            await anyio.sleep_forever()

    @service(depends=["cache"])
    async def api(cache: str, serving: Serving[None]) -> None:
        async with resource(lab, "api", closing=3), serving():
            await anyio.sleep_forever()

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), cache, api, sleeper("orderly", "db"))
    assert lab.marks[:12] == [
        (0, "db open"),
        (0, "cache open"),
        (0, "api open"),
        (5, "api closing"),
        (8, "api closed"),
        (8, "cache closing"),
        (10, "cache closed"),
        (10, "db closing"),
        (11, "db closed"),
        (12, "db open"),
        (12, "cache open"),
        (12, "api open"),
    ]
    assert lab.path("api") == "waiting starting ready stopping waiting starting ready stopping stopped"
    assert lab.path("cache") == lab.path("api")
    assert lab.path("db") == "waiting starting ready stopping backoff starting ready stopping stopped"
    assert lab.path("orderly") == "waiting starting ready stopping stopped"  # wanted only the order
    assert lab.ending("api").attempts == 2
    assert lab.exit_code == 0


async def test_restarts_of_consumers_use_up_no_retries(lab: Lab) -> None:
    """However often the provider crashes, its consumers start again."""

    @service(depends=["db"])
    async def api(db: str) -> None:
        lab.mark(f"got {db}")
        await anyio.sleep_forever()

    forever = Retry(times=None, delay=1, factor=1, jitter=0)
    await lab.stop_at(50).run(provider(lab, failing=lambda: True, retries=forever), api)
    assert lab.ending("api").attempts == 8
    assert "got db of 7.0" in lab.marked
    assert lab.exit_code == 0


async def test_a_consumer_fails_when_the_value_never_comes_back(lab: Lab) -> None:
    """A provider that fails for good takes its consumers with it, each under its own allowance."""

    @service(depends=["db"], retries=9, allowed_failure=True)
    async def api(db: str) -> None:
        await anyio.sleep_forever()

    await lab.stop_at(50).run(provider(lab, failing=lambda: True, retries=0, allowed_failure=True), api, sleeper("x"))
    assert lab.path("api") == "waiting starting ready stopping waiting failed"
    assert lab.when("api", "failed") == 6
    assert isinstance(lab.error("api"), ValueLost)
    assert isinstance(lab.error("api").__cause__, ValueError)
    assert lab.exit_code == 0


async def test_a_consumer_in_backoff_fails_when_the_value_is_gone(lab: Lab) -> None:
    """One that waits for its next attempt learns at once that it will not come."""

    @service(depends=["db"], retries=Retry(times=9, delay=30), allowed_failure=True)
    async def api(db: str) -> None:
        await crash_after(1, ValueError())

    await lab.stop_at(50).run(provider(lab, failing=lambda: True, retries=0, allowed_failure=True), api, sleeper("x"))
    assert lab.path("api") == "waiting starting ready stopping backoff failed"
    assert lab.when("api", "failed") == 6


async def test_a_consumer_restarts_beneath_those_that_wanted_the_order(lab: Lab) -> None:
    """Those that depend on a consumer without holding its value run on, and it does not wait for their end."""

    @service(depends=["db"])
    async def cache(db: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), cache, sleeper("orderly", "cache"))
    assert lab.path("cache") == "waiting starting ready stopping waiting starting ready stopping stopped"
    assert lab.path("orderly") == "waiting starting ready stopping stopped"
    assert lab.moves("cache")[2].reason.endswith("it uses is stopping")
    assert (lab.when("cache", "stopping"), lab.when("cache", "starting", 2)) == (5, 7)


async def test_the_last_consumer_lets_the_provider_go(lab: Lab) -> None:
    """Where several hold a value, its resources close when the slowest of them has ended."""

    @service(depends=["db"])
    async def quick(db: str, serving: Serving[None]) -> None:
        async with resource(lab, "quick", closing=1), serving():
            await anyio.sleep_forever()

    @service(depends=["db"])
    async def slow(db: str, serving: Serving[None]) -> None:
        async with resource(lab, "slow", closing=4), serving():
            await anyio.sleep_forever()

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), quick, slow)
    assert [mark for mark in lab.marks if mark[1].endswith("closed")][:3] == [
        (6, "quick closed"),
        (9, "slow closed"),
        (10, "db closed"),
    ]


async def test_a_consumer_that_was_leaving_anyway(lab: Lab) -> None:
    """One whose work had ended before its value went is done, and is not started again."""

    @service(depends=["db"])
    async def api(db: str, serving: Serving[None]) -> None:
        async with resource(lab, "api", closing=3), serving():
            await anyio.sleep(4)

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), api)
    assert lab.path("api") == "waiting starting ready stopping done"
    assert lab.when("api", "done") == 7
    assert lab.marks[3:5] == [(7, "api closed"), (7, "db closing")]


async def test_a_provider_leaves_serving_unasked(lab: Lab) -> None:
    """Consumers are stopped, the provider is done, and the consumers fail with that reason."""

    @service
    async def db(serving: Serving[str]) -> None:
        async with resource(lab, "db", closing=1), serving("pool"):
            await anyio.sleep(5)

    @service(depends=["db"], allowed_failure=True)
    async def api(db: str, serving: Serving[None]) -> None:
        async with resource(lab, "api", closing=2), serving():
            await anyio.sleep_forever()

    await lab.stop_at(50).run(db, api, sleeper("x"))
    assert lab.marked == ["db open", "api open", "api closing", "api closed", "db closing", "db closed"]
    assert lab.ending("db").state is State.DONE
    assert str(lab.error("api")) == "api needs the value of db, which has ended"
    assert lab.when("api", "failed") == 8


async def test_a_crash_out_of_the_resources_own_tasks(lab: Lab) -> None:
    """A pool whose own task crashes cancels the block from outside; consumers still end before the pool is left."""

    @asynccontextmanager
    async def pool() -> AsyncIterator[str]:
        async with anyio.create_task_group() as tasks:
            if lab.now < 4:
                tasks.start_soon(crash_after, 5, ValueError("connection lost"))
            lab.mark("pool open")
            try:
                yield "pool"
            finally:
                lab.mark("pool left")

    @service(retries=ONCE)
    async def db(serving: Serving[str]) -> None:
        async with pool() as value, serving(value):
            await anyio.sleep_forever()

    @service(depends=["db"])
    async def api(db: str, serving: Serving[None]) -> None:
        async with resource(lab, "api", closing=3), serving():
            await anyio.sleep_forever()

    await lab.stop_at(50).run(db, api)
    assert lab.marks[:5] == [(0, "pool open"), (0, "api open"), (5, "api closing"), (8, "api closed"), (8, "pool left")]
    crash = next(move.error for move in lab.moves("db") if move.state is State.BACKOFF)
    assert isinstance(crash, ExceptionGroup)
    assert isinstance(crash.exceptions[0], ValueError)
    assert lab.ending("api").state is State.STOPPED
    assert lab.exit_code == 0


async def test_the_provider_crashes_again_while_its_consumers_stop(lab: Lab) -> None:
    """One restart is pending, not two."""

    @service(retries=Retry(times=5, delay=0.1, factor=1, jitter=0))
    async def db(serving: Serving[str]) -> None:
        async with serving("pool") as work:
            if lab.now < 4:
                work.start_soon(crash_after, 5, ValueError("background"))
                await crash_after(4, ValueError("work"))
            await anyio.sleep_forever()

    @service(depends=["db"])
    async def api(db: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        await anyio.sleep(3)

    await lab.stop_at(50).run(db, api)
    assert lab.ending("api").attempts == 2
    assert lab.ending("db").attempts == 2
    crash = next(move.error for move in lab.moves("db") if move.state is State.BACKOFF)
    assert isinstance(crash, ExceptionGroup)


async def test_two_providers_crash(lab: Lab) -> None:
    """A consumer of two values that both go is stopped once, and starts when both are back."""

    @service(depends=["one", "two"])
    async def api(one: str, two: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        await anyio.sleep(1)

    providers = [provider(lab, name, failing=lambda: lab.now < 4) for name in ("one", "two")]
    slower = attrs.evolve(providers[1], retry=Retry(times=1, delay=10, jitter=0))
    await lab.stop_at(50).run(providers[0], slower, api)
    assert lab.ending("api").attempts == 2
    assert lab.when("api", "starting", 2) == 17


async def test_a_draining_consumer(lab: Lab) -> None:
    """A consumer drains within its own stop_timeout, which does not count against the provider's."""

    @service(depends=["db"], stop_timeout=8)
    async def api(db: str, serving: Serving[None]) -> None:
        async with serving(drain=True) as work:
            await work.stop_requested()
            await anyio.sleep(7)

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4, stop_timeout=2), api)
    assert lab.marks[1:3] == [(12, "db closing"), (13, "db closed")]
    assert lab.ending("api").attempts == 2
    assert lab.exit_code == 0


async def test_a_consumer_that_cannot_be_cut(lab: Lab) -> None:
    """It is abandoned and never started again; then the provider closes and comes back."""

    @service(depends=["db"], stop_timeout=2, allowed_failure=True)
    async def api(db: str, serving: Serving[None]) -> None:
        async with serving():
            await hang(20)

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), api)
    assert lab.path("api") == "waiting starting ready stopping abandoned"
    assert lab.when("api", "abandoned") == 8
    assert lab.marks[1:3] == [(8, "db closing"), (9, "db closed")]
    assert lab.path("db") == "waiting starting ready stopping backoff starting ready stopping stopped"
    assert lab.notices == ["api: ended after it had been abandoned"]
    assert lab.exit_code == 3


async def test_a_consumer_that_cannot_be_cut_is_fatal(lab: Lab) -> None:
    """Unless it may fail, it ends the app."""

    @service(depends=["db"], stop_timeout=2)
    async def api(db: str, serving: Serving[None]) -> None:
        async with serving():
            await hang(20)

    await lab.run(provider(lab, failing=lambda: lab.now < 4), api)
    assert lab.stop_began.reason == "api abandoned"
    assert lab.exit_code == 3


async def test_a_consumer_that_is_cut(lab: Lab) -> None:
    """A consumer that overruns as its value goes has failed."""

    @service(depends=["db"], stop_timeout=2)
    async def api(db: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        await anyio.sleep(20)

    await lab.run(provider(lab, failing=lambda: lab.now < 4), api)
    assert lab.when("api", "failed") == 7
    assert isinstance(lab.error("api"), StopTimeout)
    assert lab.exit_code == 1


async def test_a_consumer_that_is_starting(lab: Lab) -> None:
    """A consumer that had not served yet has 1 s to do so, and starts again with the new value."""

    @service(depends=["db"])
    async def api(db: str, serving: Serving[None]) -> None:
        lab.mark(f"api has {db}")
        await anyio.sleep(7)
        async with serving():
            await anyio.sleep_forever()

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), api)
    assert lab.path("api") == "waiting starting stopping waiting starting ready stopping stopped"
    assert lab.when("api", "waiting") == 6
    assert "api has db of 8" in lab.marked[-3]


async def test_a_consumer_that_crashes_as_its_value_goes(lab: Lab) -> None:
    """A crash in a consumer's clean-up is its own, and costs it a retry."""

    @service(depends=["db"], retries=ONCE)
    async def api(db: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        if lab.now < 20:
            raise OSError

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), api)
    assert lab.path("api") == "waiting starting ready stopping backoff waiting starting ready stopping stopped"


async def test_a_oneshot_consumer(lab: Lab) -> None:
    """A one-shot that holds a value runs again when its provider crashed in the middle of it."""

    @service(depends=["db"], oneshot=True)
    async def migrate(db: str) -> None:
        await anyio.sleep(9)

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), migrate)
    assert lab.path("migrate") == "waiting starting stopping waiting starting done"
    assert lab.when("migrate", "done") == 16


async def test_a_oneshot_consumer_that_is_done(lab: Lab) -> None:
    """One that is done stays done when its provider crashes later."""

    @service(depends=["db"], oneshot=True)
    async def migrate(db: str) -> None:
        await anyio.sleep(1)

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), migrate)
    assert lab.path("migrate") == "waiting starting done"


async def test_a_command_is_not_started_again(lab: Lab) -> None:
    """A provider's crash ends the command that holds its value, and so the app."""

    @service(depends=["db"])
    async def command(db: str) -> None:
        await anyio.sleep_forever()

    await lab.run(provider(lab, failing=lambda: True), Unit(command, command=True))
    error = lab.error("command")
    assert isinstance(error, ValueLost)
    assert error.provider == "db"
    assert lab.stop_began.reason == "command failed"
    assert lab.exit_code == 1


async def test_a_command_is_told_which_value_it_lost(lab: Lab) -> None:
    """Of several providers the error names the one that crashed."""

    @service(depends=["one", "two"])
    async def command(one: str, two: str) -> None:
        await anyio.sleep_forever()

    await lab.run(provider(lab, "one"), provider(lab, "two", failing=lambda: True), Unit(command, command=True))
    error = lab.error("command")
    assert isinstance(error, ValueLost)
    assert error.provider == "two"


async def test_the_end_of_a_command_is_the_end(lab: Lab) -> None:
    """When a command has returned, those who gave it values are stopped, after it."""

    @service(depends=["db"])
    async def command(db: str) -> None:
        await anyio.sleep(2)

    await lab.run(provider(lab), Unit(command, command=True))
    assert lab.stop_began.reason == "the command has ended"
    assert lab.marks[1:] == [(2, "db closing"), (3, "db closed")]
    assert lab.exit_code == 0


async def test_a_stop_while_consumers_restart(lab: Lab) -> None:
    """A stop that comes while consumers stop for a restart turns it into the end."""

    @service(depends=["db"])
    async def api(db: str, serving: Serving[None]) -> None:
        async with resource(lab, "api", closing=3), serving():
            await anyio.sleep_forever()

    await lab.stop_at(6).run(provider(lab, failing=lambda: True, retries=9), api)
    assert lab.path("api") == "waiting starting ready stopping stopped"
    assert lab.path("db") == "waiting starting ready stopping failed"
    assert lab.marks[-3:] == [(8, "api closed"), (8, "db closing"), (9, "db closed")]
    assert lab.exit_code == 1


async def test_a_stop_while_a_provider_waits_for_its_consumers(lab: Lab) -> None:
    """The time that its consumers take counts against no limit of the provider, also when the stop comes meanwhile."""

    @service(depends=["db"])
    async def api(db: str, serving: Serving[None]) -> None:
        async with resource(lab, "api", closing=5), serving():
            await anyio.sleep_forever()

    await lab.stop_at(6).run(provider(lab, failing=lambda: True, stop_timeout=2), api)
    assert lab.marks[2:] == [(5, "api closing"), (10, "api closed"), (10, "db closing"), (11, "db closed")]
    assert isinstance(lab.error("db"), ValueError)


async def test_a_stop_while_a_consumer_waits_for_its_value(lab: Lab) -> None:
    """One that waits to start again is stopped at once, with nothing to say."""

    @service(depends=["db"])
    async def api(db: str) -> None:
        await anyio.sleep_forever()

    await lab.stop_at(6.5).run(provider(lab, failing=lambda: True, retries=9), api)
    assert lab.path("api") == "waiting starting ready stopping waiting stopped"
    assert lab.ending("api").reason == ""
    assert lab.path("db").endswith("backoff stopped")
    assert lab.exit_code == 0


# -- a dependency outlives its dependents, on every path -------------------------------------------------------------


ENDS = ["stop", "failure", "done", "crash", "resource"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("holds", [True, False], ids=["value", "order"])
async def test_a_dependency_outlives_its_dependents(  # noqa: C901  (the paths are its point)
    lab: Lab, end: str, holds: bool
) -> None:
    """On every path the resources of a dependency close after its dependents have ended, at each level."""

    @asynccontextmanager
    async def pool() -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            if end == "resource":
                tasks.start_soon(crash_after, 5, ValueError("connection lost"))
            async with resource(lab, "a", closing=1):
                yield

    @service
    async def a(serving: Serving[str]) -> None:
        async with pool(), serving("a"):
            if end == "crash":
                await crash_after(5, ValueError("boom"))
            await anyio.sleep_forever()

    async def b(serving: Serving[str], a: str = "") -> None:
        async with resource(lab, "b", closing=2), serving("b"):
            await anyio.sleep_forever()

    async def c(serving: Serving[str], b: str = "") -> None:
        async with resource(lab, "c", closing=3), serving("c"):
            await anyio.sleep(5 if end == "done" else math.inf)

    async def b_orderly(serving: Serving[str]) -> None:
        await b(serving)

    async def c_orderly(serving: Serving[str]) -> None:
        await c(serving)

    services = [
        a,
        named("b", service(depends=["a"])(b if holds else b_orderly)),
        named("c", service(depends=["b"])(c if holds else c_orderly)),
    ]
    if end == "failure":
        services.append(named("third", service(_crash_at_five)))
    if end == "done":
        services = [services[0], services[1], Unit(services[2], command=True)]  # type: ignore[list-item]
    if end == "stop":
        lab.stop_at(5)
    await lab.run(*services)
    closing = lab.marks[3:]
    if end == "resource":
        assert "a closed" not in lab.marked  # what is inside the broken resource cannot await any more
        closing.append((11, "a closed"))
    if end in {"crash", "resource"} and not holds:
        # Those that wanted only the order run on until the failure is final; a's resources do not wait for them.
        final = 6 if end == "crash" else 5
        assert [mark for mark in closing if mark[1][0] != "a"] == [
            (final, "c closing"),
            (final + 3, "c closed"),
            (final + 3, "b closing"),
            (final + 5, "b closed"),
        ]
    else:
        assert closing == [
            (5, "c closing"),
            (8, "c closed"),
            (8, "b closing"),
            (10, "b closed"),
            (10, "a closing"),
            (11, "a closed"),
        ]
    assert lab.exit_code == (1 if end in {"failure", "crash", "resource"} else 0)


async def _crash_at_five() -> None:
    await crash_after(5, ValueError("boom"))


async def test_independent_services_stop_at_the_same_time(lab: Lab) -> None:
    """Stopping takes the critical path, not the sum and not a level."""
    services = [
        sleeper("a", closing=1),
        sleeper("b", "a", closing=4),
        sleeper("c", "a", closing=1),
        sleeper("d", "c", closing=1),
        sleeper("e", closing=3),
    ]
    await lab.stop_at(5).run(*services)
    assert {one.name: lab.when(one.name, "stopped") for one in services} == {"a": 10, "b": 9, "c": 7, "d": 6, "e": 8}
    assert lab.report.stopping == pytest.approx(5)


async def test_a_dependent_by_started_counts_too(lab: Lab) -> None:
    """A dependency outlives also those that only waited for its launch."""
    late = named("late", attrs.evolve(sleeper("x", closing=2), depends=(started("a"),)))
    await lab.stop_at(5).run(sleeper("a"), late)
    assert (lab.when("late", "stopped"), lab.when("a", "stopped")) == (7, 7)
    assert lab.order("stopped") == ["late", "a"]


async def test_nothing_is_launched_after_a_stop(lab: Lab) -> None:
    """What becomes ready during the stop launches nobody."""

    @service
    async def db(serving: Serving[None]) -> None:
        await anyio.sleep(5.5)
        async with serving():
            await anyio.sleep(1)

    await lab.stop_at(5).run(db, sleeper("api", "db"), sleeper("slow", opening=50))
    assert lab.path("api") == "waiting stopped"
    assert lab.ending("api").reason == "never started"
    assert lab.ending("api").attempts == 0


async def test_a_start_that_takes_too_long_during_a_stop(lab: Lab) -> None:
    """As long as it is not asked to stop, since its dependents still run, its start is held to its limit."""
    late = attrs.evolve(sleeper("late", closing=5), depends=(started("slow"),))
    await lab.stop_at(5).run(sleeper("slow", opening=50, start_timeout=8), late)
    assert lab.when("slow", "failed") == 8
    assert isinstance(lab.error("slow"), StartTimeout)
    assert not [one for when, one in lab.log if isinstance(one, StillWaiting) and when == 8]  # of a start
    assert lab.when("late", "stopped") == 10


@pytest.mark.parametrize("drain_delay", [0, 2])
async def test_a_keyboard_interrupt_in_a_dependency(lab: Lab, drain_delay: float) -> None:
    """It ends its service at once, as a stop does, though others depend on it."""

    @service
    async def db(serving: Serving[str]) -> None:
        async with serving("pool"):
            await crash_after(3, KeyboardInterrupt())

    await lab.run(db, sleeper("api", "db", closing=1), drain_delay=drain_delay)
    assert lab.path("db") == lab.path("api") == "waiting starting ready stopping stopped"
    assert lab.stop_began.reason == "KeyboardInterrupt"
    assert lab.when("api", "stopped") == 4 + drain_delay
    assert lab.exit_code == 0


@pytest.mark.parametrize("drain_delay", [0, 2])
async def test_a_keyboard_interrupt_while_starting(lab: Lab, drain_delay: float) -> None:
    """The same of one that is not ready yet, though another waited for its launch."""

    @service
    async def db(serving: Serving[str]) -> None:
        await crash_after(3, KeyboardInterrupt())

    late = attrs.evolve(sleeper("late", closing=1), depends=(started("db"),))
    await lab.run(db, late, drain_delay=drain_delay)
    assert lab.path("db") == "waiting starting stopping stopped"
    assert (lab.when("db", "stopped"), lab.when("late", "stopped")) == (3, 4 + drain_delay)
    assert lab.exit_code == 0


async def test_a_second_request_changes_nothing(lab: Lab) -> None:
    """The first request counts, with its reason and its deadline."""
    await lab.stop_at(5, "first").stop_at(6, "second").run(sleeper("a", closing=3))
    assert lab.stop_began.reason == "first"
    assert lab.when("a", "stopped") == 8


async def test_a_crash_during_the_stop_changes_only_its_service(lab: Lab) -> None:
    """A dependency that crashes while its dependents stop waits for them, and has failed."""

    @service(retries=9)
    async def a(serving: Serving[str]) -> None:
        async with resource(lab, "a"), serving("a"):
            await crash_after(6, ValueError("boom"))

    @service(depends=["a"])
    async def b(a: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        await anyio.sleep(3)
        lab.mark("b closed")

    await lab.stop_at(5).run(a, b)
    assert lab.marks == [(0, "a open"), (8, "b closed"), (8, "a closing"), (8, "a closed")]
    assert lab.path("a") == "waiting starting ready stopping failed"
    assert lab.ending("b").state is State.STOPPED
    assert lab.exit_code == 1


async def test_a_crash_during_the_stop_overtakes_nobody(lab: Lab) -> None:
    """A consumer whose value goes during the stop still outlives those that depend on it by order only."""

    @service
    async def db(serving: Serving[str]) -> None:
        async with resource(lab, "db"), serving("db"):
            await crash_after(6, ValueError("boom"))

    @service(depends=["db"])
    async def cache(db: str, serving: Serving[None]) -> None:
        async with resource(lab, "cache"), serving():
            await anyio.sleep_forever()

    await lab.stop_at(5).run(db, cache, sleeper("api", "cache", closing=3))
    assert lab.when("api", "stopped") == 8
    assert lab.marks[2:] == [(8, "cache closing"), (8, "cache closed"), (8, "db closing"), (8, "db closed")]


async def test_a_dependency_that_ends_by_itself_during_the_stop(lab: Lab) -> None:
    """A dependency whose work ends while its dependents still stop keeps its resources until they have."""

    @service
    async def a(serving: Serving[str]) -> None:
        async with resource(lab, "a"), serving("a"):
            await anyio.sleep(6)

    @service(depends=["a"])
    async def b(a: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        await anyio.sleep(3)

    await lab.stop_at(5).run(a, b)
    assert lab.marks[1:] == [(8, "a closing"), (8, "a closed")]
    assert lab.exit_code == 0


# -- the drain delay -------------------------------------------------------------------------------------------------


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
    bad = named("bad", service(allowed_failure=True, retries=ONCE)(_fail))
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
    await lab.run(named("bad", service(_crash_later)), sleeper("a"), drain_delay=5)
    assert lab.when("a", "stopping") == 2

    other = Lab()
    await other.stop_at(1).run(named("bad", service(_crash_later)), sleeper("a"), drain_delay=5)
    assert other.when("a", "stopping") == 2
    assert other.exit_code == 1


async def test_the_deadline_is_shared_out_once(lab: Lab) -> None:
    """When a failure has ended the drain delay, the moment at which it would have ended changes nothing."""
    bad = named("bad", service(_crash_later))
    chain = [stubborn("a", stop_timeout=60), stubborn("b", "a", stop_timeout=60)]
    await lab.stop_at(1).run(bad, *chain, drain_delay=4.5, shutdown_timeout=6)
    assert (lab.when("b", "abandoned"), lab.when("a", "abandoned")) == (6, 7)


async def test_everything_ends_during_the_drain_delay(lab: Lab) -> None:
    """When nothing runs any more the delay is over."""
    await lab.stop_at(0.5).run(named("a", service(oneshot=True)(_nothing)), sleeper("b", "a"), drain_delay=5)
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


# -- the deadline ----------------------------------------------------------------------------------------------------


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
    done = named("done", service(oneshot=True)(_nothing))
    services = [done, sleeper("a", "done", closing=50), sleeper("slow", "a", opening=50), sleeper("never", "slow")]
    await lab.stop_at(5).run(*services)
    # Alive are a and slow: n = 2, r = 1; slow is stopped within its grace, and a has no level below it.
    assert lab.when("a", "failed") == 14.5


async def test_the_deadline_when_a_failure_began_the_stop(lab: Lab) -> None:
    """It counts on every path, from when the stop was asked for."""
    await lab.run(stubborn("a"), named("bad", service(_crash_later)))
    assert lab.when("a", "abandoned") == 12
    assert lab.exit_code == 3


async def test_the_deadline_when_everything_is_done(lab: Lab) -> None:
    """Also what belongs to the kernel has to end in time."""
    await lab.run(Unit(stubborn("admin"), internal=True), named("done", service(_nothing)))
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
    await lab.run(named("a", service(_nothing)), shutdown_timeout=0)
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


# -- a further signal ------------------------------------------------------------------------------------------------


async def test_force_cuts_everything_now(lab: Lab) -> None:
    """All that runs is cut at once, dependencies too, and what ignores that is given up 1 s later."""

    @service(depends=["db"])
    async def api(db: str, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        await anyio.sleep(50)

    services = [sleeper("db", closing=50), api, stubborn("stone"), sleeper("slow", opening=90), sleeper("x", "slow")]
    await lab.stop_at(5).force_at(5.5).run(*services)
    assert lab.forced[0].services == ("db", "api", "stone", "slow")
    assert {one.name: lab.path(one.name).split()[-1] for one in services} == {
        "db": "failed",
        "api": "failed",
        "stone": "abandoned",
        "slow": "failed",
        "x": "stopped",
    }
    assert (lab.when("api", "failed"), lab.when("db", "failed"), lab.when("stone", "abandoned")) == (5.5, 5.5, 6.5)
    assert lab.exit_code == 130


async def test_force_cuts_what_was_not_asked_yet(lab: Lab) -> None:
    """A dependency that still waits for its dependents is cut beneath them, and the error tells by what."""
    await lab.stop_at(5).force_at(6).run(sleeper("db", closing=50), stubborn("api", "db"))
    assert lab.path("db") == "waiting starting ready stopping failed"
    assert (lab.when("db", "failed"), lab.when("api", "abandoned")) == (6, 7)
    error = lab.error("db")
    assert isinstance(error, StopTimeout)
    assert error.forced
    assert error.seconds == 0


async def test_force_cuts_what_is_starting(lab: Lab) -> None:
    """Also one that was not asked to stop, since another that only waited for its launch still runs."""
    late = attrs.evolve(sleeper("late", closing=50), depends=(started("slow"),))
    await lab.force_at(5).run(sleeper("slow", opening=90), late)
    assert lab.forced[0].services == ("slow", "late")
    assert lab.path("slow") == "waiting starting stopping failed"
    assert (lab.when("slow", "failed"), lab.when("late", "failed")) == (5, 5)


async def test_force_after_the_cut(lab: Lab) -> None:
    """What was cut already because it overran is given up 1 s later; that it overran stays the reason."""
    await lab.stop_at(5).force_at(8.5).run(stubborn("a", stop_timeout=3))
    assert lab.when("a", "abandoned") == 9.5
    cut = lab.error("a").__cause__
    assert isinstance(cut, StopTimeout)
    assert not cut.forced
    assert cut.seconds == 3


async def test_force_and_then_it_serves(lab: Lab) -> None:
    """One that is cut while starting and serves late, from behind a shield, has no more time for that."""

    @service
    async def db(serving: Serving[None]) -> None:
        await hang(5.5)
        async with serving():
            await hang(50)

    await lab.force_at(5).run(db)
    assert lab.when("db", "abandoned") == 6
    assert lab.exit_code == 130


async def test_force_without_a_stop_before(lab: Lab) -> None:
    """To force is to stop too."""
    await lab.force_at(5).run(sleeper("db", closing=50), sleeper("api", "db"))
    assert lab.stop_began.reason == "forced"
    assert lab.exit_code == 130
    assert lab.report.stopping == pytest.approx(0)


async def test_force_ends_what_waits_for_consumers(lab: Lab) -> None:
    """A provider that crashed and waits for its consumers is cut as well."""

    @service(depends=["db"])
    async def api(db: str, serving: Serving[None]) -> None:
        async with serving():
            await hang(30)

    await lab.force_at(6).run(provider(lab, failing=lambda: True), api)
    assert lab.when("db", "failed") == 6
    assert lab.when("api", "abandoned") == 7
    assert lab.exit_code == 130


async def test_force_during_the_drain_delay(lab: Lab) -> None:
    """It waits for no delay."""
    a = sleeper("a", closing=50, allowed_failure=True)
    await lab.stop_at(5).force_at(6).run(a, stubborn("b"), drain_delay=5)
    assert lab.when("a", "failed") == 6
    assert lab.when("b", "abandoned") == 7


async def test_force_twice(lab: Lab) -> None:
    """Once more changes nothing."""
    await lab.stop_at(5).force_at(6).force_at(6.5).run(stubborn("a"))
    assert lab.when("a", "abandoned") == 7
    assert [when for when, event in lab.log if isinstance(event, Forced)] == [6, 6.5]


async def test_force_when_nothing_runs_any_more(lab: Lab) -> None:
    """What has nothing to cut was not forced."""
    await lab.run(named("a", service(_nothing)))
    lab.orchestrator.force()
    assert lab.forced == []


# -- observers -------------------------------------------------------------------------------------------------------


async def test_an_observer_that_fails_is_asked_no_more(lab: Lab) -> None:
    """It is reported to the others, which go on, and takes no service down."""
    seen: list[Event] = []

    def bad(event: Event) -> None:
        seen.append(event)
        raise ValueError("cannot export")

    await lab.stop_at(5).run(sleeper("a"), observers=[bad])
    assert len(seen) == 1
    (notice,) = (event for event in lab.events if isinstance(event, Notice))
    assert "test_an_observer_that_fails_is_asked_no_more" in notice.message
    assert notice.message.endswith("failed and was disabled")
    assert isinstance(notice.error, ValueError)
    assert lab.path("a") == "waiting starting ready stopping stopped"
    assert lab.exit_code == 0


async def test_every_observer_sees_the_same_order(lab: Lab) -> None:
    """Also when an observer itself causes events, all see them in the order in which they happened."""
    seen: list[Event] = []

    def stops(event: Event) -> None:
        if isinstance(event, AllReady):
            lab.orchestrator.request_stop("by an observer")

    def fails(event: Event) -> None:
        raise ValueError

    await lab.run(sleeper("a"), sleeper("b", "a"), observers=[stops, fails, seen.append])
    assert seen == lab.events
    assert lab.stop_began.reason == "by an observer"
    assert lab.exit_code == 0


@pytest.mark.parametrize("nth", range(1, 8))
async def test_an_observer_may_ask_for_a_stop_at_any_event(lab: Lab, nth: int) -> None:
    """Whatever the moment, the stop is complete and every move legal."""
    count = 0

    def stops(_: Event) -> None:
        nonlocal count
        count += 1
        if count == nth:
            lab.orchestrator.request_stop("by an observer")

    @service(depends=["b"])
    async def c(b: str) -> None:
        await anyio.sleep_forever()

    await lab.run(sleeper("a", opening=1), sleeper("b", "a", opening=50), c, observers=[stops])
    assert lab.now <= 52
    assert lab.exit_code == 0


async def test_an_observer_that_asks_for_a_stop_at_a_launch(lab: Lab) -> None:
    """A service that was just launched has its 1 s then, as at any other moment."""

    def stops(event: Event) -> None:
        if isinstance(event, Transition) and event.state is State.STARTING:
            lab.orchestrator.request_stop("by an observer")

    await lab.run(sleeper("a", opening=50), observers=[stops])
    assert lab.when("a", "stopped") == 0


async def test_the_events_of_a_life(lab: Lab) -> None:
    """Each move tells its service, states, attempt, the time in the state before, reason and error."""
    await lab.stop_at(9).run(sleeper("a", opening=2), named("bad", service(allowed_failure=True)(_crash_later)))
    assert [(move.previous, move.state, move.attempt, move.seconds, move.reason) for move in lab.moves("a")] == [
        (State.WAITING, State.STARTING, 1, 0, ""),
        (State.STARTING, State.READY, 1, 2, ""),
        (State.READY, State.STOPPING, 1, 7, "requested"),
        (State.STOPPING, State.STOPPED, 1, 0, ""),
    ]
    failed = lab.moves("bad")[-1]
    assert isinstance(failed.error, ValueError)
    assert failed.allowed
    assert not failed.internal
    assert isinstance(lab.events[0], Transition)


# -- the report ------------------------------------------------------------------------------------------------------


def ending(state: State, *, allowed: bool = False, internal: bool = False) -> Ending:
    """The end of some service."""
    return Ending("x", state, 1, 0.0, "", None, allowed, internal)


GOOD = ending(State.STOPPED)


@pytest.mark.parametrize(
    ("code", "endings", "flags"),
    [
        pytest.param(0, [], {}, id="nothing"),
        pytest.param(0, [GOOD, ending(State.DONE)], {}, id="well"),
        pytest.param(0, [GOOD, ending(State.FAILED, allowed=True)], {}, id="allowed"),
        pytest.param(1, [GOOD, ending(State.FAILED)], {}, id="failed"),
        pytest.param(1, [ending(State.FAILED, allowed=True)] * 2, {}, id="all failed"),
        pytest.param(
            1,
            [ending(State.FAILED, allowed=True), ending(State.STOPPED, internal=True)],
            {},
            id="all but our own failed",
        ),
        pytest.param(1, [GOOD, ending(State.FAILED, internal=True)], {}, id="hook failed"),
        pytest.param(3, [GOOD, ending(State.ABANDONED)], {}, id="abandoned"),
        pytest.param(3, [GOOD, ending(State.ABANDONED, allowed=True)], {}, id="abandoned with permission"),
        pytest.param(3, [ending(State.FAILED), ending(State.ABANDONED)], {}, id="abandoned and failed"),
        pytest.param(3, [GOOD], {"late": True}, id="late"),
        pytest.param(130, [GOOD], {"forced": True}, id="forced"),
        pytest.param(130, [ending(State.ABANDONED), ending(State.FAILED)], {"forced": True}, id="forced and all else"),
    ],
)
def test_exit_codes(code: int, endings: list[Ending], flags: dict[str, bool]) -> None:
    """The first that fits, of the table in the contract."""
    report = Report("", tuple(endings), None, 0.0, 0.0, **{"forced": False, **flags})
    assert report.exit_code == code


async def test_the_report_is_made_before_the_tasks_are_left(lab: Lab) -> None:
    """`at_end` gets the report while what was abandoned still runs: the place to leave the process from."""
    orchestrator = Orchestrator([Unit(stubborn("a", seconds=30))], shutdown_timeout=2)
    reports: list[tuple[Any, Report]] = []
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:

        async def stop() -> None:
            await anyio.sleep(5)
            orchestrator.request_stop("asked")

        tasks.start_soon(stop)
        report = await orchestrator.run(lambda report: reports.append((anyio.current_time() - began, report)))
    assert reports == [(pytest.approx(7), report)]
    assert anyio.current_time() - began == pytest.approx(30)
    assert report.exit_code == 3


async def test_cancelled_from_outside() -> None:
    """Whoever cancels the task that runs the orchestrator ends every service."""
    lab = Lab()

    async def work(serving: Serving[None]) -> None:
        with marking(lab, "work"):
            async with serving():
                await anyio.sleep_forever()

    with anyio.move_on_after(5):
        await lab.run(named("a", service(work)))
    assert lab.marked == ["work begins", "work ends"]


async def test_a_blocked_loop_is_late(lab: Lab) -> None:
    """A service that blocks the loop beyond the deadline makes exit code 3."""

    @service
    async def blocking(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        block_the_loop(12)

    await lab.stop_at(5).run(blocking, sleeper("a"))
    assert lab.report.late
    assert lab.exit_code == 3


async def test_the_service_whose_code_runs(lab: Lab) -> None:
    """From a frame of the loop's thread the service can be told, by its function, or by its file if it is its alone."""
    seen: list[str] = []

    def helper() -> None:
        seen.append(lab.orchestrator.running(sys._getframe()))

    @service
    async def one() -> None:
        helper()

    @service
    async def two() -> None:
        helper()

    await lab.run(one, two)
    assert sorted(seen) == ["one", "two"]
    assert lab.orchestrator.running(sys._getframe()) == ""  # both are written in this file
    assert lab.orchestrator.running(None) == ""

    other = Lab()
    await other.run(two)
    assert other.orchestrator.running(sys._getframe()) == "two"
    assert other.orchestrator.live == 0

    without_code = Lab()
    await without_code.run(attrs.evolve(two, fn=functools.partial(two.fn)))
    assert without_code.orchestrator.running(sys._getframe()) == ""


# -- size ------------------------------------------------------------------------------------------------------------


async def test_a_chain_longer_than_the_stack(lab: Lab) -> None:
    """A chain of 5,000 services starts, restarts, and stops, without recursion."""

    async def first(serving: Serving[int]) -> None:
        async with serving(0):
            if lab.now < 4:
                await crash_after(5, ValueError())
            await anyio.sleep_forever()

    consumers = [named(f"s{i}", service(depends=[f"s{i - 1}"])(_consumer(f"s{i - 1}"))) for i in range(1, 5000)]
    await lab.stop_at(20).run(named("s0", service(retries=ONCE)(first)), *consumers)
    assert lab.order("stopped") == [f"s{i}" for i in reversed(range(5000))]
    assert lab.ending("s4999").attempts == 2
    assert len(lab.all_ready[0].chain) == 5000
    assert lab.exit_code == 0


def _consumer(parameter: str) -> Any:
    scope: dict[str, Any] = {"Serving": Serving, "anyio": anyio}
    exec(  # noqa: S102  (a parameter's name is part of the contract)
        f"async def hold({parameter}: int, serving: Serving[int]):\n"
        f"    async with serving({parameter} + 1):\n"
        "        await anyio.sleep_forever()\n",
        scope,
    )
    return scope["hold"]


async def test_a_chain_of_lost_values(lab: Lab) -> None:
    """A value that is lost is lost for 2,000 consumers above, without recursion."""
    consumers = [
        named(f"s{i}", service(depends=[f"s{i - 1}"], allowed_failure=True)(_consumer(f"s{i - 1}")))
        for i in range(1, 2000)
    ]
    await lab.run(named("s0", service(allowed_failure=True)(_crash_later)), *consumers)
    assert {lab.path(one.name) for one in consumers} == {"waiting failed"}
