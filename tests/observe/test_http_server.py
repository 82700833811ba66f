"""The server of the admin pages: its limits, its second thread, and its end."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from kernel.observe import http_server
from kernel.observe.http_connection import Answer, Later, Limits, Request, plain
from kernel.observe.http_server import CLOSING, YOUNG, Server

GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
PATIENCE = 10.0  # seconds in which what is expected comes, on any machine

LONG = Answer(200, bytes(50_000_000), "text/plain")  # more than fits into buffers

Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves with a handler, and gives the port."""
    servers: list[Server] = []

    def start(handle: Callable[[Request], Answer | Later], limits: Limits | None = None) -> int:
        sock = socket.create_server(("127.0.0.1", 0))
        servers.append(Server([sock], handle, limits))
        servers[-1].start()
        return int(sock.getsockname()[1])

    yield start
    for server in servers:
        server.close()


def client(port: int, sent: bytes = b"") -> socket.socket:
    """A connection on which *sent* was sent."""
    made = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    try:
        made.sendall(sent)  # even of nothing, this raises once the other side has reset the connection
    except ConnectionError:
        made.close()
        raise
    return made


def rest(connection: socket.socket) -> bytes:
    """What comes until its end, however that is."""
    got = bytearray()
    with connection, contextlib.suppress(ConnectionError):
        while data := connection.recv(1024 * 1024):
            got += data
    return bytes(got)


def test_a_page_that_takes_a_while_is_made_once_for_all_who_wait() -> None:
    """And nobody waits for it who has asked for another."""
    made, go_on = [], threading.Event()

    def make() -> Answer:
        made.append(1)
        go_on.wait(PATIENCE)
        return plain(200, "made")

    sock = socket.create_server(("127.0.0.1", 0))
    server = Server([sock], lambda request: Later("page", make) if request.path == "/page" else plain(200, "quick"))
    server.start()
    port = sock.getsockname()[1]
    first = client(port, GET % b"/page")
    while not made:
        time.sleep(0.001)
    others = [client(port, GET % b"/page") for _ in range(5)]
    with client(port, GET % b"/") as quick:
        assert b"quick" in quick.recv(1000)
    while len(server._maker._wanted.get("page", (make, []))[1]) < len(others):
        time.sleep(0.001)
    go_on.set()
    for one in (first, *others):
        with one:
            assert b"made" in one.recv(1000)
    assert len(made) == 2
    server.close()


@pytest.mark.parametrize("later", [False, True])
def test_a_page_that_cannot_be_made_is_a_500(serve: Serve, caplog: pytest.LogCaptureFixture, *, later: bool) -> None:
    """The log has one line about it, and the server goes on."""

    def fail() -> Answer:
        raise ZeroDivisionError("no page")

    port = serve(lambda _: Later("page", fail) if later else fail())
    for _ in range(2):
        with client(port, GET % b"/") as connection:
            assert b" 500 " in connection.recv(1000)
    assert [record.exc_info for record in caplog.records] == [None, None]
    assert "could not be created: ZeroDivisionError: no page" in caplog.text


def test_who_takes_too_long_is_closed(serve: Serve) -> None:
    """To send a request, to come again, and to take an answer."""
    limits = Limits(request=0.2, idle=0.2, answer=0.2)
    port = serve(lambda _: LONG, limits)
    assert rest(client(port)) == b""
    assert rest(client(port, b"GET / HT")) == b""
    deaf = client(port, GET % b"/")
    time.sleep(1)
    assert len(rest(deaf)) < len(LONG.body)
    port = serve(lambda _: plain(200, "short"), limits)
    assert rest(client(port, GET % b"/")).count(b"short") == 1


def test_the_oldest_gives_way(serve: Serve) -> None:
    """Once it is no longer young."""
    port = serve(lambda _: plain(200, "hello"), Limits(connections=2))
    began = time.monotonic()
    crowd = [client(port) for _ in range(2)]
    with client(port, GET % b"/") as last:
        assert b"hello" in last.recv(1000)
    assert time.monotonic() - began >= YOUNG * 0.9
    assert rest(crowd[0]) == b""
    crowd[1].close()


