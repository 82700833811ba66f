"""Export spans, metrics and log records by OpenTelemetry's SDK. Imported only if something is exported.

Nothing here may harm a service. Exporters run in their own threads, their errors about a collector that does not
answer become one warning, and at the end they get less than a second.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from kernel.config.otel import Exports, Otel
from kernel.config.otel_sdk import Batches
from kernel.errors import chain, encodable, text_of
from kernel.identity import Identity
from kernel.masking import shown
from kernel.observe.logs import LIFECYCLE, extras, logger
from kernel.observe.otel_resource import described, many_series, resource_of
from kernel.observe.plain import message_of
from kernel.observe.sayable import sayable_metrics, sayable_span
from kernel.observe.tracer import Dispatcher
from kernel.process.contain import contained, say_once

NOT_TAKEN = frozenset({404, 405, 415, 501})
"""HTTP statuses of a collector that does not accept a signal at all, such as Jaeger, which rejects metrics."""
LAST = 0.8  # seconds to send the remaining items at the end; with the rest of the exit it takes at most one more


class Delivery:
    """Counts the items of one signal: created, sent, lost.

    Args:
        what: What an item is called: "span".
        target: Where it is sent, as shown to people.
        variable: The variable that configures the signal's exporter.

    """

    def __init__(self, what: str, target: str, variable: str = "") -> None:
        self.what, self.target, self.variable = what, target, variable
        self.failing = False
        self.refused = False  # the collector does not accept this signal: stop sending, and count nothing as lost
        self.status = 0  # the HTTP status of the latest response
        self.reason = ""
        self._made = self._sent = 0
        self._lock = threading.Lock()

    def made(self, number: int = 1) -> None:
        """Add *number* items that should be sent."""
        with self._lock:
            self._made += number

    @property
    def unsent(self) -> int:
        """Return how many items have not been sent (yet)."""
        return 0 if self.refused else max(self._made - self._sent, 0)

    def send(self, export: Callable[[], Any], number: int) -> Any:
        """Call *export* for *number* items and return its result. Log when exports begin to fail, and when they work.

        Return None without a call if the collector does not accept the signal.
        """
        if self.refused:
            return None
        _current.delivery = self
        self.reason, self.status = "", 0
        result = None
        try:
            result = export()
        except Exception as error:  # noqa: BLE001  (an exporter's failure must not reach a service)
            self.reason = f"{type(error).__name__}: {error}"
        finally:
            _current.delivery = None
        done = result is not None and result.name == "SUCCESS"
        if done:
            with self._lock:
                self._sent += number
        if not done and self.status in NOT_TAKEN and not self._sent:  # after a success it means a different problem
            self.refused = True
            done = True
            logger.warning(
                "%s does not accept %ss (HTTP %d), so none are sent; set %s=none to turn them off",
                *(self.target, self.what, self.status, self.variable),
            )
        if done == self.failing:
            self.failing = not done
            _told.say(self)
        return result

    def answered(self, response: Any, *_: object, **__: object) -> None:
        """Record the status of an HTTP response."""
        self.status = response.status_code


class _Current(threading.local):
    """The delivery that the current thread is exporting for."""

    delivery: Delivery | None = None


_current = _Current()


class _Told:
    """Logs once that a collector does not respond, for all signals together, and once that it responds again."""

    def __init__(self) -> None:
        self._silent: set[Delivery] = set()
        self._lock = threading.Lock()

    def say(self, delivery: Delivery) -> None:
        with self._lock:
            before = bool(self._silent)
            (self._silent.add if delivery.failing else self._silent.discard)(delivery)
            after = bool(self._silent)
            if delivery.refused:
                return  # this was logged already
        if after and not before:
            reason = f": {delivery.reason}" if delivery.reason else ""
            logger.warning(
                "%ss cannot be sent to %s%s; nothing else is affected", delivery.what, delivery.target, reason
            )
        elif before and not after:
            logger.info("%ss are sent to %s again", delivery.what, delivery.target)


_told = _Told()


class _Exporters(logging.Handler):
    """Handles records of the SDK and its exporters: during an export they are its error, otherwise they are logged."""

    def emit(self, record: logging.LogRecord) -> None:
        delivery = _current.delivery
        if delivery is None:
            logging.getLogger().handle(record)
        elif not delivery.reason and record.levelno >= logging.WARNING:
            delivery.reason = _reason(record)


def _reason(record: logging.LogRecord) -> str:
    """Return the cause of a failed export from the exporter's verbose record."""
    first = next((arg for arg in (record.args or ()) if isinstance(arg, BaseException)), None)
    errors = [*chain(first, "__cause__", "__context__")]
    return f"{type(errors[-1]).__name__}: {errors[-1]}" if errors else record.getMessage()


