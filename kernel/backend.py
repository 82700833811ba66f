"""What anyio does not give of an event loop: being woken by a signal, and surviving SystemExit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

T = TypeVar("T")
Wake = Callable[[Callable[[], None]], object]


def run(main: Callable[[Wake], Awaitable[T]], backend: str) -> T:
    """Run *main* on *backend*, "asyncio" or "trio".

    *main* gets a function that may be called from a signal handler or a thread to have something called by the loop
    soon.
    """
    if backend == "trio":
        return anyio.run(_on_trio, main, backend="trio")
    return anyio.run(_on_asyncio, main, backend="asyncio", backend_options={"loop_factory": _new_loop})


async def _on_trio(main: Callable[[Wake], Awaitable[T]]) -> T:
    import trio

    return await main(trio.lowlevel.current_trio_token().run_sync_soon)


async def _on_asyncio(main: Callable[[Wake], Awaitable[T]]) -> T:
    import asyncio

    return await main(asyncio.get_running_loop().call_soon_threadsafe)


def _new_loop() -> Any:
    import asyncio

    class Loop(asyncio.SelectorEventLoop):
        """Goes on when a task raises SystemExit or KeyboardInterrupt.

        asyncio hands the exception to the task, and then raises it out of the loop as well, which would cancel every
        service. The task's group has it already and treats it as a crash, so the loop goes on where it was.
        """

        def run_forever(self) -> None:
            while True:
                try:
                    return super().run_forever()
                except (SystemExit, KeyboardInterrupt):
                    continue

    return Loop()
