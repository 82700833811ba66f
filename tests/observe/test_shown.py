"""Every place where the kernel shows a text: no secret comes out, whatever it is made of."""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, Status, StatusCode
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from kernel import masking
from kernel.config.service_config import read_config
from kernel.config.values import Secret
from kernel.errors import one_line
from kernel.identity import Identity
from kernel.masking import LINE, MASK, TEXT, TRACE
from kernel.observe import console
from kernel.observe.admin import _json
from kernel.observe.exporters import LogExporter
from kernel.observe.logs import Context, JsonFormatter, TextFormatter
from kernel.observe.otel_resource import described, resource_of
from kernel.observe.prometheus import _Masked
from kernel.observe.sayable import sayable_metrics, sayable_span
from kernel.observe.shown import masked
from kernel.observe.systemd import notifier
from kernel.observe.tracebacks import text_of_traceback
from tests.test_masking import SECRETS, forms_of


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret is known from elsewhere."""
    monkeypatch.setattr(masking, "_secrets", {})
    monkeypatch.setattr(masking, "_longest_first", [])


@attrs.frozen
class Config:
    """The config that holds it."""

    token: Secret[str]
    number: int = 0


def raised(text: str) -> Exception:
    """An error that says it, in its text, a note, a cause and a group."""
    error = ExceptionGroup(text, [ValueError(f"in {text}", {"key": text}), OSError(2, text)])
    error.add_note(f"noted: {text}")
    error.__cause__ = KeyError(text)
    return error


def records(text: str) -> Iterator[logging.LogRecord]:
    """Records that say it, as a message, an argument, an extra, or by their error."""
    error = raised(text)
    info: Any = (type(error), error, error.__traceback__)
    yield logging.LogRecord("x", logging.INFO, "f.py", 1, text, (), None)
    yield logging.LogRecord("x", logging.INFO, "f.py", 1, "%s and %r of %s", (text, text, {"a": [text]}), None)
    yield logging.LogRecord("x", logging.ERROR, "f.py", 1, "failed", (), info)
    extra = logging.LogRecord("x", logging.INFO, "f.py", 1, "with more", (), None)
    extra.__dict__.update(also=text, inside={"a": [text]}, service=text, stack_info=text)
    yield extra


def logged(text: str) -> Iterator[str]:
    """What handlers make of the records: the kernel's own, somebody else's, and the one that exports them."""
    exported: list[Any] = []
    for formatter in (
        masked(TextFormatter(8, colour=False, source=True)),
        masked(TextFormatter(8, colour=True, source=False)),
        masked(JsonFormatter(source=True)),
        logging.Formatter("%(levelname)s %(message)s"),
    ):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        exporter = LogExporter(exported.append, lambda _: None)
        for one in (handler, exporter):
            one.addFilter(Context(Identity("app", "1", "")))
        for record in records(text):
            handler.handle(record)
            exporter.handle(record)
        yield stream.getvalue()
    yield from (f"{one.log_record.body} {one.log_record.attributes}" for one in exported)


def told(text: str) -> Iterator[str]:
    """The other places."""
    error = raised(text)
    yield from (one_line(error), text_of_traceback(error), str(described(error)))
    yield _json(200, {"services": {"x": {"reason": f"it says {text}", "last_error": repr(text)}}}).body.decode()
    event = Event("exception", {"exception.message": text})
    span = ReadableSpan(
        text,
        attributes={"a": text, "b": (text, text), text: 1},
        events=[event],
        links=[Link(INVALID_SPAN_CONTEXT, {"a": text})],
        status=Status(StatusCode.ERROR, text),
    )
    sent = sayable_span(span)
    yield f"{sent.name} {dict(sent.attributes)} {dict(sent.events[0].attributes)} {sent.status.description}"
    yield str(dict(sent.links[0].attributes))
    yield str(resource_of(Identity(text, "1", "")).attributes)
    yield from metrics(text)


def metrics(text: str) -> Iterator[str]:
    """Metrics that say it: in descriptions, and in names and values of attributes or labels."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    counter = provider.get_meter("x").create_counter("made", description=text)
    counter.add(1, {"a": text, text: "b"})
    yield str(sayable_metrics(reader.get_metrics_data()))
    provider.shutdown()
    family = CounterMetricFamily("made", text, labels=["a"])
    family.add_metric([text], 1)
    registry = CollectorRegistry()
    registry.register(_Fixed(family))
    yield generate_latest(_Masked(registry)).decode()


class _Fixed(Collector):
    """Collects what it was given."""

    def __init__(self, *families: Any) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        return iter(self._families)


@settings(deadline=None)
@given(SECRETS)
def test_no_place_shows_a_secret(secret: str) -> None:
    """In none of its forms."""
    assume(secret.strip() and secret not in MASK)
    masking._secrets.clear()
    config, errors = read_config("service", Config, {"SERVICE_TOKEN": secret, "SERVICE_NUMBER": "no number"})
    assert errors
    forms = {secret.strip(), *forms_of(secret)}
    others = " ".join((*map(str, errors), *logged("x"), *told("x")))
    assume(not any(form in others.replace(MASK, "") for form in forms))  # words that are said anyway
    text = " ".join(forms_of(secret))
    for shown in (*map(str, errors), str(config), *logged(text), *told(text)):
        for form in forms:
            assert len(form.strip()) < masking.LEAST or form not in shown.replace(MASK, "")


def chained(many: int, link: str, error: Exception) -> Exception:
    """An error that is the last of a chain, which began with *error*."""
    for number in range(many):
        after = ValueError(number)
        setattr(after, link, error)
        error = after
    return error


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_a_long_chain_of_causes(link: str) -> None:
    """The last twenty before the error itself are told, also of an error in a group, and that there were more."""
    cut = "[... earlier causes left out ...]\n\n"
    whole = text_of_traceback(chained(20, link, KeyError("first")))
    assert whole.startswith("KeyError: 'first'\n\n")
    assert whole.count("ValueError: ") == 20
    for error in (chained(30, link, KeyError("first")), ExceptionGroup("some", [chained(29, link, KeyError("first"))])):
        text = text_of_traceback(error)
        assert text.startswith(cut)
        assert "first" not in text
        assert text.count("ValueError: ") == 21
        assert "ValueError: 28" in text
    both = ExceptionGroup("both", [chained(15, link, KeyError("a")), chained(15, link, KeyError("b"))])
    assert text_of_traceback(both).count("ValueError: ") == 22  # of both together


def test_stderr_and_systemd_are_told_none(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    """Nor those who read these."""
    masking.add("hunter22")
    console.say("error: it is hunter22")
    assert capsys.readouterr().err == f"error: it is {MASK}\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        told = notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert told is not None
        told._send("STATUS=hunter22")
        assert systemd.recv(100) == f"STATUS={MASK}".encode()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 200), st.integers(0, 300), st.integers(1, 5000))
def test_no_error_is_a_flood(causes: int, members: int, length: int) -> None:
    """Whatever it is made of: texts, causes, groups."""
    error: Exception = ValueError("x" * length)
    for _ in range(causes):
        caused = ExceptionGroup("y" * length, [error]) if members % 2 else OSError("z" * length)
        caused.__cause__ = error
        error = caused
    error = ExceptionGroup("many", [error, *(ValueError("w" * length) for _ in range(members))])
    assert len(one_line(error)) < LINE + 100
    assert len(text_of_traceback(error)) < TRACE + 200
    record = logging.LogRecord("x", logging.INFO, "f.py", 1, "m" * length * 100, (), None)
    Context(Identity("app", "1", "")).filter(record)
    assert len(record.getMessage()) < TEXT + 100
