"""Read the settings of OpenTelemetry, with the names in its specification, without importing OpenTelemetry.

A signal is exported if its exporter or an endpoint is set; by default nothing is exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from kernel.config.otel_sdk import Sdk, read_sdk
from kernel.errors import ConfigError
from kernel.masking import mask

SIGNALS = ("traces", "metrics", "logs")
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
LOCAL = "http://localhost:4318"
TIMEOUT = 2.0  # default seconds for one export, so that a hanging collector is noticed soon

_BATCH = ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
_OTLP = (
    *("ENDPOINT", "PROTOCOL", "TIMEOUT", "HEADERS", "COMPRESSION", "INSECURE"),
    *("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"),
)

OTEL_VARIABLES = (
    *(f"OTEL_{name}" for name in ("SDK_DISABLED", "SERVICE_NAME", "RESOURCE_ATTRIBUTES", "PROPAGATORS", "LOG_LEVEL")),
    *(f"OTEL_TRACES_{name}" for name in ("SAMPLER", "SAMPLER_ARG")),
    *(f"OTEL_METRIC_{name}" for name in ("EXPORT_INTERVAL", "EXPORT_TIMEOUT")),
    "OTEL_METRICS_EXEMPLAR_FILTER",
    *(f"OTEL_{signal.upper()}_EXPORTER" for signal in SIGNALS),
    *(f"OTEL_{kind}_{what}" for kind in ("BSP", "BLRP") for what in _BATCH),
    *(f"OTEL_EXPORTER_OTLP_{what}" for what in _OTLP),
    *(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}" for signal in SIGNALS for what in _OTLP),
    *(f"OTEL_EXPORTER_OTLP_METRICS_{name}" for name in ("TEMPORALITY_PREFERENCE", "DEFAULT_HISTOGRAM_AGGREGATION")),
    *(f"OTEL_{prefix}ATTRIBUTE_COUNT_LIMIT" for prefix in ("", "SPAN_", "EVENT_", "LINK_", "LOGRECORD_")),
    *(f"OTEL_{prefix}ATTRIBUTE_VALUE_LENGTH_LIMIT" for prefix in ("", "SPAN_", "LOGRECORD_")),
    *(f"OTEL_SPAN_{kind}_COUNT_LIMIT" for kind in ("EVENT", "LINK")),
)
"""The variables of the specification, to distinguish correct names from near misses."""


@attrs.frozen
class Exports:
    """How one signal is exported.

    Args:
        otlp: Whether it is sent as OTLP over HTTP with protobuf.
        console: Whether it is written to stderr as text.
        endpoint: The collector's URL for this signal, for OTLP.
        timeout: Seconds for one export, retries included.

    """

    otlp: bool = False
    console: bool = False
    endpoint: str = ""
    timeout: float = TIMEOUT

    def __bool__(self) -> bool:
        return self.otlp or self.console

    @property
    def target(self) -> str:
        """The destination as shown to people: the endpoint without any secrets in it."""
        return mask(self.endpoint) if self.otlp else "stderr"


@attrs.frozen
class Otel:
    """What is exported.

    Args:
        traces: Spans.
        metrics: Metrics, in addition to those served at `ADMIN_ADDR`.
        logs: Log records, in addition to those on stderr.
        name: OTEL_SERVICE_NAME; empty to use the app's name.
        sdk: The settings of the SDK.

    """

    traces: Exports = attrs.field(factory=Exports)
    metrics: Exports = attrs.field(factory=Exports)
    logs: Exports = attrs.field(factory=Exports)
    name: str = ""
    sdk: Sdk = attrs.field(factory=Sdk)

    def __bool__(self) -> bool:
        return bool(self.traces or self.metrics or self.logs)


def read_otel(environ: Mapping[str, str]) -> tuple[Otel, list[ConfigError]]:
    """Return what to export, and an error for each wrong variable. A signal with a wrong variable is not exported."""
    errors: list[ConfigError] = []
    if _get(environ, "OTEL_SDK_DISABLED").lower() == "true":
        return Otel(), errors
    found = {signal: _read_signal(environ, signal, errors) for signal in SIGNALS}
    otlp, exported = ([signal for signal in SIGNALS if of(found[signal])] for of in (lambda signal: signal.otlp, bool))
    wrong: list[ConfigError] = []
    sdk = read_sdk(environ, otlp, exported, wrong.append)
    if wrong:
        found = {}  # nothing will run with these errors, and exporters could fail before they are reported
        errors += wrong
    once = {str(error): error for error in errors}  # an error that concerns all signals is reported once
    return Otel(**found, name=_get(environ, "OTEL_SERVICE_NAME"), sdk=sdk), list(once.values())


def _get(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()


def _read_signal(environ: Mapping[str, str], signal: str, errors: list[ConfigError]) -> Exports:
    named = f"OTEL_{signal.upper()}_EXPORTER"
    known = ("otlp", "console", "none", *(("prometheus",) if signal == "metrics" else ()))
    wanted = {word.strip().lower() for word in _get(environ, named).split(",")} - {""}
    if unknown := sorted(wanted - {*known}):
        what = f"is {_get(environ, named)!r}: unknown exporter {unknown[0]!r}"
        hint = f"expected {', '.join(known)}; a collector can convert OTLP for other backends"
        errors.append(ConfigError(what, where=named, hint=hint))
        return Exports()
    if "otlp" in wanted or (not wanted and _first(environ, signal, "ENDPOINT")[1]):
        return _read_otlp(environ, signal, errors, console="console" in wanted)
    return Exports(console="console" in wanted)


def _first(environ: Mapping[str, str], signal: str, what: str) -> tuple[str, str]:
    """Return the variable that sets *what* for this signal, and its text. The signal's own takes precedence."""
    names = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}")
    return next(((name, text) for name in names if (text := _get(environ, name))), ("", ""))


def _read_otlp(environ: Mapping[str, str], signal: str, errors: list[ConfigError], *, console: bool) -> Exports:
    before = len(errors)
    where, endpoint = _first(environ, signal, "ENDPOINT")
    protocol, spoken = _first(environ, signal, "PROTOCOL")
    if spoken not in {"", "http/protobuf"}:
        hint = "use http/protobuf; collectors accept it on port 4318"
        errors.append(ConfigError(f"is {spoken!r}", where=protocol, hint=hint))
    if endpoint and not endpoint.startswith(("http://", "https://")):
        errors.append(ConfigError(f"is {endpoint!r}", where=where, hint=f"expected a URL such as {LOCAL}"))
    timeout = _read_timeout(*_first(environ, signal, "TIMEOUT"), errors.append)
    if len(errors) > before:
        return Exports()
    if where in {"", ENDPOINT}:  # applies to all signals; a signal's own endpoint is used unchanged
        endpoint = f"{(endpoint or LOCAL).rstrip('/')}/v1/{signal}"
    return Exports(otlp=True, console=console, endpoint=endpoint, timeout=timeout)


def _read_timeout(name: str, text: str, report: Callable[[ConfigError], object]) -> float:
    """Return seconds. The variable is in milliseconds, as specified, although Python's SDK would read it as seconds."""
    if not text:
        return TIMEOUT
    if not text.isascii() or not text.isdigit() or not int(text):
        report(ConfigError(f"is {text!r}", where=name, hint="expected a whole number of milliseconds"))
        return TIMEOUT
    return int(text) / 1000
