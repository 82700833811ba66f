"""The lifecycle as spans, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from kernel.context import current_service
from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import StartTimeout, StopTimeout, ValueLost
from kernel.lifecycle.events import State, Transition
from kernel.observe.spans import NAMES, SpanObserver
from kernel.observe.tracer import Dispatcher
from tests.harness import Lab, crash_after, hang

pytestmark = pytest.mark.anyio


class Spans:
    """What an observer made, by label: "service name"."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.dispatcher = Dispatcher(lambda name: Resource({"service.name": name or "app"}))
        self.dispatcher.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def all(self) -> list[ReadableSpan]:
        """All that have ended, in that order."""
        return list(self._exporter.get_finished_spans())

    def labels(self) -> list[str]:
        """Their labels."""
        return [f"{span.resource.attributes['service.name']!s} {span.name}" for span in self.all]

    def named(self, label: str) -> list[ReadableSpan]:
        """Those of that label."""
        return [span for span, one in zip(self.all, self.labels(), strict=True) if one == label]

    def one(self, label: str) -> ReadableSpan:
        """The one of that label."""
        (found,) = self.named(label)
        return found

    async def run(self, lab: Lab, *services: Any, **options: Any) -> None:
        """Run *services* with an observer."""
        observer = SpanObserver(self.dispatcher)
        await lab.run(*services, observers=[observer], **options)
        observer.end(lab.report.reason, lab.report.exit_code)


def parent(span: ReadableSpan) -> int | None:
    """The id of its parent."""
    return span.parent.span_id if span.parent is not None else None


def identity(span: ReadableSpan) -> int:
    """Its id."""
    assert span.context is not None
    return int(span.context.span_id)


@pytest.fixture
def spans() -> Spans:
    """None yet."""
    return Spans()


