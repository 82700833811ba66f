"""All services: a further signal."""

from __future__ import annotations

import anyio
import attrs
import pytest

from kernel.declare.service import service, started
from kernel.declare.serving import Serving
from kernel.errors import StopTimeout
from kernel.lifecycle.events import Forced
from tests.harness import Lab, hang
from tests.lifecycle.parts import named, nothing, provider, sleeper, stubborn

pytestmark = pytest.mark.anyio


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
    await lab.run(named("a", service(nothing)))
    lab.orchestrator.force()
    assert lab.forced == []
