"""What OpenTelemetry's signals share: who says it, how errors are told, how much. Imported only where its SDK is."""

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
from kernel.observe.tracebacks import text_of_traceback

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import CardinalityLimits


@functools.cache
def resource_of(identity: Identity, service: str = "") -> Resource:
    """The resource of a service, or of the app itself.

    A service goes by its own name, and by the app's as its namespace. What OTEL_RESOURCE_ATTRIBUTES and
    OTEL_SERVICE_NAME say goes before what we know, but that a service's name is its own.
    """
    common = _common(identity)
    return Resource({**common, "service.name": service} if service else common)


@functools.cache
def _common(identity: Identity) -> dict[str, AttributeValue]:
    """What holds for the app and all its services; looked up once, as that takes longer than all the rest."""
    given = OTELResourceDetector().detect().attributes
    app = given.get("service.name") or identity.name
    return {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "process.pid": os.getpid(),
        "process.runtime.version": sys.version.partition(" ")[0],
        "host.name": socket.gethostname(),
        "service.namespace": app,
        "service.version": identity.version,
        "service.instance.id": instance(),
        **given,
        "service.name": app,
    }


def many_series() -> CardinalityLimits:
    """So many series may one metric have: a state for each of thousands of services is more than the SDK's 2,000."""
    from opentelemetry.sdk.metrics import ObservableCounter, ObservableGauge

    return {ObservableGauge: 1_000_000, ObservableCounter: 1_000_000}


def described(error: BaseException) -> dict[str, str]:
    """*error* as attributes, by the names of the semantic conventions; also one that has no text."""
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return {
        "exception.type": f"{module}{kind.__qualname__}",
        "exception.message": one_line(error),
        "exception.stacktrace": text_of_traceback(error),
    }
