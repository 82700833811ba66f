"""One run of the program: signals, deadline, event loop, final report, exit code.

Both `app run` and commands that take values use `execute`, with different units.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import attrs
from anyio import sleep_forever

from kernel.config.settings import Settings
from kernel.declare.app import LifespanFunction
from kernel.declare.retry import Retry
from kernel.declare.service import Service
from kernel.declare.serving import Serving
from kernel.declare.signature import Needs
from kernel.identity import Identity
from kernel.lifecycle.events import LIVE, AllReady, Event, Observer, State, StopBegan, Transition
from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.report import Report
from kernel.lifecycle.shutdown import GRACE
from kernel.lifecycle.units import Unit, nest
from kernel.observe import console, lifecycle_log, logs
from kernel.observe.wiring import Outside
from kernel.process import debugger, event_loop
from kernel.process.collector import PatientCollector
from kernel.process.contain import contained
from kernel.process.loop_watch import LoopWatch
from kernel.process.signals import Signals, ignore
from kernel.process.watchdog import FORCED, LAST_WORDS, Watchdog, within
from kernel.run.command import Outcome
from kernel.stacks import forget_frames, frame_of, runs_at

HELD = 0.3  # seconds after which an event loop that has not handled a signal counts as held by a debugger

Prepare = Callable[[], tuple[Sequence[Unit], Sequence[str]]]


def execute(
    settings: Settings,
    prepare: Prepare,
    outside: Outside,
    *,
    to_the_end: bool = False,
    outcome: Outcome | None = None,
    observers: Sequence[Observer] = (),
) -> int:
    """Run the units that *prepare* returns until all have ended, and return the exit code.

    Args:
        settings: Deadlines, log format, backend.
        prepare: Imports and validates; returns the units, and warnings. If a signal is received meanwhile, nothing
            starts.
        outside: The observability of the run.
        to_the_end: Whether the process ends with this run. If so, signals and the deadline apply until the interpreter
            has exited, which exit handlers and threads may delay.
        outcome: The command's outcome; None if this is not a command.
        observers: The user's observers; `prepare` may add to them.

    Raises:
        PlanError: *prepare* raised it.

    The process may end here by `os._exit`, if a service cannot be cancelled.

    """
    run = _Run(settings, outside, outcome, observers)
    if to_the_end:
        atexit.register(run.at_exit)  # registered before user code is imported, so that it is called last
    with contextlib.ExitStack() as watch:
        try:
            code = run.run(prepare, watch)
            if not to_the_end:
                run.say_end()
            return code
        finally:
            if to_the_end:
                watch.pop_all()


@attrs.frozen(repr=False)
class _LetGo:
    """Frees what a crash kept alive, once all other observers were called: its frames, with their memory and sockets.

    The error itself is kept, since `/status` and the final report show it.
    """

    def __call__(self, event: Event) -> None:
        """Free the frames of an error that was reported."""
        if isinstance(event, Transition) and event.error is not None:
            forget_frames(event.error)


@attrs.frozen(repr=False)
class _Phases:
    """Sets the watchdog and the garbage collector for each phase of the run."""

    watchdog: Watchdog
    collector: PatientCollector

    def __call__(self, event: Event) -> None:
        if isinstance(event, AllReady):
            self.collector.usual()
        elif isinstance(event, StopBegan):
            self.watchdog.arm(event.seconds)
            self.collector.patient()


class _Run:
    """The state of one run."""

    def __init__(
        self, settings: Settings, outside: Outside, outcome: Outcome | None, observers: Sequence[Observer]
    ) -> None:
        self._settings = settings
        self._result: Callable[[str], int] = outcome.after if outcome else lambda _: 0
        self._outside = outside
        self._resting = debugger.resting(self._say_resting) if settings.dev else bool
        self._watchdog = Watchdog(self._overdue, self._resting)
        self._observers: list[Observer] = [lifecycle_log.LogObserver()]
        self._users = observers
        self._orchestrator: Orchestrator | None = None
        self._report: Report | None = None
        self._unsent = ""
        self._obeyed = 0  # signals that the event loop has handled
        self._main = threading.get_ident()
        self._signals = Signals(self._on_signal, logs.say_forced_exit)

    def run(self, prepare: Prepare, watch: contextlib.ExitStack) -> int:
        """Prepare and run. Closing *watch* ends the handling of signals and the deadline."""
        watch.callback(self._watchdog.dismiss)
        watch.enter_context(self._signals)
        try:
            with self._outside:
                return self._run(prepare)
        finally:
            self._signals.listen(None)

    def _run(self, prepare: Prepare) -> int:
        units, warnings = prepare()
        for warning in warnings:
            logs.logger.warning(warning)
        if self._signals.count:
            code = self._result(self._signals.first)
            logs.logger.info("exit %d: %s received before anything was started", code, self._signals.first)
            return code
        self._outside.serve()
        with PatientCollector(len(units)) as collector:
            self._observers.append(_Phases(self._watchdog, collector))
            self._report = event_loop.run(functools.partial(self._main_task, units), self._settings.backend)
        self._close_outside()
        return self._report.exit_code

    def _close_outside(self) -> None:
        """Export what is left. This has a separate deadline, since the shutdown's deadline is for the services."""
        if self._outside.exports:
            self._watchdog.postpone(LAST_WORDS)
        with contained("the final export"):
            self._unsent = self._outside.close()

    async def _main_task(self, units: Sequence[Unit], wake: event_loop.Wake) -> Report:
        self._orchestrator = Orchestrator(
            units,
            shutdown_timeout=self._settings.shutdown_timeout,
            drain_delay=self._settings.drain_delay,
            observers=(*self._observers, *self._outside.observers(), *self._users, _LetGo()),
            resting=self._resting,
            result=self._result,
            signal=self._signals.came,
        )

        def on_signal(count: int) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended
                wake(functools.partial(self._signalled, count))

        self._signals.listen(on_signal)
        watch = LoopWatch(wake, self._say_blocked, self._say_free, self._resting, self._outside.alive)
        self._outside.runs(self._orchestrator, watch, wake, self._running)
        try:
            return await self._orchestrator.run(functools.partial(self._at_end, watch))
        finally:
            watch.end()

    def _say_blocked(self, seconds: float) -> None:
        """Report a blocked loop while it is blocked, from the thread that watches it."""
        service, line = self._running()
        logs.logger.warning(
            "%s has been blocking the event loop for %.1f s at %s; nothing else can run",
            service or "something",
            seconds,
            line,
            extra={"service": service, "seconds": seconds},
        )

    def _running(self) -> tuple[str, str]:
        """Return the service whose code the loop's thread runs, or an empty string, and the line of code."""
        assert self._orchestrator is not None
        frame = frame_of(self._main)
        return self._orchestrator.running(frame), runs_at(frame)

    def _say_free(self, seconds: float) -> None:
        logs.logger.warning("the event loop is free again, after %.1f s", seconds, extra={"seconds": seconds})

    def _on_signal(self, count: int) -> None:
        """Set the watchdog, from the thread that counts signals: the loop may be blocked."""
        if count == 1:
            self._watchdog.arm(self._settings.shutdown_timeout)
        else:
            self._watchdog.arm(GRACE, FORCED)
        if self._settings.dev and self._resting():
            timer = threading.Timer(HELD, self._say_held, (count,))
            timer.daemon = True
            timer.start()

    def _say_held(self, count: int) -> None:
        """Report, from a separate thread, that a signal was received while a debugger holds the loop."""
        if self._obeyed < count:
            logs.logger.warning(
                "%s: a debugger is holding the app, which stops when it continues; a third signal exits at once",
                self._signals.first,
            )

    def _signalled(self, count: int) -> None:
        self._obeyed = count
        assert self._orchestrator is not None
        if count > 1:
            self._orchestrator.force()
        elif self._orchestrator.stopping:
            if self._orchestrator.reason != self._signals.first:  # a service may have reported it before
                logs.logger.warning(
                    "%s: the app is already stopping; another signal cancels what is still running", self._signals.first
                )
        else:
            self._orchestrator.request_stop(self._signals.first, ago=time.monotonic() - self._signals.first_at)

    def _at_end(self, watch: LoopWatch, report: Report) -> None:
        """Report how each service ended. Exit the process here if a task would keep the loop running forever."""
        watch.end()  # our own report may block the loop from here on
        with contained("the final report"):
            lifecycle_log.log_endings(report)
        with contained("closing the observability of the run"):
            self._outside.ended(report)
        if any(ending.state is State.ABANDONED for ending in report.endings):
            self._report = report
            self._close_outside()
            self.say_end(last=True)
            self._watchdog.told(LAST_WORDS, report.exit_code)
            within(LAST_WORDS, logs.flush)
            os._exit(report.exit_code)

    def say_end(self, *, last: bool = False) -> None:
        """Log the line with the exit code; log nothing if nothing was started.

        Args:
            last: Whether the process ends now, so that no thread may log anything after it.

        """
        if self._report is not None:
            with contained("the last log line"):
                if last:
                    logs.only_last_line()
                lifecycle_log.log_verdict(self._report, self._unsent)
            self._signals.told(self._report.exit_code)

    def at_exit(self) -> None:
        """Log the last line after other threads and exit handlers have ended, when the exit code is certain."""
        self.say_end(last=True)
        console.close()
        ignore()
        self._watchdog.stand_down(self._report.exit_code if self._report is not None else None)

    def _say_resting(self) -> None:
        logs.logger.warning("a debugger is attached: deadlines are suspended")

    def _overdue(self, code: int) -> None:
        """Report what keeps the process from ending, from the watchdog's thread."""
        frame = frame_of(self._main)
        others = _other_threads()
        service, left = "", ""
        if self._orchestrator is None:
            what = f"the services are still being imported; it is at {runs_at(frame)}"
        elif self._orchestrator.live:
            service = self._orchestrator.running(frame)
            what = f"{f'service {service}' if service else 'something'} blocks the event loop at {runs_at(frame)}"
            alive = [name for name, node in self._orchestrator.supervisors.items() if node.state in LIVE]
            left = f"; not closed: {', '.join(alive)}"
        elif others:
            service = self._orchestrator.running(frame_of(others[0].ident))
            where = "; ".join(f"{thread.name} at {runs_at(frame_of(thread.ident))}" for thread in others)
            what = f"threads{f' of {service}' if service else ''} are still running: {where}"
        else:
            what = f"services have stopped, but the interpreter has not exited; it is at {runs_at(frame)}"
        why = "received another signal, but" if code == FORCED else "past the shutdown deadline,"
        logs.logger.critical("exit %d: %s %s%s", code, why, what, left, extra={"service": service, "exit_code": code})
        logs.flush()


