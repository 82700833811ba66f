"""One alarm at a time: a limit that passes, or the next try."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from kernel.lifecycle.clock import Alarm, Clock


@attrs.define(eq=False)
class Alarmed:
    """Calls its next step when that is due; a new one takes the place of the old."""

    clock: Clock = attrs.field(init=False)
    _alarm: Alarm | None = attrs.field(default=None, init=False)
    _next: Callable[[], None] | None = attrs.field(default=None, init=False)

    @property
    def next_step_at(self) -> float | None:
        """When its alarm goes off: the next try in backoff, else a limit; None where it has none."""
        return self._alarm.when if self._alarm is not None else None

    def _set_alarm(self, when: float, step: Callable[[], None], *, deadline: bool = True) -> None:
        self._disarm()
        self._next = step
        self._alarm = self.clock.at(when, step, deadline=deadline)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._next = None
