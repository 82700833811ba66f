"""One service: any exception, stray cancellation or interrupt is contained."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sniffio

from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import (
    StrayCancellation,
)
from kernel.lifecycle.events import State
from kernel.testing import RunFailed, running
from tests.harness import Lab, crash_after, resource
from tests.lifecycle.parts import ONCE, bystander

pytestmark = pytest.mark.anyio


# -- any exception -----------------------------------------------------------------------------------------------------


class Odd(BaseException):
    """An exception that `except Exception` does not catch."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "exception": lambda: ValueError("boom"),
    "group": lambda: ExceptionGroup("both", [ValueError("boom"), TypeError("bang")]),
    "base group": lambda: BaseExceptionGroup("both", [ValueError("boom"), SystemExit(3)]),
    "exit": lambda: SystemExit(3),
    "odd": lambda: Odd("boom"),
    "stop iteration": lambda: StopAsyncIteration("boom"),
    "cancelled by asyncio": lambda: asyncio.CancelledError("not by anyio"),
    "timeout": lambda: TimeoutError("boom"),
}


async def _early(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    raise error


async def _work(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    async with serving():
        await crash_after(1, error)


async def _clean_up(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    async with serving():
        await anyio.sleep(1)
    raise error


async def _background(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    async with serving() as work:
        work.start_soon(crash_after, 1, error)
        await anyio.sleep_forever()


async def _child_before_ready(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crash_after, 1, error)
        await anyio.sleep_forever()


async def _child_of_resource(lab: Lab, serving: Serving[None], error: BaseException) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(crash_after, 1, error)
        async with serving():
            await anyio.sleep_forever()


PLACES = {
    fn.__name__.strip("_"): fn
    for fn in (_early, _work, _clean_up, _background, _child_before_ready, _child_of_resource)
}


PHASES = {
    "early": "starting",
    "work": "serving",
    "clean_up": "serving",
    "background": "serving",
    "child_before_ready": "starting",
    "child_of_resource": "serving",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ERRORS)
async def test_any_exception_is_contained(lab: Lab, kind: str, place: str) -> None:
    """Whatever a service raises, and wherever, is its failure: the others run on, the error survives with a note."""
    if kind == "cancelled by asyncio":
        if sniffio.current_async_library() != "asyncio":
            pytest.skip("an asyncio.CancelledError means nothing to trio")
        if "child" in place:
            pytest.skip("the service's own task group takes it for the end of that child")
    error = ERRORS[kind]()

    @service(allowed_failure=True)
    async def api(serving: Serving[None]) -> None:
        await PLACES[place](lab, serving, error)

    await lab.stop_at(10).run(api, service(bystander))
    caught = lab.error("api")
    if kind == "cancelled by asyncio":
        assert isinstance(caught, StrayCancellation)
        assert isinstance(caught.__cause__, asyncio.CancelledError)
    else:
        if place.startswith("child"):
            assert isinstance(caught, BaseExceptionGroup)
            (inner,) = caught.exceptions
        else:
            inner = caught
        if isinstance(error, BaseExceptionGroup):  # trio copies it on its way
            assert isinstance(inner, BaseExceptionGroup)
            assert inner.exceptions == error.exceptions
        else:
            assert inner is error
    assert lab.notices == []
    assert caught.__notes__ == [f"in service api, {PHASES[place]}, attempt 1"]
    if place not in {"early", "clean_up"} and kind != "cancelled by asyncio":
        assert "crash_after" in "".join(traceback.format_exception(caught))
    assert lab.when("api", "failed") == (0 if place == "early" else 1)
    assert lab.ending("bystander").state is State.STOPPED
    assert lab.exit_code == 0


async def test_two_background_tasks_that_crash_at_once(lab: Lab) -> None:
    """Where several tasks crash at once, the group of their errors is the crash."""
    now = anyio.Event()

    async def crash(error: Exception) -> None:
        await now.wait()
        raise error

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving() as work:
            work.start_soon(crash, ValueError("one"))
            work.start_soon(crash, TypeError("two"))
            await anyio.sleep(1)
            now.set()
            await anyio.sleep_forever()

    error = (await lab.run(api)).error("api")
    assert isinstance(error, ExceptionGroup)
    assert {type(one) for one in error.exceptions} == {ValueError, TypeError}


async def test_the_cause_survives(lab: Lab) -> None:
    """A crash keeps its cause, its traceback, and no cancellation by which the block learnt of it."""

    def parse() -> None:
        try:
            int("x")
        except ValueError as error:
            raise RuntimeError("bad config") from error

    async def background() -> None:
        await anyio.sleep(1)
        parse()

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving() as work:
            work.start_soon(background)
            await anyio.sleep_forever()

    error = (await lab.run(api)).error("api")
    text = "".join(traceback.format_exception(error))
    assert isinstance(error.__cause__, ValueError)
    assert "in parse" in text
    assert "Cancelled" not in text
    assert "in service api, serving, attempt 1" in text


async def test_an_error_that_comes_again_is_noted_once(lab: Lab) -> None:
    """An error object that is raised at each attempt carries one note of ours, the latest."""
    error = ValueError("the same")
    error.add_note("the user's own")

    @service(retries=ONCE)
    async def api() -> None:
        raise error

    await lab.run(api)
    assert lab.error("api").__notes__ == ["the user's own", "in service api, running, attempt 2"]


async def test_an_error_that_is_retried_is_noted(lab: Lab) -> None:
    """Also a crash that is not the end tells where it came from."""

    @service(retries=ONCE)
    async def api(serving: Serving[None]) -> None:
        if lab.now < 1:
            raise ValueError("boom")
        async with serving():
            await anyio.sleep(1)

    await lab.run(api)
    backoff = lab.moves("api")[1]
    assert isinstance(backoff.error, ValueError)
    assert backoff.error.__notes__ == ["in service api, starting, attempt 1"]


async def test_a_group_of_the_services_own_class(lab: Lab) -> None:
    """A group that has nothing of ours in it is the error itself, no copy that would lose its class."""

    class Rejected(ExceptionGroup[Exception]):
        """A group with a meaning."""

    error = Rejected("two rows", [ValueError("one"), ValueError("two")])

    @service
    async def api() -> None:
        raise error

    assert (await lab.run(api)).error("api") is error


async def test_a_crash_that_the_service_deals_with(lab: Lab) -> None:
    """A service that catches the crash of its own block and returns is done."""

    @service
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await crash_after(0, ValueError("boom"))
        except ValueError:
            lab.mark("dealt with")

    await lab.run(api)
    assert lab.ending("api").state is State.DONE
    assert lab.marked == ["dealt with"]


# -- stray cancellations -----------------------------------------------------------------------------------------------


async def _captured() -> BaseException:
    """A cancellation that belongs to a scope which is gone."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class() as error:
            kept = error
            raise
    return kept


@pytest.mark.parametrize("place", ["early", "work", "background", "clean_up"])
async def test_a_stray_cancellation_is_a_crash(lab: Lab, place: str) -> None:
    """A cancellation that comes out of a service when none of our scopes was cancelled is its crash."""

    @service(retries=Retry(times=5, delay=1, jitter=0))
    async def api(serving: Serving[None]) -> None:
        lab.mark("attempt")
        if len(lab.marks) == 1:
            await PLACES[place](lab, serving, await _captured())
        async with serving():
            await anyio.sleep_forever()

    await lab.stop_at(10).run(api)
    assert "backoff starting ready stopping stopped" in lab.path("api")
    crash = next(move.error for move in lab.moves("api") if move.state is State.BACKOFF)
    assert isinstance(crash, StrayCancellation)
    assert isinstance(crash.__cause__, anyio.get_cancelled_exc_class())


async def test_a_task_that_is_cancelled_behind_our_back(lab: Lab) -> None:
    """Asyncio's task.cancel() on a service's task is a crash, not a stop."""
    if sniffio.current_async_library() != "asyncio":
        pytest.skip("trio has no such thing")
    tasks: list[asyncio.Task[Any] | None] = []

    @service(retries=Retry(times=5, delay=1, jitter=0))
    async def api(serving: Serving[None]) -> None:
        tasks.append(asyncio.current_task())
        async with resource(lab, "pool", closing=1), serving():
            await anyio.sleep_forever()

    def cancel() -> None:
        assert tasks[0]
        tasks[0].cancel()

    await lab.at(3, cancel).stop_at(10).run(api)
    assert lab.path("api") == "waiting starting ready stopping backoff starting ready stopping stopped"
    assert lab.marks[:3] == [(0, "pool open"), (3, "pool closing"), (4, "pool closed")]


async def test_a_plain_service_that_is_cancelled_behind_our_back(lab: Lab) -> None:
    """The same without `Serving`."""
    if sniffio.current_async_library() != "asyncio":
        pytest.skip("trio has no such thing")

    @service
    async def api() -> None:
        task = asyncio.current_task()
        assert task
        asyncio.get_running_loop().call_later(1, task.cancel)
        await anyio.sleep_forever()

    await lab.run(api)
    assert isinstance(lab.error("api"), StrayCancellation)
    assert lab.exit_code == 1


async def test_a_cancellation_from_clean_up_during_a_stop_is_no_crash(lab: Lab) -> None:
    """When our own scope was cancelled, a cancellation that comes out later is taken for ours."""

    @service
    async def api(serving: Serving[None]) -> None:
        stray = await _captured()
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            raise stray

    await lab.stop_at(1).run(api)
    assert lab.ending("api").state is State.STOPPED


async def test_an_error_beside_our_own_cancellation(lab: Lab) -> None:
    """Of a group with our own cancellation in it only the rest is the service's error."""

    @service
    async def api(serving: Serving[None]) -> None:
        ours = await _captured()
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            raise BaseExceptionGroup("both", [ours, OSError("half written")])

    await lab.stop_at(1).run(api)
    error = lab.error("api")
    assert isinstance(error, ExceptionGroup)
    assert [type(one) for one in error.exceptions] == [OSError]


async def test_a_stray_cancellation_while_draining_is_a_crash(lab: Lab) -> None:
    """A service that drains is not cancelled, so a cancellation that comes out of it is none of ours."""

    @service
    async def api(serving: Serving[None]) -> None:
        stray = await _captured()
        async with serving(drain=True) as work:
            await work.stop_requested()
        raise stray

    await lab.stop_at(1).run(api)
    assert isinstance(lab.error("api"), StrayCancellation)


async def test_own_scopes_are_the_services_business(lab: Lab) -> None:
    """A service may cancel scopes of its own inside its work."""

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving():
            with anyio.move_on_after(2):
                await anyio.sleep_forever()
            lab.mark("went on")
            await anyio.sleep(1)

    await lab.run(api)
    assert lab.marks == [(2, "went on")]
    assert lab.ending("api").state is State.DONE


async def test_an_error_in_a_task_of_asyncio_moves_no_state(lab: Lab) -> None:
    """A task that was made with asyncio.create_task is nobody's child: its error changes no service."""
    if sniffio.current_async_library() != "asyncio":
        pytest.skip("trio has no such thing")
    seen: list[dict[str, Any]] = []

    @service
    async def api(serving: Serving[None]) -> None:
        async with serving():
            task = asyncio.create_task(crash_after(1, ValueError("boom")))
            await anyio.sleep(5)
            seen.append({"error": task.exception()})

    await lab.run(api)
    assert lab.ending("api").state is State.DONE
    assert isinstance(seen[0]["error"], ValueError)


# -- KeyboardInterrupt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
async def test_keyboard_interrupt_is_a_signal(lab: Lab, place: str) -> None:
    """A KeyboardInterrupt that comes up in a service asks the app to stop, and is no crash."""

    @service(retries=5)
    async def api(serving: Serving[None]) -> None:
        await PLACES[place](lab, serving, KeyboardInterrupt())

    await lab.run(api, service(bystander))
    assert lab.ending("api").state is State.STOPPED
    assert lab.ending("bystander").state is State.STOPPED
    assert lab.ending("api").attempts == 1
    assert lab.stop_began.reason == "KeyboardInterrupt"
    assert not lab.stop_began.failure
    assert lab.exit_code == 0


async def test_keyboard_interrupt_while_stopping(lab: Lab) -> None:
    """During a stop it changes nothing any more."""

    @service
    async def api(serving: Serving[None]) -> None:
        try:
            async with serving():
                await anyio.sleep_forever()
        finally:
            raise KeyboardInterrupt

    await lab.stop_at(1).run(api, service(bystander))
    assert lab.ending("api").state is State.STOPPED
    assert lab.exit_code == 0


async def test_an_error_that_is_not_retried_is_final() -> None:
    """A wrong password needs no six tries; the reason is told; what is in `on` is tried again."""
    errors = [ConnectionError("away"), PermissionError("wrong password")]

    @service(retries=Retry(times=5, on=ConnectionError))
    async def database() -> None:
        raise errors.pop(0)

    with pytest.raises(RunFailed) as caught:
        async with running(database):
            await anyio.sleep(100)
    run = caught.value.run
    assert run.states(database)[-2:] == [State.STOPPING, State.FAILED]
    assert run.transitions(database)[-1].reason == (
        "after 2 attempts and is not retried, since PermissionError is not in Retry(on=...)"
    )