def _other_threads() -> list[threading.Thread]:
    """Return the threads that keep the interpreter from exiting."""
    main = threading.main_thread()
    return [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]


# -- calls -------------------------------------------------------------------------------------------------------


def connected(
    units: Sequence[Unit], settings: Settings, identity: Identity, outside: Outside, *, export: bool
) -> Sequence[Unit]:
    """Return *units*, with internal units added that let them call each other in this process and others.

    Args:
        units: The units of the plan.
        settings: The NATS_* settings, and whether local calls are checked like remote ones.
        identity: The app.
        outside: The observability of the run.
        export: Whether to serve calls from other processes; a command does not.

    Raises:
        PlanError: An interface does not fit, or the event loop's backend does not.

    """
    if "kernel.calls.interface" not in sys.modules:
        return units  # no interface is declared
    from kernel.calls.wiring import connect

    otel, admin = settings.otel, settings.admin
    wiring = connect(
        units,
        app=identity.name,
        version=identity.version,
        nats=settings.nats,
        dev=settings.dev,
        backend=settings.backend,
        export=export,
        telemetry=bool(otel and (otel.traces or otel.metrics)) or (admin is not None and admin.asked_for),
    )
    if wiring.link is not None:
        outside.tells("nats", wiring.status)
    return wiring.units


