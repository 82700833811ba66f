"""The tasks of the services: the event loop's own, without the overhead of an anyio task group.

A supervisor's task raises nothing, has a cancel scope of its own, and nobody waits for its result. A task group would
still create a handle, an event, a second scope and a wrapper for each task: 9 of the 20 µs that it takes to start and
cancel a task on asyncio.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from anyio import CancelScope, Event, create_task_group
from anyio.abc import TaskGroup

if TYPE_CHECKING:
    import asyncio

    from trio import Nursery

Run = Callable[[], Coroutine[Any, Any, None]]


class Tasks(Protocol):
    """An async context manager that starts tasks. Leaving it waits until all have ended, and cancels none.

    An error raised by a task ends the block, as in a task group.
    """

    async def __aenter__(self) -> Self:
        """Be ready to `spawn`."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Wait until all tasks have ended, even if this wait is cancelled."""
        ...

    def spawn(self, run: Run, name: str, context: Context) -> None:
        """Start a task that runs ``run()``.

        Args:
            run: Must not raise, and must have cancel scopes of its own.
            name: The task's name in debuggers.
            context: Its context variables, which are copied.

        """


class _OnAsyncio:
    """Tasks of the running loop. They are in no outer scope, so cancelling this block does not cancel them."""

    def __init__(self) -> None:
        import asyncio  # only when it is the backend

        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Task[None]] = set()
        self._none_left: Event | None = None
        self._group: TaskGroup = create_task_group()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._running:
            self._none_left = Event()
            with CancelScope(shield=True):
                await self._none_left.wait()
        return await self._group.__aexit__(kind, error, trace)  # noqa: ASYNC102  (all tasks have ended)

    def spawn(self, run: Run, name: str, context: Context) -> None:
        task = self._loop.create_task(run(), name=name, context=context.copy())
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not self._running and self._none_left is not None:
            self._none_left.set()
        error: BaseException | None
        if task.cancelled():  # before its first step; the supervisor handles later cancellations
            error = RuntimeError(f"the task of {task.get_name()} was cancelled before it started")
        else:
            error = task.exception()
        if error is not None:
            self._group.start_soon(_raise, error)


async def _raise(error: BaseException) -> None:
    raise error


class _OnTrio:
    """Tasks of a trio nursery."""

    async def __aenter__(self) -> Self:
        import trio

        self._manager = trio.open_nursery()
        self._nursery: Nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, trace)  # noqa: ASYNC102  (a nursery's own exit)

    def spawn(self, run: Run, name: str, context: Context) -> None:
        context.run(functools.partial(self._nursery.start_soon, run, name=name))


def open_tasks() -> Tasks:
    """Return a `Tasks` for the running loop."""
    trio = sys.modules.get("trio")
    return _OnTrio() if trio is not None and trio.lowlevel.in_trio_task() else _OnAsyncio()


def spawn_apart(run: Run, name: str) -> object:
    """Start a task on the running loop, outside of any scope and task group, and return it.

    Args:
        run: Must not raise. It is cancelled only when the loop ends.
        name: The task's name in debuggers.

    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return trio.lowlevel.spawn_system_task(run, name=name)
    import asyncio

    return asyncio.get_running_loop().create_task(run(), name=name)
