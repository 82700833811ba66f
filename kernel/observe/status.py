"""Describe what the app and each service are doing, as data, for `/readyz`, `/status` and other observers."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import attrs
from anyio import current_time

from kernel.errors import one_line
from kernel.identity import Identity, instance
from kernel.lifecycle.events import LIVE, AllReady, Event, State, Transition
from kernel.lifecycle.explain import reason_of
from kernel.lifecycle.node import Node
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.process.event_loop import Wake
from kernel.process.programs import programs_of

T = TypeVar("T")

DEAD = 10.0  # seconds without an answer after which the event loop counts as dead
PATIENCE = 0.2  # seconds for the event loop to take a snapshot
TRIES = 5  # attempts to read data that the loop may be changing in its thread

SCHEMA = 1
"""The version of the status; new fields do not change it."""


@attrs.define
class Stats:
    """An observer that keeps the last duration of each kind, and passes each duration on.

    It also keeps the last error of each service, since a new attempt has none.

    Args:
        record: Called with the kind ("start" or "stop"), the service and the seconds, for each duration.

    """

    record: Callable[[str, str, float], Any] | None = None
    last: dict[str, dict[str, float]] = attrs.field(factory=lambda: {"start": {}, "stop": {}})
    errors: dict[str, str] = attrs.field(factory=dict)
    all_ready: float | None = None

    def __call__(self, event: Event) -> None:
        """Record the duration of *event*."""
        if isinstance(event, AllReady):
            self.all_ready = event.seconds
        elif isinstance(event, Transition):
            if event.error is not None:
                self.errors[event.service] = one_line(event.error)
            if event.previous is State.STOPPING:
                self._took("stop", event)
            elif event.previous is State.STARTING and event.state in {State.READY, State.DONE}:
                self._took("start", event)

    def _took(self, kind: str, event: Transition) -> None:
        self.last[kind][event.service] = event.seconds
        if self.record is not None and not event.internal:
            self.record(kind, event.service, event.seconds)


@attrs.frozen
class Blocked:
    """Describes an event loop that does not respond.

    Args:
        seconds: How long it has not responded.
        service: The service whose code it runs; empty if there is none.
        at: The line of code.

    """

    seconds: float
    service: str
    at: str

    def __str__(self) -> str:
        who = self.service or "something"
        return f"{who} has been blocking the event loop for {self.seconds:g} s at {self.at}"


def _nobody() -> tuple[str, str]:
    return "", "an unknown line"


@attrs.define
class View:
    """The state of a run, readable from any thread, and available before the run begins.

    Args:
        identity: The app.
        backend: The event loop's name.
        stats: The durations of starts and stops.
        delay: Returns the last measured delay of the event loop, in seconds.
        shares: Returns each service's share of the loop's time.
        silent: Returns the seconds for which the event loop has not responded.
        runner: Returns the service whose code the loop's thread runs, and the line of code.
        more: Functions that return further parts of the status, by name. They must be thread-safe.

    """

    identity: Identity
    backend: str = "asyncio"
    stats: Stats = attrs.field(factory=Stats)
    delay: Callable[[], float] = float
    shares: Callable[[], Mapping[str, float]] = dict
    silent: Callable[[], float] = float
    runner: Callable[[], tuple[str, str]] = _nobody
    more: dict[str, Callable[[], Any]] = attrs.field(factory=dict)
    orchestrator: Orchestrator | None = None
    _wake: Wake | None = None
    _offset: float = 0.0
    _began: float = attrs.field(factory=time.monotonic)

    def runs(self, orchestrator: Orchestrator, wake: Wake) -> None:
        """Begin the run of *orchestrator*, in the thread of its loop, which *wake* wakes."""
        self.orchestrator, self._wake = orchestrator, wake
        self._offset = current_time() - time.monotonic()

    def ended(self) -> None:
        """End the run, since its loop is about to be closed."""
        self._wake = None

    def snapshot(self, take: Callable[[], T]) -> T:
        """Return the result of *take*, called by the loop between two steps, or by this thread if the loop is stuck."""
        wake = self._wake
        if wake is None or self.silent():
            return _unchanged(take)
        found: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

        def on_loop() -> None:
            try:
                found.put((take(), None))
            except Exception as error:  # noqa: BLE001  (the caller gets the error, not the loop)
                found.put((None, error))

        with contextlib.suppress(RuntimeError, queue.Empty):  # the loop has ended, is busy, or is blocked
            wake(on_loop)
            taken, error = found.get(timeout=PATIENCE)
            if error is None:
                return taken  # type: ignore[return-value]
        return _unchanged(take)

    def blocked(self) -> Blocked | None:
        """Return what blocks the event loop now; None if nothing does."""
        seconds = self.silent()
        return Blocked(seconds, *self.runner()) if seconds else None

    def liveness(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the event loop responds, and if it does not, what blocks it."""
        blocked = self.blocked()
        if blocked is None or blocked.seconds < DEAD:
            return True, {"alive": True}
        return False, {"alive": False, "reason": str(blocked)}

    def now(self) -> float:
        """Return the time on the loop's clock, in seconds. Unlike the clock itself, this is thread-safe."""
        return time.monotonic() + self._offset

    @property
    def supervisors(self) -> list[Node]:
        """Return the user's services; none before the run begins."""
        every = self.orchestrator.supervisors.values() if self.orchestrator is not None else ()
        return [node for node in every if not node.internal or node.awaited]

    @property
    def ready(self) -> bool:
        """Return whether every service is ready, done, or failed (allowed), and no stop was requested."""
        return self.orchestrator is not None and self.orchestrator.ready

    @property
    def started(self) -> bool:
        """Return whether all services have been ready at least once."""
        return self.stats.all_ready is not None

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the app is ready, and if it is not, which services are not."""
        ready = self.ready
        return ready, _unchanged(lambda: self._readiness(ready))

    def _readiness(self, ready: bool) -> dict[str, Any]:  # noqa: FBT001  (shared by the page and the status)
        services = self.supervisors
        return {
            "ready": ready,
            "reason": self._reason(services),
            "services": {node.name: {"state": node.state.value, "reason": _reason_of(node)} for node in services},
        }

    def _state(self) -> str:
        if self.orchestrator is not None and self.orchestrator.stopping:
            return "stopping"
        if self.ready:
            return "ready"
        return "degraded" if self.started else "starting"

    def _reason(self, services: Iterable[Node]) -> str:
        if self.orchestrator is None:
            return "starting"
        if self.orchestrator.stopping:
            return f"stopping: {self.orchestrator.reason}"
        unready = [node.name for node in services if not node.open]
        unready += [f"{node.name} ({'; '.join(node.withheld)})" for node in services if node.open and node.withheld]
        return f"not ready: {', '.join(unready)}" if unready else ""

    def status(self) -> dict[str, Any]:
        """Return the whole status; docs/observability.md describes it."""
        runs = self.orchestrator
        shares = self.shares()
        blocked = self.blocked()
        return {
            "schema": SCHEMA,
            "app": {
                "name": self.identity.name,
                "version": self.identity.version,
                "instance": instance(),
                "pid": os.getpid(),
                "backend": self.backend,
                "uptime": round(time.monotonic() - self._began, 3),
            },
            "state": self._state(),
            "reason": self._reason(self.supervisors),
            "all_ready_after": _rounded(self.stats.all_ready),
            "loop": {
                "delay": round(max(self.delay(), self.silent()), 6),
                "blocked": attrs.asdict(blocked) if blocked is not None else None,
                "shares": {name or self.identity.name: round(share, 4) for name, share in sorted(shares.items())},
            },
            "services": {node.name: self._service(node) for node in (runs.supervisors.values() if runs else ())},
            **{name: tell() for name, tell in self.more.items()},
        }

    def _service(self, node: Node) -> dict[str, Any]:
        now = self.now()
        last = self.stats.last
        return {
            "state": node.state.value,
            "seconds_in_state": round(now - node.since, 3),
            "reason": _reason_of(node),
            "attempt": node.attempt,
            "uptime": round(node.uptime + (now - node.since if node.state is State.READY else 0.0), 3),
            "last_start": _rounded(last["start"].get(node.name)),
            "last_stop": _rounded(last["stop"].get(node.name)),
            "last_error": one_line(node.error) if node.error is not None else self.stats.errors.get(node.name),
            "next_step_in": _rounded(node.next_step_at - now) if node.next_step_at is not None else None,
            "stands_at": node.stands_at() if node.state in LIVE - {State.READY} else None,
            "depends": [edge.target for target, edge in node.links if not target.internal],
            "waits_for": [target.name for target in node.waits_for],
            "programs": programs_of(node.name),
            "allowed_failure": node.spec.allowed_failure,
            "internal": node.internal,
        }


def _unchanged(take: Callable[[], T]) -> T:
    """Return the result of *take*, even if another thread changes the data meanwhile."""
    for _ in range(TRIES):
        with contextlib.suppress(RuntimeError):  # a dictionary changed size during iteration
            return take()
    return take()


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None or not math.isfinite(seconds) else round(seconds, 6)


def _reason_of(node: Node) -> str:
    """Return why a service is in its state, or why it is unready although it serves."""
    return "; ".join(node.withheld) or reason_of(node)
