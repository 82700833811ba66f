"""Those who are told what happens: in order, in the loop's thread, and contained."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from kernel.lifecycle.events import Event, Notice, Observer


class Observers:
    """Keeps events until the step that led to them is complete: an observer may ask for a stop, which needs that.

    Args:
        observers: Those to tell.
        interrupt: Is called where one of them raises a KeyboardInterrupt, which is a signal.

    """

    def __init__(self, observers: Iterable[Observer], interrupt: Callable[[], None]) -> None:
        self._observers = list(observers)
        self._interrupt = interrupt
        self._events: deque[Event] = deque()

    def emit(self, event: Event) -> None:
        """Keep *event* for `tell_next`."""
        if self._observers:
            self._events.append(event)

    def __bool__(self) -> bool:
        """Whether there is an event to tell."""
        return bool(self._events)

    def tell_next(self) -> None:
        """Tell every observer the next event. One that fails is disabled, and the others are told so."""
        event = self._events.popleft()
        for observer in list(self._observers):
            try:
                observer(event)
            except BaseException as error:  # noqa: ASYNC103, BLE001  (an observer must never take a service down)
                if isinstance(error, KeyboardInterrupt):
                    self._interrupt()
                self._observers.remove(observer)
                self.emit(Notice("", f"observer {observer!r} failed and was disabled", error))
