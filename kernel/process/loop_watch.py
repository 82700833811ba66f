"""Watch the event loop, and report what blocks it while it is blocked.

A thread requests a response from the loop a few times a second. Nothing is measured in the loop itself, so a loop that
is not blocked pays only for these calls.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

from kernel.process.contain import contained
from kernel.process.event_loop import Wake

EVERY = 0.25  # seconds between a response and the next request
LAST = 0.1  # seconds to wait for the thread to end, since writing to a log may block it
LIMIT = 1.0  # seconds without a response after which the loop counts as blocked


class LoopWatch:
    """Watches the loop that *wake* wakes, in a daemon thread, until `end`.

    Args:
        wake: Makes the loop call a function soon.
        blocked: Called in the thread with the seconds so far, when the loop has not responded for `LIMIT`.
        free: Called in the thread with the seconds the loop was blocked, when it responds again.
        resting: Returns whether the watch is suspended because a debugger is attached.
        alive: Called by the loop with each response.

    """

    def __init__(
        self,
        wake: Wake,
        blocked: Callable[[float], None],
        free: Callable[[float], None],
        resting: Callable[[], bool] = bool,
        alive: Callable[[], object] = bool,
    ) -> None:
        self.delay = 0.0  # seconds that the loop took for its last response
        self.silent = 0.0
        """Seconds for which the loop has not responded, in steps of `EVERY`; 0 if it has.

        Counted by the waiting thread rather than by a clock: a paused process does not mean a blocked loop.
        """
        self._alive = alive
        self._wake = wake
        self._blocked = blocked
        self._free = free
        self._resting = resting
        self._answer = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kernel loop watch", daemon=True)
        with contained("the event loop watch"):
            self._thread.start()

    def end(self) -> None:
        """Stop watching. Wait up to `LAST` for the thread, which must not wake while the interpreter exits."""
        self._ended.set()
        self._answer.set()
        if self._thread.ident is not None:
            self._thread.join(LAST)

    def _answers(self, asked: float) -> None:
        self.delay = time.monotonic() - asked
        self._answer.set()
        with contained("the liveness callback"):
            self._alive()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self._answer.clear()
            asked = time.monotonic()
            try:
                self._wake(functools.partial(self._answers, asked))
            except RuntimeError:  # the loop is closed
                return
            told = False
            while not self._answer.wait(EVERY):
                if self._rests():
                    self._answer.wait()
                    break
                self.silent += EVERY
                if self.silent >= LIMIT and not told:
                    told = True
                    with contained("the event loop watch"):
                        self._blocked(time.monotonic() - asked)
            self.silent = 0.0
            if told and not self._ended.is_set():
                with contained("the event loop watch"):
                    self._free(time.monotonic() - asked)

    def _rests(self) -> bool:
        with contained("the check for a debugger"):
            return self._resting()
        return False
