"""Numbers of the lifecycle that nobody else remembers: how long each service took to start and to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from kernel.lifecycle.events import AllReady, Event, State, Transition

UNTIMED = frozenset({State.STARTING, State.STOPPING})
"""A move into one of these ends neither a start nor a stop."""


@attrs.define
class Stats:
    """An observer that keeps the last duration of each kind, and hands each on to whoever records them.

    Args:
        record: Is called with the kind ("start" or "stop"), the service and the seconds of each.

    """

    record: Callable[[str, str, float], Any] | None = None
    last: dict[str, dict[str, float]] = attrs.field(factory=lambda: {"start": {}, "stop": {}})
    all_ready: float | None = None

    def hears(self, state: State) -> bool:
        """Whether a move into *state* may end what is timed."""
        return state not in UNTIMED

    def __call__(self, event: Event) -> None:
        """Take the time of *event*."""
        if isinstance(event, AllReady):
            self.all_ready = event.seconds
        elif isinstance(event, Transition):
            if event.previous is State.STOPPING:
                self._took("stop", event)
            elif event.previous is State.STARTING and event.state in {State.READY, State.DONE}:
                self._took("start", event)

    def _took(self, kind: str, event: Transition) -> None:
        self.last[kind][event.service] = event.seconds
        if self.record is not None and not event.internal:
            self.record(kind, event.service, event.seconds)