async def test_every_state_that_ends_has_its_name(spans: Spans, lab: Lab) -> None:
    """A phase is a state in which a service does not stay for ever; being ready is none, as it has no end."""
    assert set(NAMES) == {State.WAITING, State.STARTING, State.BACKOFF, State.STOPPING}

    @service
    async def hello(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()

    await spans.run(lab.stop_at(5), hello)
    assert spans.labels() == ["hello waiting", "hello start", "app start", "hello stop", "app stop"]
    moves = [event for event in lab.events if isinstance(event, Transition)]
    assert len(spans.all) == sum(move.previous in NAMES for move in moves) + 2


async def test_a_start_that_is_cut_short(spans: Spans, lab: Lab) -> None:
    """A stop in mid-start: the phase was cancelled, which is no error; what never was launched was waiting."""

    @service
    async def slow(serving: Serving[None]) -> None:
        await anyio.sleep(100)

    @service(depends=[slow])
    async def after() -> None:
        pass

    await spans.run(lab.stop_at(5), slow, after)
    start = spans.one("slow start")
    assert start.status.is_ok
    assert start.attributes is not None
    assert start.attributes["kernel.outcome"] == "cancelled"
    app = spans.one("app start")
    assert app.attributes is not None
    assert app.attributes["kernel.outcome"] == "cancelled"
    waiting = spans.one("after waiting")
    assert waiting.attributes is not None
    assert waiting.attributes["kernel.reason"] == "never started"
    assert waiting.status.is_ok
    assert parent(waiting) in {identity(app), identity(spans.one("app stop"))}


async def test_a_start_that_times_out(spans: Spans, lab: Lab) -> None:
    """The error is on the phase that it ended, with the line where it stood."""

    @service(start_timeout=3)
    async def slow(serving: Serving[None]) -> None:
        await anyio.sleep(100)

    await spans.run(lab, slow)
    for label in ("slow start", "slow stop"):
        (event,) = spans.one(label).events
        assert event.attributes is not None
        assert event.attributes["exception.type"] == f"kernel.errors.{StartTimeout.__name__}"
    assert not spans.one("app start").status.is_ok
    app = spans.one("app stop")
    assert app.status.description == "exit 1"


async def test_a_cut_is_told(spans: Spans, lab: Lab) -> None:
    """A service that overran its stop failed in that phase."""

    @service(stop_timeout=1)
    async def slow(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        await anyio.sleep(100)

    await spans.run(lab.stop_at(5), slow)
    stop = spans.one("slow stop")
    assert stop.events[0].attributes is not None
    assert stop.events[0].attributes["exception.type"] == f"kernel.errors.{StopTimeout.__name__}"


async def test_what_is_stale_is_no_error(spans: Spans, lab: Lab) -> None:
    """A backoff that a stop cuts short did not fail: the attempt before it did."""

    @service(retries=Retry(times=None, delay=100, jitter=0))
    async def broken() -> None:
        raise ConnectionError

    await spans.run(lab.stop_at(5), broken)
    assert not spans.one("broken stop" if spans.named("broken stop") else "broken start").status.is_ok
    assert spans.one("broken backoff").status.is_ok


async def test_a_value_that_is_lost(spans: Spans, lab: Lab) -> None:
    """Who waits for a value that will not come fails in waiting."""

    @service(allowed_failure=True)
    async def provider(serving: Serving[int]) -> None:
        raise ConnectionError

    @service(depends=[provider], allowed_failure=True)
    async def consumer(provider: int) -> None:
        pass

    await spans.run(lab, provider, consumer)
    waiting = spans.one("consumer waiting")
    assert waiting.events[0].attributes is not None
    assert waiting.events[0].attributes["exception.type"] == f"kernel.errors.{ValueLost.__name__}"


async def test_each_crash_has_a_trace_of_its_own(spans: Spans, lab: Lab) -> None:
    """The second crash is not the first one's child: what came between is over."""
    times: list[int] = []

    @service(retries=Retry(times=2, delay=1, jitter=0))
    async def flaky(serving: Serving[None]) -> None:
        times.append(1)
        async with serving():
            if len(times) < 3:
                await crash_after(10, ConnectionError())
            await anyio.sleep_forever()

    await spans.run(lab.stop_at(60), flaky)
    first, second, last = spans.named("flaky stop")
    assert parent(first) is parent(second) is None
    assert parent(last) == identity(spans.one("app stop"))
    starts = spans.named("flaky start")
    assert [parent(one) for one in starts[1:]] == [identity(first), identity(second)]
    assert not starts[0].links
    assert [link.context.span_id for link in starts[2].links] == [identity(starts[1])]


async def test_an_abandoned_service(spans: Spans, lab: Lab) -> None:
    """It has ended for everybody but itself; a late return makes no further span."""

    @service(stop_timeout=1)
    async def stone(serving: Serving[None]) -> None:
        async with serving():
            await hang(100)

    await spans.run(lab.stop_at(5), stone)
    assert not spans.one("stone stop").status.is_ok
    assert spans.labels().count("stone stop") == 1


@pytest.mark.parametrize(("ratio", "expected"), [("1", True), ("0", False)])
async def test_sampling(monkeypatch: pytest.MonkeyPatch, lab: Lab, ratio: str, expected: bool) -> None:
    """Whether a trace is sampled is decided once, for all of it."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    spans = Spans()

    @service
    async def hello() -> None:
        pass

    await spans.run(lab, hello)
    assert bool(spans.all) is expected


# -- the spans of services -------------------------------------------------------------------------------------------


async def test_whose_span_it_is(spans: Spans, lab: Lab) -> None:
    """By the context that it is made in, also in a task of a task; one tracer does for all."""
    tracer = spans.dispatcher.get_tracer("own")

    async def deep() -> None:
        with tracer.start_as_current_span("deep"):
            pass

    async def background() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deep)

    @service
    async def one(serving: Serving[None]) -> None:
        async with serving() as work:
            work.start_soon(background)
            await anyio.sleep(1)

    @service
    async def two() -> None:
        with tracer.start_as_current_span("plain"):
            await anyio.sleep(1)

    with tracer.start_as_current_span("outside"):
        await spans.run(lab, one, two)
    assert {"one deep", "two plain", "app outside"} <= {*spans.labels()}
    assert parent(spans.one("one deep")) == identity(spans.one("app outside"))  # whose context the app runs in


async def test_a_span_in_a_phase_is_its_child(spans: Spans, lab: Lab) -> None:
    """One made while starting or stopping hangs below that; one made while serving is a root; a parent goes first."""
    tracer = spans.dispatcher.get_tracer("own")

    @service
    async def db(serving: Serving[None]) -> None:
        tracer.start_span("open").end()
        async with serving():
            tracer.start_span("work").end()
            with tracer.start_as_current_span("outer"):
                tracer.start_span("inner").end()
            await anyio.sleep_forever()
        tracer.start_span("close").end()

    await spans.run(lab.stop_at(5), db)
    assert parent(spans.one("db open")) == identity(spans.one("db start"))
    assert parent(spans.one("db work")) is None
    assert parent(spans.one("db inner")) == identity(spans.one("db outer"))
    assert parent(spans.one("db close")) == identity(spans.one("db stop"))


async def test_a_cancellation_is_told(spans: Spans) -> None:
    """The API itself would end the span as if all had been well; an exception is told as ever."""
    tracer = spans.dispatcher.get_tracer("own")

    @tracer.start_as_current_span("decorated")
    async def works() -> None:
        await anyio.sleep(10)

    with anyio.move_on_after(1):
        await works()
    (event,) = spans.one("app decorated").events
    assert event.name == "cancelled"

    def fails() -> None:
        with tracer.start_as_current_span("fails"):
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fails()
    assert [event.name for event in spans.one("app fails").events] == ["exception"]


async def test_a_decorator_dispatches_when_it_is_called(spans: Spans) -> None:
    """A function may be decorated where modules are imported, long before it is known who calls it."""

    @spans.dispatcher.get_tracer("own").start_as_current_span("decorated")
    def call() -> SpanContext:
        return trace.get_current_span().get_span_context()

    token = current_service.set("db")
    assert call().is_valid
    current_service.reset(token)
    assert spans.labels() == ["db decorated"]
