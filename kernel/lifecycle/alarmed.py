"""One alarm at a time, for a time limit or the next attempt."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from kernel.lifecycle.clock import Alarm, Clock


@attrs.define(eq=False, repr=False)
class Alarmed:
    """A state machine with at most one alarm, which triggers its next step. A new alarm replaces the previous one."""

    clock: Clock = attrs.field(init=False)
    _alarm: Alarm | None = attrs.field(default=None, init=False)
    _next: Callable[[], None] | None = attrs.field(default=None, init=False)

    @property
    def next_step_at(self) -> float | None:
        """When the alarm goes off, for the next attempt or a time limit; None if no alarm is set."""
        return self._alarm.when if self._alarm is not None else None

    def _set_alarm(self, when: float, step: Callable[[], None], *, deadline: bool = True) -> None:
        self._disarm()
        self._next = step
        self._alarm = self.clock.at(when, step, deadline=deadline)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._next = None
