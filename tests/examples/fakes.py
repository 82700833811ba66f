"""What stands in for the kernel where a service is tested by calling it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import anyio
import attrs

from kernel import Work


@attrs.define(eq=False)
class FakeServing:
    """A `Serving` that a test can wait for, take the value from, and stop."""

    ready: anyio.Event = attrs.field(factory=anyio.Event)
    value: Any = None
    _stop: anyio.Event = attrs.field(factory=anyio.Event)

    @asynccontextmanager
    async def __call__(self, value: object = None, *, drain: bool = False) -> AsyncIterator[Work]:
        self.value = value
        async with anyio.create_task_group() as tasks:
            if not drain:
                tasks.start_soon(self._cancel, tasks.cancel_scope)
            self.ready.set()
            yield FakeWork(tasks, self._stop)
            tasks.cancel_scope.cancel()

    async def _cancel(self, work: anyio.CancelScope) -> None:
        await self._stop.wait()
        work.cancel()

    def stop(self) -> None:
        """Request the stop: cancel the work, or tell it where it drains."""
        self._stop.set()


@attrs.frozen
class FakeWork:
    """The work of a service that serves to a test."""

    _tasks: anyio.abc.TaskGroup
    _stop: anyio.Event

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: object = None) -> None:
        self._tasks.start_soon(func, *args, name=name)

    async def stop_requested(self) -> None:
        await self._stop.wait()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    async def every(self, seconds: float, *, jitter: float = 0.0) -> AsyncIterator[int]:
        yield 0

    def unready(self, reason: str) -> AbstractContextManager[None]:
        return nullcontext()


@asynccontextmanager
async def running(run: Callable[[FakeServing], Coroutine[Any, Any, None]]) -> AsyncIterator[FakeServing]:
    """Run a service until it is ready, for as long as the block takes; then stop it, and wait for its end."""
    serving = FakeServing()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, serving)
        with anyio.fail_after(5):
            await serving.ready.wait()
        yield serving
        serving.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds.

    Raises:
        TimeoutError: It did not for 10 seconds.

    """
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110  (threads, sockets and the kernel set no event of ours)
            await anyio.sleep(0.005)
