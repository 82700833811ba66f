"""Ends the process when its own code no longer can: a native function may hold the interpreter's lock for ever.

`faulthandler` needs no lock to print every thread's stack, but it can only exit with 1, which would be a lie about a
shutdown that passed its deadline. A timer of the C library calls ``_exit`` with the right code, on a thread of its
own; where there is no such timer, faulthandler's exit must do.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
from collections.abc import Callable

STACKS = 1.25  # seconds after the deadline at which the stacks are printed
EXIT = 1.5  # and at which the process ends


def arm(seconds: float) -> None:
    """End the process with faulthandler when it is still there *EXIT* seconds after *seconds* from now. Cheap."""
    _dump_later(seconds + EXIT, leave=True)


def arm_exit_code(seconds: float, code: int) -> None:
    """Do that with exit *code*. Costs 5 ms, so only a shutdown that takes its time should call it."""
    try:
        _arm_timer(seconds + EXIT, code)
    except (ImportError, OSError, AttributeError, TypeError):  # not every platform has such timers
        return
    _dump_later(seconds + STACKS, leave=False)


def disarm() -> None:
    """Let the process live."""
    faulthandler.cancel_dump_traceback_later()
    while _disarm:
        _disarm.pop()()


_disarm: list[Callable[[], object]] = []


def _dump_later(seconds: float, *, leave: bool) -> None:
    with contextlib.suppress(ValueError, OSError, RuntimeError):  # a stderr that is no file
        faulthandler.dump_traceback_later(seconds, exit=leave, file=sys.__stderr__ or 2)


def _arm_timer(seconds: float, code: int) -> None:
    import ctypes

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
    exit_at_once = ctypes.cast(libc._exit, ctypes.c_void_p).value  # noqa: SLF001  (the name C gives it)
    event = Event(value=code, notify=in_a_thread, function=exit_at_once)
    timer = ctypes.c_void_p()
    if libc.timer_create(monotonic, ctypes.byref(event), ctypes.byref(timer)):
        raise OSError
    times = Times(first_s=int(seconds), first_ns=int(seconds % 1 * 1e9))
    if libc.timer_settime(timer, 0, ctypes.byref(times), None):
        raise OSError
    _disarm.append(lambda: libc.timer_delete(timer))
