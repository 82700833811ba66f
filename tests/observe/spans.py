"""Lifecycle spans as a viewer gets them, and what it makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import anyio
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kernel.lifecycle.orchestrator import Orchestrator
from kernel.lifecycle.tree import starting_tree
from kernel.observe.spans import SpanObserver
from kernel.observe.tracer import Dispatcher


def virtual_nanoseconds() -> int:
    """Tell the time of the virtual clock."""
    return round(anyio.current_time() * 1e9)


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
        return [label(span) for span in self.all]

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of that label."""
        return [span for span in self.all if label(span) == name]

    def one(self, name: str) -> ReadableSpan:
        """The one of that label."""
        (found,) = self.named(name)
        return found

    def observer(self) -> SpanObserver:
        """An observer by the virtual clock; to be made within the loop."""
        return SpanObserver(self.dispatcher, virtual_nanoseconds)


def watch(observer: SpanObserver, orchestrator: Orchestrator) -> None:
    """Have *observer* watch the clock, as a run does."""
    clock = orchestrator.clock
    observer.runs(clock, lambda: starting_tree(orchestrator.supervisors.values(), clock.now()))


def label(span: ReadableSpan) -> str:
    """Whose it is, and what."""
    return f"{span.resource.attributes['service.name']!s} {span.name}"


def parent(span: ReadableSpan) -> int | None:
    """The id of its parent."""
    return span.parent.span_id if span.parent is not None else None


def identity(span: ReadableSpan) -> int:
    """Its id."""
    assert span.context is not None
    return int(span.context.span_id)


def bounds(span: ReadableSpan) -> tuple[int, int]:
    """Its begin and end in microseconds, each of begin and duration cut to whole ones as a viewer does."""
    assert span.start_time is not None
    assert span.end_time is not None
    begin = span.start_time // 1000
    return begin, begin + (span.end_time - span.start_time) // 1000


def critical_path(root: ReadableSpan, spans: Iterable[ReadableSpan]) -> list[tuple[str, int]]:
    """Find the critical path below *root*: label and microseconds of each section, from its end to its begin.

    The rule: from the end of the root the child that ended last; in that the same; back in the parent, the child that
    ended last strictly before that one began. Children are cut to the bounds of their parents, or dropped if outside.
    """
    children: dict[int | None, list[ReadableSpan]] = {}
    for span in spans:
        children.setdefault(parent(span), []).append(span)
    path: list[tuple[str, int]] = []

    def follow(span: ReadableSpan, within: tuple[int, int]) -> None:
        begin, end = max(bounds(span)[0], within[0]), min(bounds(span)[1], within[1])
        before: int | None = None
        at = end
        while True:
            fit = [
                (min(bounds(child)[1], end), place, child)
                for place, child in enumerate(children.get(identity(span), []))
                if bounds(child)[0] < end and bounds(child)[1] > begin
            ]
            fit = [one for one in fit if before is None or one[0] < before]
            if not fit:
                break
            last, _, child = max(fit, key=lambda one: (one[0], -one[1]))
            path.append((label(span), at - last))
            follow(child, (begin, end))
            before = at = max(bounds(child)[0], begin)
        path.append((label(span), at - begin))

    follow(root, bounds(root))
    return path


def check(spans: Sequence[ReadableSpan], longest: float = 61.0) -> None:
    """Check what holds for all lifecycle spans: their bounds, their traces, their links."""
    by_id = {identity(span): span for span in spans}
    assert len(by_id) == len(spans), "two spans have one id"
    roots: dict[int, str] = {}
    for span in spans:
        assert span.context is not None
        assert span.name
        begin, end = bounds(span)
        assert begin <= end, f"{label(span)} ends before it begins"
        assert end - begin <= longest * 1e6, f"{label(span)} is open for {(end - begin) / 1e6} s"
        if span.parent is None:
            assert span.context.trace_id not in roots, f"a second root: {label(span)}"
            roots[span.context.trace_id] = label(span)
        else:
            above = by_id[span.parent.span_id]
            assert above.context is not None
            assert above.context.trace_id == span.context.trace_id
            low, high = bounds(above)
            assert low <= begin, f"{label(span)} begins before {label(above)}"
            assert end <= high, f"{label(span)} ends after {label(above)}"
        for link in span.links:
            assert link.context.span_id in by_id, f"{label(span)} is linked to what was not sent"
    assert {span.context.trace_id for span in spans if span.context} == set(roots)
