"""The life of a service as data: its states, the legal moves between them, and the events that tell of it.

Logs, traces, metrics, status and tests are observers of the same events; nothing else reports what happened.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs


class State(enum.Enum):
    """Where a service is in its life."""

    WAITING = "waiting"  # for its dependencies
    STARTING = "starting"  # launched, not ready yet
    READY = "ready"
    STOPPING = "stopping"  # its work has ended or was asked to; its resources are closing
    BACKOFF = "backoff"  # crashed; waits for its next attempt
    STOPPED = "stopped"  # ended because it was asked to
    DONE = "done"  # returned by itself
    FAILED = "failed"  # the policy gave up, or it had to be cut
    ABANDONED = "abandoned"  # it could not be cut

    # A member is compared and hashed by identity; the default hash goes through the name, in Python code.
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
"""The legal moves. `Supervisor` makes no other, and the tests hold every recorded run against this table."""

LIVE = frozenset({State.STARTING, State.READY, State.STOPPING})
"""States in which an attempt is running."""

ENDED = frozenset(state for state, moves in MOVES.items() if not moves)
"""States that a service never leaves."""

LAUNCHED = frozenset({State.STARTING, State.READY})
"""States of an attempt that has not begun to stop."""

HALTED = frozenset({State.WAITING, State.BACKOFF})
"""States between attempts: no task is running."""

WELL = frozenset({State.READY, State.DONE})
"""States in which a service is as it should be."""

UNWELL = frozenset({State.BACKOFF, State.FAILED, State.ABANDONED})
"""States that an error leads to, which says why."""

BROKEN = frozenset({State.FAILED, State.ABANDONED})
"""Ends that are the end of the app, unless the failure is allowed."""


@attrs.frozen(eq=False)
class Transition:
    """A service moved from `previous` to `state`.

    Args:
        service: Its name.
        previous: The state it left.
        state: The state it is in now.
        attempt: The number of its attempts so far, the present one included.
        seconds: How long it was in `previous`.
        reason: Why, in words that end a log line; empty where the states say it.
        error: What it failed with, or None.
        allowed: Whether the service may fail.
        internal: Whether it belongs to the kernel or the app's lifespan rather than to `services/`.
        waited_for: Where it was waiting: whom it waited for, the last one last.
        cause: Where it stops because a value that it holds is going: the service whose crash or end led to that.

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
    """For the first time every enabled service is ready, done, or failed (allowed).

    Args:
        seconds: Time since the first launch.
        chain: The services that took it, each having waited for the one before.

    """

    seconds: float
    chain: tuple[str, ...]


@attrs.frozen(eq=False)
class ReadyAgain:
    """All are ready again, or have ended: a recovery is complete.

    Args:
        seconds: Time since the first of them ceased to be ready.
        services: Those that were not ready meanwhile, in that order.

    """

    seconds: float
    services: tuple[str, ...]


@attrs.frozen(eq=False)
class StopBegan:
    """The app stops: no service is started from now on.

    Args:
        reason: Why, in words.
        seconds: The deadline of the whole shutdown, counted from now.
        failure: Whether a failure is the reason, rather than a request or the end of all work.

    """

    reason: str
    seconds: float
    failure: bool = False


@attrs.frozen(eq=False)
class Forced:
    """A further signal asks to cut everything now; `services` are those that still ran."""

    services: tuple[str, ...]


@attrs.frozen(eq=False)
class Notice:
    """Something that an operator should know and that moves no service.

    Args:
        service: The service it concerns, or an empty string.
        message: What happened, and what follows.
        error: The exception behind it, or None.
        calm: Whether it is no warning.

    """

    service: str
    message: str
    error: BaseException | None = None
    calm: bool = False


@attrs.frozen(eq=False)
class StillWaiting:
    """The start or the stop takes long: what waits for what, down to the culprit.

    Args:
        stopping: Whether it is the stop.
        seconds: Since it began.
        lines: A tree, one service a line, with what it does and where it stands.

    """

    stopping: bool
    seconds: float
    lines: tuple[str, ...]


@attrs.frozen(eq=False)
class Ending:
    """How one service ended.

    Args:
        service: Its name.
        state: The state it ended in.
        attempts: How many attempts it made.
        uptime: Seconds it was ready, all attempts together.
        reason: Why, in words; empty where the state says it.
        error: What it failed with, or None.
        allowed: Whether its failure is allowed.
        internal: Whether it belongs to the kernel or the app's lifespan rather than to `services/`.
        late: Whether it ended after the deadline.

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
"""Is told each event, in order, in the loop's thread. It must not block; one that raises is reported and disabled."""
