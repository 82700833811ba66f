"""What the admin server of the real program answers, from the first start to the last end."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from kernel.testing import BACKENDS
from tests.conformance.program import CALM, REPO, App, Process, Program, Result

SLACK = 0.003  # seconds between a move and its record, or a request and its answer's making


def url_of(run: Process) -> str:
    """Where the admin server of *run* is, once it has said so."""
    run.wait_for("status and health at")
    found = re.search(r"status and health at (http://[^\s\"]+)", run.output)
    assert found
    return found[1]


def port_of(url: str) -> int:
    """The port in it."""
    return int(url.rpartition(":")[2])


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client with one connection, that waits for nobody's sake."""
    with httpx.Client(trust_env=False, timeout=5) as client:
        yield client


# -- ready or not ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Poll:
    """One look at /readyz: when it began and was answered, by the wall clock, and the status; 0 for no answer."""

    begun: float
    answered: float
    status: int


def poll(url: str, ended: threading.Event) -> list[Poll]:
    """Look every 10 ms until *ended*."""
    polls: list[Poll] = []
    with httpx.Client(trust_env=False, timeout=5) as client:
        while not ended.wait(0.01):
            begun, status = time.time(), 0
            with contextlib.suppress(httpx.TransportError):
                status = client.get(f"{url}/readyz").status_code
            polls.append(Poll(begun, time.time(), status))
    return polls


def readiness(result: Result, enabled: list[str]) -> list[tuple[float, bool]]:
    """From when on it was ready, and from when on not, as the log tells."""
    states = dict.fromkeys(enabled, "waiting")
    stopping = False
    changes = [(0.0, False)]
    for record in result.records:
        if "state" in record:
            allowed = record["level"] == "warning"
            states[record["service"]] = "allowed" if record["state"] == "failed" and allowed else record["state"]
        stopping = stopping or record["message"].startswith("stopping: ")
        ready = not stopping and all(states[one] in {"ready", "done", "allowed"} for one in enabled)
        if ready != changes[-1][1]:
            changes.append((datetime.fromisoformat(record["ts"]).timestamp(), ready))
    return changes


@pytest.mark.parametrize("backend", BACKENDS)
def test_ready_at_no_wrong_moment(tmp_path: Path, backend: str) -> None:
    """Polled every 10 ms through start, retry, crash, recovery and stop, /readyz is right each time."""
    names = [f"example-{one}" for one in ("api", "catalog", "crasher", "database", "flaky", "migrator", "optional")]
    names.append("hello-world")
    if backend == "trio":
        names.remove("example-api")  # uvicorn runs on asyncio alone
    program = Program(REPO, EXAMPLE_DATABASE_PATH=str(tmp_path / "items.db"), EXAMPLE_API_PORT="0")
    try:
        run = program.run(*names, ADMIN_ADDR="0", KERNEL_BACKEND=backend, RUNNER_DRAINDELAY="300ms")
        polls: list[Poll] = []
        ended = threading.Event()
        thread = threading.Thread(target=lambda url: polls.extend(poll(url, ended)), args=[url_of(run)])
        thread.start()
        run.wait_for('"example-crasher".*"state": "ready"', times=2)
        time.sleep(0.3)
        run.send(signal.SIGTERM)
        result = run.result()
        ended.set()
        thread.join()
    finally:
        program.close()
    assert result.code == 0
    changes = readiness(result, names)
    assert [ready for _, ready in changes] == [False, True, False, True, False]  # a start, a crash, and a stop

    def between(begin: float, end: float) -> set[bool]:
        """What it was between the two times."""
        inside = {ready for at, ready in changes if begin <= at <= end}
        return inside | {[ready for at, ready in changes if at <= begin][-1]}

    right = {True: 200, False: 503}
    last = changes[-1][0]
    judged = {True: 0, False: 0}
    for one in polls:
        what = between(one.begun - SLACK, one.answered + SLACK)
        if one.begun > last + 0.3:
            assert one.status in {503, 0}  # nobody is there any more, sooner or later
        elif len(what) == 1:
            (ready,) = what
            assert one.status == right[ready], f"{one} among {changes}"
            judged[ready] += 1
    assert judged[True] > 15
    assert judged[False] > 15


