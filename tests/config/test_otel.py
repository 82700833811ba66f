"""What the environment says of OpenTelemetry."""

from __future__ import annotations

import pytest

from kernel.config.otel import OTEL_VARIABLES, SIGNALS, Exports, Otel, read_otel

URL = "http://collector:4318"


def test_nothing_set_is_nothing_sent() -> None:
    """No signal, and no error."""
    otel, errors = read_otel({"OTEL_SERVICE_NAME": "shop", "OTEL_TRACES_EXPORTER": "", "OTEL_LOGS_EXPORTER": " none "})
    assert not otel
    assert otel.name == "shop"
    assert errors == []


def test_an_endpoint_for_all() -> None:
    """Each signal has its path below it, whether it ends in a slash or not."""
    for endpoint in (URL, f"{URL}/"):
        otel, errors = read_otel({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
        assert errors == []
        for signal in SIGNALS:
            assert getattr(otel, signal) == Exports(otlp=True, endpoint=f"{URL}/v1/{signal}")
            assert getattr(otel, signal).timeout == 2.0


def test_an_endpoint_of_one_signal() -> None:
    """It is taken as it is, and the others are not sent."""
    otel, _ = read_otel({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{URL}/spans"})
    assert otel
    assert otel.traces == Exports(otlp=True, endpoint=f"{URL}/spans")
    assert not otel.metrics
    assert not otel.logs


def test_an_exporter_by_name() -> None:
    """Without an endpoint OTLP goes where the specification says; several may be named; `none` is stronger than one."""
    otel, _ = read_otel({"OTEL_TRACES_EXPORTER": "OTLP, console", "OTEL_METRICS_EXPORTER": "prometheus"})
    assert otel.traces == Exports(otlp=True, console=True, endpoint="http://localhost:4318/v1/traces")
    assert not otel.metrics  # ADMIN_ADDR serves those
    otel, _ = read_otel({"OTEL_LOGS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": URL})
    assert otel.traces
    assert not otel.logs


def test_the_signals_own_goes_first() -> None:
    """As in the specification; milliseconds, as there."""
    otel, errors = read_otel(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": URL,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "10000",
            "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "500",
        }
    )
    assert errors == []
    assert (otel.traces.timeout, otel.logs.timeout) == (10.0, 0.5)


def test_disabled() -> None:
    """One variable turns it all off, whatever else is set, or wrong."""
    environ = {"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "?"}
    assert read_otel(environ) == (Otel(), [])


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "jaeger"},
            "OTEL_TRACES_EXPORTER is 'jaeger': unknown exporter 'jaeger'; exp",
        ),
        ({"OTEL_LOGS_EXPORTER": "prometheus"}, "unknown exporter 'prometheus'"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is 'grpc'; use http/protobuf",
        ),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json'"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"},
            "_OTLP_ENDPOINT is 'collector:4317'; expected a URL",
        ),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "0"}, "expected a whole number of milliseconds"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "1.5"}, "expected a whole number of milliseconds"),
        ({"OTEL_TRACES_SAMPLER": "sometimes"}, "OTEL_TRACES_SAMPLER is 'sometimes'; expected one of always_on"),
    ],
)
def test_what_is_wrong(environ: dict[str, str], words: str) -> None:
    """It is told once, with what to do; and what is not sent may be said as one likes."""
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}
    _, errors = read_otel({**endpoint, **environ})
    (error,) = errors
    assert words in str(error)
    unsent = {name: text for name, text in environ.items() if not name.endswith(("EXPORTER", "OTLP_ENDPOINT"))}
    assert read_otel(unsent)[1] == []


def test_the_target_for_people() -> None:
    """A password in an endpoint is not shown."""
    with_password = f"https://me:{'secret'}@collector/v1/traces"
    assert Exports(otlp=True, endpoint=with_password).target == "https://me:********@collector/v1/traces"
    assert Exports(console=True).target == "stderr"


def test_the_variables_are_told_apart() -> None:
    """Each once, and all of OpenTelemetry."""
    assert len({*OTEL_VARIABLES}) == len(OTEL_VARIABLES)
    assert all(name.startswith("OTEL_") for name in OTEL_VARIABLES)
