"""Signals, counted in a thread of their own.

First SIGINT, SIGTERM or SIGHUP: stop gracefully. Second: cut everything now. Third: exit at once.

Python runs a signal's handler between two instructions of the main thread, so never while that waits in native code:
for a connection, say, or for a query. But the interpreter writes the signal's number into a pipe at once, and the
thread that reads it needs no more than the interpreter's lock. So signals count while a service blocks the event
loop, and while services are still being imported.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from kernel.process.watchdog import FORCED, within

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAME = 0.5  # seconds in which the same signal twice is one: a terminal and a parent may both deliver it


def ignore() -> None:
    """Ignore the signals that ask to stop: the interpreter's last step would give them back their deadly defaults."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Signals:
    """Counts the signals that ask to stop, as a context manager around the whole run.

    Args:
        on_signal: Is called with the count at each, in the thread that counts them.
        at_once: Is called with the exit code and the name of the signal that ends the process at once, for at most
            0.1 s.

    """

    def __init__(self, on_signal: Callable[[int], None], at_once: Callable[[int, str], None]) -> None:
        self.count = 0
        self.first = ""
        self.first_at = 0.0  # by time.monotonic
        self._on_signal = on_signal
        self._at_once = at_once
        self._told: int | None = None
        self._listener: Callable[[int], None] | None = None
        self._last: dict[int, float] = {}
        self._lock = threading.Lock()
        self._previous: dict[int, Any] = {}
        self._masks: list[set[signal.Signals | int]] = []  # one for each thread that just forks
        self._others_fd = self._read_fd = self._write_fd = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._others_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in SIGNALS:
            # nohup ignores SIGHUP, and means it. A shell ignores SIGINT for what it starts by `&`; whoever sends
            # it there all the same wants it to count.
            if number != getattr(signal, "SIGHUP", None) or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._caught)
        os.register_at_fork(before=self._forks, after_in_parent=self._forked, after_in_child=self._in_child)
        threading.Thread(target=self._read, name="kernel signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous:
            self._let_go()
            os.close(self._write_fd)  # and with that the thread ends

    def _forks(self) -> None:
        """Hold signals back while the process is doubled: parent and child share the pipe, but not what it tells."""
        if self._previous:
            self._masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS))

    def _forked(self) -> None:
        if self._masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop())

    def _let_go(self) -> None:
        """Be as if it had never been."""
        if self._previous:
            signal.set_wakeup_fd(self._others_fd)
        while self._previous:
            signal.signal(*self._previous.popitem())
        self._forked()

    def _in_child(self) -> None:
        """A forked child has its own signals, and begins with the defaults."""
        for number in self._previous:
            self._previous[number] = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        self._let_go()

    def listen(self, listener: Callable[[int], None] | None) -> None:
        """Call *listener* with the count at each signal, in the thread that counts them; at once if there was one.

        While nobody listens, the second signal ends the process.
        """
        with self._lock:
            self._listener = listener
            if listener is not None and self.count:
                listener(self.count)

    def told(self, code: int) -> None:
        """Have whoever is still in a hurry get exit *code*, and no further word, since the end was told."""
        self._told = code

    def _caught(self, number: int, _: FrameType | None) -> None:
        """Python's handler, for when somebody else has taken the pipe's place as the one to be told at once."""
        theirs = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        if theirs != self._write_fd:
            signal.set_wakeup_fd(theirs)
            os.write(self._write_fd, bytes([number]))

    def _read(self) -> None:
        with contextlib.closing(os.fdopen(self._read_fd, "rb", buffering=0)) as pipe:
            while numbers := pipe.read(16):
                for number in numbers:
                    if number in SIGNALS:  # the interpreter tells of every signal that has a handler
                        self._handle(number)

    def _handle(self, number: int) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._last.get(number, -math.inf) < SAME:
                return
            self._last[number] = now
            self.count += 1
            name = signal.Signals(number).name
            if self.count == 1:
                self.first, self.first_at = name, now
            elif self.count > 2 or self._listener is None:  # noqa: PLR2004  (the third)
                if self._told is not None:
                    os._exit(self._told)
                within(0.1, lambda: self._at_once(FORCED, name))  # stderr may be a pipe that is full
                os._exit(FORCED)
            self._on_signal(self.count)
            if self._listener is not None:
                self._listener(self.count)
