"""One trace over all hops, in one process and in several, by the conventions for RPC."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kernel import (
    BadRequest,
    CallFailed,
    ContractMismatch,
    DeadlineExceeded,
    Overloaded,
    Serving,
    Unavailable,
    service,
)
from kernel.calls.proxy import Proxy
from kernel.calls.telemetry import Telemetry
from tests.calls.conftest import App, apps, until
from tests.calls.scene import BY_REFERENCE, SCRIPT, NoSuchUser, Users, UsersHere, hops, play, users_of, web_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """All spans of calls."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer", provider.get_tracer)
    return exporter


web, middle = hops()


def chain(spans: list[ReadableSpan]) -> list[tuple[str, str]]:
    """The spans of one trace from its root on, each the only child of the one before: names and kinds."""
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    by_parent = {span.parent.span_id if span.parent else None: span for span in spans}
    found, parent = [], None
    while parent in by_parent:
        span = by_parent[parent]
        found.append((span.name, span.kind.name))
        assert span.context is not None
        parent = span.context.span_id
    return found


WANTED = [("middle/get", "CLIENT"), ("middle/get", "SERVER"), ("users/get", "CLIENT"), ("users/get", "SERVER")]


async def test_one_trace_in_one_process_and_in_three(nats: str, prefix: str, spans: InMemorySpanExporter) -> None:
    """The same spans, whatever runs where."""
    users = users_of(UsersHere())
    together = App((web, middle, users), nats, prefix, telemetry=True)
    async with apps(together):
        await together.value("web").get(3)
    assert chain(list(spans.get_finished_spans())) == WANTED
    spans.clear()
    one, *others = (App((each,), nats, prefix, telemetry=True) for each in (web, middle, users))
    async with apps(one, *others):
        await one.value("web").get(3)
        await until(lambda: len(spans.get_finished_spans()) == 4)
    found = list(spans.get_finished_spans())
    assert chain(found) == WANTED
    client = next(span for span in found if span.name == "users/get" and span.kind.name == "CLIENT")
    assert dict(client.attributes or {}) == {
        "rpc.system.name": "kernel",
        "rpc.method": "users/get",
        "rpc.response.status_code": "ok",
        "server.address": "127.0.0.1",
        "server.port": int(nats.rpartition(":")[2]),
    }


def told(spans: Sequence[ReadableSpan]) -> list[list[tuple[object, ...]]]:
    """What each trace tells of its calls, in order, but for where they went."""
    traces: dict[int, list[tuple[object, ...]]] = {}
    for span in sorted(spans, key=lambda span: span.start_time or 0):
        assert span.context is not None
        attributes = {name: value for name, value in (span.attributes or {}).items() if not name.startswith("server.")}
        events = [(event.name, (event.attributes or {}).get("exception.type")) for event in span.events]
        about = (span.name, span.kind.name, attributes, span.status.status_code.name, bool(span.parent))
        traces.setdefault(span.context.trace_id, []).append((*about, events if span.kind.name == "SERVER" else []))
    return list(traces.values())


async def test_the_same_traces_wherever_it_runs(nats: str, prefix: str, spans: InMemorySpanExporter) -> None:
    """Of each call of the script, in one process, split in two, and split in three with two instances."""
    found: dict[str, list[Any]] = {}
    for how, instances in (("local", 0), ("checked", 0), ("two", 1), ("three", 2)):
        spans.clear()

        def app(*services: Any, how: str = how) -> App:
            return App(services, nats, f"{prefix}-{how}", telemetry=True, dev=how == "checked")

        here = () if instances else (users_of(UsersHere()),)
        caller, *others = app(web_of(), *here), *(app(users_of(UsersHere())) for _ in range(instances))
        async with apps(caller, *others):
            await play(caller.value("web"))
        found[how] = told(spans.get_finished_spans())
        assert len(found[how]) == len(SCRIPT)
    assert found["two"] == found["three"] == found["checked"]
    assert without(found["local"]) == without(found["checked"])


