"""Share signals with libraries that handle them too, so that both receive them.

A server such as uvicorn sets its own handlers while it serves. An event loop takes the interpreter's wake-up
descriptor, and restores the default action when a handler is removed: the next SIGTERM would then kill the process.
So these functions are replaced while the kernel counts signals:

    signal.signal               keeps the library's handler beside the kernel's
    signal.set_wakeup_fd        keeps the library's descriptor; what the kernel reads is forwarded to it
    signal.raise_signal, signal.pthread_kill, os.kill, os.killpg
                                record that the process sends the signal to itself, and send it
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

from kernel.process.contain import contained

Handler = Callable[[int, FrameType | None], Any]

set_handler, _set_wakeup_fd = signal.signal, signal.set_wakeup_fd  # the original functions


class Guests:
    """The handlers and descriptors that libraries set for signals, from `open` to `close`.

    Args:
        handler: The kernel's handler, which Python keeps calling.
        to_itself: Called with the number before the process sends a signal to itself.

    """

    def __init__(self, handler: Handler, to_itself: Callable[[int], object]) -> None:
        self._handler = handler
        self._to_itself = to_itself
        self._held: frozenset[int] = frozenset()
        self._pipe = -1
        self._fd = -1
        self._handlers: dict[int, Handler] = {}
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def open(self, held: Collection[int], pipe: int) -> None:
        """Replace the functions.

        Args:
            held: The signals that the kernel must always receive.
            pipe: The kernel's wake-up descriptor; -1 leaves it to libraries.

        """
        self._held, self._pipe = frozenset(held), pipe
        self._replace(signal, "signal", self._signal)
        self._replace(signal, "raise_signal", self._noting(signal.raise_signal, lambda number: number))
        self._replace(signal, "pthread_kill", self._noting(signal.pthread_kill, lambda _, number: number))
        self._replace(os, "kill", self._noting(os.kill, lambda pid, number: number if _is_ours(pid) else 0))
        self._replace(os, "killpg", self._noting(os.killpg, lambda pgid, number: number if _is_ours(-pgid) else 0))
        if pipe != -1:
            self._replace(signal, "set_wakeup_fd", self._set_fd)
            self._fd = _set_wakeup_fd(pipe, warn_on_full_buffer=False)

    def close(self) -> None:
        """Restore the functions. A library that has kept a reference to ours gets the original behaviour."""
        if self._pipe != -1:
            _set_wakeup_fd(-1)
            with contextlib.suppress(OSError, ValueError):  # the library has closed its descriptor
                _set_wakeup_fd(self._fd)
        self._held, self._pipe = frozenset(), -1
        self._handlers.clear()
        while self._replaced:
            module, name, ours, real = self._replaced.pop()
            if getattr(module, name) is ours:  # otherwise it was replaced again meanwhile
                setattr(module, name, real)

    def call(self, number: int, frame: FrameType | None) -> None:
        """Call the library's handler for *number*, if any. If it raises SystemExit, the app stops in order."""
        handler = self._handlers.get(number)
        if handler is not None:
            what = f"the handler {handler!r} of {signal.Signals(number).name}"
            with contained(what), contextlib.suppress(SystemExit, KeyboardInterrupt):
                handler(number, frame)

    def pass_on(self, numbers: bytes) -> None:
        """Forward the signal numbers received from the interpreter to the library's descriptor."""
        if self._fd != -1:
            with contextlib.suppress(OSError):  # the pipe is full, or closed
                os.write(self._fd, numbers)

    def retake(self) -> bool:
        """Set the kernel's wake-up descriptor again if it was replaced; return whether it was."""
        if self._pipe == -1:
            return False
        theirs = _set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        if theirs == self._pipe:
            return False
        self._fd = theirs
        return True

    def _replace(self, module: Any, name: str, ours: Callable[..., Any]) -> None:
        real = getattr(module, name)
        self._replaced.append((module, name, ours, real))
        setattr(module, name, ours)

    def _signal(self, number: int, handler: Any) -> Any:
        """Replace `signal.signal`: keep the library's handler beside the kernel's."""
        if number not in self._held or not (callable(handler) or handler in (signal.SIG_DFL, signal.SIG_IGN)):
            return set_handler(number, handler)
        set_handler(number, self._handler)  # raises the right error outside of the main thread
        before = self._handlers.pop(number, self._handler)
        if callable(handler) and handler not in (self._handler, signal.default_int_handler):
            self._handlers[number] = handler
        return before

    def _set_fd(self, fd: int, *, warn_on_full_buffer: bool = True) -> int:
        """Replace `signal.set_wakeup_fd`: keep the library's descriptor beside the kernel's."""
        if self._pipe == -1:
            return _set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)
        _set_wakeup_fd(self._pipe, warn_on_full_buffer=False)  # raises the right error if needed
        before, self._fd = self._fd, fd
        return before

    def _noting(self, send: Callable[..., Any], sent: Callable[..., int]) -> Callable[..., Any]:
        @functools.wraps(send)
        def noting(*args: Any) -> Any:
            with contextlib.suppress(TypeError):  # *send* will raise the error
                if (number := sent(*args)) in self._held:
                    self._to_itself(number)
            return send(*args)

        return noting


def _is_ours(pid: int) -> bool:
    """Return whether a signal that `kill` sends to *pid* reaches this process."""
    return pid in {os.getpid(), 0, -os.getpgrp(), -1}
