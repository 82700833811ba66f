"""The parts of lifecycle spans: traces, rows of services in them, the phases of a row, and a common clock.

A viewer finds the critical path by which span ended strictly before another began, in whole microseconds. So each
reading of the clock is later than the one before, and durations are measured by the monotonic clock alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from kernel.errors import one_line
from kernel.lifecycle.clock import Alarm
from kernel.observe.otel_resource import described
from kernel.observe.tracer import Dispatcher

SCOPE = InstrumentationScope("kernel")
WELL = Status()

Error = BaseException | str
"""The error of a span; empty if there is none."""


@attrs.define(eq=False)
class Ticks:
    """Readings of the monotonic clock in whole microseconds, each later than the one before.

    Args:
        now: The clock, in nanoseconds.

    """

    now: Callable[[], int] = time.monotonic_ns
    last: int = 0
    last_end: int = 0  # the latest reading at which a span ended

    def read(self) -> int:
        """Read the clock."""
        self.last = max(self.now() // 1000, self.last + 1)
        return self.last

    def end(self) -> int:
        """Read the clock for the end of a span."""
        self.last_end = self.read()
        return self.last_end


@attrs.define(eq=False)
class Phase:
    """A part of a row: an attempt, a backoff or a stop. `end` is None while it lasts."""

    name: str
    context: SpanContext
    begun: int
    links: list[Link] = attrs.field(factory=list)
    attributes: dict[str, Any] = attrs.field(factory=dict)
    error: Error = ""
    end: int | None = None


@attrs.define(eq=False)
class Row:
    """A service's part of a trace, from its first phase to its last.

    A row with one phase is one span. With a second phase it becomes one span for the whole row and one for each phase.
    The first phase keeps its span id in both cases, since other spans may refer to it.

    Args:
        trace: The trace that contains it.
        name: The span's name; empty as long as it depends on how the row ends.
        service: The service; empty for the app itself.
        begun: The clock reading at which it began.
        links: The links of its span.
        within: The phase of another service that contains it, until that phase ends.
        key: The service's name, even if its spans belong to the app.

    """

    trace: Trace
    name: str
    service: str
    begun: int
    links: list[Link] = attrs.field(factory=list)
    within: Phase | None = None
    key: str = ""
    attributes: dict[str, Any] = attrs.field(factory=dict)
    error: Error = ""
    attempt: int = 0  # the number of the current attempt
    attempts: int = 0  # the number of attempts in this row
    phase: Phase | None = None  # the phase in progress
    first: Phase | None = None  # the first phase, as long as it is the only one
    own: SpanContext | None = None

    def label(self, name: str) -> str:
        """Name a span of the row. Those of app lifespans and the admin server (not services) are the app's."""
        return f"{self.key} {name}" if self.key and not self.service else name

    @property
    def context(self) -> SpanContext:
        """Return the context of the span for the whole row."""
        if self.own is None:
            self.own = self.trace.context()
        return self.own

    @property
    def known(self) -> SpanContext:
        """Return a context that will be sent for sure: of the whole row if it has a span, else of the first phase."""
        return self.first.context if self.own is None and self.first is not None else self.context


@attrs.define(eq=False)
class Trace:
    """A trace in progress: its root, and the unfinished rows in it.

    Args:
        ids: Makes the ids of spans.
        trace_id: Its id.
        flags: Whether it is sampled.
        offset: Microseconds to add to a reading to get the wall-clock time.

    """

    ids: Any
    trace_id: int
    flags: TraceFlags
    offset: int
    root: Row = attrs.field(init=False)
    rows: dict[Row, None] = attrs.field(factory=dict, init=False)  # except the root
    away: dict[str, None] = attrs.field(factory=dict, init=False)  # the services that must recover before it ends
    ended: int | None = attrs.field(default=None, init=False)
    alarm: Alarm | None = attrs.field(default=None, init=False)

    def context(self) -> SpanContext:
        """Return the context of a new span in the trace."""
        return SpanContext(self.trace_id, self.ids.generate_span_id(), is_remote=False, trace_flags=self.flags)