def without(played: list[Any]) -> list[Any]:
    """What is passed by reference is not looked at, so these calls of the script end in another way."""
    return [call for index, call in enumerate(played) if index not in BY_REFERENCE]


async def test_errors_in_spans(nats: str, prefix: str, spans: InMemorySpanExporter) -> None:
    """A failure names its kind, and its caller gets the trace's id; a declared error is an answer."""
    callers = App((web,), nats, prefix, telemetry=True)

    @service
    async def middle(serving: Serving[Users]) -> None:
        async with serving(UsersHere()):
            await anyio.sleep_forever()

    async with apps(callers, App((middle,), nats, prefix, telemetry=True)):
        users = callers.value("web")
        assert isinstance(users, Proxy)
        with pytest.raises(NoSuchUser):
            await users.get(0)  # type: ignore[attr-defined]
        with pytest.raises(CallFailed) as caught:
            await users.fail("value")  # type: ignore[attr-defined]
        await until(lambda: len(spans.get_finished_spans()) == 4)
    about = {(span.name, span.kind.name): dict(span.attributes or {}) for span in spans.get_finished_spans()}
    assert about["middle/get", "SERVER"]["rpc.response.status_code"] == "error"
    assert about["middle/fail", "SERVER"]["error.type"] == "ValueError"
    assert about["middle/fail", "CLIENT"]["error.type"] == "CallFailed"
    traces = {f"{span.context.trace_id:032x}" for span in spans.get_finished_spans() if span.context}
    assert caught.value.trace_id in traces


# -- one span ----------------------------------------------------------------------------------------------------


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    """All numbers of calls."""
    reader = InMemoryMetricReader()
    monkeypatch.setattr("opentelemetry.metrics.get_meter", MeterProvider([reader]).get_meter)
    return reader


