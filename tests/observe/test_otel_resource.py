"""Who sends telemetry, and how an error is told there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics import ObservableCounter, ObservableGauge

from kernel import masking
from kernel.identity import Identity, instance
from kernel.masking import MASK
from kernel.observe import otel_resource
from kernel.observe.otel_resource import described, many_series, resource_of

APP = Identity("app", "1.2", "")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is set, and nothing is known from elsewhere."""
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    for cached in (resource_of, otel_resource._common):
        cached.cache_clear()
    yield
    for cached in (resource_of, otel_resource._common):
        cached.cache_clear()


def test_the_app_and_its_services() -> None:
    """A service has its own name in the namespace of the app; all else is the same."""
    app, db = (dict(resource_of(APP, *names).attributes) for names in ((), ("db",)))
    assert app == {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "process.pid": os.getpid(),
        "process.runtime.version": app["process.runtime.version"],
        "host.name": socket.gethostname(),
        "service.namespace": "app",
        "service.version": "1.2",
        "service.instance.id": instance(),
        "service.name": "app",
    }
    assert str(app["process.runtime.version"]).startswith("3.")
    assert " " not in str(app["process.runtime.version"])
    assert db == {**app, "service.name": "db"}


@pytest.mark.parametrize(
    ("env", "changes"),
    [
        ({"OTEL_SERVICE_NAME": "other"}, {"service.namespace": "other", "service.name": "other"}),
        ({"OTEL_SERVICE_NAME": "hunter22"}, {"service.namespace": MASK, "service.name": MASK}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.version=7,a=hunter22"}, {"service.version": "7", "a": MASK}),
    ],
    ids=["a name", "a secret as a name", "attributes"],
)
def test_what_the_environment_says(
    env: dict[str, str], changes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes first, without secrets; a service keeps its name."""
    masking.add("hunter22")
    usual = dict(resource_of(APP).attributes)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    resource_of.cache_clear()
    otel_resource._common.cache_clear()
    assert dict(resource_of(APP).attributes) == usual | changes
    assert resource_of(APP, "db").attributes["service.name"] == "db"


class Odd(Exception):
    """An error of a module."""


def test_an_error_in_attributes() -> None:
    """By the full name of its type, which for Python's own is the name alone; its traceback ends with it."""
    assert described(KeyError("x")) == {
        "exception.type": "KeyError",
        "exception.message": "KeyError: 'x'",
        "exception.stacktrace": "KeyError: 'x'",
    }
    told = described(Odd("text"))
    assert told["exception.type"] == f"{__name__}.Odd"
    assert told["exception.message"] == "Odd: text"


def test_how_many_series_are_kept() -> None:
    """A million of what is looked up: each of thousands of services has one for each state."""
    assert many_series() == {ObservableGauge: 1_000_000, ObservableCounter: 1_000_000}
