"""The admin server of the real program among clients that mean it ill, or know no better."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from kernel.testing import BACKENDS
from tests.conformance.program import CALM, App, Process, Result
from tests.conformance.test_health import port_of, url_of
from tests.ports import free_port

SOON = 5.0  # seconds in which an answer comes on any machine; a quiet one needs some milliseconds
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def ask(port: int, sent: bytes, *, host: str = "127.0.0.1") -> bytes:
    """All that comes back for *sent*, until the server closes the connection or says no more."""
    with socket.create_connection((host, port), timeout=SOON) as connection:
        connection.sendall(sent)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        got = b""
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                got += data
        return got


def get(path: str, *headers: str, version: str = "1.1") -> bytes:
    """A request as text."""
    return "\r\n".join([f"GET {path} HTTP/{version}", *headers, "", ""]).encode("latin-1")


def statuses(answers: bytes) -> list[int]:
    """The status of each answer."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


@pytest.fixture
def run(app: App) -> Iterator[Process]:
    """A calm app with its admin server, which ends well whatever was done to it."""
    app.service("calm", CALM)
    run = app.run(ADMIN_ADDR="0")
    run.wait_for("all ready")
    yield run
    run.send(signal.SIGTERM)
    result = run.result()
    assert result.code == 0
    assert not [one for one in result.records if one["level"] not in {"info", "debug"}]


UPGRADE = ("Host: localhost", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: A")
WEBSOCKET = (
    "Host: localhost",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol: \xff",
)
FRAME = b"\x00\x00\x05\x02\x00\x00\x00\x00\x01\x00\x00\x00\x00\x10"  # a PRIORITY of HTTP/2


@pytest.mark.many
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (get("/livez", *UPGRADE), [200]),
        (get("/livez", *WEBSOCKET), [200]),
        (PREFACE + b"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x02\x07:m\xff\xff", [505]),
        (PREFACE + FRAME * 1001, [505]),
        (get("/livez", "Host: localhost", "Content-Length: 5", "Transfer-Encoding: chunked"), [400]),
        (get("/livez", "Host: localhost", "Content-Length: 44") + get("/livez", "Host: localhost"), [200]),
        (get("/livez", "Host: localhost", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + get("/"), [200]),
        (get("/livez", "Host: localhost", "Expect: 100-continue"), [200]),
        (get("/livez", "Host: localhost", "Content-Length: 0"), [200]),
        (get("/livez", "Host: localhost", "X: " + "x" * 40_000), [431]),
        (get("/livez"), [400]),
        (get("/livez", "Host: a", "Host: b"), [400]),
        (get("/livez", version="1.0"), [200]),
        (get("/livez", "Host: localhost", version="3.0"), [505]),
        (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", [405]),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3, [200, 200, 200]),
        (b"GET /livez HTTP/1.1\r\n Host: localhost\r\n\r\n", [400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), [400]),
        (b"\xff" * 100_000, [431]),
        (b"", []),
    ],
)
def test_odd_requests(run: Process, sent: bytes, expected: list[int]) -> None:
    """Each gets its answer, or none; the next who asks is answered, and nothing is logged."""
    port = port_of(url_of(run))
    assert statuses(ask(port, sent)) == expected
    assert statuses(ask(port, get("/livez", "Host: localhost"))) == [200]


@pytest.mark.many
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9090", 200),
        ("127.0.0.1", 200),
        ("10.1.2.3:80", 200),
        ("[::1]:9090", 200),
        ("[::1]", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:9090", 421),
        ("localhost:x", 421),
        ("[localhost]", 421),
        ("::1", 421),
        ("2130706433", 421),
        ("", 421),
    ],
)
def test_only_an_address_or_localhost_is_answered_on_loopback(run: Process, host: str, status: int) -> None:
    """A page in a browser may have its name point here; also where the request line names the host."""
    port = port_of(url_of(run))
    assert statuses(ask(port, get("/status", f"Host: {host}"))) == [status]
    if host:
        assert statuses(ask(port, get(f"http://{host}/status", "Host: localhost"))) == [status]


def test_beyond_loopback_any_name_is_answered(app: App) -> None:
    """A service in a cluster is asked by its name."""
    app.service("calm", CALM)
    run = app.run(ADMIN_ADDR="0.0.0.0:0")
    assert statuses(ask(port_of(url_of(run)), get("/livez", "Host: shop.example"))) == [200]
    run.send(signal.SIGTERM)
    assert run.result().code == 0


@pytest.mark.many
@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=abc", "text/plain; q=x", "a/b; c", ";;;", "\xff\xfe", "=" * 9000]
)
def test_a_bad_accept_is_one_short_answer(run: Process, accept: str) -> None:
    """Of the 4xx, or the usual format; and no line in the log."""
    answer = ask(port_of(url_of(run)), get("/metrics", "Host: localhost", f"Accept: {accept}"))
    assert statuses(answer) in ([200], [406])


