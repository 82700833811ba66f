"""Who has ceased to be ready since all were, until all are again."""

from __future__ import annotations

from collections.abc import Callable

from kernel.lifecycle.events import Event, ReadyAgain


class Recovery:
    """What is to be told when a recovery is complete."""

    def __init__(self) -> None:
        self._away: dict[str, float] = {}

    def leaves(self, name: str, now: float) -> None:
        """Take note that a service is not ready any more."""
        self._away.setdefault(name, now)

    def complete(self, now: float, emit: Callable[[Event], object]) -> None:
        """Tell that all are ready, if anybody was away."""
        if self._away:
            emit(ReadyAgain(now - next(iter(self._away.values())), tuple(self._away)))
            self._away.clear()
