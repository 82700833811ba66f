"""Estimate each service's share of the event loop's time, by sampling.

A thread samples the stack of the loop's thread. Code in the loop runs in a context whose `current_service` is the name
of the service. The loop itself does no extra work.

Sampling is biased. Python releases its lock when a thread waits, or after 5 ms, so a loop that runs short steps is
mostly seen polling between two rounds of steps. If it polls without a timeout, it has steps to run, which count in
equal parts. If it polls with a timeout, it is idle, but may have been busy a moment ago; so the part of the thread's
CPU time that sampling has missed is reported as `UNKNOWN`.

uvloop shows neither its steps nor their contexts. There, a step belongs to the service whose function or file is on the
stack; the code of libraries that no service's code has called is `UNKNOWN`.
"""

from __future__ import annotations

import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context
from types import FrameType
from typing import Any

from kernel.context import current_service
from kernel.process.contain import contained

EVERY = 0.05  # seconds between two samples, on average: 0.1 % of a core
LAST = 0.1  # seconds to wait for the thread to end
MEMORY = 30.0  # seconds after which the weight of a sample has dropped to a third
UNKNOWN = "?"  # the share that cannot be attributed


class Shares:
    """Samples the loop of a thread until `end`.

    Args:
        main: The id of the thread.
        owner: Returns the service whose code runs in a frame or its callers; an empty string if there is none.

    """

    def __init__(self, main: int, owner: Callable[[FrameType | None], str]) -> None:
        self._main = main
        self._owner = owner
        self._seen: dict[str, float] = {}
        self._looks = self._seconds = self._worked = 0.0
        self._clock = _clock_of(main)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kernel loop shares", daemon=True)
        with contained("the measurement of shares"):
            self._thread.start()

    def end(self) -> None:
        """Stop sampling, and wait for the thread, which must not wake up while the interpreter exits."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(LAST)

    def shares(self) -> dict[str, float]:
        """Return each service's recent share of the loop's time, from 0 to 1; "" is the share of the app itself."""
        looks, seconds = self._looks or 1.0, self._seconds or 1.0
        found = {service: weight / looks for service, weight in list(self._seen.items())}
        unseen = min(self._worked / seconds, 1.0) - sum(found.values())
        if unseen > 0:
            found[UNKNOWN] = found.get(UNKNOWN, 0.0) + unseen
        return found

    def _run(self) -> None:
        with contained("the measurement of shares"):
            self._watch()

    def _watch(self) -> None:
        before, worked_before = time.monotonic(), self._clock()
        while not self._ended.wait(random.uniform(0, 2 * EVERY)):  # noqa: S311  (a fixed interval could align with a timer)
            now, worked = time.monotonic(), self._clock()
            fade = math.exp((before - now) / MEMORY)
            self._seconds = self._seconds * fade + now - before
            self._worked = self._worked * fade + worked - worked_before
            before, worked_before = now, worked
            frame = sys._current_frames().get(self._main)  # noqa: SLF001  (the only way to see another thread's frame)
            self._look([*busy_with(frame, self._owner)], fade)

    def _look(self, services: Sequence[str], fade: float) -> None:
        self._looks = self._looks * fade + 1
        for service in self._seen:
            self._seen[service] *= fade
        for service in services:
            self._seen[service] = self._seen.get(service, 0.0) + 1 / len(services)


def _clock_of(thread: int) -> Callable[[], float]:
    """Return a clock of the CPU seconds of a thread; it stays at 0 if the system has none."""
    try:
        number = time.pthread_getcpuclockid(thread)
    except (AttributeError, OSError):  # pragma: no cover  (not on Linux)
        return float
    return lambda: time.clock_gettime(number)


def busy_with(innermost: FrameType | None, owner: Callable[[FrameType | None], str]) -> Iterable[str]:
    """Return the services whose code the loop runs, given its thread's *innermost* frame; nothing if it is idle.

    It reads local variables of asyncio and trio, as a debugger does. For other loops, or if a version names them
    differently, *owner* decides.
    """
    frame = innermost
    while frame is not None:
        look = _LOOKS.get(frame.f_code.co_name)
        if look is not None and frame.f_code.co_filename.endswith(look[0]):
            return [_service(step) for step in look[1](frame.f_locals)]
        frame = frame.f_back
    service = owner(innermost)
    return [service] if service else []


def _asyncio_step(names: Mapping[str, Any]) -> Iterable[Any]:
    return [names.get("self")]


def _asyncio_round(names: Mapping[str, Any]) -> Iterable[Any]:
    return list(getattr(names.get("self"), "_ready", ())) if names.get("timeout") == 0 else []


def _trio_step(names: Mapping[str, Any]) -> Iterable[Any]:
    return [names.get("task")]


def _trio_round(names: Mapping[str, Any]) -> Iterable[Any]:
    return list(getattr(names.get("runner"), "runq", ())) if names.get("timeout") == 0 else []


_LOOKS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Iterable[Any]]]] = {
    "_run": (os.path.join("asyncio", "events.py"), _asyncio_step),  # noqa: PTH118  (pathlib costs 5 ms)
    "_run_once": (os.path.join("asyncio", "base_events.py"), _asyncio_round),  # noqa: PTH118
    "unrolled_run": (os.path.join("trio", "_core", "_run.py"), _trio_step),  # noqa: PTH118
    "run": (os.path.join("trio", "_core", "_run.py"), _trio_round),  # noqa: PTH118
}
"""Functions of the loops, each with the end of its file's name and a function that finds the next steps."""


def _service(step: Any) -> str:
    """Return the service whose context a step of asyncio or a task of trio runs in."""
    context = getattr(step, "_context", None) or getattr(step, "context", None)
    return context.get(current_service, "") if isinstance(context, Context) else UNKNOWN
