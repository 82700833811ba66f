"""One service: how it is stopped."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import (
    StopTimeout,
    Uncancellable,
)
from kernel.lifecycle.events import State
from tests.harness import Lab, block_the_loop, hang, resource
from tests.lifecycle.parts import bystander, stood

pytestmark = pytest.mark.anyio


# -- stopping ----------------------------------------------------------------------------------------------------------


async def test_a_stop_while_starting(lab: Lab) -> None:
    """A service that is starting has 1 s to reach `serving`; then its whole attempt is cancelled."""

    @service
    async def db(serving: Serving[None]) -> None:
        try:
            await anyio.sleep(50)
        finally:
            lab.mark("cancelled")
            await hang(2)

    await lab.stop_at(5).run(db)
    assert lab.path("db") == "waiting starting stopping stopped"
    assert lab.marks == [(6, "cancelled")]
    assert lab.when("db", "stopped") == 8
    assert lab.exit_code == 0


async def test_a_stop_while_starting_that_cannot_be_cut(lab: Lab) -> None:
    """One that ignores its cancellation after that second is given up at the deadline."""

    @service
    async def db(serving: Serving[None]) -> None:
        await hang(50)

    await lab.stop_at(5).run(db)
    assert lab.path("db") == "waiting starting stopping abandoned"
    assert lab.when("db", "abandoned") == 15
    assert lab.exit_code == 3


async def test_a_stop_while_starting_that_reaches_serving(lab: Lab) -> None:
    """One that reaches `serving` within that second closes its resources calmly, and never was ready."""

    @service
    async def db(serving: Serving[None]) -> None:
        async with resource(lab, "pool", opening=5.5, closing=3), serving():
            lab.mark("entered")
            await anyio.lowlevel.checkpoint()
            lab.mark("never")

    await lab.stop_at(5).run(db)
    assert lab.path("db") == "waiting starting stopping stopped"
    assert lab.marks == [(5.5, "pool open"), (5.5, "entered"), (5.5, "pool closing"), (8.5, "pool closed")]
    assert not lab.all_ready


async def test_a_stop_while_starting_that_gives_up_starting(lab: Lab) -> None:
    """One that returns within that second without having served was stopped, and has not failed."""

    @service
    async def db(serving: Serving[None]) -> None:
        await anyio.sleep(5.5)

    await lab.stop_at(5).run(db)
    assert lab.path("db") == "waiting starting stopping stopped"
    assert lab.when("db", "stopped") == 5.5
    assert lab.exit_code == 0


async def test_a_stop_before_the_first_step(lab: Lab) -> None:
    """A service that was launched and asked to stop in one step does not run at all."""

    @service
    async def db(serving: Serving[None]) -> None:
        async with serving():  # launches its dependents
            lab.orchestrator.request_stop("at once")
            await anyio.sleep_forever()

    @service(depends=["db"])
    async def plain() -> None:
        lab.mark("never")

    @service(depends=["db"])
    async def api(serving: Serving[None]) -> None:
        lab.mark("never")

    await lab.run(db, plain, api)
    assert lab.path("plain") == lab.path("api") == "waiting starting stopping stopped"
    assert lab.marks == []
    assert lab.now == 0


async def test_a_oneshot_is_cancelled_at_once(lab: Lab) -> None:
    """A one-shot that runs when the stop comes is cancelled as a whole."""

    @service(oneshot=True)
    async def migrate() -> None:
        await anyio.sleep(50)

    await lab.stop_at(5).run(migrate)
    assert lab.path("migrate") == "waiting starting stopping stopped"
    assert lab.when("migrate", "stopped") == 5


async def test_a_oneshot_that_returns_in_spite_of_the_stop(lab: Lab) -> None:
    """A one-shot that finishes its work from behind a shield is done."""

    @service(oneshot=True)
    async def migrate() -> None:
        await hang(8)

    await lab.stop_at(5).run(migrate)
    assert lab.path("migrate") == "waiting starting stopping done"
    assert lab.when("migrate", "done") == 8


async def test_overran(lab: Lab) -> None:
    """A service whose clean-up takes longer than its stop_timeout is cut there, and has failed."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        try:
            await anyio.sleep(50)  # the slow clean-up
        finally:
            lab.mark("cut")

    await lab.stop_at(5).run(db, service(bystander))
    assert lab.path("db") == "waiting starting ready stopping failed"
    assert lab.marks == [(8, "cut")]
    error = lab.error("db")
    assert isinstance(error, StopTimeout)
    assert error.seconds == pytest.approx(3)
    assert "the slow clean-up" in stood(error.where)
    assert lab.ending("db").reason.startswith("db did not stop in time: cancelled 3 s after the request")
    assert lab.exit_code == 1


async def test_overran_with_permission(lab: Lab) -> None:
    """One that may fail may overrun."""

    @service(stop_timeout=3, allowed_failure=True)
    async def db() -> None:
        await hang(8.5)

    await lab.stop_at(5).run(db, service(bystander))
    assert lab.ending("db").state is State.FAILED
    assert lab.when("db", "failed") == 8.5
    assert lab.exit_code == 0


async def test_what_clean_up_raises_when_it_is_cut(lab: Lab) -> None:
    """What a service raises because it was cut is kept behind "overran"."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        try:
            await anyio.sleep(50)
        finally:
            raise OSError("half written")

    await lab.stop_at(5).run(db, service(bystander))
    error = lab.error("db")
    assert isinstance(error, StopTimeout)
    assert isinstance(error.__cause__, OSError)


async def test_abandoned(lab: Lab) -> None:
    """What ignores even the cut is abandoned, with the line where it stands; its late end is noticed."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await hang(50)

    await lab.stop_at(5).run(db, service(bystander))
    assert lab.path("db") == "waiting starting ready stopping abandoned"
    assert lab.when("db", "abandoned") == 15
    error = lab.error("db")
    assert isinstance(error, Uncancellable)
    assert "await anyio.sleep(seconds)" in stood(error.where)
    assert isinstance(error.__cause__, StopTimeout)
    assert lab.now == 50
    assert lab.notices == ["db: ended after it had been abandoned"]
    assert lab.exit_code == 3


async def test_abandoned_with_permission(lab: Lab) -> None:
    """That one may fail does not hide that it was abandoned."""

    @service(stop_timeout=3, allowed_failure=True)
    async def db() -> None:
        await hang(50)

    await lab.stop_at(5).run(db, service(bystander))
    assert lab.exit_code == 3


async def test_the_deadline_passed(lab: Lab) -> None:
    """A loop that was blocked beyond the deadline makes exit code 3, though every service ended well."""

    @service
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        block_the_loop(11)

    await lab.stop_at(5).run(db, shutdown_timeout=10.0)
    assert lab.ending("db").state is State.STOPPED
    assert lab.report.stopping == pytest.approx(11)
    assert lab.exit_code == 3


# -- cut, though nobody had asked --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        "is cancelled",
        "returns",
        "raises",
    ],
)
async def test_a_service_that_left_its_block_and_had_to_be_cut_has_failed(lab: Lab, how: str) -> None:
    """It overran, as it would have in a stop, whatever it did when it was cut."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep(1)
        try:
            await anyio.sleep_forever()
        except BaseException as cancellation:
            if how == "raises":
                raise OSError("half written") from cancellation
            if how == "is cancelled":
                raise

    await lab.run(db)
    error = lab.error("db")
    assert isinstance(error, StopTimeout)
    assert (error.__cause__ is not None) is (how == "raises")
    assert lab.exit_code == 1
