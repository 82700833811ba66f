"""One heap of alarms for the whole kernel, in one task.

A cancel scope with a deadline costs a timer of the event loop, and can only cancel. An alarm calls a function
instead, which can find out what hangs before cancelling it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

import attrs
from anyio import Event, current_time, move_on_at
from anyio.lowlevel import current_token

from kernel.process.contain import say_once

COMPACT = 64  # the heap is rebuilt when it has more cancelled alarms than this, and more than half are cancelled


@attrs.define(eq=False, repr=False)
class Alarm:
    """A scheduled call of `callback` at the time `when` (seconds on the loop's clock)."""

    when: float
    callback: Callable[[], None] | None
    deadline: bool
    _clock: Clock

    def cancel(self) -> None:
        """Cancel the call. Do nothing if it has already been made."""
        if self.callback is not None:
            self.callback = None
            self._clock.forget()


@attrs.define(eq=False, repr=False)
class Clock:
    """Calls each alarm's callback when it is due.

    Args:
        resting: Returns whether deadlines are suspended because a debugger is attached; alarms set with
            ``deadline=True`` are then dropped when they become due.
        failed: Called with a description and the error when an alarm raises. The other alarms still run.

    """

    resting: Callable[[], bool] = bool
    failed: Callable[[str, BaseException], object] = say_once
    now: Callable[[], float] = attrs.field(default=current_time, init=False)
    _heap: list[tuple[float, int, Alarm]] = attrs.field(factory=list, init=False)
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count, init=False)
    _dead: int = attrs.field(default=0, init=False)
    _wake: Event | None = attrs.field(default=None, init=False)

    def start(self) -> None:
        """Read the time directly from the running loop, since `current_time` looks up the loop on each call.

        The lookup costs 1.3 µs, and each service reads the time seven times.
        """
        self.now = current_token().backend_class.current_time

    def at(self, when: float, callback: Callable[[], None], *, deadline: bool = True) -> Alarm:
        """Call *callback* at *when*, or at once if that has passed. Equal times keep their order."""
        alarm = Alarm(when, callback, deadline, self)
        if self._wake is not None and (not self._heap or when < self._heap[0][0]):
            self._wake.set()
        heapq.heappush(self._heap, (when, next(self._numbers), alarm))
        return alarm

    def rests(self) -> bool:
        """Return whether deadlines are suspended now; False if that cannot be determined."""
        try:
            return self.resting()
        except BaseException as error:  # noqa: ASYNC103, BLE001  (as for an alarm)
            self.failed("the check for a debugger", error)
            return False  # noqa: ASYNC104

    def forget(self) -> None:
        """Count a cancelled alarm, and rebuild the heap when there are many."""
        self._dead += 1
        if self._dead > COMPACT and self._dead > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def _ring(self, callback: Callable[[], None], *, deadline: bool) -> None:
        try:
            if not (deadline and self.rests()):
                callback()
        except BaseException as error:  # noqa: ASYNC103, BLE001  (one failing alarm must not stop the others)
            self.failed("an alarm of the kernel", error)

    async def run(self) -> None:
        """Run until cancelled. Callbacks run one at a time; an error in one is reported and contained."""
        while True:
            now = self.now()
            while self._heap and self._heap[0][0] <= now:
                alarm = heapq.heappop(self._heap)[2]
                callback, alarm.callback = alarm.callback, None
                if callback is None:
                    self._dead -= 1
                else:
                    self._ring(callback, deadline=alarm.deadline)
            self._wake = Event()
            with move_on_at(self._heap[0][0] if self._heap else math.inf):
                await self._wake.wait()
