"""Deliveries: what is counted, and what is said of a collector that does not answer."""

from __future__ import annotations

import contextlib
import enum
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags

from kernel.observe import exporters
from kernel.observe.exporters import Delivery, LogExporter, counted


class Outcome(enum.Enum):
    """As each of the SDK's exporters has one of its own."""

    SUCCESS = 0
    FAILURE = 1


class Exporter:
    """Fails as often as it is told to, and says why as the SDK's do."""

    def __init__(self, *outcomes: Outcome | Exception) -> None:
        self._outcomes = list(outcomes)

    def export(self, batch: list[int]) -> Outcome:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is Outcome.FAILURE:
            logging.getLogger("opentelemetry.exporter.some").error("Failed to export %s", ConnectionRefusedError("no"))
        return outcome


def caused(error: Exception, *, by: Exception) -> Exception:
    """An error with its cause."""
    error.__cause__ = by
    return error


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has failed yet, and what exporters log is taken as in a run."""
    monkeypatch.setattr(exporters, "_told", exporters._Told())
    theirs = logging.getLogger("opentelemetry.exporter")
    monkeypatch.setattr(theirs, "handlers", [exporters._Exporters()])
    monkeypatch.setattr(theirs, "propagate", False)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the kernel said."""
    return [record.getMessage() for record in caplog.records if record.name == "kernel"]


def test_once_down_and_once_up(caplog: pytest.LogCaptureFixture) -> None:
    """However often it fails, whichever signal it is, and why; until it is there again."""
    caplog.set_level("INFO")
    bad, good = Outcome.FAILURE, Outcome.SUCCESS
    spans, logs = Delivery("span", "http://c/v1/traces"), Delivery("log record", "http://c/v1/logs")
    one, other = counted(Exporter(bad, bad, good, bad, good), spans), counted(Exporter(bad, good), logs)
    for exporter in (one, one, other, one):
        exporter.export([1])
    assert said(caplog) == [
        "spans cannot be sent to http://c/v1/traces: ConnectionRefusedError: no; nothing else is affected"
    ]
    other.export([1])
    assert said(caplog)[1:] == ["log records are sent to http://c/v1/logs again"]
    one.export([1])
    assert "cannot be sent" in said(caplog)[2]
    one.export([1])
    assert said(caplog)[3:] == ["spans are sent to http://c/v1/traces again"]


def test_what_was_not_sent_is_counted() -> None:
    """What failed, and what was never tried."""
    delivery = Delivery("span", "there")
    exporter = counted(Exporter(Outcome.SUCCESS, Outcome.FAILURE, ValueError("odd")), delivery)
    delivery.made(7)
    for number in (3, 2, 1):
        exporter.export([0] * number)
    assert delivery.unsent == 4
    assert delivery.reason == "ValueError: odd"


class Refusing:
    """A collector that answers with a status, and an exporter that tells of it."""

    def __init__(self, delivery: Delivery, *statuses: int) -> None:
        self._delivery, self._statuses = delivery, list(statuses)
        self.asked = 0

    def export(self, _: list[int]) -> Outcome:
        self.asked += 1
        status = self._statuses.pop(0)
        self._delivery.answered(SimpleNamespace(status_code=status))
        return Outcome.SUCCESS if status == 200 else Outcome.FAILURE


@pytest.mark.parametrize("status", [404, 405, 415, 501])
def test_a_signal_that_is_not_taken(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once with the variable that turns it off, is not tried again, and is not counted as lost."""
    caplog.set_level("INFO")
    delivery = Delivery("log record", "http://c/v1/logs", "OTEL_LOGS_EXPORTER")
    inner = Refusing(delivery, 503, status)
    exporter = counted(inner, delivery)
    delivery.made(9)
    for _ in range(4):
        exporter.export([1, 2])
    assert inner.asked == 2
    assert delivery.unsent == 0
    last = said(caplog)[-1]
    assert last == (
        f"http://c/v1/logs does not accept log records (HTTP {status}), so none are sent; set OTEL_LOGS_EXPORTER=none"
        " to turn them off"
    )
    assert len(said(caplog)) == 2


def test_a_collector_that_took_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """Then 404 is somebody's trouble on the way, as a proxy's: it is tried again, and counted."""
    delivery = Delivery("span", "http://c/v1/traces", "OTEL_TRACES_EXPORTER")
    exporter = counted(Refusing(delivery, 200, 404, 200), delivery)
    delivery.made(3)
    exporter.export([1])
    exporter.export([2])
    assert "cannot be sent" in said(caplog)[-1]
    assert delivery.unsent == 2
    exporter.export([3])
    assert delivery.unsent == 1


def test_an_exporter_that_counts_itself() -> None:
    """A report of metrics is made where it is sent."""
    delivery = Delivery("metric report", "there")
    exporter = counted(Exporter(Outcome.SUCCESS, Outcome.FAILURE), delivery, at_once=True)
    exporter.export([])
    exporter.export([])
    assert delivery.unsent == 1


def test_what_else_the_sdk_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning that comes from no export is the user's to see."""
    seen: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger(), "handle", seen.append)
    logging.getLogger("opentelemetry.exporter").warning("odd attribute")
    assert [record.getMessage() for record in seen] == ["odd attribute"]


