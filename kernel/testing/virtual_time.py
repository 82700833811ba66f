"""Virtual time for tests, on asyncio and trio: sleeping takes no real time."""

from __future__ import annotations

import asyncio
import collections
import math
from typing import Any

from anyio._backends._asyncio import CancelScope as AsyncioCancelScope

BACKENDS = ("asyncio", "trio")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stops while anything runs, and jumps to the next timer when the loop is idle.

    anyio cancels a task that shields itself again at each iteration, so the loop would never become idle. It therefore
    also counts as idle when two successive iterations have only such calls to make. One is not enough, since its calls
    may still wake a task.

    Like the kernel's own loop, it continues after a SystemExit or KeyboardInterrupt that a task group has received.
    """

    _clock_resolution: float
    _ready: collections.deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self) -> None:
        self._now = 0.0
        self._only_redelivered = False
        super().__init__()

    def time(self) -> float:
        """Return the virtual seconds since the loop was created."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the clock by *seconds*, as code that blocks the loop does."""
        self._now += seconds

    def run_forever(self) -> None:
        """Run until `stop`."""
        while True:
            try:
                return super().run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue

    def _run_once(self) -> None:
        only_redeliveries = all(_redelivers(handle) for handle in self._ready)
        idle = not self._ready or (only_redeliveries and self._only_redelivered)
        self._only_redelivered = only_redeliveries
        if idle and not self._stopping:
            self._process_events(self._selector.select(0))  # type: ignore[attr-defined]
            if all(_redelivers(handle) for handle in self._ready):
                due = [timer.when() for timer in self._scheduled if not timer.cancelled()]
                self._now = max(self._now, min(due, default=self._now))
                # A timer is due within the resolution, which would be nothing beside a large time.
                self._clock_resolution = max(self._clock_resolution, math.ulp(self._now))
        super()._run_once()  # type: ignore[misc]


def _redelivers(handle: asyncio.Handle) -> bool:
    callback = getattr(handle, "_callback", None)
    return getattr(callback, "__func__", None) is AsyncioCancelScope._deliver_cancellation  # noqa: SLF001


def backend_options(backend: str) -> dict[str, Any]:
    """Return the options for `anyio.run` to run *backend*, "asyncio" or "trio", in virtual time from 0.

    Virtual time also skips real work in threads, sockets and processes. Tests that use these need real time.
    """
    if backend != "trio":
        return {"loop_factory": VirtualLoop}
    from trio.testing import MockClock

    return {"clock": MockClock(autojump_threshold=0)}
