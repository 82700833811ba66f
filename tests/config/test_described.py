"""How the variables of OpenTelemetry are described."""

from __future__ import annotations

import pytest

from kernel.config.described import otel_table
from kernel.config.otel import OTEL_VARIABLES, TIMEOUT
from kernel.config.otel_sdk import INTERVAL, PATIENCE, RECORDS, SOON, SPANS


@pytest.mark.parametrize(
    ("name", "tp", "default", "meaning"),
    [
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "int", "128", "how many attributes a span, event, link or log record may have"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "int", "128", "how many attributes a span may have"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "int", "128", "how many attributes an event may have"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "int", "128", "how many attributes a link may have"),
        ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "int", "128", "how many attributes a log record may have"),
        (
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "int",
            "",
            "how long the value of an attribute of a span, event, link or log record may be",
        ),
        (
            "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "int",
            "",
            "how long the value of an attribute of a span may be",
        ),
        (
            "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "int",
            "",
            "how long the value of an attribute of a log record may be",
        ),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "int", "128", "how many events a span may have"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "int", "128", "how many links a span may have"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "int", "65536", "how many spans may wait for export"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "int", "2048", "how many log records may wait for export"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "milliseconds", "1000", "the time between two exports of log records"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "milliseconds", "2000", "the time for one export, retries included"),
        (
            "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
            "milliseconds",
            "the value of OTEL_EXPORTER_OTLP_TIMEOUT",
            "for logs alone: the time for one export, retries included",
        ),
    ],
)
def test_a_description(name: str, tp: str, default: str, meaning: str) -> None:
    """Its type, its default, and what it does, also where one text serves several variables."""
    found = {described.name: described for described in otel_table()}[name]
    assert (found.type, found.default, found.meaning) == (tp, default, meaning)


def test_headers_are_secret() -> None:
    """Those for all signals and those of one, and no other variable."""
    secret = {described.name for described in otel_table() if described.secret}
    signals = ("", "TRACES_", "METRICS_", "LOGS_")
    assert secret == {f"OTEL_EXPORTER_OTLP_{signal}HEADERS" for signal in signals}


def test_what_is_common_comes_first() -> None:
    """Each variable once, with those that most people set on top."""
    table = list(otel_table())
    assert sorted(described.name for described in table) == sorted(OTEL_VARIABLES)
    common = [described.name for described in table if described.common]
    assert [described.name for described in table[: len(common)]] == common
    assert {"OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER"} < {*common}
    assert not {"OTEL_LOG_LEVEL", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"} & {*common}


def test_the_defaults_are_those_that_are_used() -> None:
    """Times in milliseconds, as in the specification."""
    found = {described.name.removeprefix("OTEL_"): described.default for described in otel_table()}
    used = {
        "EXPORTER_OTLP_TIMEOUT": TIMEOUT * 1000,
        "METRIC_EXPORT_INTERVAL": INTERVAL,
        "METRIC_EXPORT_TIMEOUT": PATIENCE,
        "BSP_SCHEDULE_DELAY": SOON,
        "BSP_EXPORT_TIMEOUT": PATIENCE,
        "BSP_MAX_QUEUE_SIZE": SPANS[0],
        "BSP_MAX_EXPORT_BATCH_SIZE": SPANS[1],
        "BLRP_SCHEDULE_DELAY": SOON,
        "BLRP_EXPORT_TIMEOUT": PATIENCE,
        "BLRP_MAX_QUEUE_SIZE": RECORDS[0],
        "BLRP_MAX_EXPORT_BATCH_SIZE": RECORDS[1],
    }
    assert {name: float(found[name]) for name in used} == used