@pytest.mark.parametrize(
    ("message", "args", "reason"),
    [
        ("no %s", ("way",), "no way"),
        ("nothing", (), "nothing"),
        ("nothing", None, "nothing"),
        ("%s: %s", ("export", ConnectionRefusedError("no")), "ConnectionRefusedError: no"),
        ("%s", (caused(OSError("outer"), by=caused(OSError("inner"), by=TimeoutError("deep"))),), "TimeoutError: deep"),
    ],
    ids=["text", "no arguments", "none at all", "an error", "its first cause"],
)
def test_why_an_export_failed(message: str, args: Any, reason: str) -> None:
    """By the first warning that the exporter logs: the first cause of its error, or what it says."""
    log = logging.getLogger("opentelemetry.exporter.some")
    delivery = Delivery("span", "there")

    def export() -> Outcome:
        log.handle(logging.LogRecord(log.name, logging.INFO, "f", 1, "on its way", (), None))
        log.handle(logging.LogRecord(log.name, logging.WARNING, "f", 1, message, args, None))
        log.handle(logging.LogRecord(log.name, logging.ERROR, "f", 1, "and so on", (), None))
        return Outcome.FAILURE

    assert delivery.send(export, 1) is Outcome.FAILURE
    assert delivery.reason == reason
    delivery.send(lambda: Outcome.SUCCESS, 1)
    assert delivery.reason == ""


@pytest.mark.parametrize(
    ("context", "counted"),
    [
        (SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)), 1),
        (SpanContext(7, 8, is_remote=False), 0),
        (None, 0),
    ],
    ids=["sampled", "not sampled", "no context"],
)
def test_which_spans_are_to_be_sent(context: SpanContext | None, counted: int) -> None:
    """Those that are sampled, by each exporter."""
    deliveries = [Delivery("span", "here"), Delivery("span", "there")]
    exporters._CountSpans(deliveries).on_end(ReadableSpan("x", context))
    assert [delivery.unsent for delivery in deliveries] == [counted] * 2


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ({"trace_id": "a" * 32, "span_id": "b" * 16}, (int("a" * 32, 16), int("b" * 16, 16))),
        ({"trace_id": "a" * 32, "span_id": ""}, (0, 0)),
        ({"trace_id": "", "span_id": "b" * 16}, (0, 0)),
        ({}, (0, 0)),
    ],
    ids=["both", "no span", "no trace", "none"],
)
def test_the_span_of_a_record(given: dict[str, str], ids: tuple[int, int]) -> None:
    """That of its ids, which the pipeline has added; its time is that of the record."""
    made: list[Any] = []
    given_record = logging.LogRecord("x", logging.INFO, "f", 1, "text", (), None)
    given_record.created = 1_000_000_000.5
    given_record.__dict__.update(given)
    LogExporter(made.append, lambda name: f"resource of {name!r}").emit(given_record)
    (one,) = made
    assert (one.log_record.trace_id or 0, one.log_record.span_id or 0) == ids
    assert one.log_record.timestamp == 1_000_000_000_500_000_000
    assert one.log_record.observed_timestamp > one.log_record.timestamp
    assert one.resource == "resource of ''"


def test_attributes_of_a_record() -> None:
    """Numbers that fit stay such; of the kernel's own records the fields of the lifecycle are told as its own."""
    made: list[Any] = []
    given = logging.LogRecord("kernel", logging.INFO, "f", 1, "text", (), None)
    given.__dict__.update(state="ready", attempt=1, n=2**63 - 1, least=-(2**63), big=2**63, part=0.5, yes=True)
    LogExporter(made.append, str).emit(given)
    assert made[0].log_record.attributes == {
        "kernel.state": "ready",
        "kernel.attempt": 1,
        "n": 2**63 - 1,
        "least": -(2**63),
        "big": str(2**63),
        "part": 0.5,
        "yes": True,
    }


def _fail(log: logging.Logger) -> None:
    try:
        dict[str, str]()["x"]
    except KeyError:
        log.exception("oh %s", "no", extra={"service": "db", "state": "failed", "odd": [1]})
        raise


def test_a_record(caplog: pytest.LogCaptureFixture) -> None:
    """A record's level, text, extras and exception, under its service's name; none of what an export itself logs."""
    made: list[Any] = []
    handler = LogExporter(made.append, lambda name: f"resource of {name}")
    log = logging.getLogger("some.where")
    log.addHandler(handler)
    try:
        with contextlib.suppress(KeyError):
            _fail(log)
        exporters._current.delivery = Delivery("span", "there")
        log.warning("of an export")
    finally:
        exporters._current.delivery = None
        log.removeHandler(handler)
    (one,) = made
    assert one.resource == "resource of db"
    assert one.instrumentation_scope.name == "some.where"
    record = one.log_record
    assert (record.severity_text, record.severity_number.name, record.body) == ("ERROR", "ERROR", "oh no")
    assert record.attributes["state"] == "failed"  # only the kernel's own are of the lifecycle
    assert record.attributes["odd"] == "[1]"
    assert record.attributes["exception.type"] == "KeyError"
    assert "in _fail" in record.attributes["exception.stacktrace"]


class Mute(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


def test_whoever_logs_does_not_suffer(capsys: pytest.CaptureFixture[str]) -> None:
    """An error without a text is exported, and so is a record whose arguments do not fit."""
    made: list[Any] = []
    handler = LogExporter(made.append, str)
    handler.handle(logging.LogRecord("x", logging.ERROR, "f", 1, "text", (), (Mute, Mute(), None)))
    assert "no text" in made[0].log_record.attributes["exception.message"]
    handler.handle(logging.LogRecord("x", logging.ERROR, "f", 1, "%d", ("no number",), None))
    assert made[1].log_record.body == "%d ('no number',)"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("level", "severity"),
    [(5, "TRACE"), (10, "DEBUG"), (20, "INFO"), (30, "WARN"), (40, "ERROR"), (50, "FATAL"), (90, "FATAL")],
)
def test_levels(level: int, severity: str) -> None:
    """As OpenTelemetry maps them."""
    made: list[Any] = []
    record = logging.LogRecord("x", level, "f", 1, "text", (), None)
    LogExporter(made.append, str).emit(record)
    assert made[0].log_record.severity_number.name == severity
