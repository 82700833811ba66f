"""How a run ended: the exit code, the verdict, and a line for each service."""

from __future__ import annotations

import re

import attrs

from kernel.errors import StopTimeout, ValueLost
from kernel.lifecycle.events import Ending, State
from kernel.lifecycle.explain import duration, effort_of, end_of, forced_words, names_of, why

SIGNAL = re.compile(r"SIG[A-Z]+|KeyboardInterrupt")  # a stop reason that names a signal


@attrs.frozen(repr=False)
class Report:
    """How the run ended.

    Args:
        reason: Why the app stopped.
        endings: How each service ended, in start order.
        first: The service that failed first; failures that are not allowed take precedence. None if none failed.
        seconds: Seconds from the first launch to the end.
        stopping: Seconds from the request to stop to the end.
        forced: Whether another signal cancelled services that were still running.
        late: Whether the deadline had passed when the last service ended.
        result: The exit code if nothing went wrong; a command sets it.

    """

    reason: str
    endings: tuple[Ending, ...]
    first: str | None
    seconds: float
    stopping: float
    forced: bool
    late: bool = False
    result: int = 0

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        return self._failure or self.result

    @property
    def well(self) -> bool:
        """Whether nothing went wrong, regardless of a command's exit code."""
        return not self._failure

    @property
    def _failure(self) -> int:
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

    # -- in words ------------------------------------------------------------------------------------------------

    @property
    def cause(self) -> Ending | None:
        """The ending that the verdict explains in full; None if there is none."""
        abandoned = [ending for ending in self.endings if ending.state is State.ABANDONED]
        if self.forced or len(abandoned) > 1:
            return None
        if abandoned or self.late:
            return next(iter(abandoned), None)
        return next((each for each in self.endings if each.service == self.first), None) if self._failure else None

    @property
    def verdict(self) -> str:
        """Explain the exit code, in words that can follow it in a sentence."""
        abandoned = [ending for ending in self.endings if ending.state is State.ABANDONED]
        overran = [ending for ending in self.endings if ending.late or isinstance(ending.error, StopTimeout)]
        cause = self.cause
        if self.forced:
            forced = [ending for ending in overran if isinstance(ending.error, StopTimeout) and ending.error.forced]
            words = forced_words(forced, abandoned)
        elif len(abandoned) > 1:
            words = f"{names_of(abandoned)} could not be cancelled and were abandoned"
        elif self.late and cause is None:
            words = f"shutdown took {duration(self.stopping)}, exceeding the deadline (RUNNER_SHUTDOWNTIMEOUT)"
            words += f"; {names_of(overran)} did not stop in time" if overran else ""
        elif cause is not None and cause.state is State.FAILED and not cause.fatal:
            words = f"every service failed; the first was {cause.service}{why(cause)}"
        elif cause is not None:
            spent = cause.attempts > 1 and cause.reason.startswith("after ")
            tries = f" after {cause.attempts} attempts" if spent else ""
            words = f"{cause.service} {end_of(cause)}{tries}{why(cause)}"
        elif SIGNAL.fullmatch(self.reason):
            words = f"stopped by {self.reason}"
        else:
            words = self.reason
        return words + self._earlier(cause)

    def _earlier(self, cause: Ending | None) -> str:
        """Name the service that failed first, if the exit code has a more serious cause."""
        if self._failure not in {3, 130}:
            return ""
        first = next((ending for ending in self.endings if ending.service == self.first and ending.fatal), None)
        if first is None or first is cause or first.state is State.ABANDONED or isinstance(first.error, StopTimeout):
            return ""
        return f"; {first.service} had failed before"

    @property
    def lines(self) -> list[str]:
        """Return one line for each service: how it ended, its attempts, how long it was ready, and its error.

        Each error is shown once: the verdict's error is left out, and a consumer that lost its provider does not repeat
        the provider's error.
        """
        told = set()
        cause = self.cause.error if self.cause is not None else None
        while cause is not None:
            told.add(id(cause))
            cause = cause.__cause__ if isinstance(cause, ValueLost) else None
        shown = [ending for ending in self.endings if not ending.internal or ending.fatal]
        width = max((len(ending.service) for ending in shown), default=0)
        lines = []
        for ending in shown:
            error = "" if id(ending.error) in told else why(ending, short=True)
            lines.append(f"{ending.service:<{width}}  {end_of(ending)}; {effort_of(ending)}{error}")
        return lines
