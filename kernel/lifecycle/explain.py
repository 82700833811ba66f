"""The sentences that explain a state: in logs, errors, `/status` and the final report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from kernel.errors import ValueLost, one_line
from kernel.lifecycle.events import LIVE, UNWELL, Ending, State, Transition


class Named(Protocol):
    """Anything that has the name of a service."""

    @property
    def name(self) -> str:
        """The service's name."""
        ...


class Explained(Protocol):
    """A service whose state is explained: a node of the orchestrator."""

    name: str
    state: State
    since: float
    attempt: int
    error: BaseException | None
    reason: str
    doing: Callable[[], str] | None

    @property
    def next_step_at(self) -> float | None:
        """When its alarm goes off; None if no alarm is set."""
        ...

    @property
    def waits_for(self) -> Sequence[Named]:
        """The dependencies that it still waits for before it can start."""
        ...

    def stands_at(self) -> str:
        """Return the line of code where it is."""
        ...


# -- while it runs -----------------------------------------------------------------------------------------------


def describe(service: Explained, now: float) -> str:
    """Describe its state, attempt, last error, next try and line: ``starting for 4.2 s, attempt 2, at api.py:3``."""
    words = [f"{service.state.value} for {now - service.since:.1f} s"]
    if service.attempt > 1:
        words.append(f"attempt {service.attempt}")
    if service.state is State.BACKOFF and service.next_step_at is not None:
        words.append(f"next try in {service.next_step_at - now:.1f} s")
    if service.state in LIVE:
        words.append(service.doing() if service.doing is not None else f"at {service.stands_at()}")
    if service.error is not None:
        words.append(f"last error: {one_line(service.error)}")
    return ", ".join(words)


def reason_of(service: Explained) -> str:
    """Return why the service is in its state; an empty string if the state is explanation enough."""
    if service.state is State.WAITING:
        names = ", ".join(target.name for target in service.waits_for)
        return f"waits for {names}" if names else service.reason
    if service.error is not None and service.state in UNWELL:
        error = one_line(service.error)
        return f"{error}; {service.reason}" if service.state is State.BACKOFF else error
    return service.reason


def lost(state: State, error: BaseException | None) -> str:
    """Say what happened to a provider in *state*, for its consumers."""
    words = {State.DONE: "has ended", State.FAILED: "failed", State.ABANDONED: "was abandoned"}
    return words.get(state, "is gone") + (f": {one_line(error)}" if error is not None else "")


def spent(attempts: int, refused: BaseException | None) -> str:
    """Say why a service is not retried: its retries are used up, or the error *refused* is not in `Retry.on`."""
    words = [f"after {attempts} attempts"] if attempts > 1 else []
    if refused is not None:
        words.append(f"and is not retried, since {type(refused).__name__} is not in Retry(on=...)")
    return " ".join(words)


def describe_move(move: Transition) -> str:  # noqa: PLR0911  (one for each state)
    """Return the message of the log line about a move."""
    why = f" ({move.reason})" if move.reason else ""
    what = without_name(move.error, move.service) if move.error else move.reason
    match move.state:
        case State.STARTING:
            return "starting" if move.attempt == 1 else f"starting, attempt {move.attempt}"
        case State.READY:
            return f"ready after {duration(move.seconds)}"
        case State.BACKOFF:
            return f"{what}; {move.reason}"
        case State.STOPPED:
            return f"stopped{why or f' after {duration(move.seconds)}'}"
        case State.DONE if move.reason:
            return f"done{why}; if that is intended, set oneshot=True"
        case State.DONE:
            return f"done after {duration(move.seconds)}"
        case State.FAILED | State.ABANDONED:
            spent = f" {move.reason}" if move.reason and not move.reason.endswith(what) else ""
            return f"{move.state.value}{spent}{' (allowed)' if move.allowed else ''}: {what}"
        case _:
            return f"{move.state.value}{why}"


# -- when it has ended -------------------------------------------------------------------------------------------


def end_of(ending: Ending) -> str:
    """Describe the state in which a service ended."""
    text = ending.state.value
    if ending.state is State.DONE and ending.reason:
        text += f" ({ending.reason})"
    if ending.state is State.FAILED and ending.reason.startswith("while "):
        text += f" {ending.reason}"
    return text + (" (allowed)" if ending.state is State.FAILED and ending.allowed else "")


def effort_of(ending: Ending) -> str:
    """Describe the attempts of a service, and how long it was ready."""
    if not ending.attempts:
        return "never started"
    attempts = "1 attempt" if ending.attempts == 1 else f"{ending.attempts} attempts"
    if ending.uptime:
        return f"{attempts}, up {duration(ending.uptime)}"
    return attempts if ending.state is State.DONE else f"{attempts}, never ready"


def why(ending: Ending, *, short: bool = False) -> str:
    """Return the error after a colon, or an empty string. With *short*, omit what another service's line shows."""
    if ending.error is None:
        return ""
    if short and isinstance(ending.error, ValueLost):
        return f": {ending.error.short}"
    return f": {without_name(ending.error, ending.service)}"


def forced_words(cancelled: Sequence[Ending], abandoned: Sequence[Ending]) -> str:
    """Say which services another signal cancelled, and which ones ignored the cancellation."""
    if not cancelled and not abandoned:
        return "forced by another signal"
    words = "received another signal"
    if cancelled:
        they = "it" if len(cancelled) == 1 else "they"
        words = f"another signal cancelled {names_of(cancelled)} before {they} had stopped"
    if abandoned:
        were = "was" if len(abandoned) == 1 else "were"
        words += f", but {names_of(abandoned)} could not be cancelled and {were} abandoned"
    return words


def names_of(endings: Sequence[Ending]) -> str:
    """Join the names of services: ``a, b and c``."""
    *others, last = [ending.service for ending in endings]
    return f"{', '.join(others)} and {last}" if others else last


def without_name(error: BaseException, service: str) -> str:
    """Return `one_line` of *error*, without the service's name if that comes first: the line already begins with it."""
    return one_line(error).removeprefix(f"{service} ")


def duration(seconds: float) -> str:
    """Format *seconds* for people."""
    if seconds >= 100:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
