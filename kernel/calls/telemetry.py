"""Spans and durations of calls, by OpenTelemetry's conventions for RPC. Imported only if something reads them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import attrs
from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from kernel.calls import wire
from kernel.errors import (
    BadRequest,
    CallFailed,
    ContractMismatch,
    DeadlineExceeded,
    Overloaded,
    Unavailable,
    text_of,
)

SYSTEM = "kernel"  # rpc.system.name
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Bounds of the histograms: from a call within a machine to one that takes as long as the usual deadline."""


@attrs.define(eq=False)
class CallSpan:
    """One side of one call."""

    span: Span
    server: bool
    status: str = wire.OK
    error: str = ""

    def inject(self, headers: dict[str, str]) -> None:
        """Add the trace to *headers*, for the other side."""
        propagate.inject(headers)

    def ended(self, status: str, words: str, error: BaseException | None = None) -> None:
        """Record how the call ended.

        Args:
            status: Its status on the wire.
            words: The message of its error.
            error: What was raised; None for nothing.

        """
        self.status = status
        self.error = type(error).__name__ if error is not None else status
        if isinstance(error, Exception):
            self.span.record_exception(error)
        # To the called side, a declared error is an answer as good as any.
        if status not in ({wire.OK, wire.RAISED} if self.server else {wire.OK}):
            self.span.set_status(Status(StatusCode.ERROR, words))

    def raised(self, error: BaseException) -> None:
        """Record how the call ended, by what it raised where its caller is."""
        if not isinstance(error, Exception):  # it was cancelled, which is no error
            self.status, self.error = wire.FAILED, type(error).__name__
            return
        real = error.__cause__ if self.server and isinstance(error, CallFailed) else error
        status = STATUSES.get(type(error), wire.RAISED)
        self.ended(status, text_of(error), real)


STATUSES = {
    CallFailed: wire.FAILED,
    BadRequest: wire.BAD_REQUEST,
    Overloaded: wire.OVERLOADED,
    DeadlineExceeded: wire.LATE,
    Unavailable: "unavailable",
    ContractMismatch: "contract-mismatch",
}
"""The status of each error of a call; that of any other error is that it was declared."""


class Telemetry:
    """Makes spans if traces are exported, and records durations if metrics are read."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("kernel.calls")
        self._meter = meter = metrics.get_meter("kernel.calls")
        self._durations = {
            kind: meter.create_histogram(
                f"rpc.{kind}.call.duration",
                "s",
                f"Time that calls took, as their {kind} saw it",
                explicit_bucket_boundaries_advisory=SECONDS,
            )
            for kind in ("client", "server")
        }

    def watch(self, name: str, text: str, count: Callable[[], Mapping[str, int]]) -> None:
        """Add a number that is looked up when metrics are collected: *count* returns it for each service."""

        def observe(_: metrics.CallbackOptions) -> list[metrics.Observation]:
            return [metrics.Observation(number, {"service": service}) for service, number in count().items()]

        self._meter.create_observable_gauge(name, [observe], "{call}", text)

    @contextlib.contextmanager
    def client(self, service: str, method: str, server: str = "") -> Generator[CallSpan]:
        """Record the caller's side of a call; *server* is the NATS server's address, empty within a process."""
        more = {}
        if server:
            host, _, port = server.rpartition(":")
            more = {"server.address": host or server, **({"server.port": int(port)} if port.isdigit() else {})}
        with self._call("client", SpanKind.CLIENT, service, method, more) as span:
            yield span

    @contextlib.contextmanager
    def server(self, service: str, method: str, headers: Mapping[str, str] | None = None) -> Generator[CallSpan]:
        """Record the called side; *headers* have the caller's trace, None if it is the current one."""
        context = propagate.extract(headers) if headers is not None else None
        with self._call("server", SpanKind.SERVER, service, method, {}, context=context) as span:
            yield span

    @contextlib.contextmanager
    def _call(
        self,
        side: str,
        kind: SpanKind,
        service: str,
        method: str,
        more: Mapping[str, Any],
        *,
        context: Any = None,
    ) -> Generator[CallSpan]:
        attributes = {"rpc.system.name": SYSTEM, "rpc.method": f"{service}/{method}", **more}
        began = time.perf_counter()
        span = self._tracer.start_span(f"{service}/{method}", context, kind, attributes)
        call = CallSpan(span, server=side == "server")
        try:
            # A span ended by a cancellation says so; an exception is recorded here, and not a second time.
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield call
        except BaseException as error:
            call.raised(error)
            raise
        finally:
            ended = {"rpc.response.status_code": call.status}
            if call.status != wire.OK:
                ended["error.type"] = call.error
            span.set_attributes(ended)
            span.end()
            self._durations[side].record(time.perf_counter() - began, {**attributes, **ended})
