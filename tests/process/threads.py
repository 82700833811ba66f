"""Virtual time for the kernel's own threads: the test calls their code, and whatever that waits for takes no time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

Action = Callable[[], object]


class Threads:
    """Stands in for `threading` and `time` in a module.

    A thread that is started does nothing: the test calls its target. While that waits, the clock goes on to whatever
    was planned by `at`; without a plan, to the end of the wait. A wait without an end is an error.
    """

    TIMEOUT_MAX = threading.TIMEOUT_MAX

    def __init__(self) -> None:
        self.now = 0.0
        self.started: list[dict[str, Any]] = []
        self.joined: list[float | None] = []
        self.fails = False
        self._plans: list[tuple[float, Action]] = []

    def install(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        """Put it in the place of what *module* has imported."""
        monkeypatch.setattr(f"{module}.threading", self)
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: 1000 + self.now))

    def at(self, when: float, action: Action) -> None:
        """Call *action* at *when*, in seconds from the start."""
        self._plans.append((when, action))

    def wait(self, timeout: float | None, over: Callable[[], bool]) -> bool:
        """Let time pass until the end of the wait, or until it is *over*."""
        end = math.inf if timeout is None else self.now + timeout
        while not over():
            when, action = min(self._plans, key=lambda plan: plan[0], default=(math.inf, None))
            if action is None or when > end:
                assert end < 1000, "waits for ever"
                self.now = end
                return over()
            self._plans.remove((when, action))
            self.now = max(self.now, when)
            action()
        return True

    # -- what modules use ----------------------------------------------------------------------------------------

    def Thread(self, **given: Any) -> SimpleNamespace:  # noqa: N802
        thread = SimpleNamespace(ident=None)

        def start() -> None:
            if self.fails:
                raise RuntimeError("can't start new thread")
            thread.ident = 1
            self.started.append(given)

        def join(timeout: float | None = None) -> None:
            if thread.ident is None:
                raise RuntimeError("cannot join thread before it is started")
            self.joined.append(timeout)

        thread.start, thread.join = start, join
        return thread

    def Event(self) -> Any:  # noqa: N802
        return _Event(self)

    def Condition(self) -> Any:  # noqa: N802
        return _Condition(self)


class _Event:
    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._set = False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        return self._threads.wait(timeout, self.is_set)


class _Condition:
    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._news = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def notify(self) -> None:
        self._news = True

    def wait(self, timeout: float) -> bool:
        self._news = False
        return self._threads.wait(None if timeout == threading.TIMEOUT_MAX else timeout, lambda: self._news)
