"""How a run ended, the exit code that tells the truth about it, and the last lines that say so."""

from __future__ import annotations

import re

import attrs

from kernel.errors import StopTimeout, ValueLost
from kernel.lifecycle.events import Ending, State
from kernel.lifecycle.explain import duration, effort_of, end_of, forced_words, names_of, why

SIGNAL = re.compile(r"SIG[A-Z]+|KeyboardInterrupt")  # as the reason of a stop


@attrs.frozen
class Report:
    """How it all ended.

    Args:
        reason: Why the app stopped.
        endings: Each service's end, in the order of their start.
        first: The name of the service whose failure came first, one that may not fail before others; or None.
        seconds: Time from the first launch to the end.
        stopping: Time from when the stop was asked for to the end.
        forced: Whether another signal cancelled services that still ran.
        late: Whether the deadline had passed when the last of them ended.
        result: The exit code where nothing went wrong: that of a command.

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
        """The exit code that tells the truth about it."""
        return self._failure or self.result

    @property
    def well(self) -> bool:
        """Whether nothing went wrong, whatever exit code a command has chosen."""
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
        """The ending that the verdict tells in full, where there is such a one."""
        abandoned = [ending for ending in self.endings if ending.state is State.ABANDONED]
        if self.forced or len(abandoned) > 1:
            return None
        if abandoned or self.late:
            return next(iter(abandoned), None)
        return next((one for one in self.endings if one.service == self.first), None) if self._failure else None

    @property
    def verdict(self) -> str:
        """What the exit code stands for, in words that follow it."""
        abandoned = [ending for ending in self.endings if ending.state is State.ABANDONED]
        overran = [ending for ending in self.endings if ending.late or isinstance(ending.error, StopTimeout)]
        cause = self.cause
        if self.forced:
            cut = [one for one in overran if isinstance(one.error, StopTimeout) and one.error.forced]
            words = forced_words(cut, abandoned)
        elif len(abandoned) > 1:
            words = f"{names_of(abandoned)} could not be cancelled and were abandoned"
        elif self.late and cause is None:
            words = f"shutdown took {duration(self.stopping)}, exceeding the deadline (RUNNER_SHUTDOWNTIMEOUT)"
            words += f"; {names_of(overran)} overran" if overran else ""
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
        """Whose failure came first, where something worse than that has decided the exit code."""
        if self._failure not in {3, 130}:
            return ""
        first = next((one for one in self.endings if one.service == self.first and one.fatal), None)
        if first is None or first is cause or first.state is State.ABANDONED or isinstance(first.error, StopTimeout):
            return ""
        return f"; {first.service} had failed before"

    @property
    def lines(self) -> list[str]:
        """A line for each service: its end, its attempts, how long it was ready, and its error.

        What is read last should say everything once: an error that the verdict tells is left out here, and where a
        service failed for want of a value, why that was missing stands beside the provider.
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
