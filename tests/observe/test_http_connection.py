"""What a connection of the admin server accepts, and whether it stays open for the next request."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel.observe.http_connection import Answer, Later, Limits, Request, is_local, is_loopback, plain
from kernel.observe.http_server import Server

PATIENCE = 10.0  # seconds in which what is expected comes, on any machine
NEXT = b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"

Exchange = Callable[[bytes], list[str]]


def echo(request: Request) -> Answer:
    """The path that was asked for."""
    return plain(200, request.path)


@contextlib.contextmanager
def serving(
    handle: Callable[[Request], Answer | Later] = echo,
    limits: Limits | None = None,
    listener: socket.socket | None = None,
) -> Iterator[tuple[Server, socket.socket]]:
    """Serve, and connect a client."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    server = Server([listener], handle, limits)
    server.start()
    client = socket.socket(listener.family)
    client.settimeout(PATIENCE)
    client.connect(listener.getsockname())
    try:
        with client:
            yield server, client
    finally:
        server.close()


def rest(client: socket.socket) -> bytes:
    """All that comes until the end."""
    got = bytearray()
    with contextlib.suppress(ConnectionError):
        drain(client, got)
    return bytes(got)


def drain(client: socket.socket, got: bytearray | None = None) -> None:
    """Take all that comes, into *got*."""
    while data := client.recv(1024 * 1024):
        if got is not None:
            got += data


def answers(client: socket.socket, sent: bytes) -> list[str]:
    """The status and the text of each answer to what is sent, and to another request behind it."""
    client.sendall(sent + NEXT)
    client.shutdown(socket.SHUT_WR)
    found = re.findall(rb"HTTP/1\.1 (\d+) .*?\r\n\r\n([^\n]*)", rest(client), re.DOTALL)
    return [f"{status.decode()} {text.decode()}" for status, text in found]


def request(line: str, *headers: str, host: str = "localhost") -> bytes:
    """A request, whose body follows."""
    return "\r\n".join([line, f"Host: {host}", *headers, "", ""]).encode("latin-1")


ONLY_READ = "405 only GET and HEAD are allowed: the admin server is read-only"
NO_NAME = "421 use an address or localhost: on loopback no other host name is accepted"


