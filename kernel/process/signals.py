"""Count signals in a separate thread.

On the first SIGINT, SIGTERM or SIGHUP: stop gracefully. Second: cancel everything now. Third: exit at once.

Python runs signal handlers between two instructions of the main thread, so not while that thread waits in native code,
for example for a connection or a query. But the interpreter writes the signal's number into a pipe at once, and a
thread that reads it needs only the interpreter's lock. So signals count during imports, and while a service blocks the
event loop.
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
SAME = 0.5  # seconds within which two signals count as one: a terminal and a parent may both send it; systemd sends two


def ignore() -> None:
    """Ignore the signals that stop the app: on exit the interpreter restores the default actions, which kill."""
    for number in SIGNALS:
        set_handler(number, signal.SIG_IGN)


class Signals:
    """Counts the signals that stop the app, as a context manager around the whole run.

    Args:
        on_signal: Called with the count at each signal, in the counting thread.
        at_once: Called with the exit code and the signal's name before the process exits at once; may take 0.1 s.

    """

    def __init__(self, on_signal: Callable[[int], None], at_once: Callable[[int, str], None]) -> None:
        self.count = 0
        self.first = ""
        self.first_at = 0.0  # on the clock of time.monotonic
        self._caught_first = "", -math.inf
        self._on_signal = on_signal
        self._at_once = at_once
        self._told: int | None = None
        self._listener: Callable[[int], None] | None = None
        self._last: dict[int, float] = {}
        self._lock = threading.RLock()  # without the thread, a signal handler may interrupt the owner of the lock
        self._previous: dict[int, Any] = {}
        self._masks: list[set[signal.Signals | int]] = []  # one per thread that is forking
        self._guests = Guests(self._caught, self._sent_to_itself)
        self._write_fd = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in SIGNALS:
            # nohup ignores SIGHUP on purpose. A shell ignores SIGINT for commands started with `&`, but a SIGINT that
            # is
            # sent explicitly should count.
            if number != getattr(signal, "SIGHUP", None) or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._caught)
        os.register_at_fork(before=self._forks, after_in_parent=self._forked, after_in_child=self._in_child)
        with contained("the thread that counts signals"):  # without it, signals count only between instructions
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
                os.close(self._write_fd)  # ends the thread

    def _forks(self) -> None:
        """Block signals while the process forks: parent and child share the pipe, but must not share signals."""
        if self._previous:
            self._masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS))

    def _forked(self) -> None:
        if self._masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop())

    def _let_go(self) -> None:
        """Restore the signal handlers."""
        self._guests.close()
        while self._previous:
            signal.signal(*self._previous.popitem())
        self._forked()

    def _in_child(self) -> None:
        """Restore the default handlers in a forked child."""
        for number in self._previous:
            self._previous[number] = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        if self._previous:
            self._let_go()

    def listen(self, listener: Callable[[int], None] | None) -> None:
        """Call *listener* with the count at each signal, in the counting thread; at once if there already was a signal.

        Without a listener, the second signal ends the process.
        """
        with self._lock:
            self._listener = listener
            if listener is not None and self.count:
                listener(self.count)

    def came(self) -> tuple[str, float]:
        """Return the first signal's name and the seconds since; an empty name if there was no signal.

        The name is known as soon as Python's handler has run, before the loop handles anything else.
        """
        name, at = (self.first, self.first_at) if self.count else self._caught_first
        return name, time.monotonic() - at

    def told(self, code: int) -> None:
        """Let further signals exit with *code* and without a message, since the end was reported."""
        self._told = code

    def _sent_to_itself(self, number: int) -> None:
        """Count the first signal that the process sends to itself as a request to stop, and ignore further ones.

        A library that caught the first signal stops, and then raises it again.
        """
        if self.count:
            self._last[number] = time.monotonic()

    def _caught(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal in Python: call the library's handler, and notify the thread if the interpreter could not."""
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
                    if number in SIGNALS:  # the pipe gets every signal that has a handler
                        self._handle(number)
                self._guests.pass_on(numbers)  # comes last, so that whatever a library does is part of the stop

    def _is_one_with(self, number: int, now: float) -> bool:
        """Return whether the signal *number* counts as the same as one just before."""
        kin = {number, signal.SIGTERM} if number != signal.SIGTERM else SIGNALS
        return any(now - self._last.get(other, -math.inf) < SAME for other in kin)

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
                with contained("the forced exit message"):
                    within(0.1, lambda: self._at_once(FORCED, name))  # stderr may be a full pipe
                os._exit(FORCED)
            # The listener comes first: it stops the app, and needs no resource that may be exhausted.
            for tell in (self._listener, self._on_signal):
                with contained("a signal's listener"):
                    if tell is not None:
                        tell(self.count)
