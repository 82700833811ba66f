"""Publish the lifecycle as metrics, by OpenTelemetry's API.

Imported only if metrics are read, since importing the SDK takes 60 ms. Most values are looked up when they are
collected, so they cost a service nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource

from kernel.lifecycle.events import State
from kernel.observe.status import View

Observe: TypeAlias = Callable[[View], Iterable[Observation]]

SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Histogram bounds, from a service that opens nothing to one that waits for a migration."""


def provide(view: View, resource: Resource, readers: Sequence[MetricReader]) -> None:
    """Register as the meter provider of the process, and give *readers* the metrics of *view*."""
    provider = MeterProvider(readers, resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    _instrument(provider.get_meter("kernel", view.identity.version), view)


def _instrument(meter: Meter, view: View) -> None:
    """Create the kernel's instruments."""

    def looking(observe: Observe) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _: observe(view)

    for name, unit, text, observe in _GAUGES:
        meter.create_observable_gauge(name, [looking(observe)], unit, text)
    for name, unit, text, observe in _COUNTERS:
        meter.create_observable_counter(name, [looking(observe)], unit, text)
    durations = {
        kind: meter.create_histogram(
            f"kernel.service.{kind}.duration",
            "s",
            f"Time that the service took to {kind}",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        for kind in ("start", "stop")
    }

    def record(kind: str, service: str, seconds: float) -> None:
        durations[kind].record(seconds, {"service": service})

    known = {node.name for node in view.supervisors}
    for kind, last in view.stats.last.items():  # recorded before the instruments existed
        for service in known & last.keys():
            record(kind, service, last[service])
    view.stats.record = record


def _states(view: View) -> Iterable[Observation]:
    for node in view.supervisors:
        now = node.state
        for state in State:
            yield Observation(int(state is now), {"service": node.name, "state": state.value})


def _ready_for(view: View) -> Iterable[Observation]:
    now = view.now()
    for node in view.supervisors:
        yield Observation(now - node.since if node.state is State.READY else 0.0, {"service": node.name})


def _attempts(view: View) -> Iterable[Observation]:
    return [Observation(node.attempt, {"service": node.name}) for node in view.supervisors]


def _restarts(view: View) -> Iterable[Observation]:
    return [Observation(max(node.attempt - 1, 0), {"service": node.name}) for node in view.supervisors]


def _ready(view: View) -> Iterable[Observation]:
    return [Observation(int(view.ready))]


def _delay(view: View) -> Iterable[Observation]:
    return [Observation(view.delay())]


def _shares(view: View) -> Iterable[Observation]:
    return [Observation(share, {"service": name or view.identity.name}) for name, share in view.shares().items()]


Instrument: TypeAlias = tuple[str, str, str, Observe]

_GAUGES: tuple[Instrument, ...] = (
    ("kernel.service.state", "", "Whether the service is in the state: 1 for the current one", _states),
    ("kernel.service.ready.time", "s", "Time since the service became ready; 0 while it is not", _ready_for),
    ("kernel.ready", "", "Whether the app is ready, as reported by /readyz", _ready),
    ("kernel.loop.delay", "s", "Time that the event loop took to respond to the last check", _delay),
    ("kernel.loop.share", "", "Estimated part of the event loop's time that the service takes", _shares),
)
_COUNTERS: tuple[Instrument, ...] = (
    ("kernel.service.attempts", "{attempt}", "Number of times that the service was launched", _attempts),
    ("kernel.service.restarts", "{restart}", "Number of times that the service was launched again", _restarts),
)
