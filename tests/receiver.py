"""An OTLP receiver: takes what an exporter sends over HTTP as protobuf, as a collector would, and keeps it.

A collector may also be down: `Receiver.mood` has it refuse with a status, or hang.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

PATIENCE = 15.0  # seconds after which what does not come is a failure
ERROR = 2  # the status of a span that failed, in the protocol
HANG = -1  # the mood in which no answer comes


def plain(value: AnyValue) -> Any:
    """The value of an attribute."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes by name."""
    return {pair.key: plain(pair.value) for pair in pairs}


def _context(ids: tuple[bytes, bytes]) -> SpanContext:
    """What identifies a span."""
    trace, span = ids
    return SpanContext(int.from_bytes(trace), int.from_bytes(span), is_remote=True)


@attrs.frozen
class Received:
    """A span, with the resource that it came under.

    Args:
        at: When it came, in seconds on the monotonic clock.
        resource: The attributes of its resource.
        raw: The span of the protocol.

    """

    at: float
    resource: dict[str, Any]
    raw: Any

    @property
    def service(self) -> str:
        """Under whose name it appears."""
        return str(self.resource["service.name"])

    @property
    def label(self) -> str:
        """Whose it is, and what."""
        return f"{self.service} {self.raw.name}"

    @property
    def attributes(self) -> dict[str, Any]:
        """Its attributes."""
        return attributes(self.raw.attributes)

    @property
    def ids(self) -> tuple[bytes, bytes]:
        """Trace and span."""
        return self.raw.trace_id, self.raw.span_id

    @property
    def parent(self) -> tuple[bytes, bytes] | None:
        """Trace and span of its parent."""
        return (self.raw.trace_id, self.raw.parent_span_id) if self.raw.parent_span_id else None

    @property
    def links(self) -> list[tuple[bytes, bytes]]:
        """Trace and span of each link."""
        return [(link.trace_id, link.span_id) for link in self.raw.links]

    @property
    def readable(self) -> ReadableSpan:
        """The span as the SDK has it, with what a viewer draws its critical path from."""
        return ReadableSpan(
            self.raw.name,
            _context(self.ids),
            _context(self.parent) if self.parent else None,
            Resource({"service.name": self.service}),
            start_time=self.raw.start_time_unix_nano,
            end_time=self.raw.end_time_unix_nano,
        )

    @property
    def failed(self) -> bool:
        """Whether its status is an error."""
        return bool(self.raw.status.code == ERROR)

    @property
    def exceptions(self) -> list[dict[str, Any]]:
        """The exceptions that it tells of."""
        return [attributes(event.attributes) for event in self.raw.events if event.name == "exception"]


@attrs.define
class Receiver:
    """What was received so far."""

    url: str
    mood: int = 200  # the status of each answer, or HANG
    only: str = ""  # the one path that it takes, if there is but one
    spans: list[Received] = attrs.field(factory=list)
    logs: list[tuple[dict[str, Any], Any]] = attrs.field(factory=list)
    metrics: list[tuple[dict[str, Any], Any]] = attrs.field(factory=list)
    requests: int = 0
    bodies: list[bytes] = attrs.field(factory=list)
    _news: threading.Condition = attrs.field(factory=threading.Condition)

    def take(self, path: str, body: bytes) -> None:
        """Keep what was sent to *path*."""
        request: Any
        with self._news:
            self.bodies.append(body)
            if path.endswith("/v1/traces"):
                request = ExportTraceServiceRequest.FromString(body)
                for group in request.resource_spans:
                    resource = attributes(group.resource.attributes)
                    for scope in group.scope_spans:
                        self.spans += [Received(time.monotonic(), resource, span) for span in scope.spans]
            elif path.endswith("/v1/logs"):
                request = ExportLogsServiceRequest.FromString(body)
                for group in request.resource_logs:
                    resource = attributes(group.resource.attributes)
                    self.logs += [(resource, one) for scope in group.scope_logs for one in scope.log_records]
            else:
                request = ExportMetricsServiceRequest.FromString(body)
                for group in request.resource_metrics:
                    resource = attributes(group.resource.attributes)
                    self.metrics += [(resource, one) for scope in group.scope_metrics for one in scope.metrics]
            self._news.notify_all()

    def wait_for(self, what: Callable[[Receiver], object]) -> None:
        """Wait until *what* holds."""
        with self._news:
            came = self._news.wait_for(lambda: what(self), PATIENCE)
        assert came, f"it did not come; there are {sorted(one.label for one in self.spans)}"

    def named(self, label: str) -> list[Received]:
        """The spans of that label, as in "database start", in their order."""
        return sorted((one for one in self.spans if one.label == label), key=lambda one: one.raw.start_time_unix_nano)

    def one(self, label: str) -> Received:
        """The one span of that label."""
        (found,) = self.named(label)
        return found


@contextmanager
def receiving(mood: int = 200) -> Iterator[Receiver]:
    """A receiver on a free port of loopback."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests += 1
            if receiver.mood == HANG:
                ended.wait()
                return
            status = 404 if receiver.only not in {"", self.path} else receiver.mood
            if status == 200:
                receiver.take(self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}", mood)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield receiver
        finally:
            ended.set()
            server.shutdown()
