"""How a run ended, the exit code that tells the truth about it, and the last lines that say so."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from kernel.errors import StopTimeout, ValueLost, one_line
from kernel.lifecycle.events import BROKEN, State

SIGNAL = re.compile(r"SIG[A-Z]+|KeyboardInterrupt")  # as the reason of a stop


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
    late: bool = False  # whether it ended when the deadline had passed

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
        forced: Whether another signal cancelled services that still ran.
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

    # -- in words ------------------------------------------------------------------------------------------------

    @property
    def cause(self) -> Ending | None:
        """The ending that the verdict tells in full, where there is such a one."""
        abandoned = [ending for ending in self.endings if ending.state is State.ABANDONED]
        if self.forced or len(abandoned) > 1:
            return None
        if abandoned or self.late:
            return next(iter(abandoned), None)
        return next((one for one in self.endings if one.service == self.first), None) if self.exit_code else None

    @property
    def verdict(self) -> str:
        """What the exit code stands for, in words that follow it."""
        abandoned = [ending for ending in self.endings if ending.state is State.ABANDONED]
        overran = [ending for ending in self.endings if ending.late or isinstance(ending.error, StopTimeout)]
        cause = self.cause
        if self.forced:
            cut = [one for one in overran if isinstance(one.error, StopTimeout) and one.error.forced]
            words = _forced(cut, abandoned)
        elif len(abandoned) > 1:
            words = f"{_names(abandoned)} could not be cancelled and were abandoned"
        elif self.late and cause is None:
            words = f"shutdown took {duration(self.stopping)}, exceeding the deadline (RUNNER_SHUTDOWNTIMEOUT)"
            words += f"; {_names(overran)} overran" if overran else ""
        elif cause is not None and cause.state is State.FAILED and not cause.fatal:
            words = f"every service failed; the first was {cause.service}{_why(cause)}"
        elif cause is not None:
            spent = cause.attempts > 1 and cause.reason.startswith("after ")
            tries = f" after {cause.attempts} attempts" if spent else ""
            words = f"{cause.service} {_end(cause)}{tries}{_why(cause)}"
        elif SIGNAL.fullmatch(self.reason):
            words = f"stopped by {self.reason}"
        else:
            words = self.reason
        return words + self._earlier(cause)

    def _earlier(self, cause: Ending | None) -> str:
        """Whose failure came first, where something worse than that has decided the exit code."""
        if self.exit_code not in {3, 130}:
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
        error = self.cause.error if self.cause is not None else None
        while error is not None:
            told.add(id(error))
            error = error.__cause__ if isinstance(error, ValueLost) else None
        shown = [ending for ending in self.endings if not ending.internal or ending.fatal]
        width = max((len(ending.service) for ending in shown), default=0)
        lines = []
        for ending in shown:
            why = "" if id(ending.error) in told else _why(ending, short=True)
            lines.append(f"{ending.service:<{width}}  {_end(ending)}; {_effort(ending)}{why}")
        return lines


def _end(ending: Ending) -> str:
    """Its state, and what belongs to that."""
    text = ending.state.value
    if ending.state is State.DONE and ending.reason:
        text += f" ({ending.reason})"
    if ending.state is State.FAILED and ending.reason.startswith("while "):
        text += f" {ending.reason}"
    return text + (" (allowed)" if ending.state is State.FAILED and ending.allowed else "")


def _effort(ending: Ending) -> str:
    """Its attempts, and how long it was ready."""
    if not ending.attempts:
        return "never started"
    attempts = "1 attempt" if ending.attempts == 1 else f"{ending.attempts} attempts"
    if ending.uptime:
        return f"{attempts}, up {duration(ending.uptime)}"
    return attempts if ending.state is State.DONE else f"{attempts}, never ready"


def _why(ending: Ending, *, short: bool = False) -> str:
    """Its error, if it has one; in *short* without what another service's line tells."""
    if ending.error is None:
        return ""
    if short and isinstance(ending.error, ValueLost):
        return f": {ending.error.short}"
    return f": {without_name(ending.error, ending.service)}"


def _forced(cut: Sequence[Ending], abandoned: Sequence[Ending]) -> str:
    """Whom a further signal has cut, and who did not even then end."""
    if not cut and not abandoned:
        return "forced by another signal"
    they = "it" if len(cut) == 1 else "they"
    words = f"another signal cancelled {_names(cut)} before {they} had stopped" if cut else "received another signal"
    if abandoned:
        were = "was" if len(abandoned) == 1 else "were"
        words += f", but {_names(abandoned)} could not be cancelled and {were} abandoned"
    return words


def _names(endings: Sequence[Ending]) -> str:
    """Their names as people write them: ``a, b and c``."""
    *others, last = [ending.service for ending in endings]
    return f"{', '.join(others)} and {last}" if others else last


def without_name(error: BaseException, service: str) -> str:
    """As `one_line`, where the name of the service stands before it anyway."""
    return one_line(error).removeprefix(f"{service} ")


def duration(seconds: float) -> str:
    """*seconds* for people."""
    if seconds >= 100:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
