"""Settings of OpenTelemetry, and metrics of the user's that fail."""

from __future__ import annotations

import httpx
import pytest

from tests.conformance.program import CALM, App
from tests.ports import free_port
from tests.receiver import receiving

SANE = {
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "100",
    "OTEL_METRIC_EXPORT_INTERVAL": "50",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "64",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "",
    "OTEL_BSP_EXPORT_TIMEOUT": "",
}
WRONG = {
    "OTEL_BSP_SCHEDULE_DELAY": "0",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "abc",
    "OTEL_METRIC_EXPORT_INTERVAL": "0",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "x",
    "OTEL_PROPAGATORS": "pigeon",
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_sane_values_work(app: App, backend: str) -> None:
    """They reach the SDK, which exports."""
    app.service("calm", CALM)
    with receiving() as receiver:
        run = app.run(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, KERNEL_BACKEND=backend, **SANE)
        run.wait_for("all ready")
        receiver.wait_for(lambda one: one.metrics and one.spans and one.logs)
        result = run.stop()
    assert result.code == 0, result.stderr
    assert not [one for one in result.records if one["level"] in {"warning", "error", "critical"}]


def test_wrong_ones_are_refused_by_name(app: App) -> None:
    """All in one go, with exit code 2, and nothing is started."""
    app.service("calm", CALM)
    result = app.call("run", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", **WRONG)
    assert result.code == 2
    assert {error.partition(" ")[0] for error in result.errors} == {*WRONG}
    assert not result.said("starting")


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_a_collector_that_fails(app: App, accept: str) -> None:
    """The other metrics are told, the kernel's own included; and why it is not, once."""
    app.service(
        "odd",
        """
        @service(start_timeout=float("inf"))
        async def odd(serving: Serving[None]) -> None:
            from prometheus_client import REGISTRY, Counter
            from prometheus_client.core import GaugeMetricFamily

            class Raises:
                def describe(self) -> Any:
                    return []

                def collect(self) -> Any:
                    yield GaugeMetricFamily("before", "told or not", value=1)
                    raise OSError("no database")

            class Unsayable:
                def describe(self) -> Any:
                    return []

                def collect(self) -> Any:
                    yield GaugeMetricFamily("unsayable", "caf\\udce9", value="x")

            REGISTRY.register(Unsayable())
            REGISTRY.register(Raises())
            Counter("mine", "A counter").inc()
            log.info("registered")
            await anyio.sleep_forever()
        """,
    )
    app.service("calm", CALM)
    port = free_port()
    run = app.run(ADMIN_ADDR=str(port))
    run.wait_for("registered")
    for _ in range(2):
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers={"accept": accept})
        assert answer.status_code == 200
        assert "mine_total 1.0" in answer.text
        assert "kernel_service_state" in answer.text
        assert answer.text.count("# EOF") == ("openmetrics" in accept)
    status = httpx.get(f"http://127.0.0.1:{port}/status")
    assert "Infinity" not in status.text
    assert status.json()["services"]["odd"]["next_step_in"] is None
    result = run.stop(after="registered")
    assert result.code == 0
    assert sum("the metrics of" in message for message in result.messages) == 2
