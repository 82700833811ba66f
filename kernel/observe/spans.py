"""The lifecycle as spans: a row for each service in the app's start, in its stop, and in a crash.

Every span ends, so that a trace is complete in the viewer while the app runs. There is no span for "ready", which has
no end, and none for waiting, which is not work and would hide what took the time. The structure:

    start (the app)                     a separate trace, from the first launch until all are ready
    ├─ start (database)
    └─ start (api)                      linked to the start that it had waited for
       └─ attempt, backoff, attempt     only if there were several
    restart (database)                  a crash and its recovery, linked to the start that it ends
    ├─ stop, backoff, start
    └─ restart (api)                    a dependent that was restarted as well
    stop (the app)                      linked to the start
    └─ stop (api), stop (database)      each linked to the start of its attempt

A long trace is ended as unfinished every minute, and continues in another trace that is linked to it. There is no
semantic convention for such spans, so their attributes have names of their own, in the namespace `kernel`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, assert_never

import attrs
from opentelemetry.trace import Link

from kernel.lifecycle.clock import Clock
from kernel.lifecycle.events import (
    BROKEN,
    ENDED,
    AllReady,
    Event,
    Forced,
    Notice,
    ReadyAgain,
    State,
    StillWaiting,
    StopBegan,
    Transition,
)
from kernel.observe.span_rows import Error, Phase, Row, Sender, Trace
from kernel.observe.tracer import Dispatcher

NAMES = {State.STARTING: "start", State.BACKOFF: "backoff", State.STOPPING: "stop"}
"""The states that have a span, each with the name of its phase."""
HAVE_CODE = frozenset({State.STARTING, State.STOPPING})
"""The states in which the service's code runs, which may create spans itself."""
LONGEST = 60.0  # seconds after which a trace is ended as unfinished and continued in another


@attrs.define
class _Service:
    """What is remembered about a service from one row to the next."""

    row: Row | None = None
    start: Row | None = None  # the row of its last start, successful or not
    away: Trace | None = None  # the trace of the crash from which it has not recovered
    served: bool = False  # whether it was ever ready
    waits_since: int = 0


