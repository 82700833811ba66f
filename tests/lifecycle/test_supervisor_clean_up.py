"""One service: clean-up that fails, hangs or is cut off."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from kernel.declare.service import Service, service
from kernel.declare.serving import Serving
from kernel.lifecycle.events import Notice, State
from tests.harness import Lab, crash_after, hang, resource
from tests.lifecycle.parts import ONCE, bystander

pytestmark = pytest.mark.anyio


async def test_clean_up_fails_after_a_crash(lab: Lab) -> None:
    """The crash comes first; what clean-up raised after it is noted, and it is one failed attempt."""

    @service(retries=ONCE)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                raise ValueError("the crash")
        finally:
            raise OSError("the clean-up")

    await lab.run(api)
    error = lab.error("api")
    assert isinstance(error, ValueError)
    assert "its clean-up then raised OSError: the clean-up" in error.__notes__
    assert lab.moves("api")[2].reason == "crashed"
    assert lab.ending("api").attempts == 2
    assert lab.ending("api").reason == "after 2 attempts"
    assert lab.notices == ["api: clean-up failed after the crash"] * 2
    assert all(isinstance(one.error, OSError) for one in lab.events if isinstance(one, Notice))


@pytest.mark.parametrize("crash", [ValueError("the crash"), ExceptionGroup("two", [ValueError(), OSError()])], ids=repr)
async def test_clean_up_that_wraps_the_crash(lab: Lab, crash: Exception) -> None:
    """A resource that raises the crash within a group, as task groups do, adds nothing that failed."""

    @service
    async def api(serving: Serving[None]) -> None:
        async with anyio.create_task_group(), serving():
            raise crash

    await lab.run(api)
    error = lab.error("api")
    assert isinstance(error, ExceptionGroup)
    assert isinstance(error.exceptions[0], type(crash))
    assert error.__notes__ == ["in service api, serving, attempt 1"]
    assert lab.notices == []


async def test_clean_up_fails_on_a_stop(lab: Lab) -> None:
    """Clean-up that fails on a stop is a failure, which is not retried."""

    @service(retries=5)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            raise OSError("the clean-up")

    await lab.stop_at(1).run(api, service(bystander))
    assert lab.path("api") == "waiting starting ready stopping failed"
    assert isinstance(lab.error("api"), OSError)
    assert lab.error("api").__notes__ == ["in service api, stopping, attempt 1"]
    assert lab.exit_code == 1


async def test_clean_up_fails_on_a_stop_with_permission(lab: Lab) -> None:
    """One that may fail may fail there too."""

    @service(allowed_failure=True)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            raise OSError("the clean-up")

    await lab.stop_at(1).run(api, service(bystander))
    assert lab.ending("api").state is State.FAILED
    assert lab.exit_code == 0


def hangs_after_its_crash(stop_timeout: float) -> Service[..., None]:
    """A service that crashes after 1 s, and whose clean-up does not end by itself."""

    @service(stop_timeout=stop_timeout)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await crash_after(1, ValueError("the crash"))
        finally:
            await anyio.sleep_forever()

    return api


async def test_clean_up_of_a_crash_that_hangs(lab: Lab) -> None:
    """The clean-up after a crash is on the clock too, and the crash comes first."""
    await lab.run(hangs_after_its_crash(4))
    assert lab.when("api", "failed") == 5
    assert isinstance(lab.error("api"), ValueError)


async def test_clean_up_of_a_crash_that_cannot_be_cut(lab: Lab) -> None:
    """The crash survives also behind a clean-up that was given up."""

    @service(stop_timeout=2, allowed_failure=True)
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await crash_after(1, ValueError("the crash"))
        finally:
            await hang(50)

    await lab.stop_at(20).run(api, service(bystander))
    assert lab.when("api", "abandoned") == 4
    assert isinstance(lab.error("api").__cause__, ValueError)


async def test_clean_up_of_a_crash_that_is_cut_by_a_stop(lab: Lab) -> None:
    """The crash survives also where its clean-up was cut in the course of a stop."""
    await lab.stop_at(2).run(hangs_after_its_crash(60), service(bystander))
    assert lab.when("api", "failed") == 11.5
    error = lab.error("api")
    assert ValueError in {type(error), type(error.__cause__)}
    assert lab.exit_code == 1


@pytest.mark.parametrize("drain", [False, True])
async def test_clean_up_fails_after_a_crash_in_a_stop(lab: Lab, *, drain: bool) -> None:
    """The crash comes first also where a stop was requested, whether the work was cancelled or let finish."""

    @service
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving(drain=drain) as work:
                try:
                    await work.stop_requested()
                finally:
                    raise ValueError("the crash")
        finally:
            raise OSError("the clean-up")

    await lab.stop_at(5).run(api)
    assert str(lab.error("api")) == "the crash"
    assert "its clean-up then raised OSError: the clean-up" in lab.error("api").__notes__
    assert lab.notices == ["api: clean-up failed after the crash"]


async def test_clean_up_after_a_resource_has_crashed(lab: Lab) -> None:
    """The resource cancels the work: the service stops being ready, and its clean-up is on the clock, from then on."""

    @service(stop_timeout=6, allowed_failure=True)
    async def api(serving: Serving[None]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crash_after, 5, ValueError("the crash"))
            try:
                async with serving():
                    await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(2)

    await lab.stop_at(20).run(api, service(bystander))
    assert (lab.when("api", "stopping"), lab.when("api", "failed")) == (5, 7)
    assert lab.moves("api")[2].reason == "crashed"


@pytest.mark.parametrize("place", ["work", "background", "early"])
async def test_a_crash_in_the_same_tick_as_the_stop(lab: Lab, place: str) -> None:
    """A service that crashes in the very step in which it is asked to stop has failed."""

    @service(retries=5)
    async def api(serving: Serving[None]) -> None:
        if place == "early":
            await crash()
        async with serving() as work:
            if place == "background":
                work.start_soon(crash)
                await anyio.sleep_forever()
            await crash()

    async def crash() -> None:
        await anyio.sleep(1)
        lab.orchestrator.request_stop("asked")
        raise ValueError("boom")

    await lab.run(api, service(bystander))
    assert lab.ending("api").state is State.FAILED
    assert isinstance(lab.error("api"), ValueError)
    assert lab.ending("api").attempts == 1
    assert lab.exit_code == 1


async def test_a_crash_just_before_the_stop(lab: Lab) -> None:
    """A crash that is still unwinding when the stop comes makes the service failed."""

    @service(retries=5)
    async def api(serving: Serving[None]) -> None:
        async with resource(lab, "pool", closing=2), serving():
            await crash_after(1, ValueError("boom"))

    await lab.stop_at(2).run(api, service(bystander))
    assert lab.path("api") == "waiting starting ready stopping failed"
    assert lab.when("api", "failed") == 3
    assert lab.exit_code == 1