def test_the_drain_delay(app: App, client: httpx.Client) -> None:
    """It is unready at once, and goes on to serve for that long."""
    app.service("calm", CALM)
    run = app.run(ADMIN_ADDR="0", RUNNER_DRAINDELAY="500ms", RUNNER_SHUTDOWNTIMEOUT="2s")
    url = url_of(run)
    run.wait_for("all ready")
    assert client.get(f"{url}/readyz").json() == {
        "ready": True,
        "reason": "",
        "services": {"calm": {"state": "ready", "reason": ""}},
    }
    run.send(signal.SIGTERM)
    run.wait_for("stopping: SIGTERM")
    answer = client.get(f"{url}/readyz")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "stopping: SIGTERM"
    assert answer.json()["services"]["calm"]["state"] == "ready"
    assert client.get(f"{url}/livez").status_code == 200
    assert client.get(f"{url}/startupz").status_code == 200
    result = run.result()
    assert result.seconds >= 0.5
    assert result.own_seconds < 1.5


# -- the pages -------------------------------------------------------------------------------------------------------

WAITS = """
@service(depends=["slow"])
async def waits() -> None:
    await anyio.sleep_forever()
"""
SLOW = """
@service
async def slow(serving: Serving[None]) -> None:
    await anyio.sleep(100)
"""
BROKEN = """
@service(allowed_failure=True, retries=Retry(times=5, delay=50))
async def broken() -> None:
    raise ConnectionError("refused")
"""


@pytest.mark.core
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_status_of_a_start_that_hangs(app: App, client: httpx.Client, backend: str) -> None:
    """Nobody has to ask "what is it doing?" and gets no answer."""
    for name, source in (("calm", CALM), ("waits", WAITS), ("slow", SLOW), ("broken", BROKEN)):
        app.service(name, source)
    run = app.run(ADMIN_ADDR="0", KERNEL_BACKEND=backend)
    url = url_of(run)
    run.wait_for("retry 1 of 5")
    run.wait_for('"calm".*"state": "ready"')
    run.wait_for('"slow".*"state": "starting"')
    assert client.get(f"{url}/startupz").status_code == 503
    answer = client.get(f"{url}/readyz")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "not ready: broken, slow, waits"
    assert answer.json()["services"]["waits"] == {"state": "waiting", "reason": "waits for slow"}
    status = client.get(f"{url}/status").json()
    assert status["state"] == "starting"
    assert status["app"]["backend"] == backend
    services: dict[str, Any] = status["services"]
    assert services["slow"]["stands_at"].endswith("services/slow.py:9 in slow")
    assert services["waits"]["waits_for"] == ["slow"]
    assert services["broken"]["state"] == "backoff"
    assert services["broken"]["last_error"] == "ConnectionError: refused"
    assert 20 < services["broken"]["next_step_in"] < 40
    assert services["calm"]["state"] == "ready"
    assert "admin" not in services  # it is none
    run.send(signal.SIGTERM)
    assert run.result().code == 0


def test_other_requests(app: App, client: httpx.Client) -> None:
    """What is there is listed; what is not says so; and nothing can be changed."""
    app.service("calm", CALM)
    run = app.run(ADMIN_ADDR="127.0.0.1:0")
    url = url_of(run)
    run.wait_for("all ready")
    assert client.get(url).text.split() == ["/livez", "/readyz", "/startupz", "/status", "/metrics"]
    assert client.get(f"{url}/livez/").json() == {"alive": True}
    missing = client.get(f"{url}/health")
    assert (missing.status_code, missing.json()["error"]) == (404, "unknown page /health")
    refused = client.post(f"{url}/readyz", content=b"x")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert refused.text == "only GET and HEAD are allowed: the admin server is read-only\n"
    head = client.head(f"{url}/readyz")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 10
    run.send(signal.SIGTERM)
    assert run.result().code == 0