def counted(exporter: Any, delivery: Delivery, *, at_once: bool = False) -> Any:
    """Wrap *exporter* to count its deliveries; with *at_once*, also count the items when they are exported."""
    inner = exporter.export

    def export(batch: Any, *args: Any, **kwargs: Any) -> Any:
        number = 1 if at_once else len(batch)
        if at_once:
            delivery.made()
            batch = sayable_metrics(batch)
        else:
            batch = [sayable_span(span) for span in batch]
        return delivery.send(lambda: inner(batch, *args, **kwargs), number)

    exporter.export = export
    return exporter


def _line(item: Any) -> str:
    """Return *item* as one line for the console, since a program may read stderr."""
    return f"{item.to_json(indent=None)}\n"


def _settings(batches: Batches) -> dict[str, Any]:
    return {
        "schedule_delay_millis": batches.delay,
        "max_queue_size": batches.queue,
        "max_export_batch_size": batches.size,
        "export_timeout_millis": batches.timeout,
    }


class _CountSpans(SpanProcessor):
    """Counts the spans to send."""

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self._deliveries = deliveries

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            for delivery in self._deliveries:
                delivery.made()


def _makers() -> tuple[Any, ...]:
    """Import in advance what a record needs: file descriptors may have run out when the first record is logged."""
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import ReadWriteLogRecord
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    return LogRecord, SeverityNumber, ReadWriteLogRecord, InstrumentationScope


def _attribute(value: object) -> str | bool | int | float:
    if isinstance(value, bool | float) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    return shown(text_of(value))


