"""The tasks of the services: who waits for them, and what comes out of them."""

from __future__ import annotations

import asyncio
import contextvars

import anyio
import pytest
import sniffio

from kernel.lifecycle.tasks import open_tasks, spawn_apart

pytestmark = pytest.mark.anyio

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="")


async def test_whoever_leaves_waits_until_all_have_ended() -> None:
    """Also if it is cancelled meanwhile: the tasks are nobody's to abandon."""
    ended: list[str] = []
    began = anyio.current_time()

    async def work() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)
        ended.append("work")

    with anyio.move_on_after(1):
        async with open_tasks() as tasks:
            tasks.spawn(work, "work", contextvars.copy_context())
    assert ended == ["work"]
    assert anyio.current_time() - began == pytest.approx(3)


async def test_each_has_its_name_and_a_context_of_its_own() -> None:
    """What one sets the others do not see."""
    seen: list[tuple[str, str]] = []

    async def work() -> None:
        seen.append((str(anyio.get_current_task().name), name.get()))
        name.set("changed")

    name.set("given")
    async with open_tasks() as tasks:
        for one in ("a", "b"):
            tasks.spawn(work, one, contextvars.copy_context())
    assert sorted(seen) == [("a", "given"), ("b", "given")]
    assert name.get() == "given"


async def test_what_comes_out_of_one_ends_the_block() -> None:
    """No supervisor lets anything out; an error in the kernel itself must not be lost either."""

    async def runs() -> None:
        async with open_tasks() as tasks:
            tasks.spawn(_fail, "bug", contextvars.copy_context())
            await anyio.sleep(1000)

    with pytest.raises(BaseExceptionGroup) as caught:
        await runs()
    assert caught.group_contains(ZeroDivisionError)


async def _fail() -> None:
    raise ZeroDivisionError


async def test_one_that_is_cancelled_behind_our_back_ends_the_block() -> None:
    """Somebody cancels every task of the loop before the first step of one: its end is no secret."""
    if sniffio.current_async_library() != "asyncio":
        pytest.skip("only asyncio lets anybody cancel any task")
    began = anyio.current_time()

    async def runs() -> None:
        async with open_tasks() as tasks:
            tasks.spawn(_fail, "unlucky", contextvars.copy_context())
            next(task for task in asyncio.all_tasks() if task.get_name() == "unlucky").cancel()
            await anyio.sleep(1000)

    with pytest.raises(BaseExceptionGroup) as caught:
        await runs()
    assert caught.group_contains(RuntimeError, match="the task of unlucky was cancelled before it started")
    assert anyio.current_time() == began


async def test_a_task_apart_has_its_name_and_is_in_no_scope() -> None:
    """Whoever starts it may be cancelled; it runs on."""
    seen: list[str] = []
    ended = anyio.Event()

    async def work() -> None:
        await anyio.sleep(3)
        seen.append(str(anyio.get_current_task().name))
        ended.set()

    with anyio.CancelScope() as scope:
        assert spawn_apart(work, "apart") is not None
        scope.cancel()
        await anyio.sleep(1)
    await ended.wait()
    assert seen == ["apart"]
