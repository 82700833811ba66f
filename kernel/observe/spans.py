"""The lifecycle as spans: one for each phase of each service, and one each for the start and the stop of the app.

All are bounded, so that a trace is complete in the viewer while the app runs: there is no span for "ready", which has
no end. What belongs together:

    start (the app)                           a trace of its own, from the first launch until all are ready
    ├─ waiting, start (database)
    └─ waiting, start, backoff, start (api)   an attempt is linked to the one before
    stop (the app)                            a trace of its own, linked to the start
    └─ stop (api), stop (database)            each linked to the start of its attempt
    stop (api)                                a crash in between has a trace too, linked to the start of its attempt
    └─ backoff, waiting, start (api)

There is no convention for such spans: their attributes have names of their own, in the namespace `kernel`.
"""

from __future__ import annotations

import time
from typing import Any, assert_never

import attrs
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from kernel.errors import one_line
from kernel.lifecycle.events import (
    BROKEN,
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
from kernel.observe.otel_resource import described
from kernel.observe.tracer import Dispatcher

SCOPE = InstrumentationScope("kernel")
NAMES = {State.WAITING: "waiting", State.STARTING: "start", State.BACKOFF: "backoff", State.STOPPING: "stop"}
"""The phases that have a span, by the state that they are."""
HAVE_CODE = frozenset({State.STARTING, State.STOPPING})
"""Those in which code of the service runs, which may make spans of its own."""
WELL = Status()


@attrs.define
class _Phase:
    """A span that has not ended: where it stands in its trace, and since when (nanoseconds)."""

    context: SpanContext
    parent: SpanContext | None
    begun: int
    links: list[Link] = attrs.field(factory=list)


@attrs.frozen
class _Span:
    """What an ended span tells.

    Args:
        name: The phase.
        service: Whose it is; empty for the app's own.
        attributes: In the namespace `kernel`.
        error: What it failed with; empty where it did not.

    """

    name: str
    service: str
    attributes: dict[str, Any]
    error: BaseException | str = ""


@attrs.define
class _Service:
    """What is remembered of a service from one phase to the next."""

    phase: _Phase | None = None
    last_start: SpanContext | None = None  # of the newest attempt
    crash: SpanContext | None = None  # the first span since it was ready


class SpanObserver:
    """Turns each event into the end of one span and the begin of another.

    Args:
        dispatcher: Where spans go.

    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._services: dict[str, _Service] = {}
        self._starting: _Phase | None = self._root("start")
        self._started = self._starting.context
        self._stopping: _Phase | None = None

    def __call__(self, event: Event) -> None:
        """Tell of *event* in spans."""
        match event:
            case Transition():
                self._moved(event)
            case AllReady(chain=chain):
                self._end_start({"kernel.critical_path": list(chain)})
            case StopBegan(reason=reason, failure=failure):
                self._end_start({"kernel.outcome": "cancelled", "kernel.reason": reason}, reason if failure else "")
                self._stopping = self._root("stop", Link(self._started))
            case Notice() | Forced() | StillWaiting() | ReadyAgain():
                pass  # a record of the log tells of it, in the context of whose span it is
            case _:
                assert_never(event)

    def end(self, reason: str, exit_code: int) -> None:
        """The app has ended."""
        if self._stopping is not None:
            attributes = {"kernel.exit_code": exit_code, "kernel.reason": reason}
            self._emit(_Span("stop", "", attributes, f"exit {exit_code}" if exit_code else ""), self._stopping)
            self._stopping = None

    def _end_start(self, attributes: dict[str, Any], error: str = "") -> None:
        if self._starting is not None:
            self._emit(_Span("start", "", attributes, error), self._starting)
            self._starting = None

    def _moved(self, event: Transition) -> None:
        one = self._services.get(event.service)
        if one is None:
            one = self._services[event.service] = _Service()
        now = time.time_ns()
        name = NAMES.get(event.previous)
        if name is not None:
            phase = one.phase or self._new(one, now - int(event.seconds * 1e9))
            # An app's lifespans and the admin server are no services, but the app's own.
            whose, what = ("", f"{event.service} {name}") if event.internal else (event.service, name)
            self._emit(_Span(what, whose, _attributes(event), _error(event)), phase, now)
            one.phase = None
            self._dispatcher.opens(event.service, None)
        if event.state is State.READY:
            one.crash = None
        elif event.state in NAMES:
            one.phase = self._new(one, now)
            if event.state is State.STARTING:
                if one.last_start is not None:
                    one.phase.links.append(Link(one.last_start, {"kernel.attempt": event.attempt - 1}))
                one.last_start = one.phase.context
            elif event.state is State.STOPPING and one.last_start is not None:
                one.phase.links.append(Link(one.last_start, {"kernel.attempt": event.attempt}))
            if event.state in HAVE_CODE:
                self._dispatcher.opens(event.service, one.phase.context)

    def _new(self, one: _Service, begun: int) -> _Phase:
        """A phase that begins: within the app's start or stop, or else in the trace of what the crash led to."""
        app = self._stopping or self._starting
        parent = app.context if app is not None else one.crash
        if parent is None:
            phase = self._root("stop")  # what a crash leads to
            one.crash = phase.context
        else:
            context = SpanContext(
                parent.trace_id,
                self._dispatcher.ids.generate_span_id(),
                is_remote=False,
                trace_flags=parent.trace_flags,
            )
            phase = _Phase(context, parent, begun)
        phase.begun = begun
        return phase

    def _root(self, name: str, *links: Link) -> _Phase:
        """The first span of a trace: whether it is sampled counts for the whole trace."""
        ids = self._dispatcher.ids
        trace_id = ids.generate_trace_id()
        decision = self._dispatcher.sampler.should_sample(None, trace_id, name).decision
        sampled = decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        context = SpanContext(trace_id, ids.generate_span_id(), is_remote=False, trace_flags=flags)
        return _Phase(context, None, time.time_ns(), list(links))

    def _emit(self, span: _Span, phase: _Phase, now: int = 0) -> None:
        """Send a span that has ended, *now* or at a time in nanoseconds.

        Made as a whole at its end, and so without the locks and limits of one that is being written to: 8 µs instead
        of 18, three times for each service.
        """
        now = now or time.time_ns()
        error = span.error
        events: tuple[SpanEvent, ...] = ()
        status = WELL
        if isinstance(error, BaseException):
            events = (SpanEvent("exception", described(error), now),)
            status = Status(StatusCode.ERROR, one_line(error))
        elif error:
            status = Status(StatusCode.ERROR, error)
        self._dispatcher.emit(
            ReadableSpan(
                span.name,
                phase.context,
                phase.parent,
                self._dispatcher.resource(span.service),
                span.attributes,
                events,
                phase.links,
                SpanKind.INTERNAL,
                status=status,
                start_time=phase.begun,
                end_time=now,
                instrumentation_scope=SCOPE,
            )
        )


def _attributes(event: Transition) -> dict[str, Any]:
    over = event.previous is State.BACKOFF and event.state is State.STARTING  # the backoff belongs to the one before
    found: dict[str, Any] = {
        "kernel.service": event.service,
        "kernel.attempt": event.attempt - over,
        "kernel.state": event.state.value,
    }
    if event.reason:
        found["kernel.reason"] = event.reason
    if event.previous is State.STARTING and event.state is State.STOPPING and event.error is None:  # asked to stop
        found["kernel.outcome"] = "cancelled"
    return found


def _error(event: Transition) -> BaseException | str:
    """What the phase ended with that is an error. A retry that was cut short by a stop, say, is none."""
    if event.previous in {State.WAITING, State.BACKOFF} and event.state not in BROKEN:
        return ""  # what it has is from before
    return event.error or ""