@pytest.mark.core
@pytest.mark.parametrize("mode", ["asked for", "dev"])
def test_metrics(app: App, client: httpx.Client, mode: str) -> None:
    """As Prometheus reads them, also where the first who asks is the reason that they are collected."""
    app.service("calm", CALM)
    app.service("broken", BROKEN)
    run = app.run(**({"ENV": "dev"} if mode == "dev" else {"ADMIN_ADDR": "0"}))
    url = url_of(run)
    run.wait_for("retry 1 of 5")
    run.wait_for('"calm".*"state": "ready"')
    answer = client.get(f"{url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = {line.partition("}")[0]: line for line in answer.text.splitlines() if not line.startswith("#")}

    def value(name: str, **labels: str) -> float:
        (found,) = (
            line
            for line in lines.values()
            if line.startswith(f"{name}{{") and all(f'{key}="{text}"' in line for key, text in labels.items())
        )
        return float(found.rpartition(" ")[2])

    assert value("kernel_service_state", service="calm", state="ready") == 1
    assert value("kernel_service_state", service="calm", state="starting") == 0
    assert value("kernel_service_state", service="broken", state="backoff") == 1
    assert value("kernel_service_attempts_total", service="broken") == 1
    assert value("kernel_service_restarts_total", service="broken") == 0
    assert value("kernel_service_ready_time_seconds", service="calm") > 0
    assert value("kernel_service_start_duration_seconds_count", service="calm") == 1
    assert "\nkernel_ready 0.0\n" in answer.text
    assert re.search(r"\nkernel_loop_delay_seconds \d", answer.text)
    modern = client.get(f"{url}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")
    run.send(signal.SIGTERM)
    assert run.result().code == 0


@pytest.mark.parametrize("backend", [*BACKENDS, "uvloop"])
def test_who_takes_the_loops_time(app: App, client: httpx.Client, backend: str) -> None:
    """The one that works all the time stands out in the shares, and so does the delay."""
    app.service("calm", CALM)
    app.service(
        "busy",
        """
        async def work() -> None:
            while True:
                end = time.monotonic() + 0.02
                while time.monotonic() < end:
                    pass
                await anyio.sleep(0)

        @service
        async def busy(serving: Serving[None]) -> None:
            async with serving() as task:
                task.start_soon(work)
                await anyio.sleep_forever()
        """,
    )
    run = app.run(ADMIN_ADDR="0", KERNEL_BACKEND=backend, RUNNER_SHUTDOWNTIMEOUT="5s")
    url = url_of(run)
    end = time.monotonic() + 15
    while time.monotonic() < end:
        loop = client.get(f"{url}/status").json()["loop"]
        if loop["shares"].get("busy", 0) > 0.6 and loop["delay"] > 0.001:
            break
        time.sleep(0.1)
    assert loop["shares"]["busy"] > 0.6
    assert loop["shares"].get("calm", 0) < 0.2
    run.send(signal.SIGTERM)
    assert run.result().code == 0


# -- where it listens ------------------------------------------------------------------------------------------------


def test_a_port_that_was_asked_for_and_is_taken(app: App) -> None:
    """It is an error before anything starts."""
    app.service("calm", CALM)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = app.run(ADMIN_ADDR=f"127.0.0.1:{port}", LOG_FORMAT="text").result()
    assert result.code == 2
    assert f"error: ADMIN_ADDR is 127.0.0.1:{port}: cannot listen there: Address already in use" in result.stderr
    assert "nothing was started" in result.stderr


