"""What the app and each service are doing, as data: for `/readyz`, `/status` and whoever else asks from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from anyio import current_time

from kernel.errors import one_line
from kernel.identity import Identity, instance
from kernel.lifecycle.events import LIVE, State
from kernel.lifecycle.explain import awaited
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.supervisor import Supervisor
from kernel.observe.stats import Stats

SCHEMA = 1
"""The version of what `status` gives; fields may be added without a new one."""


@attrs.define
class View:
    """What can be seen of a run from outside; all of it is there before the run begins.

    Args:
        identity: The app.
        backend: The event loop's.
        stats: How long starts and stops took.
        delay: Gives the seconds by which the event loop was late when it was last asked.
        shares: Gives the part of the loop's time that each service takes.

    """

    identity: Identity
    backend: str = "asyncio"
    stats: Stats = attrs.field(factory=Stats)
    delay: Callable[[], float] = float
    shares: Callable[[], Mapping[str, float]] = dict
    orchestrator: Orchestrator | None = None
    _offset: float = 0.0
    _began: float = attrs.field(factory=time.monotonic)

    def runs(self, orchestrator: Orchestrator) -> None:
        """The run of *orchestrator* begins, in the thread of its loop."""
        self.orchestrator = orchestrator
        self._offset = current_time() - time.monotonic()

    def now(self) -> float:
        """The time on the loop's clock, in seconds; for any thread, unlike that clock itself."""
        return time.monotonic() + self._offset

    @property
    def supervisors(self) -> list[Supervisor]:
        """The services that the user knows of; none before the run begins."""
        every = self.orchestrator.supervisors.values() if self.orchestrator is not None else ()
        return [one for one in every if not one.internal or one.awaited]

    @property
    def ready(self) -> bool:
        """Whether every service is ready, done, or failed with permission, and no stop was asked for."""
        return self.orchestrator is not None and self.orchestrator.ready

    @property
    def started(self) -> bool:
        """Whether all were ready at some time."""
        return self.stats.all_ready is not None

    def readiness(self) -> dict[str, Any]:
        """Whether it is ready, and if not, for whose sake."""
        services = self.supervisors
        return {
            "ready": self.ready,
            "reason": self._reason(services),
            "services": {one.name: {"state": one.state.value, "reason": _reason(one)} for one in services},
        }

    def _state(self) -> str:
        if self.orchestrator is not None and self.orchestrator.stopping:
            return "stopping"
        if self.ready:
            return "ready"
        return "degraded" if self.started else "starting"

    def _reason(self, services: Iterable[Supervisor]) -> str:
        if self.orchestrator is None:
            return "starting"
        if self.orchestrator.stopping:
            return f"stopping: {self.orchestrator.reason}"
        unready = [one.name for one in services if not one.open]
        return f"not ready: {', '.join(unready)}" if unready else ""

    def status(self) -> dict[str, Any]:
        """Everything; docs/observability.md describes it."""
        runs = self.orchestrator
        shares = self.shares()
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
                "delay": round(self.delay(), 6),
                "shares": {name or self.identity.name: round(share, 4) for name, share in sorted(shares.items())},
            },
            "services": {one.name: self._service(one) for one in (runs.supervisors.values() if runs else ())},
        }

    def _service(self, one: Supervisor) -> dict[str, Any]:
        now = self.now()
        last = self.stats.last
        return {
            "state": one.state.value,
            "seconds_in_state": round(now - one.since, 3),
            "reason": _reason(one),
            "attempt": one.attempt,
            "uptime": round(one.uptime + (now - one.since if one.state is State.READY else 0.0), 3),
            "last_start": _rounded(last["start"].get(one.name)),
            "last_stop": _rounded(last["stop"].get(one.name)),
            "last_error": one_line(one.error) if one.error is not None else None,
            "next_step_in": _rounded(one.next_step_at - now) if one.next_step_at is not None else None,
            "stands_at": one.stands_at() if one.state in LIVE - {State.READY} else None,
            "depends": [edge.target for target, edge in one.links if not target.internal],
            "waits_for": [target.name for target in awaited(one)],
            "allowed_failure": one.spec.allowed_failure,
            "internal": one.internal,
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _reason(one: Supervisor) -> str:
    """Why it is in its state, where the state does not say it."""
    if one.state is State.WAITING:
        names = ", ".join(target.name for target in awaited(one))
        return f"waits for {names}" if names else one.reason
    if one.error is not None and one.state in {State.BACKOFF, State.FAILED, State.ABANDONED}:
        return f"{one_line(one.error)}; {one.reason}" if one.state is State.BACKOFF else one_line(one.error)
    return one.reason
