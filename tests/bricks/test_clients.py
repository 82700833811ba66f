"""What clients of `serve_asgi` may take, with real servers and sockets, in real time."""

from __future__ import annotations

import contextlib
import functools
import logging
import resource
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from hypercorn.asyncio import tcp_server as asyncio_server
from hypercorn.trio import tcp_server as trio_server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from kernel import serve_asgi
from kernel.bricks import clients, uvicorn_clients, uvicorn_server
from kernel.bricks.clients import Complaints, Limits
from kernel.testing import RunFailed, State, running
from tests.bricks.test_asgi import ENOUGH, anyio_backend, declare, pair, port, server, until

__all__ = ["anyio_backend", "pair", "port", "server"]  # fixtures

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BIG = b"x" * 30_000_000  # bytes: more than the system's buffers take


@contextlib.contextmanager
def client(to: int, sent: bytes = b"") -> Iterator[socket.socket]:
    """A connection with a small buffer, on which *sent* was sent."""
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        made.settimeout(ENOUGH)
        made.connect(("127.0.0.1", to))
        made.sendall(sent)
        yield made


def rest(connection: socket.socket) -> bytes:
    """What comes until its end, however that is; a `TimeoutError` if there is no end."""
    got = []
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(1 << 20):
            got.append(data)
    return b"".join(got)


def said(connection: socket.socket, text: bytes) -> bool:
    """Whether *text* comes."""
    got = b""
    while text not in got and (data := connection.recv(65536)):
        got += data
    return text in got


def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Call a blocking *function* beside the server."""
    return anyio.to_thread.run_sync(functools.partial(function, *args), abandon_on_cancel=True)


async def big(_: Any) -> PlainTextResponse:
    """A big page."""
    return PlainTextResponse(BIG)


async def post(request: Request) -> PlainTextResponse:
    """Needs the whole body."""
    return PlainTextResponse(f"{len(await request.body())}")


async def echo(websocket: WebSocket) -> None:
    """Says what it hears."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


PAGES = [Route("/", big), Route("/post", post, methods=["POST"]), WebSocketRoute("/socket", echo)]


