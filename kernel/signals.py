"""Signals, counted by raw handlers, and the watchdog that ends a process which has outlived its shutdown.

First SIGINT, SIGTERM or SIGHUP: stop gracefully. Second: cut everything now. Third: exit at once, from the handler.
The handlers work while services are still being imported, and while a service blocks the event loop.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from kernel import lastresort

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAME = 0.5  # seconds in which the same signal twice is one: a terminal and a parent may both deliver it
QUICK = 0.1  # seconds within which a shutdown that is quick is over: it pays for no last resort
PATIENCE = 0.5  # seconds after the deadline before the watchdog bites: the loop may just be saying its last words
LAST_WORDS = 1.0  # seconds for logs and telemetry to be flushed
FORCED, OVERDUE = 130, 3  # exit codes


class Watchdog:
    """Ends the process when it is still there after a deadline, whatever the event loop does.

    Args:
        report: Is called in a thread of its own, for at most a second, before the process ends.
        resting: Tells whether deadlines rest, because somebody is debugging.

    """

    def __init__(self, report: Callable[[], None], resting: Callable[[], bool] = bool) -> None:
        self.code = OVERDUE
        self._report = report
        self._resting = resting
        self._armed = False
        # Made before it is needed: a signal handler must start no thread, but may put into this queue.
        self._deadlines: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        threading.Thread(target=self._watch, name="kernel watchdog", daemon=True).start()

    def arm(self, seconds: float) -> None:
        """Bite a little after *seconds* from now. The first call counts. Safe in a signal handler."""
        if not self._armed:
            self._armed = True
            if not self._resting():
                lastresort.arm(seconds)
            self._deadlines.put(time.monotonic() + seconds)

    def dismiss(self) -> None:
        """Never bite."""
        self._deadlines.put(None)
        lastresort.disarm()

    def _watch(self) -> None:
        deadline = self._deadlines.get()
        if deadline is None or self._dismissed_until(time.monotonic() + QUICK):
            return
        if not self._resting():
            lastresort.arm_exit_code(deadline - time.monotonic(), self.code)
        if self._dismissed_until(deadline + PATIENCE) or self._resting():
            lastresort.disarm()
        else:
            within(LAST_WORDS, self._report)
            os._exit(self.code)

    def _dismissed_until(self, when: float) -> bool:
        """Wait until *when*, or for the word that all is well."""
        try:
            self._deadlines.get(timeout=max(when - time.monotonic(), 0))
        except queue.Empty:
            return False
        return True


def within(seconds: float, call: Callable[[], Any]) -> None:
    """Wait at most *seconds* for *call*, in a thread of its own that may be left behind."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)


class Signals:
    """Counts the signals that ask to stop, as a context manager around the whole run.

    Args:
        on_first: Is called in the handler of the first one, with the signal's name; must be quick and re-entrant.

    """

    def __init__(self, on_first: Callable[[str], None]) -> None:
        self.count = 0
        self.first = ""
        self._on_first = on_first
        self._listener: Callable[[int], None] | None = None
        self._last = (0, -SAME)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # nohup ignores SIGHUP, and means it. A shell ignores SIGINT for what it starts by `&`; whoever sends
                # it there all the same wants it to count.
                if number != getattr(signal, "SIGHUP", None) or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def listen(self, listener: Callable[[int], None] | None) -> None:
        """Call *listener* with the count at each further signal, in the handler; None to stop that."""
        self._listener = listener

    def _handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._last[0] == number and now - self._last[1] < SAME:
            return
        self._last = (number, now)
        self.count += 1
        name = signal.Signals(number).name
        if self.count == 1:
            self.first = name
            self._on_first(name)
        elif self.count > 2 or self._listener is None:  # noqa: PLR2004  (the third)
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{name}: exit at once\n".encode())
            os._exit(FORCED)
        if self._listener is not None:
            self._listener(self.count)