class Sender:
    """Creates traces, and sends finished spans.

    A span created as a whole when it ends needs no locks or limits of a span in progress: 8 µs instead of 18, twice
    for each service.

    Args:
        dispatcher: Where spans go.
        now: The monotonic clock, in nanoseconds.

    """

    def __init__(self, dispatcher: Dispatcher, now: Callable[[], int]) -> None:
        self._dispatcher = dispatcher
        self.ticks = Ticks(now)

    def open(self, name: str, service: str, key: str, *links: Link) -> Trace:
        """Begin a trace with its root. The sampling decision for the root applies to the whole trace."""
        ids = self._dispatcher.ids
        trace_id = ids.generate_trace_id()
        decision = self._dispatcher.sampler.should_sample(None, trace_id, name or "restart").decision
        sampled = decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        begun = self.ticks.read()
        trace = Trace(ids, trace_id, flags, time.time_ns() // 1000 - begun)
        trace.root = Row(trace, name, service, begun, list(links), key=key)
        return trace

    def begin(self, row: Row, name: str, *links: Link) -> Phase:
        """Begin the next phase of *row*."""
        begun = self.ticks.read() if row.first or row.own or row is row.trace.root else row.begun
        phase = row.phase = Phase(name, row.trace.context(), begun, list(links))
        if row.first is not None:
            self._flush(row)
        elif row.own is None:
            row.first = phase
        return phase

    def end(self, row: Row, attributes: dict[str, Any], error: Error = "") -> None:
        """End the row's phase in progress. It is sent once it is known not to be the whole row."""
        phase = row.phase
        if phase is None:
            return
        phase.attributes, phase.error, phase.end = attributes, error, self.ticks.end()
        row.phase = None
        if phase is not row.first:
            self._send_phase(row, phase)

    def close(self, row: Row, attributes: dict[str, Any], error: Error = "") -> None:
        """End *row*, whose last phase has ended, and send it."""
        row.trace.rows.pop(row, None)
        row.attributes |= attributes
        only = row.first
        if only is not None and row.own is None:
            assert only.end is not None
            row.own = only.context
            self._send(row, [*row.links, *only.links], only.attributes | row.attributes, error or only.error, only.end)
            return
        self._flush(row)
        self._send(row, row.links, row.attributes, error, self.ticks.end())

    def waited(self, row: Row, error: Error) -> None:
        """Send a wait that led to no launch.

        The span ends just before the start of what it waited for, which therefore stays on the critical path.
        """
        trace, root = row.trace, row.trace.root
        last = (trace.ended if trace.ended is not None else self.ticks.last_end) - 1
        row.begun = min(max(row.begun, root.begun), max(last, root.begun))
        self._send(row, row.links, row.attributes, error, max(last, row.begun))

    def _flush(self, row: Row) -> None:
        """Send the first phase as a part of its row, since another phase follows."""
        first, row.first = row.first, None
        if first is not None:
            self._send_phase(row, first)

    def _send_phase(self, row: Row, phase: Phase) -> None:
        self._emit(row, phase, row.context)

    def _send(self, row: Row, links: list[Link], attributes: dict[str, Any], error: Error, end: int) -> None:
        root = row.trace.root
        parent = None if row is root else root.context
        if row.within is not None and row.within.end is None:
            parent = row.within.context
        if row is root:
            row.trace.ended = end
        self._emit(row, Phase(row.name, row.context, row.begun, links, attributes, error, end), parent)

    def _emit(self, row: Row, phase: Phase, parent: SpanContext | None) -> None:
        assert phase.end is not None
        begun, end = ((reading + row.trace.offset) * 1000 for reading in (phase.begun, phase.end))
        error = phase.error
        events: tuple[SpanEvent, ...] = ()
        status = WELL
        if isinstance(error, BaseException):
            events = (SpanEvent("exception", described(error), end),)
            status = Status(StatusCode.ERROR, one_line(error))
        elif error:
            status = Status(StatusCode.ERROR, error)
        self._dispatcher.emit(
            ReadableSpan(
                row.label(phase.name),
                phase.context,
                parent,
                self._dispatcher.resource(row.service),
                phase.attributes,
                events,
                phase.links,
                SpanKind.INTERNAL,
                status=status,
                start_time=begun,
                end_time=end,
                instrumentation_scope=SCOPE,
            )
        )
