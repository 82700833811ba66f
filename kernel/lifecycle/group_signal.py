"""Signals to the whole process group, which also reach the child processes and libraries of services.

A terminal sends Ctrl+C to the group, and systemd sends SIGTERM to the whole unit. A service that waits for a child
process then fails at the same moment. That does not count as a failure, since the app is being stopped.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from typing import Any, Protocol

from kernel.errors import ServiceError, StrayCancellation, chain
from kernel.lifecycle.host import Host

JUST = 0.5  # seconds: a child process that ends this soon after the signal was ended by it


class Signalled:
    """Returns the signal that should stop the app, and begins the stop.

    Args:
        signal: Returns the name of the first signal, and the seconds since; an empty name if there was none.
        stop: Begins the stop, given the reason and how many seconds *ago* it was requested.

    """

    def __init__(self, signal: Callable[[], tuple[str, float]], stop: Callable[..., object]) -> None:
        self._signal = signal
        self._stop = stop

    def __call__(self, *, within: float = JUST) -> str:
        """Return the name of the signal received *within* the last seconds; an empty string if there was none."""
        name, ago = self._signal()
        if not name or ago > within:
            return ""
        self._stop(name, ago=ago)
        return name


class Failed(Protocol):
    """A supervisor whose service has failed."""

    host: Host[Any]


def is_doing_of_signal(failed: Failed, error: BaseException, *, requested: bool, at_work: bool) -> bool:
    """Return whether the signal that stops the app caused a failure. If so, report that and begin the stop.

    Args:
        failed: The service's supervisor.
        error: What the service failed with.
        requested: Whether the service's stop had been requested before.
        at_work: Whether its work failed, rather than its clean-up.

    """
    host = failed.host
    if isinstance(error, StrayCancellation):  # arq's worker cancels itself once its jobs are done
        return bool(host.signalled(within=math.inf))
    name = host.signalled()
    if not name or isinstance(error, ServiceError):
        return False
    by_itself = not requested or (at_work and not came_of(error, host.cancellation))
    if not (by_itself or killed_by(error, name)):
        return False
    host.notice(failed, f"failed on {name}, which its child processes receive too", error)
    return True


def killed_by(error: BaseException, name: str) -> bool:
    """Return whether *error* means that the signal *name* killed a child process.

    The ``returncode`` in the errors of `subprocess` and anyio tells: for SIGINT it is -2, or 130 through a shell.
    """
    number = signal.Signals[name]
    codes = [-number, 128 + number]  # no set: the attribute of some other error may not be hashable
    return any(getattr(one, "returncode", None) in codes for one in chain(error, "__cause__", ungrouped=True))


def came_of(error: BaseException, kind: type[BaseException]) -> bool:
    """Return whether *error*, or an error in its group, was raised while handling an exception of *kind*."""
    # Not by the context of a group: a task group raises it while its body is being cancelled.
    return any(isinstance(one, kind) for one in chain(error, "__context__", ungrouped=True))