def test_the_default_port_gives_way(app: App, client: httpx.Client) -> None:
    """In `dev` two apps may run side by side."""
    app.service("calm", CALM)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # somebody else has it, which is as well
            stack.enter_context(socket.create_server(("127.0.0.1", 9090)))
        run = app.run(ENV="dev")
        url = url_of(run)
        assert 9090 < port_of(url) <= 9110
        run.wait_for("port 9090 is taken, so the admin server takes")
        assert client.get(f"{url}/livez").status_code == 200
        run.send(signal.SIGTERM)
        assert run.result().code == 0


def test_only_loopback_hears_unless_asked(app: App) -> None:
    """A port alone is one of loopback; all interfaces have to be named."""
    app.service("calm", CALM)
    for address, host in (("0", "127.0.0.1"), ("0.0.0.0:0", "0.0.0.0"), ("[::1]:0", "[::1]")):  # noqa: S104
        run = app.run(ADMIN_ADDR=address)
        assert url_of(run).startswith(f"http://{host}:")
        run.send(signal.SIGTERM)
        assert run.result().code == 0


def test_it_is_there_before_the_first_start_and_after_the_last_end(app: App, client: httpx.Client) -> None:
    """Around the app's lifespan too: what there is to see can be seen."""
    app.service("calm", CALM)
    app.init(
        """
        import urllib.error, urllib.request

        async def look() -> None:
            url = f"http://127.0.0.1:{os.environ['PORT']}/startupz"
            found = await anyio.to_thread.run_sync(ask, url)
            log.info("startupz says %s", found)

        def ask(url: str) -> int:
            try:
                return urllib.request.urlopen(url).status
            except urllib.error.HTTPError as error:
                return error.code

        @lifespan
        async def around() -> AsyncGenerator[None, None]:
            await look()
            yield
            await look()
        """
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = app.run(ADMIN_ADDR=str(port), PORT=str(port)).stop()
    assert result.code == 0
    assert result.in_order(
        "status and health at", "startupz says 503", "calm: ready", "calm: stopped", "startupz says 200"
    )


# -- no harm ---------------------------------------------------------------------------------------------------------


def test_it_counts_for_nothing(app: App) -> None:
    """An app whose services have all ended ends, whoever looks at it; a command serves nothing."""
    app.service(
        "once",
        "@service(oneshot=True)\nasync def once() -> None:\n    pass\n\n@once.command\nasync def go() -> None: ...",
    )
    result = app.run(ADMIN_ADDR="0").result()
    assert result.code == 0
    assert "every service has ended" in result.messages[-1]
    assert "admin" not in str([one["services"] for one in result.records if "services" in one])
    assert not app.call("once", "go", ADMIN_ADDR="0", LOG_LEVEL="info").said("status and health")


@pytest.mark.parametrize("backend", BACKENDS)
def test_clients_that_hang(app: App, backend: str) -> None:
    """Those that never finish their request, or never read the answer, do not hold up the end."""
    app.service("calm", CALM)
    run = app.run(ADMIN_ADDR="0", KERNEL_BACKEND=backend, RUNNER_SHUTDOWNTIMEOUT="5s")
    port = port_of(url_of(run))
    run.wait_for("all ready")
    with contextlib.ExitStack() as stack:
        for text in (
            b"",
            b"GET /sta",
            b"GET /status HTTP/1.1\r\nHost: x\r\n",
            b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n" * 50,
        ):
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(text)
        run.send(signal.SIGTERM)
        result = run.result()
    assert result.code == 0
    assert result.own_seconds < 2.5
    assert not [one for one in result.records if one["level"] in {"error", "critical"}]


def test_garbage(app: App, client: httpx.Client) -> None:
    """What is no HTTP is refused, and the next who asks is answered."""
    app.service("calm", CALM)
    run = app.run(ADMIN_ADDR="0")
    url = url_of(run)
    for text in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"HELO there\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=5) as connection:
            connection.sendall(text)
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.recv(1000)
    assert client.get(f"{url}/livez").status_code == 200
    run.send(signal.SIGTERM)
    result = run.result()
    assert result.code == 0
    assert not [one for one in result.records if one["level"] in {"error", "critical"}]
