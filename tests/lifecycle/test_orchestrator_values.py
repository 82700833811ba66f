"""All services: consumers end before their provider closes what it provides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import attrs
import pytest

from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import StopTimeout, ValueLost
from kernel.lifecycle.events import State
from tests.harness import Lab, crash_after, hang, resource
from tests.lifecycle.parts import ONCE, Part, chain, provider, sleeper, story

pytestmark = pytest.mark.anyio


# -- consumers end first -----------------------------------------------------------------------------------------------


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


async def test_a_consumer_that_serves_after_it_was_abandoned(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Its block is cancelled at once, and no time limit is set any more."""

    @service(depends=["db"], stop_timeout=2, allowed_failure=True)
    async def api(db: str, serving: Serving[None]) -> None:
        await hang(8)
        async with serving():
            await hang(3)
            lab.mark("stopped")
            await anyio.sleep_forever()

    await lab.stop_at(50).run(provider(lab, failing=lambda: lab.now < 4), api)
    assert lab.path("api") == "waiting starting stopping abandoned"
    assert (lab.when("api", "abandoned"), lab.marked_at("stopped")) == (8, 11)
    assert lab.notices == ["api: ended after it had been abandoned"]
    assert not caplog.records


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


# -- values and readiness that come and go -----------------------------------------------------------------------------


@pytest.mark.parametrize("crashes", [True, False], ids=["fails with permission", "leaves unasked"])
async def test_a_consumer_with_a_default_goes_on_without_a_value_that_is_gone_for_good(lab: Lab, crashes: bool) -> None:
    """It has let go of the value before the provider closes, and then starts again with its default."""
    part = Part(crashes=(5,)) if crashes else Part(leaves=(5,))
    (db,) = chain(db=attrs.evolve(part, closing=1, retries=0, allowed=True))

    @service(depends=["db"])
    async def cache(db: str = "default") -> None:
        lab.mark(db)
        await anyio.sleep_forever()

    await lab.stop_at(10).run(db, cache)
    assert story(lab, "cache") == "ready@0 stopping@5 waiting@5 ready@6 stopping@10 stopped@10"
    assert lab.marked == ["value", "default"]
    assert lab.exit_code == 0


async def test_what_is_about_to_be_restarted_is_not_ready(lab: Lab) -> None:
    """One whose value goes still serves its own consumers; who waits for it and for another waits on."""
    parts = chain(db=Part(crashes=(2,)), cache=Part(), api=Part(closing=3))

    @service
    async def other(serving: Serving[None]) -> None:
        await anyio.sleep(3)
        async with serving():
            await anyio.sleep_forever()

    @service(depends=["cache", "other"])
    async def both() -> None:
        await anyio.sleep_forever()

    await lab.stop_at(10).run(*parts, other, both)
    assert story(lab, "cache").startswith("ready@0 stopping@5 waiting@5 ready@6")
    assert story(lab, "both").startswith("ready@6")