def test_its_end_waits_for_nobody_who_does_not_read(serve: Serve) -> None:
    """Who waits is closed at once, and who takes nothing of an answer soon after; no thread is left."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = Server([sock], lambda _: LONG)
    server.start()
    port = sock.getsockname()[1]
    connections = [client(port), client(port, b"GET /"), client(port, GET % b"/")]
    assert connections[2].recv(1)
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < CLOSING + 1
    assert not server._thread.is_alive()
    assert [len(rest(one)) < len(LONG.body) for one in connections] == [True] * 3
    with pytest.raises(ConnectionRefusedError):
        client(port)


def test_its_end_is_at_once_whatever_the_number_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait at all for those that have taken nothing for a while, or are silent, or in the middle of a request."""
    monkeypatch.setattr(http_server, "CLOSING", 60.0)
    sock = socket.create_server(("127.0.0.1", 0))
    server = Server([sock], lambda _: LONG)
    server.start()
    port = sock.getsockname()[1]
    deaf = [client(port, GET % b"/") for _ in range(20)]
    others = [client(port, sent) for sent in (b"", b"GET /", b"GET / HTTP/1.1\r\nX: ") for _ in range(20)]
    for one in deaf:
        assert one.recv(1)
    for connection in list(server._connections):
        connection.moved -= http_server.STALLED  # so long ago
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 30
    assert not server._thread.is_alive()
    for one in (*deaf, *others):
        one.close()


def test_an_answer_under_way_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its client takes it."""
    monkeypatch.setattr(http_server, "STALLED", PATIENCE)  # the reader may have to wait for a core
    monkeypatch.setattr(http_server, "CLOSING", PATIENCE)
    sock = socket.create_server(("127.0.0.1", 0))
    server = Server([sock], lambda _: LONG)
    server.start()
    with client(sock.getsockname()[1], GET % b"/") as reader:
        assert reader.recv(1)
        closing = threading.Thread(target=server.close)
        closing.start()
        while server._socks:
            time.sleep(0.001)
        got = rest(reader)
    closing.join()
    assert len(got) > len(LONG.body)


class Scarce:
    """A listener on a machine that lacks something, for so many times."""

    family = socket.AF_INET

    def __init__(self, *numbers: int) -> None:
        self.numbers = [*numbers]
        self.asked = 0

    def getsockname(self) -> tuple[str, int]:
        """Return its address."""
        return "127.0.0.1", 1

    def accept(self) -> tuple[socket.socket, object]:
        """Accept nobody."""
        self.asked += 1
        raise OSError(self.numbers.pop(0) if self.numbers else errno.EAGAIN, "odd")


@pytest.mark.parametrize(
    ("numbers", "asked", "pauses"),
    [
        ([], 1, False),
        ([errno.ECONNABORTED, errno.ECONNABORTED], 3, False),  # they have gone, but others may wait behind them
        ([errno.EMFILE], 1, True),
        ([errno.ENOMEM], 1, True),
        ([errno.EINVAL], 1, False),
    ],
    ids=["nobody", "gone", "no descriptors", "no memory", "odd"],
)
def test_who_cannot_be_accepted(numbers: list[int], asked: int, pauses: bool) -> None:
    """With nobody to close for a new one, the server waits a while rather than ask again at once."""
    server = Server([], lambda _: plain(200, "hello"))
    listener = Scarce(*numbers)
    server._accept(listener)  # type: ignore[arg-type]
    assert (listener.asked, bool(server._paused_until)) == (asked, pauses)
    server.start()
    server.close()


@pytest.mark.parametrize(
    ("descriptors", "most"), [(1000, 250), (1024, 256), (1028, 256), (resource.RLIM_INFINITY, 256)]
)
def test_as_many_connections_as_there_are_descriptors_for(
    descriptors: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of them, and not more than is allowed."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    server = Server([], lambda _: plain(200, "hello"))
    assert server._most == most
    server.start()
    server.close()


def test_no_thread_delays_the_exit(serve: Serve) -> None:
    """Neither the server's nor the one that makes pages."""
    port = serve(lambda _: Later("", lambda: plain(200, "made")))
    with client(port, GET % b"/") as connection:
        assert b"made" in connection.recv(1000)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("kernel admin")]
    assert [thread.daemon for thread in threads] == [True, True]


def test_a_request_on_its_way_when_it_ends_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is open, so the client cannot know better."""
    for limit in ("FIRST", "CLOSING"):
        monkeypatch.setattr(http_server, limit, PATIENCE)  # this machine may be slow
    sock = socket.create_server(("127.0.0.1", 0))
    server = Server([sock], lambda _: plain(200, "hello"))
    server.start()
    port = sock.getsockname()[1]
    with client(port) as early, client(port, GET % b"/") as later:
        assert b"hello" in later.recv(1000)  # so the other is accepted
        closing = threading.Thread(target=server.close)
        closing.start()
        with contextlib.suppress(ConnectionError):  # refused, or reset as the socket closes
            while True:
                client(port).close()
        early.sendall(GET % b"/")
        assert b"hello" in rest(early)
    closing.join()
