"""The lifecycle as spans, in virtual time."""

from __future__ import annotations

import itertools
import time
from contextvars import Context
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from kernel.context import current_service
from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import StartTimeout, StopTimeout, ValueLost
from kernel.lifecycle.events import State, Transition
from kernel.lifecycle.units import Unit
from kernel.observe.span_rows import SCOPE
from kernel.observe.spans import NAMES
from tests.harness import Lab, crash_after, hang
from tests.observe.spans import Spans, bounds, check, critical_path, identity, parent, watch

pytestmark = pytest.mark.anyio


@pytest.fixture
def spans() -> Spans:
    """None yet."""
    return Spans()


async def run(spans: Spans, lab: Lab, *services: Any, longest: float = 61.0, **options: Any) -> None:
    """Run *services* with an observer, and check what holds for all spans."""
    observer = spans.observer()
    lab.at(0, lambda: watch(observer, lab.orchestrator))
    await lab.run(*services, observers=[observer], **options)
    observer.end(lab.report.reason, lab.report.exit_code)
    check([span for span in spans.all if span.instrumentation_scope is SCOPE], longest)


def about(span: ReadableSpan) -> dict[str, Any]:
    """Its attributes."""
    return dict(span.attributes or {})


def linked(span: ReadableSpan) -> list[int]:
    """The ids of those that it is linked to."""
    return [link.context.span_id for link in span.links]


