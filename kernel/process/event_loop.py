"""Run an event loop that signals can wake, and that survives SystemExit. anyio provides neither."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from kernel.process.contain import say_once

T = TypeVar("T")
Wake = Callable[[Callable[[], None]], object]


def run(main: Callable[[Wake], Awaitable[T]], backend: str) -> T:
    """Run *main* on *backend*: "asyncio", "uvloop" (a faster loop for asyncio) or "trio".

    *main* gets a function that makes the loop call another function soon; any thread may use it. Errors that the loop
    raises after *main* has returned are logged: asyncio may fail to start a thread when it closes.
    """
    results: list[T] = []

    async def keep(wake: Wake) -> None:
        results.append(await main(wake))

    try:
        if backend == "trio":
            anyio.run(_on_trio, keep, backend="trio")
        else:
            options = {"loop_factory": functools.partial(_new_loop, backend)}
            anyio.run(_on_asyncio, keep, backend="asyncio", backend_options=options)
    except BaseException as error:  # noqa: ASYNC103
        if not results:
            raise
        say_once("the end of the event loop", error)
    return results[0]


async def _on_trio(main: Callable[[Wake], Awaitable[T]]) -> T:
    import trio

    return await main(trio.lowlevel.current_trio_token().run_sync_soon)


async def _on_asyncio(main: Callable[[Wake], Awaitable[T]]) -> T:
    import asyncio

    # In the context of this task: in the context of the calling thread, anyio would find no loop.
    wake = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, context=contextvars.copy_context())
    return await main(wake)


def _new_loop(backend: str) -> Any:
    base: Any
    if backend == "uvloop":
        import uvloop

        base = uvloop.Loop
    else:
        import asyncio

        base = asyncio.SelectorEventLoop

    class Loop(base):  # type: ignore[misc]
        """Continues when a task raises SystemExit or KeyboardInterrupt.

        asyncio passes the exception to the task, but then also raises it from the loop, which would cancel every
        service. The task group has received it and treats it as a crash, so the loop continues.
        """

        _ended: bool

        def stop(self) -> None:
            self._ended = True
            super().stop()

        def run_forever(self) -> None:
            self._ended = False
            while not self._ended:  # if both happen in one iteration, asyncio forgets the stop
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    super().run_forever()

    return Loop()
