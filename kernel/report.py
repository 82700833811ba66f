"""How a run ended, and the exit code that tells the truth about it."""

from __future__ import annotations

import attrs

from kernel.lifecycle import BROKEN, State


@attrs.frozen
class Ending:
    """How one service ended, for the final report."""

    service: str
    state: State
    attempts: int
    uptime: float  # seconds it was ready, all attempts together
    reason: str
    error: BaseException | None
    allowed: bool
    internal: bool

    @property
    def fatal(self) -> bool:
        """Whether this ending makes the exit code 1."""
        return self.state in BROKEN and not self.allowed


@attrs.frozen
class Report:
    """How it all ended.

    Args:
        reason: Why the app stopped.
        endings: Each service's end, in the order of their start.
        first: The name of the service whose failure came first, one that may not fail before others; or None.
        seconds: Time from the first launch to the end.
        stopping: Time from when the stop was asked for to the end.
        forced: Whether a further signal cut services that still ran.
        late: Whether the deadline had passed when the last of them ended.

    """

    reason: str
    endings: tuple[Ending, ...]
    first: str | None
    seconds: float
    stopping: float
    forced: bool
    late: bool = False

    @property
    def exit_code(self) -> int:
        """The exit code that tells the truth about it."""
        own = [ending for ending in self.endings if not ending.internal]
        if self.forced:
            return 130
        if self.late or any(ending.state is State.ABANDONED for ending in self.endings):
            return 3
        if any(ending.fatal for ending in self.endings):
            return 1
        if own and all(ending.state is State.FAILED for ending in own):
            return 1
        return 0
