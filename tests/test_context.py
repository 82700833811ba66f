"""What surrounds the running code: whether it is traced."""

from __future__ import annotations

import logging
import sys
import types

import opentelemetry
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from kernel import tracing_enabled
from kernel.identity import Identity
from kernel.observe.logs import Context


@pytest.mark.parametrize(
    ("provider", "enabled"),
    [(None, False), (trace.NoOpTracerProvider(), False), (TracerProvider(shutdown_on_exit=False), True)],
    ids=["none", "no-op", "the SDK's"],
)
def test_whoever_sets_up_a_provider_enables_it(
    monkeypatch: pytest.MonkeyPatch, provider: trace.TracerProvider | None, *, enabled: bool
) -> None:
    """The kernel's provider or one that the app has set up itself; a provider that records nothing does not count."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    assert tracing_enabled() is enabled


def test_nobody_has_imported_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question does not import it."""
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    monkeypatch.delattr(opentelemetry, "trace")
    assert tracing_enabled() is False
    assert "opentelemetry.trace" not in sys.modules


def test_a_record_while_another_thread_imports_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is there but still empty: an error in a filter would disable the handler that prints."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.ModuleType("opentelemetry.trace"))
    record = logging.makeLogRecord({"msg": "early"})
    assert Context(Identity("app", "1", "")).filter(record)
    assert record.__dict__["trace_id"] == ""
