"""Spans and metrics that have something to mask in one place only."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext, SpanKind, Status, StatusCode

from kernel import masking
from kernel.masking import MASK
from kernel.observe.sayable import sayable_metrics, sayable_span

HIDDEN = "hunter22"
RESOURCE, SCOPE = Resource({"service.name": "app"}), InstrumentationScope("lib", "1")
PLACES = (
    "name",
    "status",
    "an attribute's name",
    "an attribute",
    "an item of an attribute",
    "an event's name",
    "an event's attribute",
    "the name of an event's attribute",
    "a link's attribute",
    "the name of a link's attribute",
)


def span(place: str, text: str) -> ReadableSpan:
    """A span that says *text* at a *place*, and harmless things everywhere else."""
    at = {**dict.fromkeys(PLACES, "calm"), place: f"so {text} is"}
    return ReadableSpan(
        at["name"],
        context=SpanContext(7, 8, is_remote=False),
        parent=SpanContext(7, 9, is_remote=True),
        resource=RESOURCE,
        kind=SpanKind.SERVER,
        instrumentation_scope=SCOPE,
        attributes={at["an attribute's name"]: 1, "a": at["an attribute"], "b": ("x", at["an item of an attribute"])},
        events=[
            Event("first", {"n": 1}, 5),
            Event(at["an event's name"], {at["the name of an event's attribute"]: at["an event's attribute"]}, 7),
        ],
        links=[
            Link(INVALID_SPAN_CONTEXT),
            Link(INVALID_SPAN_CONTEXT, {at["the name of a link's attribute"]: at["a link's attribute"]}),
        ],
        status=Status(StatusCode.ERROR, at["status"]),
        start_time=1,
        end_time=9,
    )


def told(one: ReadableSpan) -> list[Any]:
    """All that is exported of a span."""
    return [
        (one.name, dict(one.attributes or {}), one.start_time, one.end_time, one.kind),
        (one.context, one.parent, one.resource, one.instrumentation_scope),
        (one.status.status_code, one.status.description),
        [(event.name, dict(event.attributes or {}), event.timestamp) for event in one.events],
        [dict(link.attributes or {}) for link in one.links],
    ]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("text", "shown"), [(HIDDEN, MASK), ("\udc80", "\\udc80")], ids=["secret", "not UTF-8"])
def test_one_place_of_a_span(place: str, text: str, shown: str) -> None:
    """It is made sayable there, and nothing else is changed."""
    masking.add(HIDDEN)
    given = span(place, text)
    sent = sayable_span(given)
    assert told(given) != told(sent)
    assert told(sent) == told(span(place, shown))


def test_what_is_sayable_is_not_copied() -> None:
    """Neither a span without texts, nor metrics, nor what is no span."""
    masking.add(HIDDEN)
    bare, full = ReadableSpan("calm"), span("name", "calm")
    assert sayable_span(bare) is bare
    assert sayable_span(full) is full
    assert sayable_span(text := f"no span: {HIDDEN}") is text
    data = metrics("calm", "calm", "calm")
    assert sayable_metrics(data) is data


def metrics(description: str, label: str, value: str) -> Any:
    """A report of two counters, of which the second says these."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("x")
    meter.create_counter("other", description="calm").add(2, {"a": "calm"})
    meter.create_counter("made", description=description).add(3, {label: value, "n": 1})
    data = reader.get_metrics_data()
    provider.shutdown()
    return data


@pytest.mark.parametrize("place", range(3), ids=["description", "label", "value"])
def test_one_place_of_metrics(place: int) -> None:
    """It is masked there; the numbers and the other counter stay."""
    masking.add(HIDDEN)
    texts, shown = ["calm"] * 3, ["calm"] * 3
    texts[place], shown[place] = f"so {HIDDEN} is", f"so {MASK} is"

    def made(data: Any) -> list[Any]:
        (scope,) = data.resource_metrics[0].scope_metrics
        return [
            (metric.name, metric.description, [(dict(one.attributes), one.value) for one in metric.data.data_points])
            for metric in scope.metrics
        ]

    sent = made(sayable_metrics(metrics(*texts)))
    assert sent == made(metrics(*shown))
    assert [points for _, _, points in sent] == [[({"a": "calm"}, 2)], [({shown[1]: shown[2], "n": 1}, 3)]]
