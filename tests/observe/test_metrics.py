"""The lifecycle as metrics, in virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from kernel.declare.retry import Retry
from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.identity import Identity
from kernel.lifecycle.units import Unit
from kernel.observe.metrics import provide
from kernel.observe.status import View
from tests.harness import Lab
from tests.observe.test_status import VirtualView


class Provided:
    """What a reader gets of a view's metrics."""

    def __init__(self, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
        self.registered: list[MeterProvider] = []
        self._reader = InMemoryMetricReader()
        monkeypatch.setattr(api, "set_meter_provider", self.registered.append)
        provide(view, Resource({"service.name": "app"}), [self._reader])

    def scopes(self) -> Any:
        """The instruments of each scope now."""
        (resource,) = self._reader.get_metrics_data().resource_metrics  # type: ignore[union-attr]
        assert resource.resource.attributes["service.name"] == "app"
        return resource.scope_metrics

    def read(self) -> dict[str, dict[tuple[str, ...], Any]]:
        """The value, or what a histogram has, of each series, by the name of its metric and its labels' values."""
        (scope,) = self.scopes()
        return {
            metric.name: {
                (*(point.attributes or {}).values(),): point.value
                if hasattr(point, "value")
                else (point.count, point.sum)
                for point in metric.data.data_points
            }
            for metric in scope.metrics
        }


@pytest.fixture
def view() -> View:
    """One by the virtual clock."""
    return VirtualView(Identity("app", "1.2", ""))


@pytest.mark.anyio
async def test_the_values_of_each_metric(view: View, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are when they are read; durations from before the first reader are kept, the kernel's own left out."""
    provided: list[Provided] = []
    seen: dict[float, dict[str, Any]] = {}
    attempts = iter([1, 2])

    @service
    async def early(serving: Serving[None]) -> None:
        await anyio.sleep(1)
        async with serving():
            await anyio.sleep_forever()

    @service(retries=Retry(times=1, delay=10, jitter=0))
    async def flaky(serving: Serving[None]) -> None:
        await anyio.sleep(2)
        if next(attempts) == 1:
            raise ConnectionError
        async with serving():
            await anyio.sleep_forever()

    @service
    async def own(serving: Serving[None]) -> None:
        async with serving():
            await anyio.sleep_forever()

    def look() -> None:
        view.orchestrator = lab.orchestrator
        provided.append(Provided(view, monkeypatch)) if not provided else None
        seen[lab.now] = provided[0].read()

    for moment in (1.5, 5, 20):
        lab.at(moment, look)
    view.delay, view.shares = lambda: 0.25, lambda: {"": 0.5, "early": 0.125}
    await lab.stop_at(25).run(early, flaky, Unit(own, internal=True), observers=[view.stats])
    seen[25] = provided[0].read()

    def told(name: str) -> list[dict[tuple[str, ...], Any]]:
        return [one.get(name, {}) for one in seen.values()]

    states = [{pair for pair, value in now.items() if value == 1} for now in told("kernel.service.state")]
    assert states == [
        {("early", "ready"), ("flaky", "starting")},
        {("early", "ready"), ("flaky", "backoff")},
        {("early", "ready"), ("flaky", "ready")},
        {("early", "stopped"), ("flaky", "stopped")},
    ]
    assert {value for now in told("kernel.service.state") for value in now.values()} == {0, 1}
    assert told("kernel.service.ready.time") == [
        {("early",): 0.5, ("flaky",): 0},
        {("early",): 4, ("flaky",): 0},
        {("early",): 19, ("flaky",): 6},
        {("early",): 0, ("flaky",): 0},
    ]
    assert [one["flaky",] for one in told("kernel.service.attempts")] == [1, 1, 2, 2]
    assert [one["flaky",] for one in told("kernel.service.restarts")] == [0, 0, 1, 1]
    assert told("kernel.service.restarts")[-1]["early",] == 0
    assert told("kernel.ready") == [{(): 0}, {(): 0}, {(): 1}, {(): 0}]
    assert told("kernel.loop.delay")[0] == {(): 0.25}
    assert told("kernel.loop.share")[0] == {("app",): 0.5, ("early",): 0.125}
    assert told("kernel.service.start.duration")[0] == {("early",): (1, 1.0)}
    assert told("kernel.service.start.duration")[-1] == {("early",): (1, 1.0), ("flaky",): (1, 2.0)}
    assert told("kernel.service.stop.duration")[-1].keys() == {("early",), ("flaky",)}


def test_before_the_run_there_is_a_provider(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the app, by the kernel in the app's version; the interpreter's exit does not wait for it."""
    exits: list[Any] = []
    monkeypatch.setattr("opentelemetry.sdk.metrics._internal.register", exits.append)
    view.stats.last["start"]["db"] = 0.3
    provided = Provided(view, monkeypatch)
    (scope,) = provided.scopes()
    assert (scope.scope.name, scope.scope.version) == ("kernel", "1.2")
    assert provided.read()["kernel.ready"] == {(): 0}
    assert len(provided.registered) == 1
    assert not exits


def test_the_bounds_of_durations(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are part of what dashboards rely on."""
    provided = Provided(view, monkeypatch)
    assert view.stats.record is not None
    view.stats.record("stop", "db", 0.3)
    (scope,) = provided.scopes()
    (stop,) = (metric for metric in scope.metrics if metric.name == "kernel.service.stop.duration")
    (point,) = stop.data.data_points
    assert point.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
    assert stop.unit == "s"
