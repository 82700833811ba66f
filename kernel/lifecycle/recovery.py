"""Track the services that lost readiness, until all are ready again."""

from __future__ import annotations

from collections.abc import Callable

from kernel.lifecycle.events import Event, ReadyAgain


class Recovery:
    """Collects what `ReadyAgain` reports when a recovery is complete."""

    def __init__(self) -> None:
        self._away: dict[str, float] = {}

    def leaves(self, name: str, now: float) -> None:
        """Record that the service *name* lost readiness, at *now* (seconds on the loop's clock)."""
        self._away.setdefault(name, now)

    def complete(self, now: float, emit: Callable[[Event], object]) -> None:
        """Emit `ReadyAgain`, if any service had lost readiness."""
        if self._away:
            emit(ReadyAgain(now - next(iter(self._away.values())), tuple(self._away)))
            self._away.clear()
