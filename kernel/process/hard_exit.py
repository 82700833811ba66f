"""Ends the process when its own code no longer can: a native function may hold the interpreter's lock for ever.

`faulthandler` needs no lock to print every thread's stack, but it can only exit with 1, which would be a lie about a
shutdown that passed its deadline. A timer of the C library calls ``_exit`` with the right code, on a thread of its
own; where there is no such timer, faulthandler's exit must do.
"""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Callable

STDERR = 2
STACKS = 1.25  # seconds after the deadline at which the stacks are printed
EXIT = 1.5  # and at which the process ends
LONG = 1e6  # seconds, 11 days: faulthandler's clock cannot hold everything, and a deadline is armed anew when it moves

_start_timer: Callable[[float, int], Callable[[], object]] | None = None
_cancel_timer: list[Callable[[], object]] = []


def load() -> None:
    """Load what ends the process with the right code. Costs 5 ms, for ctypes, so not on the way of a quick stop."""
    global _start_timer  # noqa: PLW0603  (there is one process to end)
    if _start_timer is not None:
        return
    with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):  # not every platform has such timers
        _start_timer = _load_timers()


def arm(seconds: float, code: int) -> None:
    """End the process when it is still there *EXIT* seconds after *seconds* from now; with *code* once loaded."""
    seconds = min(max(seconds, 0.0), LONG)
    earlier = len(_cancel_timer)
    if _start_timer is not None:
        with contextlib.suppress(OSError):
            _cancel_timer.append(_start_timer(seconds + EXIT, code))
    _dump_later(seconds + (STACKS if _cancel_timer else EXIT), leave=not _cancel_timer)
    # The earlier one goes last: between two instructions of ours another thread may take the lock for ever.
    for cancel in _cancel_timer[:earlier]:
        cancel()
    del _cancel_timer[:earlier]


def disarm() -> None:
    """Let the process live."""
    faulthandler.cancel_dump_traceback_later()
    while _cancel_timer:
        _cancel_timer.pop()()


def _dump_later(seconds: float, *, leave: bool) -> None:
    # By its number: a file would be flushed here, which waits for whoever is just blocked in writing to it.
    faulthandler.dump_traceback_later(seconds, exit=leave, file=STDERR)


def _load_timers() -> Callable[[float, int], Callable[[], object]]:
    """A function that has the C library end the process after some seconds with some code, and gives its undoing."""
    import ctypes

    with contextlib.suppress(OSError):
        # A thread that wakes while the interpreter ends needs it, and aborts the process where it cannot be loaded.
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
        """The struct itimerspec: an interval, which stays zero, and the time to the first call."""

        _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns"))

    libc = ctypes.CDLL(None)
    create, settime, delete = libc.timer_create, libc.timer_settime, libc.timer_delete
    exit_at_once = ctypes.cast(libc._exit, ctypes.c_void_p).value  # noqa: SLF001  (the name C gives it)

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
