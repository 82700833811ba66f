"""One tracer provider that names every service in its spans. Imported only if traces are exported.

All services run in one process, yet each should appear in traces as a separate service. `current_service`, the
context variable that follows a service into all its tasks, names the service of each span, including spans of libraries
that know nothing of the kernel. Internally there is an ordinary provider for each service, with the service's resource,
and one pipeline for all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, Tracer
from opentelemetry.util._decorator import _agnosticcontextmanager  # part of the API that every tracer needs
from opentelemetry.util.types import Attributes

from kernel.context import current_service

_left: ContextVar[tuple[int, SpanContext] | None] = ContextVar("left", default=None)
"""The id of the last exception that ended a span in this task, and the span. The exception would keep frames alive."""


class _Leavings(SpanProcessor):
    """Remembers which span an exception has left, since it is often logged after the span has ended, as by servers."""

    def on_end(self, span: ReadableSpan) -> None:
        if span.status.status_code is StatusCode.ERROR and span.context is not None:
            error = sys.exc_info()[1]  # set while an exception leaves the block of the span
            if error is not None:
                _left.set((id(error), span.context))


class Dispatcher(trace.TracerProvider):
    """The tracer provider of all services.

    Args:
        resource: Returns the resource of a service, or of the app if the name is empty.

    """

    def __init__(self, resource: Callable[[str], Resource]) -> None:
        self.resource = resource
        self._pipeline = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        self._pipeline.add_span_processor(_Leavings())
        self._providers: dict[str, TracerProvider] = {}
        self._open: dict[str, SpanContext | None] = {}
        app = self.of("")
        self.sampler, self.ids = app.sampler, app.id_generator

    def of(self, service: str) -> TracerProvider:
        """Return the provider of a service, or of the app if the name is empty."""
        found = self._providers.get(service)
        if found is None:
            found = self._providers[service] = TracerProvider(
                resource=self.resource(service), active_span_processor=self._pipeline, shutdown_on_exit=False
            )
        return found

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        """Return a tracer for a piece of code, for whichever service runs it."""
        about = (instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        return _Tracer(self, lambda service: self.of(service).get_tracer(*about))

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Send the spans of all services to *span_processor* too."""
        self._pipeline.add_span_processor(span_processor)

    def emit(self, span: ReadableSpan) -> None:
        """Send a span that has already ended."""
        self._pipeline.on_end(span)

    def opens(self, service: str, phase: SpanContext | None) -> None:
        """Make new spans of *service* children of *phase* of its lifecycle; of none if *phase* is None."""
        self._open[service] = phase

    def phase_of(self, service: str) -> SpanContext | None:
        """Return the current phase of *service*, if it has a span."""
        return self._open.get(service)

    def left_by(self, error: BaseException) -> SpanContext | None:
        """Return the outermost span that *error* has left; None if another span has failed in this task since."""
        found = _left.get()
        return found[1] if found is not None and found[0] == id(error) else None


class _Tracer(Tracer):
    """Starts each span under the name of the service whose code is running."""

    def __init__(self, provider: Dispatcher, make: Callable[[str], Tracer]) -> None:
        self._provider, self._make = provider, make
        self._tracers: dict[str, Tracer] = {}

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """Start a span. Without a parent, it becomes a child of its service's current phase, if that has a span."""
        service = current_service.get()
        tracer = self._tracers.get(service)
        if tracer is None:
            tracer = self._tracers[service] = self._make(service)
        if context is None and not trace.get_current_span().get_span_context().is_valid:
            phase = self._provider.phase_of(service)
            if phase is not None:
                context = trace.set_span_in_context(NonRecordingSpan(phase))
        return tracer.start_span(
            name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception
        )

    @_agnosticcontextmanager
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[Span]:
        """Start a span that is current within the block, and record a cancellation that ends the block."""
        span = self.start_span(
            name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception
        )
        with trace.use_span(span, end_on_exit, record_exception, set_status_on_exception):
            try:
                yield span
            except Exception:
                raise
            except BaseException as error:  # the API ignores cancellations, so the span would end without an error
                span.add_event("cancelled", {"exception.type": type(error).__name__})
                raise
