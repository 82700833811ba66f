"""What anyio does not give of an event loop: being woken by a signal, and surviving SystemExit."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import anyio

T = TypeVar("T")
Wake = Callable[[Callable[[], None]], object]

USUAL = gc.get_threshold()
YOUNG = 50_000
"""New objects after which the garbage collector looks at them, in place of Python's 700 to 2,000.

What an app makes while it starts mostly stays, so that to look often finds nothing: 10,000 services start in half the
time, and stop in two thirds. What it costs is that some megabytes of garbage may lie about for longer.
"""
YOUNG_EACH = 50
"""As many more for each service, which takes 30 to 40 to start: 10,000 start in 0.8 of the time that they take without.

The garbage that may lie about is then at most about as much as the services themselves take.
"""


def run(main: Callable[[Wake], Awaitable[T]], backend: str, services: int = 0) -> T:
    """Run *main* on *backend*, "asyncio" or "trio", with a garbage collector that is patient with so many *services*.

    *main* gets a function that may be called from any thread to have something called by the loop soon.
    """
    with _patient_collector(YOUNG + YOUNG_EACH * services):
        if backend == "trio":
            return anyio.run(_on_trio, main, backend="trio")
        return anyio.run(_on_asyncio, main, backend="asyncio", backend_options={"loop_factory": _new_loop})


@contextlib.contextmanager
def _patient_collector(young: int) -> Iterator[None]:
    """Have the garbage collector wait for *young* new objects, unless `app/init.py` has set it up already."""
    before = gc.get_threshold()
    if before == USUAL:
        gc.set_threshold(young, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _on_trio(main: Callable[[Wake], Awaitable[T]]) -> T:
    import trio

    return await main(trio.lowlevel.current_trio_token().run_sync_soon)


async def _on_asyncio(main: Callable[[Wake], Awaitable[T]]) -> T:
    import asyncio

    # In the context of here: in that of the thread which calls it, anyio would know of no loop.
    wake = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, context=contextvars.copy_context())
    return await main(wake)


def _new_loop() -> Any:
    import asyncio

    class Loop(asyncio.SelectorEventLoop):
        """Goes on when a task raises SystemExit or KeyboardInterrupt.

        asyncio hands the exception to the task, and then raises it out of the loop as well, which would cancel every
        service. The task's group has it already and treats it as a crash, so the loop goes on where it was.
        """

        _ended = False

        def stop(self) -> None:
            self._ended = True
            super().stop()

        def run_forever(self) -> None:
            self._ended = False
            while not self._ended:  # where both come in one iteration, asyncio forgets that it was to stop
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    super().run_forever()

    return Loop()