class SpanObserver:
    """Turns each event into the end of one span and the start of another.

    Args:
        dispatcher: Receives the finished spans.
        now: The monotonic clock, in nanoseconds.

    """

    def __init__(self, dispatcher: Dispatcher, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._dispatcher = dispatcher
        self._sender = Sender(dispatcher, now)
        self._clock: Clock | None = None
        self._tree: Callable[[], Sequence[str]] = tuple
        self._services: dict[str, _Service] = {}
        self._open: dict[Trace, None] = {}
        self._crashes: dict[str, Trace] = {}  # by the name of the service that crashed
        self._starting: Trace | None = self._root("start", "", "")
        self._started = self._starting
        self._stopping: Trace | None = None

    def runs(self, clock: Clock, tree: Callable[[], Sequence[str]]) -> None:
        """Let *clock* end long traces. *tree* returns the names of what is still waited for."""
        self._clock, self._tree = clock, tree
        for trace in self._open:
            self._watch(trace)

    def __call__(self, event: Event) -> None:
        """Record *event* in spans."""
        if not self._services and self._starting is not None:  # the first launch; time before it does not count
            self._starting.root.begun = self._sender.ticks.read()
        match event:
            case Transition():
                self._moved(event)
            case AllReady(chain=chain):
                if self._starting is not None:
                    goes_on = self._leave(self._starting, {"kernel.critical_path": chain})
                    self._starting = None
                    for row, phase in goes_on:  # services whose failure is allowed may not be ready yet
                        trace = self._root(row.name, row.service, row.key, Link(row.context))
                        self._crashes[row.key] = trace
                        self._continue(row, phase, trace)
            case StopBegan(reason=reason, failure=failure):
                self._stop_begins(reason, reason if failure else "")
            case Notice() | Forced() | StillWaiting() | ReadyAgain():
                pass  # reported as a log record in the context of the right span
            case _:
                assert_never(event)

    def end(self, reason: str, exit_code: int) -> None:
        """End all open spans, since the app has ended with *exit_code*."""
        about = {"kernel.exit_code": exit_code, "kernel.reason": reason}
        for trace in list(self._open):
            error = f"exit {exit_code}" if exit_code and trace is self._stopping else ""
            self._leave(trace, about if trace is self._stopping else {"kernel.outcome": "unfinished"}, error)
        self._starting = self._stopping = None

    # -- traces --------------------------------------------------------------------------------------------------

    def _root(self, name: str, service: str, key: str, *links: Link) -> Trace:
        trace = self._sender.open(name, service, key, *links)
        self._open[trace] = None
        self._watch(trace)
        return trace

    def _watch(self, trace: Trace) -> None:
        if self._clock is not None:
            when = self._clock.now() + LONGEST
            trace.alarm = self._clock.at(when, functools.partial(self._go_on, trace), deadline=False)

    def _leave(self, trace: Trace, about: dict[str, Any], error: Error = "") -> list[tuple[Row, str]]:
        """End *trace* with everything in progress. Return its open rows, each with the name of its phase."""
        outcome = {"kernel.outcome": about.get("kernel.outcome", "unfinished")}
        goes_on: list[tuple[Row, str]] = []
        for row in list(trace.rows):
            if row.phase is not None:
                goes_on.append((row, row.phase.name))
                self._sender.end(row, _about(row) | outcome)
            row.name = row.name or ("restart" if row.error else "stop")
            if row is not trace.root:
                self._close(row, outcome)
        if trace.alarm is not None:
            trace.alarm.cancel()
        del self._open[trace]
        if self._crashes.get(trace.root.key) is trace:
            del self._crashes[trace.root.key]
        self._close(trace.root, about, error)
        return goes_on

    def _go_on(self, trace: Trace) -> None:
        """End *trace* as unfinished, and continue it in another trace."""
        if trace not in self._open:
            return
        old = trace.root
        about = {"kernel.outcome": "unfinished", "kernel.waits_for": tuple(self._tree())}
        goes_on = self._leave(trace, about | ({"kernel.service": old.key} if old.key else {}))
        new = self._root(old.name, old.service, old.key, Link(old.context))
        new.away = trace.away
        for name in new.away:
            self._services[name].away = new
        if trace is self._starting:
            self._starting = self._started = new
        elif trace is self._stopping:
            self._stopping = new
        else:
            self._crashes[old.key] = new
        for row, phase in goes_on:
            self._continue(row, phase, new)

    def _stop_begins(self, reason: str, error: str) -> None:
        goes_on: list[tuple[Row, str]] = []
        for trace in list(self._open):
            about = {"kernel.outcome": "cancelled", "kernel.reason": reason}
            goes_on += self._leave(trace, about, error if trace is self._starting else trace.root.error)
        self._starting = None
        self._stopping = self._root("stop", "", "", Link(self._started.root.context))
        for row, phase in goes_on:
            if phase == NAMES[State.BACKOFF]:
                self._of(row).row = None
            else:
                self._continue(row, phase, self._stopping)

    def _continue(self, row: Row, phase: str, trace: Trace) -> None:
        """Continue *phase* of *row*, which has ended, in another *trace*."""
        name = row.name if trace is not self._stopping else "stop" if phase == "stop" else "start"
        new = trace.root
        if new.key != row.key or new in trace.rows:
            new = Row(trace, name, row.service, self._sender.ticks.read(), [Link(row.context)], key=row.key)
        new.attempt = row.attempt
        trace.rows[new] = None
        service = self._of(row)
        service.row = new
        if service.start is row:
            service.start = new
        self._begin(new, phase)

    # -- services ------------------------------------------------------------------------------------------------

    def _of(self, row: Row) -> _Service:
        return self._services[row.key]

    def _moved(self, event: Transition) -> None:
        service = self._services.get(event.service)
        if service is None:
            service = self._services[event.service] = _Service(waits_since=self._started.root.begun)
        state, previous, row = event.state, event.previous, service.row
        if row is not None:
            row = self._phase_ends(service, row, event)
        if previous is State.WAITING and state is not State.STARTING:
            self._waited(service, event)
        if state in NAMES:
            if row is None:
                row = self._row(service, event)
            row.attempt = event.attempt
            self._begin(row, "attempt" if state is State.STARTING and row.name == "start" else NAMES[state])
        elif state is State.WAITING:
            service.waits_since = self._sender.ticks.last
        elif state is State.READY or state in ENDED:
            service.served = service.served or state is State.READY
            self._is_back(service, event.service, state)

    def _phase_ends(self, service: _Service, row: Row, event: Transition) -> Row | None:
        """End the phase of *row* that is in progress. Return the row if it continues."""
        row.attempt = event.attempt - (event.previous is State.BACKOFF and event.state is State.STARTING)
        error = _error(event)
        self._sender.end(row, _about(row) | _attributes(event), error)
        row.error = row.error or error
        self._dispatcher.opens(event.service, None)
        if event.state is State.BACKOFF and row.name == "stop":  # clean-up failed
            row.name = "restart"
        if self._goes_on(event):
            return row
        self._row_ends(service, row, event)
        return None

    def _goes_on(self, event: Transition) -> bool:
        """Return whether this transition continues the service's row."""
        if event.state is State.STOPPING:  # it stops without a request, for example because of its start_timeout
            return event.error is not None
        return event.state in {State.BACKOFF, State.STARTING}

    def _row_ends(self, service: _Service, row: Row, event: Transition) -> None:
        service.row = None
        about = _attributes(event)
        if not row.name:
            recovers = event.state is not State.DONE and bool(row.error)
            row.name = "restart" if recovers else "stop"
        if row.name != "stop":
            about["kernel.attempts"] = row.attempts
        if row.name == "restart":
            about.setdefault("kernel.outcome", event.state.value)
        error = row.error if row.name == "restart" or event.state in BROKEN else ""
        row.error = error
        if row is not row.trace.root:
            self._close(row, _about(row) | about, error)
            self._check_over(row.trace)
            return
        row.attributes |= _about(row) | about
        row.trace.rows.pop(row, None)
        if event.state is State.WAITING:
            row.trace.away[event.service] = None
            service.away = row.trace
        self._check_over(row.trace)

    def _close(self, row: Row, about: dict[str, Any], error: Error = "") -> None:
        self._sender.close(row, about, error)

    def _is_back(self, service: _Service, name: str, state: State) -> None:
        trace, service.away = service.away, None
        if trace is not None:
            if trace.root.key == name:
                trace.root.attributes["kernel.outcome"] = state.value
            trace.away.pop(name, None)
            self._check_over(trace)

    def _check_over(self, trace: Trace) -> None:
        """End the trace of a crash if all affected services have recovered."""
        if trace in self._open and trace.root.key and not trace.away and not trace.rows:
            self._leave(trace, {}, trace.root.error)

    def _waited(self, service: _Service, event: Transition) -> None:
        """Record a wait that led to no launch."""
        if self._stopping is not None and service.waits_since >= self._stopping.root.begun:
            return  # it has only just stopped
        row = Row(service.away or self._started, "waiting", _whose(event), service.waits_since, key=event.service)
        row.attempt, row.attributes = event.attempt, _attributes(event)
        row.attributes |= _about(row)
        self._sender.waited(row, _error(event))

    def _row(self, service: _Service, event: Transition) -> Row:
        """Create the row that begins with this transition, in its trace."""
        name, links = "", self._launched_by(event)
        if event.state is State.STARTING:
            name = "restart" if service.served else "start"
        elif self._stopping is not None or event.cause or event.previous is State.STARTING:
            name = "stop"
        if service.start is not None:
            before = event.attempt - (event.state is State.STARTING)
            links.append(Link(service.start.known, {"kernel.attempt": before}))
        trace = self._trace_of(service, event)
        if trace is None:
            trace = self._crashes[event.service] = self._root(name, _whose(event), event.service, *links)
            row = trace.root
        else:
            if name == "restart" and trace.root.key == event.service:
                name = "start"  # the start within a recovery, after a wait
            within = self._within(event, trace)
            row = Row(trace, name, _whose(event), self._sender.ticks.read(), links, within, event.service)
            if event.cause and trace.root.key:
                trace.away[event.service] = None
                service.away = trace
        if event.state is State.STARTING:
            if event.waited_for:
                row.attributes |= {"kernel.waited": event.seconds, "kernel.waited_for": event.waited_for}
            service.start = row
        trace.rows[row] = None
        service.row = row
        return row

    def _trace_of(self, service: _Service, event: Transition) -> Trace | None:
        """Return the trace in progress that a new row belongs to; None if the service has just crashed."""
        app = self._stopping or self._starting
        return app or service.away or self._crashes.get(event.cause) or self._crashes.get(event.service)

    def _within(self, event: Transition, trace: Trace) -> Phase | None:
        """Return the provider's stop that waits for this service. Rows in the app's start are not nested."""
        if not trace.root.key:
            return None
        provider = self._services.get(event.cause)
        row = provider.row if provider is not None else None
        if row is None or row.trace is not trace or row.phase is None:
            return None
        row.context  # noqa: B018  (creates its span, since it has parts now)
        return row.phase

    def _launched_by(self, event: Transition) -> list[Link]:
        """Return a link to the start that this service had waited for."""
        last = self._services.get(event.waited_for[-1]) if event.waited_for else None
        return [Link(last.start.known)] if last is not None and last.start is not None else []

    def _begin(self, row: Row, name: str) -> None:
        phase = self._sender.begin(row, name)
        if name in {"attempt", "start"}:
            row.attempts += 1
            self._of(row).start = row
        if name != NAMES[State.BACKOFF]:
            self._dispatcher.opens(row.key, phase.context)


def _whose(event: Transition) -> str:
    """Return the service that its spans belong to: spans of app lifespans and the admin server belong to the app."""
    return "" if event.internal else event.service


def _about(row: Row) -> dict[str, Any]:
    return {"kernel.service": row.key, "kernel.attempt": row.attempt}


def _attributes(event: Transition) -> dict[str, Any]:
    found: dict[str, Any] = {"kernel.state": event.state.value}
    if event.reason:
        found["kernel.reason"] = event.reason
    if event.previous is State.WAITING and event.waited_for:
        found["kernel.waited_for"] = event.waited_for
    if event.previous is State.STARTING and event.state is State.STOPPING and event.error is None:  # stop requested
        found["kernel.outcome"] = "cancelled"
    return found


def _error(event: Transition) -> Error:
    """Return the error that ended the phase; none, for example, if a stop interrupted a retry."""
    if event.previous in {State.WAITING, State.BACKOFF} and event.state not in BROKEN:
        return ""  # the error is from an earlier phase
    return event.error or ""