# -- lifespans ---------------------------------------------------------------------------------------------------


def around(units: Iterable[Unit], lifespans: Sequence[LifespanFunction], where: str) -> list[Unit]:
    """Return *units* nested inside the app's *lifespans*, each of which is an internal service."""
    outer = [
        Service(_as_service(fn), f"{where}:{fn.__name__}", start_timeout=None, stop_timeout=float("inf"))
        for fn in lifespans
    ]
    return nest(units, outer)


def _as_service(fn: LifespanFunction) -> Callable[..., Coroutine[Any, Any, None]]:
    async def run(serving: Serving[None]) -> None:
        async with contextlib.asynccontextmanager(fn)(), serving():
            await sleep_forever()

    return run


# -- commands ----------------------------------------------------------------------------------------------------


def command_unit(name: str, needs: Needs, call: Callable[..., Any], outcome: Outcome | None = None) -> Unit:
    """Return the unit of a command: a one-shot service that starts when its providers are ready.

    Args:
        name: Its name in logs.
        needs: What it needs.
        call: Called with the values by parameter name; may return a coroutine.
        outcome: Records the result; None to ignore it.

    """
    outcome = outcome or Outcome()

    async def run(**values: Any) -> None:
        try:
            result = call(**values)
            if isinstance(result, Coroutine):
                result = await result
        except SystemExit as error:
            outcome.exited(error)
        else:
            outcome.returned(result)

    asks = Needs(edges=needs.edges)  # from the command's signature, not the wrapper's
    return Unit(Service(run, name, retry=Retry(), oneshot=True, start_timeout=None, asks=asks), command=True)


def provider_unit(unit: Unit) -> Unit:
    """Return the unit of a command's provider. Unlimited retries are limited to its start_timeout.

    A service may wait forever, but the user of a command should be told that it cannot run.
    """
    service = unit.service
    retry = service.retry.within(service.start_timeout)
    return unit if retry is service.retry else attrs.evolve(unit, service=attrs.evolve(service, retry=retry))


__all__ = ["around", "command_unit", "connected", "execute", "provider_unit"]
