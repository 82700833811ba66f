"""How a service reports that it is ready, and what it can do while it serves: `Serving` and `Work`.

These protocols are for annotations; `kernel.lifecycle.block` implements them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar, overload

T_contra = TypeVar("T_contra", contravariant=True)


class Work(Protocol):
    """The work of a serving service: the value of `async with serving(...) as work`."""

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], *args: Any, name: object = None) -> None:
        """Start a background task, which is cancelled with the work. If it raises, the service crashes.

        Args:
            func: The coroutine function to run.
            args: Its positional arguments.
            name: The task's name in debuggers; None for the function's name.

        """

    async def stop_requested(self) -> None:
        """Wait until a stop is requested. Useful only with ``drain=True``: otherwise the stop cancels this wait."""

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested. For loops under ``drain=True`` that finish what they have begun."""
        ...

    def every(self, seconds: float, *, jitter: float = 0.0) -> AsyncIterator[int]:
        """Tick until a stop is requested: ``async for _ in work.every(60):``.

        The first tick is immediate. The others follow at exact multiples of *seconds* after it, however long the loop's
        body takes: there is no drift, and ticks that pass meanwhile are skipped. Yields the number of the tick, counted
        from 0; skipped ticks count.

        Args:
            seconds: Seconds from one tick to the next.
            jitter: The maximum random delay of each tick, in seconds; it spreads the load of many instances.

        Raises:
            ValueError: *seconds* is not positive, or *jitter* is negative.

        """
        ...

    def unready(self, reason: str) -> AbstractContextManager[None]:
        """Mark the service as unready while the block runs: ``with work.unready("redis is away"):``.

        The service continues to serve, and its consumers keep its value; only ``/readyz`` answers 503 meanwhile, with
        *reason*. One line is logged when the block begins, and one when it ends. Blocks may overlap.
        """
        ...


class Serving(Protocol[T_contra]):
    """How a service reports that it is ready, and provides a value: ``async with serving(value) as work``.

    The service is ready when it enters the block, which is its work. When a stop is requested, the block is cancelled,
    and the code around it closes without being cancelled. With ``drain=True`` the block is not cancelled: it must await
    `Work.stop_requested`, finish what is in flight, and end by itself within the service's ``stop_timeout``.

    Leaving the block waits until the consumers of the value have stopped. Each attempt can serve only once; serving
    again raises `kernel.errors.ServedTwice`.
    """

    @overload
    def __call__(self: Serving[None], *, drain: bool = False) -> AbstractAsyncContextManager[Work]: ...
    @overload
    def __call__(self, value: T_contra, *, drain: bool = False) -> AbstractAsyncContextManager[Work]: ...
