"""Rows of lifecycle spans, one by one, by a clock that is told what to say."""

from __future__ import annotations

import itertools
import time

import pytest

from kernel.observe.span_rows import SCOPE, Row, Sender, Ticks
from tests.observe.spans import Spans, bounds, identity, parent


@pytest.fixture
def spans() -> Spans:
    """None yet."""
    return Spans()


@pytest.fixture
def sender(spans: Spans) -> Sender:
    """One whose clock goes on by ten microseconds each time."""
    clock = itertools.count(1_000_000, 10_000)
    return Sender(spans.dispatcher, lambda: next(clock))


def test_each_reading_is_later() -> None:
    """By at least a microsecond, also where the clock stands still or goes back; the last end is remembered."""
    times = iter([5_000_999, 5_000_999, 4_000_000, 5_010_000, 5_011_000])
    ticks = Ticks(lambda: next(times))
    assert [ticks.read(), ticks.end(), ticks.read()] == [5000, 5001, 5002]
    assert ticks.last_end == 5001
    assert [ticks.end(), ticks.read()] == [5010, 5011]
    assert (ticks.last_end, ticks.last) == (5010, 5011)


def test_what_a_link_may_refer_to(spans: Spans, sender: Sender) -> None:
    """The first phase, unless there is a span of the whole row: each of them is sent in the end."""
    trace = sender.open("start", "", "")
    row = Row(trace, "start", "db", sender.ticks.read(), key="db")
    first = sender.begin(row, "start")
    assert row.known == first.context
    assert row.own is None  # nothing but a link has been made
    sender.end(row, {})
    sender.begin(row, "backoff")
    assert row.known == row.context != first.context
    sender.end(row, {})
    sender.close(row, {})
    assert [span.name for span in spans.all] == ["start", "backoff", "start"]
    phase, _, whole = spans.all
    assert (identity(phase), identity(whole)) == (first.context.span_id, row.known.span_id)
    assert Row(trace, "stop", "db", 0).known != row.known


def test_a_row_of_one_phase_is_one_span(spans: Spans, sender: Sender) -> None:
    """It has the attributes of both, and the name and the bounds of the phase."""
    trace = sender.open("start", "", "")
    row = Row(trace, "start", "db", sender.ticks.read(), key="db")
    first = sender.begin(row, "attempt")
    sender.end(row, {"a": 1, "b": 1}, "refused")
    sender.ticks.read()
    sender.close(row, {"b": 2})
    (span,) = spans.all
    assert (span.name, identity(span), parent(span)) == ("start", first.context.span_id, trace.root.context.span_id)
    assert dict(span.attributes or {}) == {"a": 1, "b": 2}
    assert (span.status.is_ok, span.status.description) == (False, "refused")
    assert bounds(span)[1] - bounds(span)[0] == (first.end or 0) - row.begun == 10
    assert span.instrumentation_scope is SCOPE
    assert bounds(span)[0] / 1e6 == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("over", [False, True])
def test_a_wait_ends_before_what_it_waited_for(spans: Spans, sender: Sender, over: bool) -> None:
    """So that this stays on the critical path; and within its trace, where that is over."""
    trace = sender.open("start", "", "")
    row = Row(trace, "start", "db", sender.ticks.read(), key="db")
    sender.begin(row, "start")
    sender.end(row, {})
    sender.close(row, {})
    if over:
        sender.close(trace.root, {})
    else:
        sender.ticks.read()
    last = sender.ticks.last_end
    if over:
        sender.ticks.end()  # of another trace
    waits = Row(trace, "waiting", "api", 0, key="api")
    sender.waited(waits, "")
    span = spans.one("api waiting")
    assert bounds(span) == (trace.root.begun + trace.offset, last - 1 + trace.offset)
    assert parent(span) == trace.root.context.span_id
