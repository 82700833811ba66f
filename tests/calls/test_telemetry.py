"""One trace over all hops, in one process and in several, by the conventions for RPC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kernel import CallFailed, Serving, service
from kernel.calls.proxy import Proxy
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
