"""All metrics as Prometheus text."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest
from opentelemetry.exporter import prometheus as exporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily

from kernel import masking
from kernel.masking import MASK
from kernel.observe.prometheus import Prometheus, UnreadableAccept, _masked
from kernel.process import contain

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """The process's registry of the Prometheus client, which has nothing yet."""
    fresh = CollectorRegistry(target_info={"env": "test"})
    monkeypatch.setattr(prometheus_client, "REGISTRY", fresh)
    own = functools.partial(exporter.PrometheusMetricReader, registry=fresh)
    monkeypatch.setattr(exporter, "PrometheusMetricReader", own)
    return fresh


class Fails:
    """A collector that cannot collect."""

    def collect(self) -> Iterator[Any]:
        raise ZeroDivisionError

    def describe(self) -> list[Any]:
        return []


def test_the_metrics_of_all(registry: CollectorRegistry) -> None:
    """Of the Prometheus client and of OpenTelemetry; in the format that is asked for; collection starts once."""
    providers: list[MeterProvider] = []

    def provide(reader: Any) -> None:
        providers.append(MeterProvider([reader], shutdown_on_exit=False))
        providers[0].get_meter("x").create_up_down_counter("level").add(5, {"n": "1"})

    Counter("own", "Mine.", registry=registry).inc(7)
    prometheus = Prometheus(provide)
    prometheus.start()
    for accept, kind, end in (("", "text/plain; version=0.0.4", ""), (OPEN_METRICS, OPEN_METRICS, "# EOF")):
        body, content_type = prometheus.render(accept)
        lines = body.decode().split("\n")
        assert content_type.startswith(kind)
        assert 'target_info{env="test"} 1.0' in lines  # the registry's own, which no collector has
        assert {"own_total 7.0", 'level{n="1"} 5.0'} <= {*lines}  # without the scopes of OpenTelemetry
        assert lines[-2:] == [end, ""] if end else lines[-1] == ""
    assert len(providers) == 1


def test_as_many_series_as_there_are(registry: CollectorRegistry) -> None:
    """Thousands of services have more than the SDK keeps by default."""
    many = range(2_001)

    def provide(reader: Any) -> None:
        meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("x")
        meter.create_observable_gauge("many", [lambda _: (Observation(n, {"n": str(n)}) for n in many)])

    Prometheus(provide).start()
    (family,) = (family for family in registry.collect() if family.name == "many")
    assert sum(sample.value for sample in family.samples) == sum(many)
    assert len(family.samples) == len(many)


@pytest.mark.usefixtures("registry")
def test_an_accept_that_cannot_be_read() -> None:
    """It is the client's mistake, and is told as one."""
    with pytest.raises(UnreadableAccept, match="version=x"):
        Prometheus(lambda _: None).render("application/openmetrics-text; version=x.y")


@pytest.mark.parametrize(("accept", "end"), [("", b"own 7.0\n"), (OPEN_METRICS, b"own 7.0\n# EOF\n")])
def test_a_collector_that_fails(
    registry: CollectorRegistry, accept: str, end: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are shown, masked as ever; the log tells of it once."""
    contain._said.clear()
    masking.add("hunter22")
    registry.register(Fails())
    Gauge("first", "With hunter22.", registry=registry).set(3)
    Gauge("own", "Mine.", registry=registry).set(7)
    prometheus = Prometheus(lambda _: None)
    for _ in range(2):
        body, _content_type = prometheus.render(accept)
        assert body.endswith(end)
        assert b"\nfirst 3.0\n" in body
        assert f"With {MASK}.".encode() in body
        assert b"hunter22" not in body
        assert body.count(b"# EOF") == end.count(b"# EOF")
    (record,) = (record for record in caplog.records if record.name == "kernel")
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("description", (f"so {MASK} is", {"calm": "calm"})),
        ("label", ("calm", {"masked": "calm"})),
        ("value", ("calm", {"calm": f"so {MASK} is"})),
    ],
)
def test_one_place_of_a_family(place: str, shown: tuple[str, dict[str, str]]) -> None:
    """It is masked there, and the rest is as it was."""
    masking.add("hunter22")
    at = dict.fromkeys(("description", "label", "value"), "calm") | {place: "so hunter22 is"}
    family = GaugeMetricFamily("made", at["description"], labels=[at["label"]])
    family.add_metric([at["value"]], 3)
    made = _masked(family)
    assert (made.documentation, [sample.labels for sample in made.samples]) == (shown[0], [shown[1]])
    assert [(sample.name, sample.value) for sample in made.samples] == [("made", 3)]
    assert "hunter22" in str((family.documentation, family.samples))  # it is the user's


def test_a_family_with_nothing_to_mask() -> None:
    """It is not copied."""
    masking.add("hunter22")
    family = GaugeMetricFamily("made", "calm", labels=["a"])
    family.add_metric(["b"], 3)
    assert _masked(family) is family
