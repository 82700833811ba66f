"""Estimate each service's share of the event loop's time, by sampling.

A thread looks at the stack of the loop's thread. What runs in the loop runs in a context, and `current_service` in that
tells whose it is. Nothing is measured on the loop's own way: it does not know that it is being looked at.

The looking has a bias. Python hands its lock over where a thread waits, or after 5 ms, so a loop that runs small steps
is mostly caught where it asks for news between two rounds of them. Asked without patience, it has steps to run: those
count, in equal parts. Asked with patience, it is idle, and maybe was not a moment ago; so what the thread's own clock
says it has worked beyond what was seen is told as well, as `UNKNOWN`.
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

EVERY = 0.05  # seconds between two looks, on average: 0.1 % of a core
LAST = 0.1  # seconds for the thread to end
MEMORY = 30.0  # seconds after which a look counts for a third
UNKNOWN = "?"  # the share of nobody that can be told


class Shares:
    """Looks at the loop of the thread *main* until `end`."""

    def __init__(self, main: int) -> None:
        self._main = main
        self._seen: dict[str, float] = {}
        self._looks = self._seconds = self._worked = 0.0
        self._clock = _clock_of(main)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kernel loop shares", daemon=True)
        with contained("the measurement of shares"):
            self._thread.start()

    def end(self) -> None:
        """Stop sampling, and wait for the thread: it must not wake while the interpreter exits."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(LAST)

    def shares(self) -> dict[str, float]:
        """The part of the loop's time that each service took of late, from 0 to 1; "" is the app's own."""
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
        while not self._ended.wait(random.uniform(0, 2 * EVERY)):  # noqa: S311  (else it would keep step with a timer)
            now, worked = time.monotonic(), self._clock()
            fade = math.exp((before - now) / MEMORY)
            self._seconds = self._seconds * fade + now - before
            self._worked = self._worked * fade + worked - worked_before
            before, worked_before = now, worked
            frame = sys._current_frames().get(self._main)  # noqa: SLF001  (the one way to see another thread's)
            self._look([*busy_with(frame)], fade)

    def _look(self, services: Sequence[str], fade: float) -> None:
        self._looks = self._looks * fade + 1
        for service in self._seen:
            self._seen[service] *= fade
        for service in services:
            self._seen[service] = self._seen.get(service, 0.0) + 1 / len(services)


def _clock_of(thread: int) -> Callable[[], float]:
    """The seconds for which a thread has had a core; always 0 on a system that cannot tell."""
    try:
        number = time.pthread_getcpuclockid(thread)
    except (AttributeError, OSError):  # pragma: no cover  (not on Linux)
        return float
    return lambda: time.clock_gettime(number)


def busy_with(frame: FrameType | None) -> Iterable[str]:
    """The services whose code the loop runs whose innermost *frame* this is; nothing where it is idle.

    It reads what asyncio and trio keep in local variables, as a debugger does; where they are named otherwise in some
    version, nothing can be told.
    """
    while frame is not None:
        look = _LOOKS.get(frame.f_code.co_name)
        if look is not None and frame.f_code.co_filename.endswith(look[0]):
            return [_service(one) for one in look[1](frame.f_locals)]
        frame = frame.f_back
    return []


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
"""Functions of the loops, each with the end of its file's name and what it is about to run."""


def _service(step: Any) -> str:
    """The service in whose context a step of asyncio or a task of trio runs."""
    context = getattr(step, "_context", None) or getattr(step, "context", None)
    return context.get(current_service, "") if isinstance(context, Context) else UNKNOWN
