"""What a supervisor and its orchestrator tell each other."""

from __future__ import annotations

import enum
from typing import Protocol, TypeVar

from kernel.lifecycle.clock import Clock
from kernel.lifecycle.events import State

S_contra = TypeVar("S_contra", contravariant=True)  # the supervisor, or what the orchestrator made of it


class Want(enum.IntEnum):
    """What is to become of the running attempt."""

    RUN = 0
    RESTART = 1  # stop it, since a value it holds is going, and start it again when that is back
    STOP = 2


class Signalled(Protocol):
    """Tells of signals."""

    def __call__(self, *, within: float = ...) -> str:
        """Return the signal that came to stop the app, *within* so many seconds; else an empty text."""
        ...


class Host(Protocol[S_contra]):
    """What a supervisor needs from the orchestrator."""

    clock: Clock
    cancellation: type[BaseException]  # of the running loop

    @property
    def signalled(self) -> Signalled:
        """Whom to ask for signals."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether a stop of the app was requested."""
        ...

    def moved(self, supervisor: S_contra, /, previous: State, seconds: float, reason: str) -> None:
        """Report a move, and remember it for `settle`."""

    def settle(self) -> None:
        """Draw the consequences of all moves so far. Called at the end of each step, when all is consistent."""

    def withdraw(self, provider: S_contra, /) -> None:
        """Stop those that hold the value of *provider*."""

    def limits(self, supervisor: S_contra, /, requested_at: float) -> tuple[float, float]:
        """Return when it is cancelled, and when it is abandoned, its stop having been requested at *requested_at*."""
        ...

    def retry(self, supervisor: S_contra, /) -> None:
        """Start it again, now that its backoff is over, or let it wait for its dependencies."""

    def explain(self) -> None:
        """Tell what the start still waits for, since one of the services took too long."""

    def interrupt(self) -> None:
        """Treat a KeyboardInterrupt as what it is, a signal."""

    def withhold(self, supervisor: S_contra, /, change: int) -> None:
        """Count one reason more, or less, why the app is unready although all serve."""

    def notice(
        self, supervisor: S_contra, /, message: str, error: BaseException | None = None, *, calm: bool = False
    ) -> None:
        """Tell the observers something that moves no service, *calm* where it is no warning."""
