"""The ticks of `work.every`, which do not drift and never repeat."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Self

from anyio import CancelScope, current_time


class Ticks:
    """An asynchronous iterator that yields at each tick, until a stop is requested.

    Args:
        seconds: Seconds from one tick to the next; the first tick is immediate.
        jitter: The maximum random delay of each tick, in seconds; it does not shift later ticks.
        stopping: Returns whether a stop was requested.
        stop_requested: Waits until a stop is requested.

    Raises:
        ValueError: *seconds* is not positive, or *jitter* is negative.

    """

    def __init__(
        self,
        seconds: float,
        jitter: float,
        stopping: Callable[[], bool],
        stop_requested: Callable[[], Awaitable[None]],
    ) -> None:
        if not 0 < seconds < math.inf:
            raise ValueError(f"work.every({seconds}): the interval must be a positive number of seconds")
        if not 0 <= jitter < math.inf:
            raise ValueError(f"work.every(jitter={jitter}): the jitter must not be negative")
        self._seconds = seconds
        self._jitter = jitter
        self._stopping = stopping
        self._stop_requested = stop_requested
        self._first: float | None = None
        self._number = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        """Wait for the next tick that has not passed, and return its number, from 0; skipped ticks count."""
        now = current_time()
        if self._first is None:
            self._first = now
        else:
            self._number = max(self._number + 1, math.ceil((now - self._first) / self._seconds))
        when = self._first + self._number * self._seconds + self._delay()
        with CancelScope(deadline=when):
            await self._stop_requested()
        if self._stopping():
            raise StopAsyncIteration
        return self._number

    def _delay(self) -> float:
        if not self._jitter:
            return 0.0
        import random  # takes 5 ms, so only with jitter

        return random.uniform(0, self._jitter)  # noqa: S311  (not for security)
