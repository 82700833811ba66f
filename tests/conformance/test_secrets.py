"""No secret in anything that the real program shows, and no flood: whatever an error says, and wherever it is told."""

from __future__ import annotations

import json
import signal

import httpx
import pytest

from tests.conformance.program import App
from tests.conformance.test_health import url_of
from tests.receiver import receiving
from tests.test_masking import forms_of

TELLING = """
from typing import NewType
import base64, json, urllib.parse
from opentelemetry import metrics, trace
from opentelemetry.trace import Link
from prometheus_client import Gauge

Token = NewType("Token", Secret[str])

@attrs.frozen
class Config:
    token: Token
    plain: str = ""

class Rude(Exception):
    pass

def forms(secret: str) -> list[str]:
    encoded = [base64.b64encode(f"{before}{secret}".encode()).decode() for before in ("", "u:", "me:")]
    return [secret, repr(secret), json.dumps(secret), urllib.parse.quote(secret, safe=""), *encoded]

@service(allowed_failure=True, retries=Retry(times=5, delay=60))
async def telling(config: Config, serving: Serving[None]) -> None:
    words = " ".join(forms(config.token.reveal()))
    log.info("config %s %r", config, attrs.asdict(config))
    log.info("reveals %s", words, extra={"also": words, "object": forms(config.token.reveal())})
    print(len(words))
    secret = config.token.reveal()
    for value in (words, secret):
        meter = metrics.get_meter("mine")
        meter.create_counter("mine.counter", description=value).add(1234, {"label": value, value: "x"})
        meter.create_histogram("mine.histogram").record(0.5, {"label": value})
    Gauge("mine_gauge", secret, ["label"]).labels(words).set(1234)
    with trace.get_tracer("mine").start_as_current_span("linked") as other:
        other.set_attribute(words, "a name")
    links = [Link(other.get_span_context(), {"words": words})]
    with trace.get_tracer("mine").start_as_current_span("mine", links=links) as span:
        span.set_attribute("words", words)
        span.record_exception(Rude(words))
    error = Rude(words)
    error.add_note(words)
    try:
        raise KeyError(words)
    except KeyError as cause:
        raise error from cause
"""

SECRETS = [
    "p@ss'w\"o\\rd",
    "plain-old-secret",
    "schlüssel €€ 😀😀",
    "a+b/c=d&e%f g<h>i",
    "-----BEGIN-----\nMIIEvQIBADAN\n",
]


@pytest.mark.many
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_secret_is_nowhere(app: App, secret: str, form: str) -> None:
    """Not in the log, the status, a span or a record that is exported, whatever the service does with it."""
    app.service("telling", TELLING)
    with receiving() as collector:
        env = {"ADMIN_ADDR": "0", "LOG_FORMAT": form, "TELLING_TOKEN": secret, "OTEL_LOGS_EXPORTER": "otlp"}
        env["OTEL_METRICS_EXPORTER"] = "otlp"
        run = app.run(**env, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_EXPORTER_OTLP_HEADERS=f"x-key={secret!r}")
        url = url_of(run)
        run.wait_for("retry 1 of 5")
        pages = [httpx.get(f"{url}/{page}", trust_env=False).text for page in ("status", "readyz", "metrics")]
        run.send(signal.SIGTERM)
        result = run.result()
    assert result.code == 0
    assert collector.named("telling mine")
    assert any("reveals" in str(record) for _, record in collector.logs)
    assert "********" in result.stderr
    assert "mine_gauge" in pages[2]
    assert any(b"mine.histogram" in body for body in collector.bodies)
    told = [result.stderr, *pages, *(body.decode(errors="replace") for body in collector.bodies)]
    for text in told:
        for shown in forms_of(secret.strip()):
            assert shown.strip("'\"") not in text


@pytest.mark.parametrize(
    ("env", "secret"),
    [
        ({"TELLING_TOKEN": "hunter22", "TELLING_PLAN": "x"}, "hunter22"),  # pragma: allowlist secret
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:p@ssw0rd@127.0.0.1:1"}, "ssw0rd"),  # pragma: allowlist secret
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1/?api-key=ssw0rdX"}, "ssw0rdX"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://me:ssw0rd@127.0.0.1:1"}, "ssw0rd"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_HEADERS": "ssw0rd words"}, "ssw0rd"),
    ],
)
def test_what_is_wrong_with_a_variable_shows_no_secret(app: App, env: dict[str, str], secret: str) -> None:
    """Nor do OpenTelemetry's own loggers."""
    app.service("telling", TELLING.replace("retries=Retry(times=5, delay=60)", "retries=0"))
    given = {"TELLING_TOKEN": "something", **env}  # pragma: allowlist secret
    result = app.run(**given, RUNNER_SHUTDOWNTIMEOUT="3s").result()
    assert secret not in result.stderr
    assert secret not in result.stdout


FLOOD = """
class Loud(Exception):
    def __str__(self) -> str:
        return "x" * 3_000_000

@service(allowed_failure=True, retries=Retry(times=1, delay=0.01, jitter=0))
async def loud(serving: Serving[None]) -> None:
    error = Loud()
    error.add_note("n" * 3_000_000)
    for number in range(2000):
        try:
            raise error
        except Exception as cause:
            error = ValueError("y" * 1000)
            error.__cause__ = cause
    raise ExceptionGroup("many", [error, *(Loud() for _ in range(2))])

@service
async def calm(serving: Serving[None]) -> None:
    log.error("z" * 3_000_000)
    async with serving():
        await anyio.sleep_forever()
"""


@pytest.mark.minutes
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_flood_is_bounded_wherever_it_is_told(app: App, form: str) -> None:
    """Texts, notes, tracebacks and chains; and each says how much was left out."""
    one, other = FLOOD.split("@service\nasync def calm")
    app.service("loud", one)
    app.service("calm", "@service\nasync def calm" + other)
    run = app.run(ADMIN_ADDR="0", LOG_FORMAT=form)
    url = url_of(run)
    run.wait_for("failed after 2 attempts")
    pages = {page: httpx.get(f"{url}/{page}", trust_env=False, timeout=10).text for page in ("status", "readyz")}
    run.send(signal.SIGTERM)
    result = run.result()
    assert result.code == 0
    assert len(result.stderr) < 500_000
    assert all(len(text) < 20_000 for text in pages.values())
    assert "characters left out" in result.stderr
    assert "earlier causes left out" in result.stderr
    assert "characters left out" in json.loads(pages["status"])["services"]["loud"]["last_error"]
