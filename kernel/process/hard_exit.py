"""End the process when Python code no longer can: a native function may hold the interpreter's lock forever.

`faulthandler` can print every thread's stack without the lock, but can exit only with code 1, which would be wrong for
a shutdown that exceeded its deadline. So a timer of the C library calls ``_exit`` with the right code, in a separate
thread. If there is no such timer, faulthandler exits.
"""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Callable

STDERR = 2
STACKS = 1.25  # seconds after the deadline at which the stacks are printed
EXIT = 1.5  # seconds after the deadline at which the process ends
LONG = 1e6  # seconds (11 days), the longest timer that faulthandler allows; a deadline that changes is armed again

_start_timer: Callable[[float, int], Callable[[], object]] | None = None
_cancel_timer: list[Callable[[], object]] = []


def load() -> None:
    """Load the code that ends the process with the right exit code. Not done for a quick stop: ctypes takes 5 ms."""
    global _start_timer  # noqa: PLW0603  (one per process)
    if _start_timer is not None:
        return
    with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):  # not every platform has such timers
        _start_timer = _load_timers()


def arm(seconds: float, code: int) -> None:
    """End the process with *code* if it still exists *seconds* plus `EXIT` from now. Without `load`, the code is 1."""
    seconds = min(max(seconds, 0.0), LONG)
    earlier = len(_cancel_timer)
    if _start_timer is not None:
        with contextlib.suppress(OSError):
            _cancel_timer.append(_start_timer(seconds + EXIT, code))
    _dump_later(seconds + (STACKS if _cancel_timer else EXIT), leave=not _cancel_timer)
    # The earlier timer is set last: between two instructions of ours another thread may take the lock forever.
    for cancel in _cancel_timer[:earlier]:
        cancel()
    del _cancel_timer[:earlier]


def disarm() -> None:
    """Cancel the timers."""
    faulthandler.cancel_dump_traceback_later()
    while _cancel_timer:
        _cancel_timer.pop()()


def _dump_later(seconds: float, *, leave: bool) -> None:
    # By descriptor: closing a file object would flush it, and a thread may be blocked in writing to it.
    faulthandler.dump_traceback_later(seconds, exit=leave, file=STDERR)


def _load_timers() -> Callable[[float, int], Callable[[], object]]:
    """Return a function that lets the C library exit after some seconds, and that returns a function to cancel that."""
    import ctypes

    with contextlib.suppress(OSError):
        # A thread that wakes while the interpreter exits needs this, and aborts the process if it cannot be loaded.
        ctypes.CDLL("libgcc_s.so.1")
    monotonic, in_a_thread = 1, 2  # CLOCK_MONOTONIC, SIGEV_THREAD

    class Event(ctypes.Structure):
        """The struct sigevent of the C library, padded to its full size."""

        _fields_ = (
            ("value", ctypes.c_void_p),
            ("signal", ctypes.c_int),
            ("notify", ctypes.c_int),
            ("function", ctypes.c_void_p),
            ("attributes", ctypes.c_void_p),
            ("padding", ctypes.c_char * 32),
        )

    class Times(ctypes.Structure):
        """The struct itimerspec: an interval, which is always zero, and the time until the first call."""

        _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns"))

    libc = ctypes.CDLL(None)
    create, settime, delete = libc.timer_create, libc.timer_settime, libc.timer_delete
    exit_at_once = ctypes.cast(libc._exit, ctypes.c_void_p).value  # noqa: SLF001  (its name in C)

    def start(seconds: float, code: int) -> Callable[[], object]:
        event = Event(value=code, notify=in_a_thread, function=exit_at_once)
        timer = ctypes.c_void_p()
        if create(monotonic, ctypes.byref(event), ctypes.byref(timer)):
            raise OSError
        times = Times(first_s=int(seconds), first_ns=int(seconds % 1 * 1e9))
        if settime(timer, 0, ctypes.byref(times), None):
            raise OSError
        return lambda: delete(timer)

    return start
