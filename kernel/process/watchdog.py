"""The watchdog: end the process if it exceeds its shutdown deadline."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from kernel.process import hard_exit
from kernel.process.contain import contained

QUICK = 0.1  # seconds of a quick shutdown, which does not load `hard_exit`
SETTLED = 1.0  # seconds after the start when loading `hard_exit` no longer delays anything
PATIENCE = 0.5  # seconds after the deadline until the watchdog acts: the loop may be writing its final report
LAST_WORDS = 1.0  # seconds to flush logs and telemetry
FORCED, OVERDUE = 130, 3  # exit codes


class Watchdog:
    """Ends the process if it still exists after a deadline, whatever the event loop is doing.

    Args:
        report: Called with the exit code in a separate thread, for at most 1 s, before the process ends.
        resting: Returns whether deadlines are suspended because a debugger is attached.

    """

    def __init__(self, report: Callable[[int], None], resting: Callable[[], bool] = bool) -> None:
        self._report = report
        self._resting = resting
        self._code = OVERDUE
        self._deadline = math.inf
        self._load_at = time.monotonic() + SETTLED
        self._dismissed = self._standing_down = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="kernel watchdog", daemon=True)
        with contained("the watchdog over the shutdown"):
            self._thread.start()

    def arm(self, seconds: float, code: int = OVERDUE) -> None:
        """End the process with *code* shortly after *seconds* from now. The earliest time and the highest code win."""
        with self._news:
            now = time.monotonic()
            self._deadline = min(self._deadline, now + seconds)
            self._code = max(self._code, code)
            self._load_at = min(self._load_at, now + QUICK)
            self._arm_last_resort()
            self._news.notify()

    def postpone(self, seconds: float) -> None:
        """Allow the process at least *seconds* from now: whatever is still running has its own time limit."""
        with self._news:
            self._deadline = max(self._deadline, time.monotonic() + seconds)
            self._arm_last_resort()
            self._news.notify()

    def told(self, seconds: float, code: int) -> None:
        """End the process shortly after *seconds* from now, with exit *code* and without a message: it was reported."""
        with self._news:
            self._report = lambda _: None
            self._deadline, self._code = time.monotonic() + seconds, code
            self._arm_last_resort()
            self._news.notify()

    def dismiss(self) -> None:
        """Cancel the deadline."""
        with self._news:
            self._dismissed = True
            self._news.notify()
        hard_exit.disarm()

    def stand_down(self, code: int | None) -> None:
        """Leave the rest to `hard_exit`: nothing is left to report, and no thread may wake while Python exits.

        Python has at least `LAST_WORDS` to exit. After that the process is ended with *code*, the reported exit code.
        None keeps the deadline as it is.
        """
        with self._news:
            self._standing_down = True
            if code is not None and self._deadline < math.inf:
                self._deadline, self._code = max(self._deadline, time.monotonic() + LAST_WORDS), code
                self._arm_last_resort()
            self._news.notify()
        if self._thread.ident is not None:
            self._thread.join(QUICK)

    def _arm_last_resort(self) -> None:
        with contained("the last resort"):  # it needs a separate thread
            if self._deadline < math.inf and not self._resting():
                hard_exit.arm(self._deadline - time.monotonic(), self._code)

    def _watch(self) -> None:
        with self._news:
            while not (self._dismissed or self._standing_down):
                now = time.monotonic()
                if now >= self._deadline + PATIENCE:
                    break
                if now >= self._load_at:
                    self._load_at = math.inf
                    with contained("the last resort"):
                        hard_exit.load()
                    self._arm_last_resort()
                wake_at = min(self._load_at, self._deadline + PATIENCE)
                self._news.wait(min(max(wake_at - time.monotonic(), 0), threading.TIMEOUT_MAX))
        if self._standing_down and not self._dismissed:
            return
        if self._dismissed or self._resting():
            hard_exit.disarm()
        else:
            with contained("the report of the watchdog"):
                within(LAST_WORDS, lambda: self._report(self._code))
            os._exit(self._code)


def within(seconds: float, call: Callable[[], Any]) -> None:
    """Wait at most *seconds* for *call*, in a separate thread that may be left running.

    If no thread can be started, it is called in the current thread, and may take longer.
    """
    thread = threading.Thread(target=call, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        call()
    else:
        thread.join(seconds)