async def test_every_state_that_ends_has_its_name(spans: Spans, lab: Lab) -> None:
    """A phase is a state in which a service does not stay for ever; being ready is none, as it has no end."""
    assert set(NAMES) == {State.STARTING, State.BACKOFF, State.STOPPING}

    @service
    async def hello(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()

    await run(spans, lab.stop_at(5), hello)
    assert spans.labels() == ["hello start", "app start", "hello stop", "app stop"]
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

    await run(spans, lab.stop_at(5), slow, after)
    first, rest = spans.named("slow start")
    assert first.status.is_ok
    assert about(first)["kernel.outcome"] == "cancelled"
    assert linked(rest) == [identity(first)]  # what goes on while the app stops is a part of the stop
    app = spans.one("app start")
    assert about(app)["kernel.outcome"] == "cancelled"
    waiting = spans.one("after waiting")
    assert about(waiting)["kernel.reason"] == "never started"
    assert about(waiting)["kernel.waited_for"] == ("slow",)
    assert waiting.status.is_ok
    assert parent(waiting) == identity(app)


async def test_a_start_that_times_out(spans: Spans, lab: Lab) -> None:
    """The error is on the phase that it ended, with the line where it stood."""

    @service(start_timeout=3)
    async def slow(serving: Serving[None]) -> None:
        await anyio.sleep(100)

    await run(spans, lab, slow)
    for label in ("slow start", "slow attempt", "slow stop"):
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

    await run(spans, lab.stop_at(5), slow)
    stop = spans.one("slow stop")
    assert stop.events[0].attributes is not None
    assert stop.events[0].attributes["exception.type"] == f"kernel.errors.{StopTimeout.__name__}"


async def test_what_is_stale_is_no_error(spans: Spans, lab: Lab) -> None:
    """A backoff that a stop cuts short did not fail: the attempt before it did."""

    @service(retries=Retry(times=None, delay=100, jitter=0))
    async def broken() -> None:
        raise ConnectionError

    await run(spans, lab.stop_at(5), broken)
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

    await run(spans, lab, provider, consumer)
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

    await run(spans, lab.stop_at(60), flaky)
    first, second = spans.named("flaky restart")
    assert parent(first) is parent(second) is None
    assert parent(spans.named("flaky stop")[-1]) == identity(spans.one("app stop"))
    starts = spans.named("flaky start")
    assert [parent(one) for one in starts] == [identity(spans.one("app start")), identity(first), identity(second)]
    assert (linked(first), linked(second)) == ([identity(starts[0])], [identity(first)])
    for crash in (first, second):
        assert [event.name for event in crash.events] == ["exception"]
        assert about(crash)["kernel.outcome"] == "ready"
        names = [one.name for one in spans.all if parent(one) == identity(crash)]
        assert names == ["stop", "backoff", "start"]


async def test_attempts_are_one_row(spans: Spans, lab: Lab) -> None:
    """From the first launch to ready, with each attempt and backoff inside; what waited has no part of it."""
    times: list[int] = []

    @service(retries=Retry(times=2, delay=1, jitter=0))
    async def flaky(serving: Serving[None]) -> None:
        times.append(1)
        await anyio.sleep(2)
        if len(times) < 3:
            raise ConnectionError
        async with serving():
            await anyio.sleep_forever()

    @service(depends=[flaky])
    async def after() -> None:
        await anyio.sleep_forever()

    await run(spans, lab.stop_at(60), flaky, after)
    row = spans.one("flaky start")
    assert row.status.is_ok
    assert about(row)["kernel.attempts"] == 3
    inside = [one for one in spans.all if parent(one) == identity(row)]
    assert [one.name for one in inside] == ["attempt", "backoff", "attempt", "backoff", "attempt"]
    assert [about(one)["kernel.attempt"] for one in inside] == [1, 1, 2, 2, 3]
    assert not inside[0].status.is_ok
    for before, behind in itertools.pairwise(inside):
        assert bounds(before)[1] < bounds(behind)[0]  # else a viewer would not see the one before
    start = spans.one("after start")
    assert about(start)["kernel.waited"] == pytest.approx(9)
    assert about(start)["kernel.waited_for"] == ("flaky",)
    assert linked(start) == [identity(row)]


async def test_a_crash_and_whom_it_takes_along(spans: Spans, lab: Lab) -> None:
    """A provider's crash is one trace: its own recovery, and a row for each consumer, until the last is back."""
    times: list[int] = []

    @service(retries=Retry(times=2, delay=1, jitter=0))
    async def database(serving: Serving[int]) -> None:
        times.append(1)
        async with serving(1):
            if len(times) == 1:
                await crash_after(10, ConnectionError("gone"))
            await anyio.sleep_forever()

    def consumer(name: str, opening: float) -> Any:
        async def consume(database: int, serving: Serving[None]) -> None:
            await anyio.sleep(opening)
            async with serving():
                await anyio.sleep_forever()

        consume.__name__ = name
        return service(depends=[database])(consume)

    consumers = [consumer(f"c{number}", number) for number in (1, 2, 3)]
    await run(spans, lab.stop_at(60), database, *consumers)
    crash = spans.one("database restart")
    assert crash.context is not None
    trace = [one for one in spans.all if one.context and one.context.trace_id == crash.context.trace_id]
    below = [one for one in trace if parent(one) == identity(crash)]
    assert {one.name for one in below} == {"stop", "backoff", "start", "restart"}
    assert [one.name for one in below].count("restart") == 3
    (stop,) = [one for one in below if one.name == "stop"]
    assert [one.name for one in trace if parent(one) == identity(stop)] == ["stop"] * 3
    path = [name for name, length in critical_path(crash, trace) if length > 100]
    assert path == ["c3 restart", "database backoff"]  # what took no time is left out
    assert sum(one.parent is None for one in spans.all) == 3  # the start, the crash, the stop


async def test_a_crash_while_its_provider_crashes(spans: Spans, lab: Lab) -> None:
    """Who has to wait for the provider before it starts again is back when it is ready, and so its trace is over."""

    @service(retries=Retry(times=1, delay=5, jitter=0))
    async def database(serving: Serving[int]) -> None:
        async with serving(1):
            if lab.now < 1:
                await crash_after(11, ConnectionError())
            await anyio.sleep_forever()

    @service(depends=[database], retries=Retry(times=1, delay=1, jitter=0))
    async def api(database: int, serving: Serving[None]) -> None:
        try:
            async with serving():
                if lab.now < 1:
                    await crash_after(10, ValueError("boom"))
                await anyio.sleep_forever()
        finally:
            if lab.now < 20:
                await anyio.sleep(3)

    await run(spans, lab.stop_at(50), database, api)
    assert lab.path("api") == "waiting starting ready stopping backoff waiting starting ready stopping stopped"
    crash = spans.one("api restart")
    assert parent(crash) is None
    assert about(crash)["kernel.outcome"] == "ready"
    assert bounds(crash)[1] - bounds(crash)[0] == pytest.approx((lab.when("api", "ready", 2) - 10) * 1e6, abs=1000)
    assert [one.name for one in spans.all if parent(one) == identity(crash)] == ["stop", "backoff", "start"]


async def test_a_clean_up_that_fails_makes_a_restart_of_a_stop(spans: Spans, lab: Lab) -> None:
    """It was to stop for its provider's sake; after its own failure it is tried again by itself."""

    @service(retries=Retry(times=1, delay=1, jitter=0))
    async def database(serving: Serving[int]) -> None:
        async with serving(1):
            if lab.now < 1:
                await crash_after(10, ConnectionError())
            await anyio.sleep_forever()

    @service(depends=[database], retries=Retry(times=1, delay=5, jitter=0))
    async def api(database: int, serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()
        if lab.now < 20:
            raise OSError("clean-up")

    await run(spans, lab.stop_at(50), database, api)
    assert "stopping backoff" in lab.path("api")
    (crash,) = spans.named("api restart")
    assert not crash.status.is_ok
    assert about(crash)["kernel.outcome"] == "ready"


async def test_a_start_that_others_did_not_wait_for(spans: Spans, lab: Lab) -> None:
    """As one of the kernel's own: it goes on in a trace of its own, which is well if it is ready in the end."""

    @service(retries=Retry(times=3, delay=5, jitter=0))
    async def optional(serving: Serving[None]) -> None:
        await anyio.sleep(1)
        if lab.now < 12:
            raise ConnectionError
        async with serving():
            await anyio.sleep_forever()

    @service
    async def hello(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()

    await run(spans, lab.stop_at(40), Unit(optional, internal=True), hello)
    first, last = spans.named("app optional start")
    assert parent(first) == identity(spans.one("app start"))
    assert parent(last) is None
    assert linked(last) == [identity(first)]
    assert about(first)["kernel.outcome"] == "unfinished"
    assert about(last)["kernel.state"] == "ready"
    assert last.status.is_ok
    phases = [one for one in spans.all if parent(one) == identity(last)]
    assert {one.name for one in phases if not one.status.is_ok} == {"optional attempt"}


async def test_what_lasts_goes_on_in_another_trace(spans: Spans, lab: Lab) -> None:
    """Each minute the trace is ended with what is still waited for, so that it can be looked at meanwhile."""

    @service(retries=Retry(times=None, delay=30, jitter=0))
    async def broken(serving: Serving[None]) -> None:
        await anyio.sleep(5)
        raise ConnectionError

    @service(depends=[broken])
    async def after() -> None:
        pass

    lab.at(61, lambda: lab.mark(str(spans.labels())))
    await run(spans, lab.stop_at(150), broken, after)
    first, second, third = spans.named("app start")
    inside = ["broken attempt", "broken backoff", "broken attempt", "broken backoff"]  # the last one is in progress
    assert lab.marked == [str([*inside, "broken start", "app start"])]
    for one in (first, second):
        assert about(one)["kernel.outcome"] == "unfinished"
        assert any("broken" in line for line in about(one)["kernel.waits_for"])
    assert (linked(second), linked(third)) == ([identity(first)], [identity(second)])
    assert about(third)["kernel.outcome"] == "cancelled"
    rows = spans.named("broken start")
    assert len(rows) == 3
    assert linked(rows[1]) == [identity(rows[0])]
    assert parent(rows[1]) == identity(second)


async def test_who_starts_after_a_minute(spans: Spans, lab: Lab) -> None:
    """Its row is in the trace that goes on, which is the one that all are ready in."""

    @service(oneshot=True, start_timeout=100)
    async def slow() -> None:
        await anyio.sleep(70)

    @service(depends=[slow])
    async def late(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()

    await run(spans, lab.stop_at(80), slow, late)
    _, second = spans.named("app start")
    assert parent(spans.one("late start")) == identity(second)
    assert about(second)["kernel.critical_path"] == ("slow", "late")
    assert about(spans.one("app stop")) == {"kernel.exit_code": 0, "kernel.reason": "asked"}
    assert linked(spans.one("app stop")) == [identity(second)]


async def test_a_wall_clock_that_is_set(spans: Spans, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations are those of the monotonic clock; each trace reads the wall clock once."""
    walls = itertools.count(10**18, -3600 * 10**9)
    monkeypatch.setattr(time, "time_ns", lambda: next(walls))

    @service(oneshot=True)
    async def hello() -> None:
        await anyio.sleep(2)

    await run(spans, lab, hello)
    begin, end = bounds(spans.one("hello start"))
    assert end - begin == pytest.approx(2e6, abs=10)


async def test_an_abandoned_service(spans: Spans, lab: Lab) -> None:
    """It has ended for everybody but itself; a late return makes no further span."""

    @service(stop_timeout=1)
    async def stone(serving: Serving[None]) -> None:
        async with serving():
            await hang(100)

    await run(spans, lab.stop_at(5), stone, longest=101.0)  # its task goes on when the run has ended
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

    await run(spans, lab, hello)
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
        await run(spans, lab, one, two)
    assert {"one deep", "two plain", "app outside"} <= {*spans.labels()}
    assert parent(spans.one("one deep")) == identity(spans.one("app outside"))  # whose context the app runs in


async def test_a_span_in_a_phase_is_its_child(spans: Spans, lab: Lab) -> None:
    """One made while starting or stopping hangs below that; one made while serving is a root; a parent goes first."""
    tracer = spans.dispatcher.get_tracer("own")
    sent_along = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    @service
    async def db(serving: Serving[None]) -> None:
        tracer.start_span("open").end()
        tracer.start_span("told", trace.set_span_in_context(NonRecordingSpan(sent_along))).end()
        with tracer.start_as_current_span("early"):
            tracer.start_span("inside").end()
        async with serving():
            tracer.start_span("work").end()
            with tracer.start_as_current_span("outer"):
                tracer.start_span("inner").end()
            await anyio.sleep_forever()
        tracer.start_span("close").end()

    await run(spans, lab.stop_at(5), db)
    assert parent(spans.one("db open")) == identity(spans.one("db start"))
    assert parent(spans.one("db told")) == sent_along.span_id
    assert parent(spans.one("db early")) == identity(spans.one("db start"))
    assert parent(spans.one("db inside")) == identity(spans.one("db early"))
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


async def test_an_exception_is_known_by_the_span_that_it_left(spans: Spans) -> None:
    """The outermost one, for whoever logs it after the span's end; no other exception is known by it."""
    tracer = spans.dispatcher.get_tracer("own")
    left_by = spans.dispatcher.left_by

    def fails(error: Exception) -> None:
        with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
            raise error

    first, second, third = ValueError("first"), ValueError("second"), ValueError("third")
    assert Context().run(left_by, first) is None
    with pytest.raises(ValueError, match="first"):
        fails(first)
    assert left_by(first) == spans.one("app outer").context
    assert left_by(second) is None
    try:
        raise second
    except ValueError:
        with tracer.start_as_current_span("report"):  # which is well
            pass
        assert left_by(second) is None
        with pytest.raises(ValueError, match="third"):
            fails(third)
    assert left_by(third) == spans.named("app outer")[1].context
    assert left_by(first) is None  # only the last one is remembered


async def test_a_decorator_dispatches_when_it_is_called(spans: Spans) -> None:
    """A function may be decorated where modules are imported, long before it is known who calls it."""

    @spans.dispatcher.get_tracer("own").start_as_current_span("decorated")
    def call() -> SpanContext:
        return trace.get_current_span().get_span_context()

    token = current_service.set("db")
    assert call().is_valid
    current_service.reset(token)
    assert spans.labels() == ["db decorated"]
