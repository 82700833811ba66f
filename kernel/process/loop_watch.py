"""Watches the event loop, and reports what blocks it while it is blocked.

A thread asks the loop for an answer a few times a second. Nothing is measured in the loop itself, so a loop that is not
blocked pays only for a few calls a second.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

from kernel.process.contain import contained
from kernel.process.event_loop import Wake

EVERY = 0.25  # seconds between an answer and the next question
LAST = 0.1  # seconds to wait for the thread to end: it may be blocked in writing to a log
LIMIT = 1.0  # seconds without an answer after which the loop counts as blocked


class LoopWatch:
    """Watches the loop that *wake* reaches, from a daemon thread, until `end`.

    Args:
        wake: Makes the loop call a function soon.
        blocked: Called in the thread with the seconds so far, when the loop has not answered for `LIMIT`.
        free: Called in the thread with the seconds it took, when the loop has answered after that.
        resting: Returns whether the watch is suspended because a debugger is attached.
        alive: Called by the loop with each answer.

    """

    def __init__(
        self,
        wake: Wake,
        blocked: Callable[[float], None],
        free: Callable[[float], None],
        resting: Callable[[], bool] = bool,
        alive: Callable[[], object] = bool,
    ) -> None:
        self.delay = 0.0  # seconds that the loop took for its last answer
        self.silent = 0.0
        """Seconds for which the loop has not answered, in steps of `EVERY`; 0 if it has answered.

        Counted by the waiting thread, not by a clock: while the process is paused the loop is not blocked.
        """
        self._alive = alive
        self._wake = wake
        self._blocked = blocked
        self._free = free
        self._resting = resting
        self._answer = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kernel loop watch", daemon=True)
        with contained("the watch on the event loop"):
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
        with contained("a sign of life"):
            self._alive()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self._answer.clear()
            asked = time.monotonic()
            try:
                self._wake(functools.partial(self._answers, asked))
            except RuntimeError:  # the loop is gone
                return
            told = False
            while not self._answer.wait(EVERY):
                if self._rests():
                    self._answer.wait()
                    break
                self.silent += EVERY
                if self.silent >= LIMIT and not told:
                    told = True
                    with contained("the watch on the event loop"):
                        self._blocked(time.monotonic() - asked)
            self.silent = 0.0
            if told and not self._ended.is_set():
                with contained("the watch on the event loop"):
                    self._free(time.monotonic() - asked)

    def _rests(self) -> bool:
        with contained("the check for a debugger"):
            return self._resting()
        return False
