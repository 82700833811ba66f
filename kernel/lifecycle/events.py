"""The lifecycle of a service as data: its states, the legal moves between them, and the events that report them.

Logs, traces, metrics, status and tests observe the same events; nothing else reports what happened.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs


class State(enum.Enum):
    """The state of a service."""

    WAITING = "waiting"  # for its dependencies
    STARTING = "starting"  # launched, not ready yet
    READY = "ready"
    STOPPING = "stopping"  # the work has ended or its stop was requested; resources are closing
    BACKOFF = "backoff"  # crashed; waiting for its next attempt
    STOPPED = "stopped"  # ended because a stop was requested
    DONE = "done"  # returned without a stop request
    FAILED = "failed"  # crashed with no retry left, or cancelled because it exceeded a time limit
    ABANDONED = "abandoned"  # ignored its cancellation

    # Members are compared by identity; the default hash hashes the name, in slower Python code.
    __hash__ = object.__hash__


MOVES: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.STARTING, State.STOPPED, State.FAILED}),
    State.STARTING: frozenset({State.READY, State.STOPPING, State.BACKOFF, State.DONE, State.FAILED, State.ABANDONED}),
    State.READY: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.WAITING, State.BACKOFF, State.STOPPED, State.DONE, State.FAILED, State.ABANDONED}),
    State.BACKOFF: frozenset({State.WAITING, State.STARTING, State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset(),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.ABANDONED: frozenset(),
}
"""The legal moves. `Supervisor` makes no other moves, and tests check every recorded run against this table."""

LIVE = frozenset({State.STARTING, State.READY, State.STOPPING})
"""States in which an attempt is running."""

ENDED = frozenset(state for state, moves in MOVES.items() if not moves)
"""States that a service never leaves."""

LAUNCHED = frozenset({State.STARTING, State.READY})
"""States of an attempt that has not begun to stop."""

HALTED = frozenset({State.WAITING, State.BACKOFF})
"""States between attempts, when no task is running."""

WELL = frozenset({State.READY, State.DONE})
"""States in which nothing is wrong with a service."""

UNWELL = frozenset({State.BACKOFF, State.FAILED, State.ABANDONED})
"""States that an error leads to; the event's error says why."""

BROKEN = frozenset({State.FAILED, State.ABANDONED})
"""Final states that stop the app, unless the failure is allowed."""


@attrs.frozen(eq=False)
class Transition:
    """A service moved from `previous` to `state`.

    Args:
        service: Its name.
        previous: The state it left.
        state: The state it is in now.
        attempt: The number of its attempts so far, including the current one.
        seconds: How long the service was in `previous`.
        reason: Why it moved, as the end of a log line; empty if the states are explanation enough.
        error: The error that made it fail, or None.
        allowed: Whether a failure of the service is allowed.
        internal: Whether it belongs to the kernel or the app's lifespan rather than to `services/`.
        waited_for: The dependencies it waited for, in the order in which they became available; empty if it did not
            wait.
        cause: The service whose crash or end made this one stop, if it stops because a provider is stopping; else
            empty.

    """

    service: str
    previous: State
    state: State
    attempt: int
    seconds: float
    reason: str = ""
    error: BaseException | None = None
    allowed: bool = False
    internal: bool = False
    waited_for: tuple[str, ...] = ()
    cause: str = ""


@attrs.frozen(eq=False)
class AllReady:
    """Every enabled service is ready, done, or failed (allowed), for the first time.

    Args:
        seconds: Time since the first launch.
        chain: The critical path: a chain of services, each of which waited for the one before.

    """

    seconds: float
    chain: tuple[str, ...]


@attrs.frozen(eq=False)
class ReadyAgain:
    """A recovery is complete: all services are ready again, or have ended.

    Args:
        seconds: Time since the first of them lost readiness.
        services: The services that were not ready meanwhile, in the order in which they lost readiness.

    """

    seconds: float
    services: tuple[str, ...]


@attrs.frozen(eq=False)
class StopBegan:
    """The app has begun to stop: no service is started from now on.

    Args:
        reason: Why, in words.
        seconds: The deadline of the whole shutdown, in seconds from now.
        failure: Whether the reason is a failure, rather than a request or the end of all services.

    """

    reason: str
    seconds: float
    failure: bool = False


@attrs.frozen(eq=False)
class Forced:
    """Another signal cancels everything now; `services` are those that were still running."""

    services: tuple[str, ...]


@attrs.frozen(eq=False)
class Notice:
    """Something an operator should know that changes no service's state.

    Args:
        service: The service it concerns, or an empty string.
        message: What happened, and what follows from it.
        error: The exception behind it, or None.
        calm: Whether the notice is informational rather than a warning.

    """

    service: str
    message: str
    error: BaseException | None = None
    calm: bool = False


@attrs.frozen(eq=False)
class StillWaiting:
    """The start or the stop is slow: which service waits for which, down to the cause.

    Args:
        stopping: Whether the app is stopping rather than starting.
        seconds: Time since the start or the stop began.
        lines: A tree, one service per line, with its state and the line of code where it is.

    """

    stopping: bool
    seconds: float
    lines: tuple[str, ...]


@attrs.frozen(eq=False)
class Ending:
    """How one service ended.

    Args:
        service: Its name.
        state: The final state.
        attempts: The number of attempts.
        uptime: Seconds in which the service was ready, over all attempts.
        reason: Why it ended, in words; empty if the state is explanation enough.
        error: The error that made it fail, or None.
        allowed: Whether a failure of the service is allowed.
        internal: Whether it belongs to the kernel or the app's lifespan rather than to `services/`.
        late: Whether it ended after the shutdown's deadline.

    """

    service: str
    state: State
    attempts: int
    uptime: float
    reason: str
    error: BaseException | None
    allowed: bool
    internal: bool
    late: bool = False

    @property
    def fatal(self) -> bool:
        """Whether this ending makes the exit code 1."""
        return self.state in BROKEN and not self.allowed


Event: TypeAlias = Transition | AllReady | ReadyAgain | StopBegan | Forced | Notice | StillWaiting
Observer: TypeAlias = Callable[[Event], None]
"""Called with each event, in order, in the loop's thread. Must not block. If it raises, it is reported and disabled."""
