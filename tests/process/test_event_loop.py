"""The kernel's own event loop."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest
import sniffio
import uvloop

from kernel.process import event_loop


async def exits() -> None:
    """Raise what asyncio lets out of its loop."""
    raise SystemExit(7)


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_the_loop_outlives_a_task_that_exits(name: str) -> None:
    """A SystemExit in a task is that task's, and its group's."""

    async def main(_: event_loop.Wake) -> str:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(exits)
        assert caught.group_contains(SystemExit)
        return "alive"

    assert event_loop.run(main, name) == "alive"


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_the_loop_stops_although_a_task_exits_at_the_same_time(name: str) -> None:
    """An exception that leaves the same iteration makes asyncio forget that it was to stop, but not this loop."""
    loop = event_loop._new_loop(name)
    left = []
    try:
        loop.call_soon(loop.stop)
        left.append(loop.create_task(exits()))
        loop.run_forever()
        assert isinstance(left[0].exception(), SystemExit)
    finally:
        loop.close()


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_wakes(name: str) -> None:
    """What is handed to `wake` is called by the loop, where anyio knows it."""

    async def main(wake: event_loop.Wake) -> bool:
        woken = anyio.Event()
        found: list[str] = []

        def called() -> None:
            found.append(sniffio.current_async_library())
            woken.set()

        thread = threading.Thread(target=wake, args=(called,))  # which knows nothing of the loop
        thread.start()
        with anyio.fail_after(5):
            await woken.wait()
        thread.join()
        return found == ["trio" if name == "trio" else "asyncio"]

    assert event_loop.run(main, name)


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_what_runs_it(name: str) -> None:
    """The loop that was asked for, and no other."""

    async def main(_: event_loop.Wake) -> str:
        if sniffio.current_async_library() == "trio":
            return "trio"
        loop = asyncio.get_running_loop()
        assert isinstance(loop, uvloop.Loop | asyncio.SelectorEventLoop)
        return "uvloop" if isinstance(loop, uvloop.Loop) else "asyncio"

    assert event_loop.run(main, name) == name


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "trio"])
def test_an_error_of_what_it_runs(name: str) -> None:
    """It comes out as it is."""

    async def main(_: event_loop.Wake) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        event_loop.run(main, name)


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_what_the_loop_raises_after_its_end(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The result holds, and what went wrong is logged: asyncio needs a thread to close the executor's."""

    async def main(_: event_loop.Wake) -> str:
        if name == "asyncio":
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, int)
            monkeypatch.setattr(threading.Thread, "start", no_thread)
        return "result"

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("kernel.process.contain._said", set())
        assert event_loop.run(main, name) == "result"
    assert ("the end of the event loop failed" in caplog.text) == (name == "asyncio")
