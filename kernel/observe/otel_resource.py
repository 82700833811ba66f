"""Shared by OpenTelemetry's signals: resources, error attributes, limits. Imported only if the SDK is."""

from __future__ import annotations

import functools
import os
import socket
import sys
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.util.types import AttributeValue

from kernel.errors import one_line
from kernel.identity import Identity, instance
from kernel.masking import mask
from kernel.observe.tracebacks import text_of_traceback

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import CardinalityLimits


@functools.cache
def resource_of(identity: Identity, service: str = "") -> Resource:
    """Return the resource of a service, or of the app itself.

    A service has its own name, and the app's name as its namespace. OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME take
    precedence, except that a service keeps its own name.
    """
    common = _common(identity)
    return Resource({**common, "service.name": service} if service else common)


@functools.cache
def _common(identity: Identity) -> dict[str, AttributeValue]:
    """Return the attributes of the app and all its services, cached since collecting them is slow."""
    given = OTELResourceDetector().detect().attributes
    app = mask(str(given.get("service.name") or identity.name))
    return {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "process.pid": os.getpid(),
        "process.runtime.version": sys.version.partition(" ")[0],
        "host.name": socket.gethostname(),
        "service.namespace": app,
        "service.version": identity.version,
        "service.instance.id": instance(),
        **{name: mask(value) if isinstance(value, str) else value for name, value in given.items()},
        "service.name": app,
    }


def many_series() -> CardinalityLimits:
    """Return the maximum number of series per metric: thousands of services with states exceed the SDK's 2,000."""
    from opentelemetry.sdk.metrics import ObservableCounter, ObservableGauge

    return {ObservableGauge: 1_000_000, ObservableCounter: 1_000_000}


def described(error: BaseException) -> dict[str, str]:
    """Return *error* as attributes, named by the semantic conventions. Works for errors without text too."""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return {
        "exception.type": f"{module}{kind.__qualname__}",
        "exception.message": one_line(error),
        "exception.stacktrace": text_of_traceback(error),
    }
