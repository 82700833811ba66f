"""One tracer provider that speaks for every service by its own name. Imported only where traces are exported.

All services run in one process, yet each should appear in a trace as a service of its own. Whose span it is tells
`current_service`, the context variable that follows a service into all its tasks; so that goes for the spans of a
library as well, which knows nothing of the kernel. Behind it stands an ordinary provider for each service, with the
service's resource, and one pipeline for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Tracer
from opentelemetry.util._decorator import _agnosticcontextmanager  # the API's own, which every tracer needs
from opentelemetry.util.types import Attributes

from kernel.context import current_service


class Dispatcher(trace.TracerProvider):
    """The provider of all services.

    Args:
        resource: Gives the resource of a service, or of the app where the name is empty.

    """

    def __init__(self, resource: Callable[[str], Resource]) -> None:
        self.resource = resource
        self._pipeline = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        self._providers: dict[str, TracerProvider] = {}
        self._open: dict[str, SpanContext] = {}
        app = self.of("")
        self.sampler, self.ids = app.sampler, app.id_generator

    def of(self, service: str) -> TracerProvider:
        """The provider of one service, or of the app where the name is empty."""
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
        """A tracer for a piece of code, whichever service it will run in."""
        about = (instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        return _Tracer(self, lambda service: self.of(service).get_tracer(*about))

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Have *span_processor* see the spans of all services."""
        self._pipeline.add_span_processor(span_processor)

    def emit(self, span: ReadableSpan) -> None:
        """Send a span that has ended already."""
        self._pipeline.on_end(span)

    def opens(self, service: str, phase: SpanContext | None) -> None:
        """Have the spans that *service* makes from now on be children of this *phase* of its life, or of none."""
        if phase is None:
            self._open.pop(service, None)
        else:
            self._open[service] = phase

    def phase_of(self, service: str) -> SpanContext | None:
        """The phase of its life that *service* is in, where that has a span."""
        return self._open.get(service)


class _Tracer(Tracer):
    """Starts each span in the name of the service whose code runs."""

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
        """Start a span; one without a parent is the child of the phase of its service's life, if that has a span."""
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
        """Start a span that is current within the block, and tell of a cancellation that ended it."""
        span = self.start_span(
            name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception
        )
        with trace.use_span(span, end_on_exit, record_exception, set_status_on_exception):
            try:
                yield span
            except Exception:
                raise
            except BaseException as error:  # which the API does not look at: the span would end as if all were well
                span.add_event("cancelled", {"exception.type": type(error).__name__})
                raise
