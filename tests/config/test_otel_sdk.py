"""The settings of OpenTelemetry's SDK."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.config.otel import read_otel
from kernel.config.otel_sdk import RECORDS, SPANS, Batches

ALL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}


def read(**environ: str) -> tuple[Batches, list[str]]:
    """The batches of spans, and the variables that are wrong, where everything is exported."""
    otel, errors = read_otel(ALL | environ)
    return otel.sdk.spans, [error.where for error in errors]


@pytest.mark.parametrize(
    ("environ", "batches"),
    [
        ({}, Batches(1000, *SPANS)),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096"}, Batches(1000, SPANS[0], 4096)),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, Batches(1000, 100, 100)),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100000"}, Batches(1000, 100_000, 100_000)),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1"}, Batches(1000, 1, 1)),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}, Batches(1000, SPANS[0], 1)),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "7", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "7"}, Batches(1000, 7, 7)),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "0"}, Batches(1000, *SPANS, timeout=0)),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5"}, Batches(1000, 10, 5)),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": " "}, Batches(1000, *SPANS)),
        ({"OTEL_BSP_SCHEDULE_DELAY": "1"}, Batches(1, *SPANS)),
    ],
)
def test_sane_values_work(environ: dict[str, str], batches: Batches) -> None:
    """Of queue and batch, the one that is set decides for the other."""
    assert read(**environ) == (batches, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TRACES_SAMPLER", "Always_On"),
        ("TRACES_SAMPLER", "parentbased_always_off"),
        ("METRICS_EXEMPLAR_FILTER", "always_off"),
        ("RESOURCE_ATTRIBUTES", "team=a, shop = b,,c=,"),
        ("EXPORTER_OTLP_HEADERS", "a=b=c,"),
        ("EXPORTER_OTLP_TRACES_COMPRESSION", "GZIP"),
        ("EXPORTER_OTLP_CERTIFICATE", __file__),
        ("ATTRIBUTE_COUNT_LIMIT", "0"),
        ("METRIC_EXPORT_INTERVAL", "2147483647"),
    ],
)
def test_what_is_right(name: str, text: str) -> None:
    """Words in any case, pairs with an empty part, files that exist, and numbers to the last."""
    assert read(**{f"OTEL_{name}": text})[1] == []


def test_propagators_of_the_specification_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only for others are the installed packages searched, which is slow."""
    searched: list[str] = []

    def entry_points(*, group: str) -> list[SimpleNamespace]:
        searched.append(group)
        return [SimpleNamespace(name="b3")]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    assert read(OTEL_PROPAGATORS="tracecontext, baggage,none,")[1] == []
    assert not searched
    assert read(OTEL_PROPAGATORS="tracecontext, b3")[1] == []
    assert searched == ["opentelemetry_propagator"]
    (error,) = read_otel(ALL | {"OTEL_PROPAGATORS": "b4,b3"})[1]
    assert str(error).startswith("OTEL_PROPAGATORS is 'b4,b3': unknown propagator 'b4'; expected b3, none, or install")


WRONG = {
    "OTEL_BSP_SCHEDULE_DELAY": "0",
    "OTEL_BSP_EXPORT_TIMEOUT": "soon",
    "OTEL_BSP_MAX_QUEUE_SIZE": "-1",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0",
    "OTEL_BLRP_SCHEDULE_DELAY": "1.5",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "10000000000",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "x" * 5000,
    "OTEL_METRIC_EXPORT_INTERVAL": "0",
    "OTEL_METRIC_EXPORT_TIMEOUT": "nan",
    "OTEL_METRICS_EXEMPLAR_FILTER": "Always_On",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "abc",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "-5",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "abc",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "abc",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "abc",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "abc",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "abc",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "x",
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": "x",
    "OTEL_TRACES_SAMPLER": "sometimes",
    "OTEL_PROPAGATORS": "tracecontext,pigeon",
    "OTEL_RESOURCE_ATTRIBUTES": "team=a,b",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "zip",
    "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "zip",
    "OTEL_EXPORTER_OTLP_HEADERS": "secret",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere.pem",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "up",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "round",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_by_name(name: str) -> None:
    """Each alone."""
    assert read(**{name: WRONG[name]})[1] == [name]


def test_all_that_is_wrong_is_told_in_one_go() -> None:
    """Every one of them, once."""
    assert sorted(read(**WRONG)[1]) == sorted(WRONG)


def test_a_batch_larger_than_its_queue() -> None:
    """What was said cannot be."""
    environ = {"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "11"}
    assert read(**environ)[1] == ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"]


@pytest.mark.parametrize("share", ["2", "x", "-0.1", "nan"])
def test_the_samplers_share(share: str) -> None:
    """A number from 0 to 1, where the sampler takes one."""
    environ = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": share}
    assert read(**environ)[1] == ["OTEL_TRACES_SAMPLER_ARG"]
    assert read(**environ | {"OTEL_TRACES_SAMPLER_ARG": "0.25"})[1] == []
    assert read(OTEL_TRACES_SAMPLER_ARG=share)[1] == []


def test_a_secret_header_is_not_shown() -> None:
    """A header may be a password."""
    (error,) = read_otel(ALL | {"OTEL_EXPORTER_OTLP_HEADERS": "hunter2"})[1]
    assert "hunter2" not in str(error)


def test_what_is_not_exported_is_not_looked_at() -> None:
    """Where nothing is exported, nothing of it is read."""
    wrong = {name: text for name, text in WRONG.items() if name != "OTEL_METRICS_EXEMPLAR_FILTER"}
    assert read_otel(wrong)[1] == []


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_sdk_takes_what_is_read(queue: int, size: int) -> None:
    """Whatever is not refused is a queue and a batch that the SDK accepts."""
    environ = {"OTEL_BLRP_MAX_QUEUE_SIZE": str(queue or ""), "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": str(size or "")}
    otel, errors = read_otel(ALL | environ)
    batches = otel.sdk.records
    assert bool(errors) == bool(queue and size > queue)
    assert errors or 0 < batches.size <= batches.queue
    assert (batches.queue, batches.size) == RECORDS or queue or size
