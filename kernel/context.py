"""The context of the running code: which service it belongs to, and whether it is traced."""

from __future__ import annotations

import sys
from contextvars import ContextVar

current_service: ContextVar[str] = ContextVar("current_service", default="")
"""The name of the service whose code runs in this task; empty outside of services."""


def tracing_enabled() -> bool:
    """Return whether spans are recorded in this run, because `OTEL_*` is set or the app has set up a tracer provider.

    Services can call this before importing an OpenTelemetry instrumentation, so that a run without traces loads
    nothing:

        if tracing_enabled():
            from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

            app = OpenTelemetryMiddleware(app)

    The instrumentation needs no arguments: the provider of OpenTelemetry's API assigns each span to the service whose
    code creates it. The answer stays the same from the import of the services until their end.

    """
    if "opentelemetry.trace" not in sys.modules:  # setting up a provider imports it
        return False
    from opentelemetry import trace  # waits if another thread is importing it

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
