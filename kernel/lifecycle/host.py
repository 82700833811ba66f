"""The interface between a supervisor and its orchestrator."""

from __future__ import annotations

import enum
from typing import Protocol, TypeVar

from kernel.lifecycle.clock import Clock
from kernel.lifecycle.events import State

S_contra = TypeVar("S_contra", contravariant=True)  # the supervisor, or the orchestrator's subclass of it


class Want(enum.Enum):
    """What should happen to the running attempt of a service."""

    RUN = enum.auto()
    RESTART = enum.auto()  # stop it, since a provider it uses is stopping; start it again when the provider is back
    STOP = enum.auto()


class Signalled(Protocol):
    """Returns the signal that should stop the app."""

    def __call__(self, *, within: float = ...) -> str:
        """Return the name of the signal received *within* the last seconds; an empty string if there was none."""
        ...


class Host(Protocol[S_contra]):
    """What a supervisor needs from the orchestrator."""

    clock: Clock
    cancellation: type[BaseException]  # of the running loop

    @property
    def signalled(self) -> Signalled:
        """What returns the signal that should stop the app."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether a stop of the app was requested."""
        ...

    def moved(self, supervisor: S_contra, /, previous: State, seconds: float, reason: str) -> None:
        """Report a move, and queue it for `settle`."""

    def settle(self) -> None:
        """Apply the consequences of all moves so far. Called at the end of each step, when all state is consistent."""

    def withdraw(self, provider: S_contra, /) -> None:
        """Stop the consumers of *provider*."""

    def limits(self, supervisor: S_contra, /, requested_at: float) -> tuple[float, float]:
        """Return when the service is cancelled and abandoned if its stop was requested at *requested_at*."""
        ...

    def retry(self, supervisor: S_contra, /) -> None:
        """Start the service again after its backoff, or make it wait for its dependencies."""

    def explain(self) -> None:
        """Report what the start still waits for: a service has exceeded its start_timeout."""

    def interrupt(self) -> None:
        """Stop the app: a service raised KeyboardInterrupt, which counts as a signal."""

    def withhold(self, supervisor: S_contra, /, change: int) -> None:
        """Add *change* (1 or -1) to the number of reasons why the app is unready although all services serve."""

    def notice(
        self, supervisor: S_contra, /, message: str, error: BaseException | None = None, *, calm: bool = ...
    ) -> None:
        """Send the observers a notice, which changes no state; *calm* if it is not a warning."""
