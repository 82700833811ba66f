"""How a service says that it is ready, and what it may do while it serves: `Serving` and `Work`.

These are the protocols that services are typed with; `kernel.lifecycle.block` implements them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar, overload

T_contra = TypeVar("T_contra", contravariant=True)


class Work(Protocol):
    """The work of a service that is serving; what `async with serving(...)` gives."""

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: object = None) -> None:
        """Start a background task that is cancelled with the work; what it raises is the service's crash.

        Args:
            func: The coroutine function to run.
            args: Its positional arguments.
            name: The task's name in debuggers; None takes the function's.

        """

    async def stop_requested(self) -> None:
        """Wait until the service is asked to stop. Only useful with ``drain=True``, as the wait is cancelled else."""

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested: for loops that finish what they have begun, under ``drain=True``."""
        ...

    def every(self, seconds: float, *, jitter: float = 0.0) -> AsyncIterator[int]:
        """Tick until a stop is requested: ``async for _ in work.every(60):``.

        The first tick is at once, the others at whole multiples of *seconds* after it, however long the loop's body
        takes: there is no drift, and a tick that the body has overslept is skipped. Each is numbered, from 0 on.

        Args:
            seconds: From one tick to the next.
            jitter: Each tick is delayed by chance by up to so many seconds, so that many instances do not all work at
                once.

        Raises:
            ValueError: *seconds* is not positive, or *jitter* is negative.

        """
        ...

    def unready(self, reason: str) -> AbstractContextManager[None]:
        """Be served no traffic while the block runs: ``with work.unready("redis is away"):``.

        The service goes on serving, and its consumers keep its value; only ``/readyz`` is 503 meanwhile, and tells
        *reason*. The log has a line when it begins, and one when it ends. Blocks may overlap.
        """
        ...


class Serving(Protocol[T_contra]):
    """How a service says that it is ready, and hands over a value: ``async with serving(value) as work``.

    Entered, the service is ready; the block is its work. When a stop is requested the block is cancelled, and what
    surrounds it closes uncancelled. With ``drain=True`` the block is not cancelled: it awaits
    `Work.stop_requested`, finishes what is in flight, and ends by itself within the service's ``stop_timeout``.

    Leaving the block waits until those who hold the value have stopped. One attempt may serve once
    (`kernel.errors.ServedTwice`).
    """

    @overload
    def __call__(self: Serving[None], *, drain: bool = False) -> AbstractAsyncContextManager[Work]: ...
    @overload
    def __call__(self, value: T_contra, *, drain: bool = False) -> AbstractAsyncContextManager[Work]: ...
