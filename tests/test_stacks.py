"""Where code stands."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType

import anyio
import pytest

from kernel import stacks

pytestmark = pytest.mark.anyio


async def outer() -> None:
    await inner()


async def inner() -> None:
    await anyio.sleep_forever()


@asynccontextmanager
async def closing() -> AsyncIterator[None]:
    try:
        yield
    finally:
        await anyio.sleep_forever()


async def in_a_resource() -> None:
    async with closing():
        pass


@pytest.mark.parametrize(
    ("function", "stands"), [(outer, "in inner"), (in_a_resource, "in closing")], ids=["call", "resource"]
)
async def test_a_coroutine_stands_at_the_users_innermost_line(function: object, stands: str) -> None:
    """It is the innermost line that is neither the kernel's nor a library's."""
    coroutine = function()  # type: ignore[operator]

    async def run() -> None:
        await coroutine

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await anyio.sleep(1)
        where = stacks.stands_at(coroutine)
        tasks.cancel_scope.cancel()
    assert where.startswith("tests/test_stacks.py:")
    assert where.endswith(stands)


async def test_a_coroutine_that_has_not_begun_or_has_ended() -> None:
    """Before its first step it stands at its first line, after its last nowhere."""
    coroutine = inner()
    assert stacks.stands_at(coroutine).endswith("in inner")
    coroutine.close()
    assert stacks.stands_at(coroutine) == "an unknown line"
    assert stacks.stands_at(None) == "an unknown line"


def test_a_thread_runs_at_the_users_innermost_line() -> None:
    """Code of a library is where a thread is, but not what its user wants to know."""
    done, frames = threading.Event(), list[FrameType | None]()

    def wait() -> None:
        done.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        while not stacks.runs_at(frame := sys._current_frames().get(thread.ident or 0)).endswith("<locals>.wait"):
            pass
        frames.append(frame)
        where = stacks.runs_at(frames[0])
    finally:
        done.set()
        thread.join()
    assert where.startswith("tests/test_stacks.py:")
    assert stacks.runs_at(None) == "an unknown line"


def test_a_thread_without_a_line_of_the_users() -> None:
    """Where all frames are a library's, the innermost one is named."""
    assert ": in" not in stacks.runs_at(sys._getframe())
    frames: list[FrameType] = []
    sorted([1], key=lambda _: frames.append(sys._getframe()))  # type: ignore[arg-type,return-value]
    assert "test_a_thread_without_a_line_of_the_users" in stacks.runs_at(frames[0])


def test_a_traceback_begins_with_the_users_frames() -> None:
    """The kernel's own frames at its top say nothing."""
    from kernel.declare.service import service

    @service
    async def fails() -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom") as caught:
        anyio.run(fails)
    traceback = stacks.without_kernel(caught.value)
    assert traceback is not None
    assert not traceback.tb_frame.f_code.co_filename.startswith(stacks.KERNEL)
    assert stacks.without_kernel(ValueError()) is None