class LogExporter(logging.Handler):
    """Passes log records to OpenTelemetry, under the name of each record's service.

    Args:
        emit: Takes a record of the SDK.
        resource: Returns the resource of a service, or of the app if the name is empty.

    """

    def __init__(self, emit: Callable[[Any], object], resource: Callable[[str], Any]) -> None:
        super().__init__()
        self._emit, self._resource = emit, resource
        self._make = _makers()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass *record* on, unless an export itself has logged it, which would never end."""
        if _current.delivery is None:
            try:
                self._emit(self._made_of(record))
            except Exception as error:  # noqa: BLE001  (logging must not fail for the caller)
                say_once("the export of a log record", error)

    def _made_of(self, record: logging.LogRecord) -> Any:
        """Convert *record* to OpenTelemetry's record."""
        log_record, severity_number, read_write, scope = self._make
        attributes: dict[str, Any] = {name: _attribute(value) for name, value in extras(record).items()}
        for name in LIFECYCLE & attributes.keys() if record.name == logger.name else ():
            attributes[f"kernel.{name}"] = attributes.pop(name)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            attributes |= described(error)
        severity = min(record.levelno // 10 * 4 + 1, 21) if record.levelno >= logging.DEBUG else 1
        made = log_record(
            timestamp=int(record.created * 1e9),
            observed_timestamp=time.time_ns(),
            severity_number=severity_number(severity),
            severity_text=record.levelname,
            body=encodable(message_of(record)),
            attributes=attributes,
        )
        ids = record.__dict__.get("trace_id"), record.__dict__.get("span_id")
        if ids[0] and ids[1]:
            made.trace_id, made.span_id = int(ids[0], 16), int(ids[1], 16)
        resource = self._resource(record.__dict__.get("service") or "")
        return read_write(made, resource, scope(record.name))


class Telemetry:
    """Everything that is exported, from `start` to `end`.

    Args:
        otel: The settings from the environment.
        identity: The app.

    """

    def __init__(self, otel: Otel, identity: Identity) -> None:
        self._otel, self._identity = otel, identity
        self._deliveries: list[Delivery] = []
        self._ends: list[Callable[[], object]] = []
        self.dispatcher: Dispatcher | None = None
        self.log_handler: logging.Handler | None = None
        self.make_metric_readers: Callable[[], Sequence[Any]] = list  # called once, when the provider is created

    def _exporters(
        self, exports: Exports, variable: str, what: str, otlp: str, console: Callable[..., Any]
    ) -> list[tuple[Any, Delivery]]:
        """Return the exporters of one signal, each with its delivery.

        Args:
            exports: The configured exporters.
            variable: The variable that configures them.
            what: What an item is called.
            otlp: The OTLP exporter as "module:class", so that its module is loaded only if used.
            console: The exporter that prints.

        """
        made: list[tuple[Any, Delivery]] = []
        if exports.otlp:
            module, _, name = otlp.partition(":")
            exporter = getattr(import_module(f"opentelemetry.exporter.otlp.proto.http.{module}"), name)
            delivery = Delivery(what, exports.target, variable)
            options: dict[str, Any] = {"timeout": exports.timeout}
            if not any(name.endswith("_CREDENTIAL_PROVIDER") for name in os.environ):  # these provide a session
                options["session"] = import_module("requests").Session()
                options["session"].hooks["response"].append(delivery.answered)
            made.append((exporter(exports.endpoint, **options), delivery))
        if exports.console:
            made.append((console(out=sys.stderr, formatter=_line), Delivery(what, "stderr")))
        self._deliveries += [delivery for _, delivery in made]
        return made

    def resource(self, service: str) -> Any:
        """Return the resource of a service, or of the app if the name is empty."""
        return resource_of(self._identity, service)

    def start(self) -> None:
        """Set up the exports, and register as the providers of OpenTelemetry's API."""
        for name in ("opentelemetry.exporter", "opentelemetry.sdk"):
            theirs = logging.getLogger(name)
            theirs.handlers[:], theirs.propagate = [_Exporters()], False
        if self._otel.traces:
            self._start_traces(self._otel.traces)
        if self._otel.metrics:
            self._start_metrics(self._otel.metrics)
        if self._otel.logs:
            self._start_logs(self._otel.logs)

    def _start_traces(self, exports: Exports) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

        made = self._exporters(
            exports, "OTEL_TRACES_EXPORTER", "span", "trace_exporter:OTLPSpanExporter", ConsoleSpanExporter
        )
        self.dispatcher = Dispatcher(self.resource)
        self.dispatcher.add_span_processor(_CountSpans([delivery for _, delivery in made]))
        for exporter, delivery in made:
            processor = BatchSpanProcessor(counted(exporter, delivery), **_settings(self._otel.sdk.spans))
            self.dispatcher.add_span_processor(processor)
            self._ends.append(processor.shutdown)
        trace.set_tracer_provider(self.dispatcher)

    def _start_metrics(self, exports: Exports) -> None:
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

        made = self._exporters(
            exports,
            "OTEL_METRICS_EXPORTER",
            "metric report",
            "metric_exporter:OTLPMetricExporter",
            ConsoleMetricExporter,
        )
        limits = many_series()

        def make() -> list[PeriodicExportingMetricReader]:
            # Its thread collects from now on, and the SDK complains until a provider has taken the reader.
            readers = [
                PeriodicExportingMetricReader(
                    counted(exporter, to, at_once=True),
                    export_interval_millis=self._otel.sdk.interval,
                    export_timeout_millis=self._otel.sdk.timeout,
                    cardinality_limits=limits,
                )
                for exporter, to in made
            ]
            self._ends += [reader.shutdown for reader in readers]
            return readers

        self.make_metric_readers = make

    def _start_logs(self, exports: Exports) -> None:
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter

        made = self._exporters(
            exports, "OTEL_LOGS_EXPORTER", "log record", "_log_exporter:OTLPLogExporter", ConsoleLogRecordExporter
        )
        settings = _settings(self._otel.sdk.records)
        processors = [(BatchLogRecordProcessor(counted(exporter, to), **settings), to) for exporter, to in made]
        self._ends += [processor.shutdown for processor, _ in processors]

        def emit(record: Any) -> None:
            for processor, delivery in processors:
                delivery.made()
                processor.on_emit(record)

        self.log_handler = LogExporter(emit, self.resource)

    def end(self) -> str:
        """Send the remaining items, for at most `LAST` seconds. Say what was not sent; empty if everything was."""
        until = time.monotonic() + LAST
        threads = [threading.Thread(target=end, daemon=True) for end in self._ends]
        for thread in threads:
            with contained("the last export"):
                thread.start()
        for thread in threads:
            if thread.ident is not None:  # None if the thread could not be started
                thread.join(max(until - time.monotonic(), 0))
        unsent: dict[str, int] = {}
        for delivery in self._deliveries:
            unsent[delivery.what] = unsent.get(delivery.what, 0) + delivery.unsent
        return ", ".join(f"{number} {what}{'s' * (number != 1)}" for what, number in unsent.items() if number)
