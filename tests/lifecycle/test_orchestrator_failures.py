"""All services: what a failure does to the others."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import service, started
from kernel.declare.serving import Serving
from kernel.errors import (
    CycleError,
    ValueLost,
)
from kernel.lifecycle.events import State
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.units import Unit
from tests.harness import Lab, crash_after, hang
from tests.lifecycle.parts import crash_later, declared, fail, named, nothing, serve, sleeper

pytestmark = pytest.mark.anyio


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_a_fatal_failure_stops_the_app_in_mid_start(lab: Lab) -> None:
    """Nothing is launched after it, and dependents of what failed are never started."""
    doomed = named("doomed", service(crash_later))
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


async def test_an_allowed_failure_is_a_warning(lab: Lab) -> None:
    """The rest runs on; dependents that only wanted the order start."""
    flaky = named("flaky", service(allowed_failure=True)(crash_later))
    await lab.stop_at(9).run(flaky, sleeper("other"), sleeper("dependent", "flaky"))
    assert lab.when("dependent", "starting") == 2
    assert lab.notices == ["dependent: starting even though flaky failed"]
    assert lab.all_ready[0].chain == ("flaky", "dependent")
    assert lab.report.first == "flaky"
    assert lab.exit_code == 0


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_dependent_that_needs_the_value_of_what_failed(lab: Lab, allowed: bool) -> None:
    """It fails with that reason, without retries, under its own allowance."""
    flaky = named("flaky", service(allowed_failure=True)(crash_later))

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
    flaky = named("flaky", service(allowed_failure=True)(crash_later))

    @service(depends=["flaky", "slow"], allowed_failure=True)
    async def consumer(flaky: str) -> None:
        lab.mark("never")

    await lab.stop_at(20).run(flaky, sleeper("slow", opening=9), consumer)
    assert lab.when("consumer", "failed") == 2
    assert lab.marks == []


async def test_a_lost_value_is_lost_for_all_above(lab: Lab) -> None:
    """A chain of consumers fails one after the other, without retries."""
    flaky = named("flaky", service(allowed_failure=True)(crash_later))

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
    flaky = named("flaky", service(allowed_failure=True)(crash_later))

    @service(depends=["flaky"])
    async def consumer(flaky: str = "none") -> None:
        lab.mark(flaky)

    await lab.stop_at(9).run(flaky, consumer)
    assert lab.marks == [(2, "none")]


async def test_every_service_failed(lab: Lab) -> None:
    """Though each had permission, an app of which nothing is left has failed."""
    await lab.run(named("a", service(allowed_failure=True)(fail)), named("b", service(allowed_failure=True)(fail)))
    assert lab.stop_began.reason == "every service has ended"
    assert lab.exit_code == 1


async def test_everything_done(lab: Lab) -> None:
    """When every service has ended, the app ends."""
    await lab.run(named("a", service(nothing)), named("b", service(oneshot=True)(nothing)))
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
        named("allowed", service(allowed_failure=True)(fail)),
        named("fatal", service(crash_later)),
        named("follower", service(fail_on_stop)),
    )
    assert lab.report.first == "fatal"


async def test_the_end_of_an_internal_service_is_not_the_end(lab: Lab) -> None:
    """One that returns by itself leaves the others alone, and is no service that has ended."""
    await lab.stop_at(5).run(Unit(named("hook", service(nothing)), internal=True), sleeper("a"))
    assert lab.when("hook", "done") == 1
    assert lab.when("a", "stopped") == 5
    assert lab.stop_began.reason == "asked"


async def test_what_was_abandoned_has_ended(lab: Lab) -> None:
    """An app in which nothing is left but what could not be cut does not idle."""

    @service(start_timeout=2, stop_timeout=2, allowed_failure=True)
    async def stuck(serving: Serving[str]) -> None:
        await hang(20)

    await lab.run(stuck, named("done", service(nothing)))
    assert lab.stopped_at == 5
    assert lab.stop_began.reason == "every service has ended"
    assert lab.exit_code == 3


async def test_a_dependency_that_is_left_out(lab: Lab) -> None:
    """An edge to what is not among the units is skipped."""
    await lab.stop_at(5).run(sleeper("a", "missing"))
    assert lab.when("a", "ready") == 0


async def test_a_cycle_is_refused() -> None:
    """Services that wait for each other are refused before anything runs."""
    with pytest.raises(CycleError, match="dependency cycle: a -> b -> a"):
        Orchestrator([Unit(sleeper("a", "b")), Unit(sleeper("b", "a"))])


# -- failures in mid-start ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"retries": Retry(times=1, delay=1, jitter=0)}], ids=["at once", "in the end"])
async def test_a_fatal_failure_acts_at_once_whatever_the_others_do(lab: Lab, options: dict[str, Any]) -> None:
    """Those that wait, back off, start, or run are stopped in that moment; dependents of any kind never start."""

    async def doomed(serving: Serving[str]) -> None:
        await crash_after(1, ValueError("boom"))

    async def never() -> None:
        lab.mark("never")

    async def consumer(doomed: str = "default") -> None:
        lab.mark("never")

    async def failing() -> None:
        raise ValueError

    async def slow(serving: Serving[None]) -> None:
        await anyio.sleep_forever()

    await lab.run(
        declared("doomed", doomed, **options),
        declared("order", never, depends=["doomed"]),
        declared("consumer", consumer, depends=["doomed"]),
        declared("above", never, depends=["consumer"]),
        declared("launch", never, depends=[started("order")]),
        declared("after-slow", never, depends=["slow"]),
        declared("slow", slow),
        declared("backing-off", failing, retries=Retry(times=None, delay=30)),
        declared("running", serve),
    )
    failed = 3 if options else 1
    assert lab.stopped_at == lab.when("doomed", "failed") == failed
    assert lab.marks == []
    for name in ("order", "consumer", "above", "launch", "after-slow"):
        assert lab.path(name) == "waiting stopped"
        assert lab.when(name, "stopped") == failed
    assert lab.when("backing-off", "stopped") == lab.when("running", "stopped") == failed
    assert lab.when("slow", "stopped") == failed + 1
    assert lab.exit_code == 1


async def test_what_backs_off_or_waits_is_not_done(lab: Lab) -> None:
    """The app does not end while any service will still run, though none runs at the moment."""

    async def flaky() -> None:
        lab.mark("runs")
        if len(lab.marks) == 1:
            raise ValueError("boom")

    async def last() -> None:
        await anyio.sleep(1)

    flaky_one = declared("flaky", flaky, retries=Retry(times=1, delay=20, jitter=0), oneshot=True)
    await lab.run(flaky_one, declared("last", last, depends=["flaky"]))
    assert lab.marks == [(0, "runs"), (20, "runs")]
    assert lab.stopped_at == 21
    assert lab.exit_code == 0


# -- two failures at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [True, False], ids=["one may", "neither may"])
async def test_two_failures_in_one_tick(lab: Lab, allowed: bool) -> None:
    """The first is the one that the stop is for, and never one that may fail; both are told."""
    now = anyio.Event()

    @service(allowed_failure=allowed)
    async def one() -> None:
        await now.wait()
        raise ValueError

    @service
    async def two() -> None:
        await now.wait()
        raise OSError

    await lab.at(5, now.set).run(one, two)
    assert {ending.state for ending in lab.report.endings} == {State.FAILED}
    assert lab.report.first == lab.stop_began.reason.removesuffix(" failed")
    assert lab.report.first == "two" if allowed else lab.report.first == lab.order("failed")[0]
    assert lab.exit_code == 1
