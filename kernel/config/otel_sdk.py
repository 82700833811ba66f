"""Read the settings of OpenTelemetry's SDK: batches, limits, samplers and connections.

The SDK reads most of them itself, but a wrong value then causes an exception, or a warning at each record. Here it is
reported like that of any other setting, before anything starts.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Collection, Mapping

import attrs

from kernel.errors import ConfigError

Report = Callable[[ConfigError], object]

SOON = 1000  # milliseconds between two exports of spans and records; the SDK's 5,000 shows a start-up late
INTERVAL = 60_000  # milliseconds between two exports of metrics
PATIENCE = 30_000  # milliseconds for one export of metrics
SPANS = (65_536, 1024)  # queue and batch sizes: during one export a thousand services may start, each with three spans
RECORDS = (2048, 512)
MOST = 2**31 - 1  # the specification has 32-bit numbers

SAMPLERS = tuple(
    f"{parent}{sampler}" for parent in ("", "parentbased_") for sampler in ("always_on", "always_off", "traceidratio")
)
_CHOICES: Mapping[str, Collection[str]] = {
    "TRACES_SAMPLER": SAMPLERS,
    "METRICS_EXEMPLAR_FILTER": ("trace_based", "always_on", "always_off"),
    "EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": ("cumulative", "delta", "lowmemory"),
    "EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": (
        "explicit_bucket_histogram",
        "base2_exponential_bucket_histogram",
    ),
}
_LIMITS: Mapping[str, Collection[str]] = {
    "traces": (
        *(f"{prefix}ATTRIBUTE_COUNT_LIMIT" for prefix in ("", "SPAN_", "EVENT_", "LINK_")),
        *(f"{prefix}ATTRIBUTE_VALUE_LENGTH_LIMIT" for prefix in ("", "SPAN_")),
        *("SPAN_EVENT_COUNT_LIMIT", "SPAN_LINK_COUNT_LIMIT"),
    ),
    "logs": tuple(
        f"{prefix}ATTRIBUTE_{what}_LIMIT" for prefix in ("", "LOGRECORD_") for what in ("COUNT", "VALUE_LENGTH")
    ),
    "metrics": (),
}


@attrs.frozen
class Batches:
    """How spans or log records are sent in batches.

    Args:
        delay: Milliseconds between two exports.
        queue: How many may wait for export; any beyond that are dropped.
        size: How many are sent in one batch.
        timeout: Milliseconds for one export.

    """

    delay: int = SOON
    queue: int = RECORDS[0]
    size: int = RECORDS[1]
    timeout: int = PATIENCE


@attrs.frozen
class Sdk:
    """The settings of the SDK.

    Args:
        spans: The batches of spans.
        records: The batches of log records.
        interval: Milliseconds between two exports of metrics.
        timeout: Milliseconds for one export of metrics.

    """

    spans: Batches = Batches(queue=SPANS[0], size=SPANS[1])
    records: Batches = Batches()
    interval: int = INTERVAL
    timeout: int = PATIENCE


def read_sdk(environ: Mapping[str, str], otlp: Collection[str], signals: Collection[str], report: Report) -> Sdk:
    """Return the settings, with defaults instead of wrong values.

    Args:
        environ: The environment.
        otlp: The signals that are exported by OTLP: "traces", "metrics", "logs".
        signals: All exported signals; variables that concern only other signals are not checked.
        report: Called with each problem.

    """
    values = _Values(environ, report)
    made = Sdk()
    if "traces" in signals:
        made = attrs.evolve(made, spans=_batches(values, "BSP", *SPANS))
        values.choice("TRACES_SAMPLER")
        if values.text("TRACES_SAMPLER").lower().endswith("traceidratio"):
            values.share("TRACES_SAMPLER_ARG")
    if "logs" in signals:
        made = attrs.evolve(made, records=_batches(values, "BLRP", *RECORDS))
    if "metrics" in signals:
        interval = values.whole("METRIC_EXPORT_INTERVAL", INTERVAL, 1, "milliseconds")
        made = attrs.evolve(made, interval=interval, timeout=_timeout(values, "METRIC_EXPORT_TIMEOUT"))
        values.choice("EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE")
        values.choice("EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION")
    values.choice("METRICS_EXEMPLAR_FILTER", exactly=True)  # read for `/metrics` too
    for name in sorted({name for signal in signals for name in _LIMITS[signal]}):
        values.whole(name, 0, 0, "")
    if signals:
        values.pairs("RESOURCE_ATTRIBUTES", secret=False)
        values.propagators("PROPAGATORS")
    for scope in [*(f"EXPORTER_OTLP_{signal.upper()}" for signal in otlp), *(["EXPORTER_OTLP"] if otlp else [])]:
        _check_connection(values, scope)
    return made


def _check_connection(values: _Values, scope: str) -> None:
    values.choice(f"{scope}_COMPRESSION", ("none", "gzip", "deflate"))
    values.pairs(f"{scope}_HEADERS", secret=True)
    for what in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"):
        values.file(f"{scope}_{what}")


def _timeout(values: _Values, name: str) -> int:
    return values.whole(name, PATIENCE, 0, "milliseconds")


def _batches(values: _Values, kind: str, queue: int, size: int) -> Batches:
    """Return the batch settings of "BSP" or "BLRP". If only the queue or the batch size is set, it limits the other."""
    delay = values.whole(f"{kind}_SCHEDULE_DELAY", SOON, 1, "milliseconds")
    timeout = _timeout(values, f"{kind}_EXPORT_TIMEOUT")
    queue_name, size_name = f"{kind}_MAX_QUEUE_SIZE", f"{kind}_MAX_EXPORT_BATCH_SIZE"
    queue_set, size_set = values.whole(queue_name, 0, 1, ""), values.whole(size_name, 0, 1, "")
    if queue_set and size_set > queue_set:
        what = f"is {size_set}, more than OTEL_{queue_name} ({queue_set})"
        values.report(ConfigError(what, where=f"OTEL_{size_name}", hint="a batch cannot be larger than the queue"))
    return Batches(delay, queue_set or max(queue, size_set), size_set or min(size, queue_set or size), timeout)


@attrs.frozen
class _Values:
    """Reads values of different kinds, by name without ``OTEL_``, and reports wrong ones."""

    environ: Mapping[str, str]
    report: Report

    def text(self, name: str) -> str:
        return self.environ.get(f"OTEL_{name}", "").strip()

    def _refuse(self, name: str, hint: str, what: str = "") -> None:
        self.report(ConfigError(what or f"is {self.text(name)!r}", where=f"OTEL_{name}", hint=hint))

    def whole(self, name: str, default: int, least: int, unit: str) -> int:
        """Return a whole number, which must be at least *least*."""
        text = self.text(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= MOST):
            of = f" of {unit}" if unit else ""
            self._refuse(name, f"expected a whole number{of}, from {least} to {MOST}")
            return default
        return int(text)

    def share(self, name: str) -> None:
        """Check that the value is a number from 0 to 1."""
        try:
            right = not self.text(name) or 0 <= float(self.text(name)) <= 1
        except ValueError:
            right = False
        if not right:
            self._refuse(name, "expected a number from 0 to 1")

    def choice(self, name: str, known: Collection[str] = (), *, exactly: bool = False) -> None:
        """Check that the value is one of the *known* words, in any case unless *exactly*."""
        known = known or _CHOICES[name]
        text = self.text(name) if exactly else self.text(name).lower()
        if text and text not in known:
            self._refuse(name, f"expected one of {', '.join(known)}")

    def pairs(self, name: str, *, secret: bool) -> None:
        """Check that the value is a list of names and values, such as ``a=1,b=2``."""
        wrong = next((pair for pair in self.text(name).split(",") if pair.strip() and not pair.partition("=")[1]), "")
        if wrong:
            what = "has a part without '='" if secret else f"has the part {wrong.strip()!r}, which has no '='"
            self._refuse(name, "expected name=value, with commas between several", what)

    def file(self, name: str) -> None:
        """Check that the value is the path of an existing file."""
        if self.text(name) and not os.path.isfile(self.text(name)):  # noqa: PTH113  (pathlib costs 5 ms)
            self._refuse(name, "expected the path of an existing file")

    def propagators(self, name: str) -> None:
        """Check that the value names installed propagators."""
        names = {part.strip() for part in self.text(name).split(",")} - {"", "tracecontext", "baggage", "none"}
        if names:
            from importlib.metadata import entry_points

            known = {found.name for found in entry_points(group="opentelemetry_propagator")}
            if unknown := sorted(names - known):
                hint = f"expected {', '.join(sorted(known | {'none'}))}, or install the package that provides it"
                self._refuse(name, hint, f"is {self.text(name)!r}: unknown propagator {unknown[0]!r}")