async def test_who_keeps_the_server_waiting_is_closed(
    server: str, port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a client that waits for the server, however long that takes."""
    monkeypatch.setattr(uvicorn_clients, "REQUEST", 0.3)
    monkeypatch.setattr(uvicorn_server, "TICK", 0.05)
    gate = anyio.Event()

    async def slow(_: Any) -> PlainTextResponse:
        await gate.wait()
        return PlainTextResponse("at last")

    head = b"POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
    options = {"keep_alive_timeout": 0.3} if server == "hypercorn" else {}
    app = Starlette(routes=[*PAGES, Route("/slow", slow)])
    async with running(declare(app, server, client_timeout=0.3, **options), shutdown_timeout=ENOUGH):
        to = port()
        with contextlib.ExitStack() as stack:

            def join(sent: bytes) -> socket.socket:
                return stack.enter_context(client(to, sent))

            patient = join(GET.replace(b"/ ", b"/slow "))
            for sent in [b"", b"GET / HT", GET[:-2] + b"X: ", *([head + b"12"] if server == "uvicorn" else [])]:
                assert b"200" not in await in_thread(rest, join(sent))
            deaf = join(GET)
            await anyio.sleep(1.5)
            assert len(await in_thread(rest, deaf)) < len(BIG)
            gate.set()
            assert await in_thread(said, patient, b"at last")


async def test_a_full_server_makes_room(server: str, port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Uvicorn closes those that it waits for; where there are none, and on hypercorn, who comes last is refused."""
    monkeypatch.setattr(uvicorn_clients, "YOUNG", 0.0)
    entered: list[int] = []
    gate = anyio.Event()

    async def slow(_: Any) -> PlainTextResponse:
        entered.append(1)
        await gate.wait()
        return PlainTextResponse("at last")

    app = Starlette(routes=[Route("/", slow)])
    async with running(declare(app, server, max_connections=3), shutdown_timeout=ENOUGH):
        to = port()
        with contextlib.ExitStack() as stack:

            def join(sent: bytes) -> socket.socket:
                return stack.enter_context(client(to, sent))

            silent = join(b"")
            waiting = [join(GET) for _ in range(2)]
            await until(lambda: len(entered) == 2)
            last = join(GET)
            if server == "uvicorn":
                assert await in_thread(rest, silent) == b""
                await until(lambda: len(entered) == 3)
                waiting.append(last)
                assert b" 503 " in await in_thread(rest, join(b""))
            else:
                assert await in_thread(rest, last) == b""
            gate.set()
            for one in waiting:
                assert await in_thread(said, one, b"at last")


WEBSOCKET = (
    b"GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%b\r\n"
)
CHUNKED = b"POST /post HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
BAD = [
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"GET /\xc3\xa4 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x02\x07:m\xff\xff",
    WEBSOCKET % b"Sec-WebSocket-Protocol: \xff\r\n",
    WEBSOCKET % b"Sec-WebSocket-Extensions: permessage-deflate; x=\xff\r\n",
    WEBSOCKET % b"" + b"\xff\xff\xff",
    WEBSOCKET.replace(b"13", b"12") % b"",
    CHUNKED + b"zz\r\n",
    CHUNKED + b"5\r\nhello\r\n0\r\nno trailer\r\n\r\n",
    b"POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhel",
    b"X: " + b"x" * 300_000,
]


async def test_bad_requests_are_one_line(
    server: str, port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    """However many; there is no traceback, and no answer to a client costs the next one its own."""
    app = Starlette(routes=[Route("/", post), *PAGES[1:]])

    def all_of_them(to: int) -> None:
        for sent in BAD * 2:
            with contextlib.suppress(OSError), client(to, sent) as one:
                one.settimeout(0.2)  # some wait for more
                one.recv(1000)
        with client(to, GET) as good:
            assert said(good, b" 200 ")

    async with running(declare(app, server), shutdown_timeout=ENOUGH):
        await in_thread(all_of_them, port())
    bad = [record for record in caplog.records if record.levelno > logging.INFO]
    assert not [record for record in bad if record.exc_info], [record.getMessage() for record in bad]
    assert len(bad) <= 2  # one at once, and the rest at the end
    assert "from clients: " in bad[0].getMessage()


@pytest.mark.parametrize("drain_timeout", [None, 15.0])
async def test_a_stop_waits_for_nobody_who_keeps_it_waiting(
    server: str, port: Callable[[], int], drain_timeout: float | None
) -> None:
    """Nor for its whole time to drain; what a client waits for is finished."""
    entered: list[int] = []
    gate = anyio.Event()

    async def slow(_: Any) -> PlainTextResponse:
        entered.append(1)
        await gate.wait()
        return PlainTextResponse("at last")

    app = Starlette(routes=[*PAGES, Route("/slow", slow)])
    with contextlib.ExitStack() as stack:
        async with running(declare(app, server, drain_timeout=drain_timeout), shutdown_timeout=ENOUGH) as run:
            to = port()
            for sent in (GET * 20, b"GET / HT", b"", WEBSOCKET % b""):
                for _ in range(10):
                    stack.enter_context(client(to, sent))
            patient = stack.enter_context(client(to, GET.replace(b"/ ", b"/slow ")))
            await until(lambda: bool(entered))
            run.stop()
            await until(lambda: not accepts(to))
            gate.set()
            began = time.monotonic()
        took = time.monotonic() - began
        assert await in_thread(said, patient, b"at last")
    assert took < 10  # of 15 s, or 19; it needs half a second
    assert run.states("api")[-1] is State.STOPPED
    assert run.report.exit_code == 0


@pytest.mark.parametrize("pair", [("asyncio", "hypercorn"), ("trio", "hypercorn")], ids="-".join)
async def test_a_connection_that_fails_is_its_own_end(
    server: str, port: Callable[[], int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that hypercorn does not expect is counted, and the next connection is served."""
    failed: list[bool] = []
    for cls in (asyncio_server.TCPServer, trio_server.TCPServer):

        async def fails(self: Any, real: Any = cls.run) -> None:
            if failed:
                await real(self)
                return
            failed.append(True)
            raise LookupError("odd")

        monkeypatch.setattr(cls, "run", fails)
    async with running(declare(Starlette(routes=[Route("/", post)]), server), shutdown_timeout=ENOUGH):
        with client(port(), GET) as one:
            assert await in_thread(rest, one) == b""
        with client(port(), GET) as one:
            assert await in_thread(said, one, b" 200 ")
    assert "from clients: 1 connections that failed, as with LookupError: odd" in caplog.messages


def accepts(to: int) -> bool:
    """Whether anybody listens."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", to)) == 0


@pytest.mark.parametrize("limit", [{"max_connections": 0}, {"client_timeout": 0.0}, {"client_timeout": float("nan")}])
async def test_a_limit_that_is_none(server: str, limit: dict[str, Any]) -> None:
    """It is refused, with its name."""
    with pytest.raises(RunFailed, match=f"{next(iter(limit))} is .*; it must be"):
        async with running(declare(Starlette(), server, **limit)):
            pass


def test_the_usual_number_of_connections_leaves_descriptors_to_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them, and not too many; what is said counts."""
    unlimited = resource.RLIM_INFINITY
    for soft, most in ((64, 32), (1024, 512), (1_000_000, clients.MOST), (1, 1), (unlimited, clients.MOST)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert Limits.of(None, 1.5) == Limits(most, 1.5)
        assert Limits.of(1, 0.1) == Limits(1, 0.1)


def test_the_limits_are_those_that_are_documented() -> None:
    """Of a request's head, and of connections; and those of a stop, which may not take long."""
    text = " ".join((serve_asgi.__doc__ or "").split())
    assert f"at most {clients.MOST:,}" in text
    assert f"headers of a request must arrive within {clients.REQUEST:g} s" in text
    assert (clients.HEAD, clients.FIRST, clients.UNREAD) == (65536, 0.1, 0.5)
    assert (clients.UNSENT, clients.GOODBYE) == (2.0, 1.0)


def test_complaints_are_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """It has all that was counted since the last."""
    complaints = Complaints()
    complaints.tell(0.0)
    for number in range(150):
        complaints.add("odd things")
        complaints.tell(float(number))
    complaints.tell(float("inf"))
    assert [record.getMessage() for record in caplog.records] == [
        "from clients: 1 odd things",
        "from clients: 60 odd things",
        "from clients: 60 odd things",
        "from clients: 29 odd things",
    ]


def error_of(module: str, name: str) -> Exception:
    """An error of a class that a library has."""
    return type(name, (Exception,), {"__module__": module})()  # type: ignore[no-any-return]


LEFT_IT = error_of("starlette.requests", "ClientDisconnect")
BROKE_IT = error_of("h11._util", "RemoteProtocolError")
OWN = error_of("app.own", "LocalProtocolError")
WRONG = error_of("wsproto.utilities", "ParseFailed")


@pytest.mark.parametrize(
    ("error", "left", "present"),
    [
        (LEFT_IT, True, False),
        (BROKE_IT, True, True),
        (OWN, False, False),
        (WRONG, False, False),
        (LookupError(), False, False),
        (ExceptionGroup("", [LEFT_IT, BROKE_IT]), True, False),
        (ExceptionGroup("", [BROKE_IT, ExceptionGroup("", [BROKE_IT])]), True, True),
        (ExceptionGroup("", [LEFT_IT, OWN]), False, False),
        (ExceptionGroup("", [OWN, BROKE_IT]), False, False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("message", ["http.disconnect", "websocket.disconnect", "http.request"])
def test_whose_fault_an_error_is(
    error: Exception, left: bool, present: bool, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One about a client that is gone is the client's if it is; one about the protocol always is. Others are the app's.

    It is remembered that the client is gone, whatever comes then.
    """
    messages = [{"type": message}, {"type": "http.request"}]
    complaints = Complaints()
    caplog.set_level(logging.INFO)

    async def app(_: Any, receive: Any, __: Any) -> None:
        assert [await receive() for _ in range(2)] == messages
        raise error

    come = iter(messages)

    async def receive() -> Any:
        return next(come)

    called = clients.forgiving(app, complaints)({"type": "http"}, receive, no_send)
    caught: Exception | None = None
    try:
        called.send(None)  # type: ignore[attr-defined]
    except StopIteration:
        pass
    except Exception as one:  # noqa: BLE001
        caught = one
    clients_fault = left if message.endswith("disconnect") else present
    assert caught is (None if clients_fault else error)
    complaints.tell(0.0)
    assert caplog.messages == ["from clients: 1 requests that broke off"] * clients_fault


async def no_send(_: Any) -> None:
    raise AssertionError
