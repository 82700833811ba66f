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

from kernel.process.contain import contained
from kernel.process.guests import Guests, set_handler
from kernel.process.watchdog import FORCED, within

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAME = 0.5  # seconds in which two are one: a terminal and a parent may both deliver it, and systemd sends SIGHUP too


def ignore() -> None:
    """Ignore the signals that ask to stop: the interpreter's last step would give them back their deadly defaults."""
    for number in SIGNALS:
        set_handler(number, signal.SIG_IGN)


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
        self._caught_first = "", -math.inf
        self._on_signal = on_signal
        self._at_once = at_once
        self._told: int | None = None
        self._listener: Callable[[int], None] | None = None
        self._last: dict[int, float] = {}
        self._lock = threading.RLock()  # where there is no thread, a signal may interrupt who holds it
        self._previous: dict[int, Any] = {}
        self._masks: list[set[signal.Signals | int]] = []  # one for each thread that just forks
        self._guests = Guests(self._caught, self._sent_to_itself)
        self._write_fd = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in SIGNALS:
            # nohup ignores SIGHUP, and means it. A shell ignores SIGINT for what it starts by `&`; whoever sends
            # it there all the same wants it to count.
            if number != getattr(signal, "SIGHUP", None) or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._caught)
        os.register_at_fork(before=self._forks, after_in_parent=self._forked, after_in_child=self._in_child)
        with contained("the thread that counts signals"):  # without it they count while no native code runs
            self._start_thread()
        self._guests.open(self._previous, self._write_fd)
        return self

    def _start_thread(self) -> None:
        read_fd, write_fd = os.pipe()
        os.set_blocking(write_fd, False)
        try:
            threading.Thread(target=self._read, args=(read_fd,), name="kernel signals", daemon=True).start()
        except BaseException:
            os.close(read_fd)
            os.close(write_fd)
            raise
        self._write_fd = write_fd

    def __exit__(self, *_: object) -> None:
        if self._previous:
            self._let_go()
            if self._write_fd != -1:
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
        self._guests.close()
        while self._previous:
            signal.signal(*self._previous.popitem())
        self._forked()

    def _in_child(self) -> None:
        """A forked child has its own signals, and begins with the defaults."""
        for number in self._previous:
            self._previous[number] = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        if self._previous:
            self._let_go()

    def listen(self, listener: Callable[[int], None] | None) -> None:
        """Call *listener* with the count at each signal, in the thread that counts them; at once if there was one.

        While nobody listens, the second signal ends the process.
        """
        with self._lock:
            self._listener = listener
            if listener is not None and self.count:
                listener(self.count)

    def came(self) -> tuple[str, float]:
        """Return the first signal and the seconds since; an empty name where there was none.

        It is known here as soon as Python's handler has run, which is before the loop looks at anything else.
        """
        name, at = (self.first, self.first_at) if self.count else self._caught_first
        return name, time.monotonic() - at

    def told(self, code: int) -> None:
        """Have whoever is still in a hurry get exit *code*, and no further word, since the end was told."""
        self._told = code

    def _sent_to_itself(self, number: int) -> None:
        """The process is about to send itself a signal: the first is a request, a further one is not.

        A library that has caught the first stops, and then raises it again for whoever comes next.
        """
        if self.count:
            self._last[number] = time.monotonic()

    def _caught(self, number: int, frame: FrameType | None) -> None:
        """Python's handler: calls the library's, and tells the thread where the interpreter could not."""
        if not self._caught_first[0]:
            self._caught_first = signal.Signals(number).name, time.monotonic()
        if self._write_fd == -1:
            self._handle(number)
        elif self._guests.retake():
            os.write(self._write_fd, bytes([number]))
        self._guests.call(number, frame)

    def _read(self, read_fd: int) -> None:
        with contextlib.closing(os.fdopen(read_fd, "rb", buffering=0)) as pipe:
            while numbers := pipe.read(16):
                for number in numbers:
                    if number in SIGNALS:  # the interpreter tells of every signal that has a handler
                        self._handle(number)
                self._guests.pass_on(numbers)  # after us: what a library does of itself is then part of the stop

    def _is_one_with(self, number: int, now: float) -> bool:
        """Whether the signal *number* counts with one that came a moment ago."""
        kin = {number, signal.SIGTERM} if number != signal.SIGTERM else SIGNALS
        return any(now - self._last.get(one, -math.inf) < SAME for one in kin)

    def _handle(self, number: int) -> None:
        with self._lock:
            now = time.monotonic()
            if self._is_one_with(number, now):
                return
            self._last[number] = now
            self.count += 1
            name = signal.Signals(number).name
            if self.count == 1:
                self.first, self.first_at = name, now
            elif self.count > 2 or self._listener is None:  # noqa: PLR2004  (the third)
                if self._told is not None:
                    os._exit(self._told)
                with contained("the last word"):
                    within(0.1, lambda: self._at_once(FORCED, name))  # stderr may be a pipe that is full
                os._exit(FORCED)
            # The listener first: it stops the app, and needs nothing that could have run out.
            for tell in (self._listener, self._on_signal):
                with contained("what a signal sets off"):
                    if tell is not None:
                        tell(self.count)
