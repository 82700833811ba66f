"""Describe the variables of OpenTelemetry for `app env`: the type, default and meaning of each."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from kernel.config.otel import LOCAL, OTEL_VARIABLES, SIGNALS, TIMEOUT


@attrs.frozen
class Described:
    """A variable that another project defines.

    Args:
        name: The variable.
        type: Its type, in words.
        default: Its default; empty for none.
        meaning: What it does, in a few words.
        common: Whether it is commonly set; the others are for fine tuning.

    """

    name: str
    type: str
    default: str
    meaning: str
    common: bool = False

    @property
    def secret(self) -> bool:
        """Whether its value must not be shown: a header may hold a password."""
        return self.name.endswith("_HEADERS")


_MS = "milliseconds"
_COMMON = {
    "OTEL_SDK_DISABLED": ("bool", "false", "`true` turns traces, metrics and logs off"),
    "OTEL_SERVICE_NAME": ("str", "the app's name", "what the app is called in telemetry"),
    "OTEL_RESOURCE_ATTRIBUTES": ("name=value list", "", "more about the app, such as deployment.environment.name=blue"),
    "OTEL_TRACES_EXPORTER": ("list", "otlp if an endpoint is set", "where traces go: otlp, console, none"),
    "OTEL_METRICS_EXPORTER": ("list", "otlp if an endpoint is set", "where metrics go: otlp, console, none"),
    "OTEL_LOGS_EXPORTER": ("list", "otlp if an endpoint is set", "where logs go, besides stderr: otlp, console, none"),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("URL", LOCAL, "the collector for all signals"),
    "OTEL_EXPORTER_OTLP_HEADERS": ("name=value list", "", "sent with each export, as in authorization=..."),
    "OTEL_EXPORTER_OTLP_TIMEOUT": (_MS, f"{TIMEOUT * 1000:g}", "the time for one export, retries included"),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("http/protobuf", "http/protobuf", "the protocol of the collector"),
    "OTEL_TRACES_SAMPLER": ("str", "parentbased_always_on", "which traces are recorded"),
    "OTEL_TRACES_SAMPLER_ARG": ("str", "", "the sampler's argument, such as 0.1 for traceidratio"),
    "OTEL_METRIC_EXPORT_INTERVAL": (_MS, "60000", "the time between two exports of metrics"),
}
_RARE = {
    "OTEL_PROPAGATORS": ("list", "tracecontext,baggage", "how the context travels to other processes"),
    "OTEL_LOG_LEVEL": ("str", "", "what OpenTelemetry itself logs"),
    "OTEL_METRIC_EXPORT_TIMEOUT": (_MS, "30000", "the time for one export of metrics"),
    "OTEL_METRICS_EXEMPLAR_FILTER": ("str", "trace_based", "which measurements become exemplars"),
    "OTEL_EXPORTER_OTLP_COMPRESSION": ("gzip | none", "none", "how exports are compressed"),
    "OTEL_EXPORTER_OTLP_INSECURE": ("bool", "false", "for gRPC only"),
    "OTEL_EXPORTER_OTLP_CERTIFICATE": ("path", "", "certificates to verify the collector with"),
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": ("path", "", "the key of the app's own certificate"),
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": ("path", "", "the app's own certificate"),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": ("str", "cumulative", "how sums are reported"),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": (
        "str",
        "explicit_bucket_histogram",
        "how histograms are reported",
    ),
}
_BATCHES = {
    "SCHEDULE_DELAY": (_MS, "the time between two exports of {}", "1000", "1000"),
    "EXPORT_TIMEOUT": (_MS, "the time for one export of {}", "30000", "30000"),
    "MAX_QUEUE_SIZE": ("int", "how many {} may wait for export", "65536", "2048"),
    "MAX_EXPORT_BATCH_SIZE": ("int", "how many {} are exported at once", "1024", "512"),
}
"""Type, meaning, and the defaults for spans and for log records."""

_WHOSE = {
    "": "a span, event, link or log record",
    "SPAN_": "a span",
    "EVENT_": "an event",
    "LINK_": "a link",
    "LOGRECORD_": "a log record",
}


def otel_table() -> Iterator[Described]:
    """Return every variable in `OTEL_VARIABLES`, common ones first."""
    for name, row in _COMMON.items():
        yield Described(name, *row, common=True)
    for name in OTEL_VARIABLES:
        if name not in _COMMON:
            yield Described(name, *(_RARE.get(name) or _by_pattern(name)))


def _by_pattern(name: str) -> tuple[str, str, str]:
    for signal in SIGNALS:
        prefix = f"OTEL_EXPORTER_OTLP_{signal.upper()}_"
        if name.startswith(prefix):
            general = f"OTEL_EXPORTER_OTLP_{name.removeprefix(prefix)}"
            tp, _, meaning = (_COMMON | _RARE)[general]
            return tp, f"the value of {general}", f"for {signal} alone: {meaning}"
    for prefix, what in (("OTEL_BSP_", "spans"), ("OTEL_BLRP_", "log records")):
        if name.startswith(prefix):
            tp, meaning, *default = _BATCHES[name.removeprefix(prefix)]
            return tp, default[what != "spans"], meaning.format(what)
    whose, attribute, what = name.removeprefix("OTEL_").partition("ATTRIBUTE_")
    if what == "VALUE_LENGTH_LIMIT":
        return "int", "", f"how long the value of an attribute of {_WHOSE[whose]} may be"
    if attribute:
        return "int", "128", f"how many attributes {_WHOSE[whose]} may have"
    return "int", "128", f"how many {name.split('_')[2].lower()}s a span may have"