@pytest.mark.parametrize(
    ("sent", "first", "stays"),
    [
        (request("GET /a HTTP/1.1"), "200 /a", True),
        (request("GET /a?b=/c HTTP/1.1"), "200 /a", True),
        (request("GET http://localhost:1/a/b HTTP/1.1", host="elsewhere"), "200 /a/b", True),
        (request("GET http://elsewhere/a HTTP/1.1"), NO_NAME, True),
        (request("GET https://elsewhere/a HTTP/1.1"), "200 https://elsewhere/a", True),  # no page has this name
        (request("GET /a HTTP/1.1", host="elsewhere"), NO_NAME, True),
        (request("POST /a HTTP/1.1"), ONLY_READ, True),
        (request("OPTIONS * HTTP/1.1"), ONLY_READ, True),
        (request("POST /a HTTP/1.1", "Content-Length: 3") + b"abc", ONLY_READ, False),
        (request("CONNECT a:1 HTTP/1.1"), ONLY_READ, False),
        (request("GET /a HTTP/1.1", "Content-Length: 0"), "200 /a", True),
        (request("GET /a HTTP/1.1", "Content-Length: 3") + b"abc", "200 /a", False),
        (request("GET /a HTTP/1.1", "Transfer-Encoding: chunked") + b"0\r\n\r\n", "200 /a", False),
        (request("GET /a HTTP/1.1", "Upgrade: h2c"), "200 /a", False),
        (request("GET /a HTTP/1.1", "Expect: 100-continue"), "200 /a", False),
        (request("GET /a HTTP/1.1", "Connection: close"), "200 /a", False),
        (request("GET /a HTTP/1.0"), "200 /a", False),
        (request("GET /a HTTP/2.0"), "505 only HTTP/1.1 is supported", False),
        (
            request("GET /a HTTP/1.1", "Content-Length: 0", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
            "400 Content-Length and Transfer-Encoding exclude each other",
            False,
        ),
        (b"GET /a HTTP/1.1\r\n\r\n", "400 Bad Request", False),  # without a Host
        (b"GET /a HTTP/1.0\r\n\r\n", "200 /a", False),
        (b"HELO there\r\n\r\n", "400 Bad Request", False),
        (request("GET /a HTTP/1.1", "X: " + "x" * 40_000), "431 Request Header Fields Too Large", False),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value.decode("latin-1"))[:60] if isinstance(value, bytes) else "",
)
def test_what_is_answered(sent: bytes, first: str, stays: bool) -> None:
    """Each request has its answer; where it is not certain that another follows, the connection ends with it."""
    with serving() as (_, client):
        assert answers(client, sent) == [first, *["200 /next"] * stays]


def test_a_head_has_the_headers_alone() -> None:
    """Those of the page, which say how long it would be; the allowed methods are named where another one is refused."""
    with serving() as (_, client):
        client.sendall(request("HEAD /long HTTP/1.1") + request("POST / HTTP/1.1") + NEXT)
        client.shutdown(socket.SHUT_WR)
        head, refusal, page = rest(client).split(b"HTTP/1.1 ")[1:]
    assert head.endswith(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "200 OK"
    assert {
        "content-type: text/plain; charset=utf-8",
        "content-length: 6",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
    } <= {*map(str.lower, lines)}
    assert [b"\r\nallow: GET, HEAD\r\n" in one for one in (head, refusal, page)] == [False, True, False]
    assert page.endswith(b"\r\n\r\n/next\n")


def test_the_headers_that_a_page_sees() -> None:
    """By their names in lower case."""
    with serving(lambda request: plain(200, repr(request))) as (_, client):
        found = answers(client, request("GET /a HTTP/1.1", "ACCEPT: text/html", "X: ~"))
    assert found[0] == f"200 {Request('/a', {'host': 'localhost', 'accept': 'text/html', 'x': '~'})!r}"


def test_a_name_that_is_asked_for_elsewhere(tmp_path: Path) -> None:
    """Who listens on no loopback address is asked by any name."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "admin"))
    listener.listen()
    with serving(listener=listener) as (_, client):
        assert answers(client, request("GET /a HTTP/1.1", host="elsewhere")) == ["200 /a", "200 /next"]


def test_a_long_page_comes_whole() -> None:
    """In as many parts as it takes; and the next one behind it."""
    body = bytes(range(251)) * 20_000
    pages = {"/next": plain(200, "next")}
    with serving(lambda request: pages.get(request.path, Answer(200, body, "text/plain"))) as (_, client):
        client.sendall(request("GET / HTTP/1.1") + NEXT)
        client.shutdown(socket.SHUT_WR)
        first, _, second = rest(client).rpartition(b"HTTP/1.1 200 OK\r\n")
    assert first.partition(b"\r\n\r\n")[2] == body
    assert second.endswith(b"\r\n\r\nnext\n")


def test_who_did_not_receive_everything_is_told() -> None:
    """By a reset: part of a page does not look like all of it, and the rest is not kept for a client that is gone."""
    with serving(lambda _: Answer(200, bytes(20_000_000), "text/plain")) as (server, client):
        client.sendall(NEXT)
        assert client.recv(1)
        server.close()
        with pytest.raises(ConnectionResetError):
            drain(client)


def left(server: Server) -> float:
    """The seconds that the only connection has for its step."""
    (connection,) = server._connections
    return connection.deadline - time.monotonic()


def until(met: Callable[[], bool]) -> None:
    """Wait for what comes soon."""
    end = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_the_time_for_each_step() -> None:
    """For a request, its answer, and the next request, from its first byte on."""
    go_on = threading.Event()

    def make() -> Answer:
        go_on.wait(PATIENCE)
        return plain(200, "made")

    with serving(lambda _: Later("", make), Limits(request=1000, idle=3000, answer=2000)) as (server, client):
        until(lambda: len(server._connections) == 1)
        (connection,) = server._connections
        assert 900 < left(server) <= 1000
        connection.deadline -= 500
        client.sendall(NEXT[:7])
        until(lambda: left(server) > 900)  # since the first byte
        connection.deadline -= 500
        client.sendall(NEXT[7:20])
        client.sendall(NEXT[20:])
        until(lambda: connection.step == "wait")
        assert 1900 < left(server) <= 2000
        go_on.set()
        assert b"made" in client.recv(1000)
        until(lambda: connection.step == "read")
        assert 2900 < left(server) <= 3000
        client.sendall(NEXT[:7])
        until(lambda: left(server) < 1001)
        assert left(server) > 900


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("LocalHost:9090", True),
        ("127.0.0.1", True),
        ("10.1.2.3:80", True),
        ("[::1]", True),
        ("[::1]:9090", True),
        ("localhost:", True),
        ("", False),
        ("elsewhere", False),
        ("elsewhere:80", False),
        ("localhost.elsewhere", False),
        ("localhost:http", False),
        ("localhost:²", False),
        ("127.0.0.1:8o", False),
        ("1.2.3", False),
        ("[elsewhere]", False),
        ("[127.0.0.1]", False),
        ("::1", False),
        ("[::1", False),
        ("::1]", False),
        ("1.2.3.4\0", False),
    ],
)
def test_a_host_that_is_no_name(host: str, local: bool) -> None:
    """An address or `localhost`, with or without a port."""
    assert is_local(host) is local


@pytest.mark.parametrize(
    ("family", "host", "loopback"),
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "127.8.7.6", True),
        (socket.AF_INET, "0.0.0.0", False),  # noqa: S104
        (socket.AF_INET, "128.0.0.1", False),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::ffff:127.0.0.1", True),
        (socket.AF_INET6, "::", False),
        (socket.AF_UNIX, "127.0.0.1", False),
    ],
)
def test_a_loopback_address(family: socket.AddressFamily, host: str, loopback: bool) -> None:
    """What this machine alone reaches over the network."""

    class Listening:
        def getsockname(self) -> tuple[str, int]:
            return host, 80

    listening = Listening()
    listening.family = family  # type: ignore[attr-defined]
    assert is_loopback(listening) is loopback  # type: ignore[arg-type]