def points(numbers: InMemoryMetricReader, name: str) -> list[Any]:
    """What was measured under a name."""
    data = numbers.get_metrics_data()
    assert data is not None
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return [
        point
        for scope in scopes
        if scope.scope.name == "kernel.calls"
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def spent(telemetry: Telemetry, side: str, error: BaseException | None) -> None:
    """Do what a call does that ends with *error*."""
    begin: Any = telemetry.client if side == "client" else telemetry.server

    def call() -> None:
        if error is not None:
            raise error

    with contextlib.suppress(BaseException), begin("users", "get"):
        call()


CAUSED = CallFailed("users", "get", "bad", "ValueError")
CAUSED.__cause__ = ValueError("bad")
BARE = CallFailed("users", "get", "cancelled from within")


ENDS: list[tuple[str, BaseException | None, str, str | None, str]] = [
    ("client", None, "ok", None, "UNSET"),
    ("server", None, "ok", None, "UNSET"),
    ("client", NoSuchUser(1), "error", "NoSuchUser", "ERROR"),
    ("server", NoSuchUser(1), "error", "NoSuchUser", "UNSET"),
    ("client", CAUSED, "failed", "CallFailed", "ERROR"),
    ("server", CAUSED, "failed", "ValueError", "ERROR"),
    ("server", BARE, "failed", "failed", "ERROR"),
    ("client", BadRequest("users", "get", "x"), "bad-request", "BadRequest", "ERROR"),
    ("client", Overloaded("users", "get", "x"), "overloaded", "Overloaded", "ERROR"),
    ("client", DeadlineExceeded("users", "get", "x"), "deadline-exceeded", "DeadlineExceeded", "ERROR"),
    ("client", Unavailable("users", "get", "x"), "unavailable", "Unavailable", "ERROR"),
    ("client", ContractMismatch("users", "get", "x"), "contract-mismatch", "ContractMismatch", "ERROR"),
    ("client", KeyboardInterrupt(), "failed", "KeyboardInterrupt", "UNSET"),
    ("server", SystemExit(3), "failed", "SystemExit", "UNSET"),
]


@pytest.mark.parametrize("end", ENDS, ids=range(len(ENDS)))
def test_each_end_of_a_span(end: Any, spans: InMemorySpanExporter, numbers: InMemoryMetricReader) -> None:
    """Its status, the kind of the error, whether it is one, and the exception, once; the duration has the same."""
    side, error, status, kind, color = end
    spent(Telemetry(), side, error)
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind.name) == ("users/get", side.upper())
    attributes = {"rpc.system.name": "kernel", "rpc.method": "users/get", "rpc.response.status_code": status}
    if kind is not None:
        attributes["error.type"] = kind
    assert dict(span.attributes or {}) == attributes
    assert span.status.status_code.name == color
    recorded = [str((event.attributes or {})["exception.type"]).rpartition(".")[2] for event in span.events]
    assert recorded == ([kind] if isinstance(error, Exception) and error is not BARE else [])
    if color == "ERROR":
        assert span.status.description
    (point,) = points(numbers, f"rpc.{side}.call.duration")
    assert dict(point.attributes) == attributes
    assert point.count == 1
    assert 0 <= point.sum < 30
    assert point.explicit_bounds == (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def test_an_end_that_is_told(spans: InMemorySpanExporter, numbers: InMemoryMetricReader) -> None:
    """By the side that answers: without an exception, the status is the kind of the error."""
    telemetry = Telemetry()
    for status, words, error in (
        ("ok", "", None),
        ("error", "no user", NoSuchUser(1)),
        ("bad-request", "id: expected int", None),
        ("failed", "SystemExit: 3", SystemExit(3)),
    ):
        with telemetry.server("users", "get", {}) as call:
            call.ended(status, words, error)
    told = [
        (span.attributes and span.attributes.get("error.type"), span.status.status_code.name, span.status.description)
        for span in spans.get_finished_spans()
    ]
    assert told == [
        (None, "UNSET", None),
        ("NoSuchUser", "UNSET", None),
        ("bad-request", "ERROR", "id: expected int"),
        ("SystemExit", "ERROR", "SystemExit: 3"),
    ]
    assert [len(span.events) for span in spans.get_finished_spans()] == [0, 1, 0, 0]
    assert sum(point.count for point in points(numbers, "rpc.server.call.duration")) == 4


@pytest.mark.parametrize(
    ("server", "attributes"),
    [
        ("", {}),
        ("here:4222", {"server.address": "here", "server.port": 4222}),
        ("[::1]:4222", {"server.address": "[::1]", "server.port": 4222}),
        ("here", {"server.address": "here"}),
    ],
)
def test_where_a_call_goes(server: str, attributes: dict[str, Any], spans: InMemorySpanExporter) -> None:
    """Within a process, nowhere."""
    with Telemetry().client("users", "get", server):
        pass
    (span,) = spans.get_finished_spans()
    found = {name: value for name, value in (span.attributes or {}).items() if name.startswith("server.")}
    assert found == attributes


def test_the_trace_travels_in_the_headers(spans: InMemorySpanExporter) -> None:
    """The called side continues it; without headers, it continues the current one, and with none, it begins one."""
    telemetry, headers = Telemetry(), dict[str, str]()
    with telemetry.client("users", "get") as call:
        call.inject(headers)
        assert trace.get_current_span() is call.span
        with telemetry.server("users", "get"):
            pass
    assert list(headers) == ["traceparent"]
    for given in (headers, {}):
        with telemetry.server("users", "get", given):
            pass
    inner, client, continued, alone = spans.get_finished_spans()
    assert client.context is not None
    assert [span.parent and span.parent.span_id for span in (inner, continued, alone)] == [
        client.context.span_id,
        client.context.span_id,
        None,
    ]


def test_numbers_that_are_looked_up(numbers: InMemoryMetricReader) -> None:
    """When they are collected, one for each service."""
    running = {"users": 2, "web": 0}
    Telemetry().watch("kernel.calls.running", "Calls that run", lambda: running)
    for _ in range(2):
        found = {point.attributes["service"]: point.value for point in points(numbers, "kernel.calls.running")}
        assert found == running
        running["users"] += 1
