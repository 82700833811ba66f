"""Where code stands."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType

import anyio
import pytest

from kernel import stacks
from tests.odd_errors import Unchangeable

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
    """The kernel's own frames at its top say nothing; below them they may, and so do they where there are no others."""
    found = stacks.without_kernel(raised(lambda: calls(lambda: calls(fails))))
    assert [frame.name for frame in traceback.extract_tb(found)] == ["<lambda>", "calls", "fails"]
    found = stacks.without_kernel(raised(lambda: calls(lambda: calls(None))))
    assert [frame.name for frame in traceback.extract_tb(found)] == ["<lambda>", "calls"]
    found = stacks.without_kernel(raised(lambda: calls(None)))
    assert [frame.name for frame in traceback.extract_tb(found)] == ["calls"]
    assert stacks.without_kernel(ValueError()) is None


def raised(function: Callable[[], object]) -> Exception:
    """Return what *function* raises, as what it calls would have caught it."""
    with pytest.raises((ZeroDivisionError, AssertionError)) as caught:
        function()
    error = caught.value
    assert error.__traceback__ is not None
    assert error.__traceback__.tb_next is not None
    return error.with_traceback(error.__traceback__.tb_next.tb_next)


def calls(function: Callable[[], object] | None) -> None:
    """Call *function*, as code of the kernel."""
    assert function is not None
    function()


calls.__code__ = calls.__code__.replace(co_filename=f"{stacks.KERNEL}calls.py")


def fails() -> None:
    1 / 0  # noqa: B018


# -- paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "unpacked", "told"),
    [
        ("{here}/services/api.py", False, "services/api.py"),
        ("{here}x/services/api.py", False, "{here}x/services/api.py"),
        ("/lib/{here}/api.py", False, "/lib/{here}/api.py"),
        ("{root}services/api.py", True, "services/api.py"),
        ("/lib/api.py", True, "/lib/api.py"),
    ],
)
def test_a_path_for_people(monkeypatch: pytest.MonkeyPatch, path: str, told: str, *, unpacked: bool) -> None:
    """It is relative to the current folder, or to the artifact's; what is not below stays whole."""
    monkeypatch.setattr(stacks, "UNPACKED", unpacked)
    names = {"here": os.getcwd(), "root": stacks.ROOT}  # noqa: PTH109
    assert stacks.shorten(path.format(**names)) == told.format(**names)


def test_a_path_where_the_folder_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays whole."""

    def gone() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", gone)
    assert stacks.shorten("/shop/services/api.py") == "/shop/services/api.py"


@pytest.mark.parametrize(
    ("path", "own", "in_artifact"),
    [
        (f"{stacks.ROOT}services/api.py", True, True),
        (f"{stacks.ROOT}app/init.py", True, True),
        ("/shared/own.py", True, False),
        (f"{stacks.ROOT}conftest.py", True, False),
        (stacks.__file__, False, False),
        (anyio.__file__, False, False),
        ("/x/dist-packages/y.py", False, False),
        (os.__file__, False, False),
        ("<frozen importlib>", False, False),
        (f"{stacks.ROOT}services/.venv/site-packages/x.py", False, False),
    ],
)
def test_whose_file_it_is(monkeypatch: pytest.MonkeyPatch, path: str, *, own: bool, in_artifact: bool) -> None:
    """In a tree, all that is not Python's, a library's or the kernel's; in an artifact, `app` and `services`."""
    stacks._places.cache_clear()
    try:
        assert stacks.is_users_file(path) is own
        stacks._places.cache_clear()
        monkeypatch.setattr(stacks, "UNPACKED", True)
        assert stacks.is_users_file(path) is in_artifact
    finally:
        stacks._places.cache_clear()


# -- threads, and errors -----------------------------------------------------------------------------------------


def test_the_frame_of_a_thread() -> None:
    """The one that it runs now; None for one that does not run."""
    frame = stacks.frame_of(threading.get_ident())
    assert frame is not None
    assert frame.f_back is sys._getframe()
    assert stacks.frame_of(None) is None
    assert stacks.frame_of(1) is None


def test_whose_code_runs() -> None:
    """A function's own frame decides, or a caller's, or the file of one that is the only one in it."""
    seen: list[str] = []

    def one() -> None:
        other()

    def other() -> None:
        seen.append(stacks.owner_of(sys._getframe(), {"x": fails, "one": one}))
        seen.append(stacks.owner_of(sys._getframe(), {"x": fails, "one": one, "other": other}))
        seen.append(stacks.owner_of(sys._getframe(), {"x": fails, "y": inner}))
        seen.append(stacks.owner_of(sys._getframe(), {"x": fails, "odd": len}))

    one()
    assert seen == ["one", "other", "", "x"]
    assert stacks.owner_of(None, {"x": fails}) == ""


def test_frames_are_forgotten() -> None:
    """Those of an error, its causes, contexts, and of all in its group; each once, even in a ring."""
    first, second, third, fourth = (raised(lambda: calls(fails)) for _ in range(4))
    group = ExceptionGroup("all", [first, ExceptionGroup("some", [second])])
    first.__cause__, second.__context__, third.__cause__ = third, fourth, first
    assert all(error.__traceback__ is not None for error in (first, second, third, fourth))
    stacks.forget_frames(group)
    assert all(error.__traceback__ is None for error in (first, second, third, fourth))
    stacks.forget_frames(Unchangeable())
