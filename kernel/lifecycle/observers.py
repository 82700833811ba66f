"""Deliver events to observers, in order and in the loop's thread, and contain their failures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from kernel.lifecycle.events import Event, Notice, Observer


class Observers:
    """A queue of events, delivered once the step that caused them is complete: an observer may request a stop.

    Args:
        observers: Called with each event.
        interrupt: Called when an observer raises KeyboardInterrupt, which counts as a signal.

    """

    def __init__(self, observers: Iterable[Observer], interrupt: Callable[[], None]) -> None:
        self._observers = list(observers)
        self._interrupt = interrupt
        self._events: deque[Event] = deque()

    def emit(self, event: Event) -> None:
        """Queue *event* for `tell_next`."""
        if self._observers:
            self._events.append(event)

    def __bool__(self) -> bool:
        """Return whether an event is queued."""
        return bool(self._events)

    def tell_next(self) -> None:
        """Call every observer with the next event. Disable an observer that fails, and report that to the others."""
        event = self._events.popleft()
        for observer in list(self._observers):
            try:
                observer(event)
            except BaseException as error:  # noqa: ASYNC103, BLE001  (an observer must never take a service down)
                if isinstance(error, KeyboardInterrupt):
                    self._interrupt()
                self._observers.remove(observer)
                self.emit(Notice("", f"observer {observer!r} failed and was disabled", error))
