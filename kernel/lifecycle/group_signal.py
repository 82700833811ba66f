"""A signal that reaches the whole process group, and so the child processes and libraries of services too.

A terminal sends Ctrl+C to the group, and systemd sends SIGTERM to the whole unit. The service that waits for the child
then fails at the same moment, and that is no failure: the app is being stopped.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from typing import Any, Protocol

from kernel.errors import ServiceError, StrayCancellation
from kernel.lifecycle.host import Host

JUST = 0.5  # seconds in which a signal to a whole group or unit has ended the other processes too


class Signalled:
    """Tells which signal came to stop the app, for whose sake it then stops from there on.

    Args:
        signal: Gives the first signal, and the seconds since; an empty name where there was none.
        stop: Begins the stop, for a reason that was there some seconds *ago*.

    """

    def __init__(self, signal: Callable[[], tuple[str, float]], stop: Callable[..., object]) -> None:
        self._signal = signal
        self._stop = stop

    def __call__(self, *, within: float = JUST) -> str:
        """Return the signal that came *within* so many seconds; else an empty text."""
        name, ago = self._signal()
        if not name or ago > within:
            return ""
        self._stop(name, ago=ago)
        return name


class Failed(Protocol):
    """A supervisor whose service has failed."""

    host: Host[Any]


def is_doing_of_signal(failed: Failed, error: BaseException, *, requested: bool, at_work: bool) -> bool:
    """Whether a failure comes of the signal that stops the app; then it is told, and the app stops from here on.

    Args:
        failed: The service's supervisor.
        error: What the service failed with.
        requested: Whether the service's stop was requested before.
        at_work: Whether its work failed, rather than its clean-up.

    """
    host = failed.host
    if isinstance(error, StrayCancellation):  # arq's worker cancels itself when its jobs are done
        return bool(host.signalled(within=math.inf))
    name = host.signalled()
    if not name or isinstance(error, ServiceError):
        return False
    by_itself = not requested or (at_work and not came_of(error, host.cancellation))
    if not (by_itself or killed_by(error, name)):
        return False
    host.notice(failed, f"failed as {name} came, which its child processes get as well", error)
    return True


def killed_by(error: BaseException, name: str) -> bool:
    """Whether *error* tells of a child process that the signal *name* has ended.

    Told by what `subprocess` and anyio raise, and so by a ``returncode``: -2 for SIGINT, or 130 through a shell.
    """
    number = int(getattr(signal, name, 0))
    if isinstance(error, BaseExceptionGroup):
        return any(killed_by(one, name) for one in error.exceptions)
    codes = {-number, 128 + number}
    return bool(number) and (
        getattr(error, "returncode", None) in codes
        or (error.__cause__ is not None and killed_by(error.__cause__, name))
    )


def came_of(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether *error*, or one in it, was raised while an exception of that *kind* was dealt with."""
    if isinstance(error, BaseExceptionGroup):
        return any(came_of(one, kind) for one in error.exceptions)
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, kind):
        seen = seen.__context__
    return seen is not None
