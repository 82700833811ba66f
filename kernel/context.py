"""What surrounds the running code: whose it is, and whether it is traced."""

from __future__ import annotations

import sys
from contextvars import ContextVar

current_service: ContextVar[str] = ContextVar("current_service", default="")
"""The name of the service whose code runs in this task; empty outside of services."""


def tracing_enabled() -> bool:
    """Return whether spans are recorded in this run, because `OTEL_*` is set or the app has set up a tracer provider.

    A service asks before it imports an instrumentation of OpenTelemetry, so that a run without traces loads nothing:

        if tracing_enabled():
            from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

            app = OpenTelemetryMiddleware(app)

    The instrumentation needs no argument: the provider of OpenTelemetry's API gives each span to the service whose
    code makes it. The answer stays the same from the import of the services until their end.

    """
    if "opentelemetry.trace" not in sys.modules:  # whoever has set up a provider has imported it
        return False
    from opentelemetry import trace  # waits if another thread is importing it

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
