"""Report what a slow start or stop is still waiting for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from kernel.lifecycle.clock import Clock
from kernel.lifecycle.events import StillWaiting
from kernel.lifecycle.node import Node
from kernel.lifecycle.observers import Observers
from kernel.lifecycle.tree import starting_tree, stopping_tree

LONG_START = 5.0  # seconds until an unfinished start is explained
LONG_STOP = 2.0  # the same for a stop


class Run(Protocol):
    """What `Progress` needs from the orchestrator."""

    clock: Clock
    stopping: bool
    observers: Observers

    @property
    def supervisors(self) -> Mapping[str, Node]:
        """Every service by name."""
        ...

    @property
    def all_ready(self) -> bool:
        """Whether all services have been ready at least once."""
        ...

    def settle(self) -> None:
        """Deliver the events to the observers."""


class Progress:
    """Explains a slow start or stop: first after a fixed time, then whenever the elapsed time has doubled."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._began: float  # set by `start` and `stop`

    def start(self, at: float) -> None:
        """Watch the start, which began *at* this time (seconds on the loop's clock)."""
        self._began = at
        self._run.clock.at(at + LONG_START, self._explain_start)

    def stop(self, at: float) -> None:
        """Watch the stop, which was requested *at* this time (seconds on the loop's clock)."""
        self._began = at
        self._run.clock.at(at + LONG_STOP, self._explain_stop)

    def tell(self) -> None:
        """Report what the start waits for. Do nothing once the app is stopping."""
        if not self._run.stopping:
            self._tell(stopping=False)

    def _explain_start(self) -> None:
        if not self._run.all_ready and not self._run.stopping:
            self._again(self._explain_start)
            self._tell(stopping=False)
            self._run.settle()

    def _explain_stop(self) -> None:
        self._again(self._explain_stop)
        self._tell(stopping=True)
        self._run.settle()

    def _again(self, explain: Callable[[], None]) -> None:
        now = self._run.clock.now()
        self._run.clock.at(now + (now - self._began), explain)

    def _tell(self, *, stopping: bool) -> None:
        now = self._run.clock.now()
        tree = stopping_tree if stopping else starting_tree
        lines = tree(self._run.supervisors.values(), now)
        self._run.observers.emit(StillWaiting(stopping=stopping, seconds=now - self._began, lines=lines))