BLOCKER = """
@service
async def blocker(serving: Serving[None]) -> None:
    async with serving():
        await anyio.sleep(0.5)
        time.sleep(100)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_blocked_loop_is_told_while_it_is_blocked(app: App, backend: str) -> None:
    """By /status at once, by /livez when it has lasted for 10 s; with the service and the line."""
    app.service("blocker", BLOCKER)
    run = app.run(ADMIN_ADDR="0", KERNEL_BACKEND=backend)
    url = url_of(run)
    run.wait_for("blocking the event loop|blocked the event loop")
    with httpx.Client(trust_env=False, timeout=SOON) as client:
        blocked = client.get(f"{url}/status").json()["loop"]["blocked"]
        assert blocked["seconds"] >= 0.25
        assert blocked["service"] == "blocker"
        assert blocked["at"].endswith("services/blocker.py:11 in blocker")
        assert client.get(f"{url}/livez").status_code == 200
        assert client.get(f"{url}/readyz").status_code == 200
        assert "kernel_loop_delay" in client.get(f"{url}/metrics").text
        end = time.monotonic() + 30
        while (dead := client.get(f"{url}/livez")).status_code == 200 and time.monotonic() < end:
            time.sleep(0.1)
        assert dead.status_code == 503
        assert "blocker has been blocking the event loop for 1" in dead.json()["reason"]
        assert "services/blocker.py:11 in blocker" in dead.json()["reason"]
    run.kill()


# -- crowds ----------------------------------------------------------------------------------------------------------

CROWD = 200


class Crowd:
    """Clients of the worst kinds, who come again when they are closed, until `end`."""

    def __init__(self, *ports: int) -> None:
        self._ports = ports
        self._ended = threading.Event()
        kinds: list[Callable[[socket.socket], None]] = [self._deaf, self._slow, self._greedy, self._mute]
        self._threads = [
            threading.Thread(target=self._come, args=[kinds[i % 4], ports[i // 4 % len(ports)]], daemon=True)
            for i in range(CROWD)
        ]
        for thread in self._threads:
            thread.start()

    def _come(self, kind: Callable[[socket.socket], None], port: int) -> None:
        while not self._ended.wait(0.05):
            with contextlib.suppress(OSError), socket.socket() as client:
                if kind == self._deaf:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                client.settimeout(2)
                client.connect(("127.0.0.1", port))
                kind(client)

    def _deaf(self, client: socket.socket) -> None:
        """Asks much and reads nothing."""
        client.sendall(get("/metrics", "Host: localhost") * 990)
        self._ended.wait(5)

    def _slow(self, client: socket.socket) -> None:
        """Never comes to an end of its headers."""
        client.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\nX: ")
        while not self._ended.wait(0.2):
            client.sendall(b"x")

    def _greedy(self, client: socket.socket) -> None:
        """Asks as fast as it can, and reads it all."""
        client.sendall(get("/status", "Host: localhost") * 50)
        while not self._ended.is_set() and client.recv(65536):
            pass

    def _mute(self, client: socket.socket) -> None:
        """Says nothing."""
        while not self._ended.is_set() and client.recv(100):
            pass

    def end(self) -> None:
        """Go home."""
        self._ended.set()
        for thread in self._threads:
            thread.join(5)


WEB = """
PAGE = b"x" * 300_000

async def page(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok" if scope["path"] == "/livez" else PAGE})

@attrs.frozen
class Config:
    port: int = 0

@service(depends=["calm"])
async def web(config: Config, serving: Serving[None]) -> None:
    await serve_asgi(page, port=config.port, serving=serving)
"""


def run_among(app: App, ports: tuple[int, int], backend: str, *, crowd: bool) -> Result:
    """Start the app, ask both of its servers twenty times, and stop it, with a crowd at both or without."""
    strangers = Crowd(*ports) if crowd else None
    try:
        run = app.run(ADMIN_ADDR=str(ports[0]), WEB_PORT=str(ports[1]), KERNEL_BACKEND=backend, **PATIENT)
        run.wait_for("all ready")
        for _ in range(20):
            for port in ports:
                with httpx.Client(trust_env=False, timeout=SOON) as client:
                    assert client.get(f"http://127.0.0.1:{port}/livez").status_code == 200
        run.send(signal.SIGTERM)
        return run.result()
    finally:
        if strangers is not None:
            strangers.end()


PATIENT = {"RUNNER_SHUTDOWNTIMEOUT": "30s"}  # much more than the stop may take


@pytest.mark.minutes
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_crowd_of_the_worst_holds_up_nothing(app: App, backend: str) -> None:
    """They are there before it starts, while it runs and when it stops: probes are answered, and the stop is as quick.

    It may take half a second longer: a client that has just connected may yet send or read.
    """
    app.service("calm", CALM)
    app.service("web", WEB)
    ports = free_port(), free_port()
    without = run_among(app, ports, backend, crowd=False)
    among = run_among(app, ports, backend, crowd=True)
    assert among.code == without.code == 0
    assert among.own_seconds < without.own_seconds + 2  # on a machine of its own, a half
    bad = [one for one in among.records if one["level"] not in {"info", "debug"}]
    assert not [one for one in bad if not one["message"].startswith("from clients: ")]
    assert len(bad) <= 2


def test_few_descriptors_are_enough(app: App) -> None:
    """Where the process may have 64 of them, 300 connections leave it its own."""
    app.service("calm", CALM)
    port = free_port()
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))  # noqa: E731
    run = app.open(("run",), {"ADMIN_ADDR": str(port)}, preexec_fn=limit)
    run.wait_for("all ready")
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=SOON))
        for _ in range(5):
            got = ask(port, get("/readyz", "Host: localhost"))
            assert statuses(got) == [200], got
            assert json.loads(got.partition(b"\r\n\r\n")[2])["ready"]
        run.send(signal.SIGTERM)
        result = run.result()
    assert result.code == 0
    assert not [one for one in result.records if one["level"] in {"error", "critical"}]
