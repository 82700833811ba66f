"""The limits of hypercorn's connections, without a server, in virtual time."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import sniffio
import trio

from kernel.bricks import hypercorn_server as module
from kernel.bricks.clients import Limits
from kernel.bricks.drain import TAKEN_OVER
from kernel.bricks.hypercorn_server import _accept, _cancel, _Clients, _closing_websockets, _Reader, _Stream, _Writer
from kernel.testing import backend_options

pytestmark = pytest.mark.anyio

SETTLES = TAKEN_OVER * 0.001
only_trio = pytest.mark.parametrize("anyio_backend", [("trio", backend_options("trio"))], ids=["trio"])
only_asyncio = pytest.mark.parametrize("anyio_backend", [("asyncio", backend_options("asyncio"))], ids=["asyncio"])


@pytest.fixture
async def clients() -> _Clients:
    """Up to three, who may be silent for 30 s."""
    return _Clients(Limits(3, 30.0))


def counted(clients: _Clients) -> dict[str, int]:
    """What was complained of, and not told yet."""
    return dict(clients.complaints._counts)


async def sends(clients: _Clients, seconds: float) -> tuple[bool, float]:
    """Send something that takes so long; return whether it was completed, and what it took."""
    began = anyio.current_time()

    async def send() -> None:
        await anyio.sleep(seconds)

    done = await clients.send(send)
    return done, round(anyio.current_time() - began, 6)


def left(scope: anyio.CancelScope) -> float:
    """The seconds until it is cancelled."""
    return round(scope.deadline - anyio.current_time(), 6)


async def test_how_many_there_may_be(clients: _Clients, caplog: pytest.LogCaptureFixture) -> None:
    """One more is refused, and told at once."""
    assert [clients.full(number) for number in (1, 3, 4)] == [False, False, True]
    assert caplog.messages == ["from clients: 1 connections more than 3"]


async def test_a_send_has_its_time(clients: _Clients) -> None:
    """Each has as much; during a stop it is half a second, also of one that has begun before."""
    assert await sends(clients, 29.0) == (True, 29.0)
    assert await sends(clients, 31.0) == (False, 30.0)
    async with anyio.create_task_group() as tasks:
        found: list[Any] = []

        async def send(seconds: float) -> None:
            found.append(await sends(clients, seconds))

        tasks.start_soon(send, 0.45)
        tasks.start_soon(send, 9.0)
        await anyio.sleep(0.3)
        clients.hurry()
    assert found == [(True, 0.45), (False, 0.5)]
    assert await sends(clients, 9.0) == (False, 0.5)
    assert clients._sends == {}


async def test_a_short_silence_stays_short_in_a_stop() -> None:
    """Nobody gets more time than before."""
    clients = _Clients(Limits(3, 0.2))
    clients.hurry()
    assert await sends(clients, 9.0) == (False, 0.2)


async def test_who_is_gone_has_the_time_of_the_silent(clients: _Clients) -> None:
    """From when it was noticed first; one that was told to leave has less."""
    one, another, ended = anyio.CancelScope(), anyio.CancelScope(), anyio.CancelScope()
    clients.gone(one)
    clients.gone(ended)
    assert left(one) == 30
    clients.gone(another, 1.0)
    assert left(another) == 1
    await anyio.sleep(0.2)
    clients.gone(one)
    clients.gone(another)
    assert (left(one), left(another)) == (29.8, 0.8)
    clients.ended(ended)
    clients.hurry()
    assert (left(one), left(another), left(ended)) == (0.3, 0.3, 29.8)
    clients.gone(ended)
    assert left(ended) == 0.5


async def coming(data: bytes | Exception) -> bytes:
    """What comes from a client."""
    if isinstance(data, Exception):
        raise data
    return data


@pytest.mark.parametrize("data", [b"", ConnectionResetError()])
async def test_what_a_client_sends(clients: _Clients, data: bytes | Exception) -> None:
    """It is passed on; nothing, or an error, means that the client is gone."""
    scope = anyio.CancelScope()
    clients.began(scope, -1)
    assert await clients.receive(scope, coming(b"x")) == b"x"
    assert scope.deadline == float("inf")
    assert clients._silent == {}
    try:
        assert await clients.receive(scope, coming(data)) == b""
    except ConnectionResetError as error:
        assert error is data  # noqa: PT017
    assert left(scope) == 30


# -- first requests ----------------------------------------------------------------------------------------------


async def first_requests(clients: _Clients, seconds: float = 5.0) -> float:
    """Return how long it takes."""
    began = anyio.current_time()
    await clients.first_requests(seconds)
    return anyio.current_time() - began


async def test_without_new_connections_nobody_is_waited_for(clients: _Clients) -> None:
    """Only for what was just read."""
    assert await first_requests(clients) == pytest.approx(SETTLES)
    scope = anyio.CancelScope()
    clients.began(scope, -1)
    clients.spoke(scope)
    assert await first_requests(clients) == pytest.approx(SETTLES)


async def test_new_connections_have_a_tenth_of_a_second(clients: _Clients) -> None:
    """Not more, if they say nothing."""
    clients.began(anyio.CancelScope(), -1)
    assert await first_requests(clients) == pytest.approx(0.1 + SETTLES)


async def test_it_is_over_when_all_have_spoken_or_left(clients: _Clients) -> None:
    """Not when one of them has."""
    scopes = [anyio.CancelScope() for _ in range(3)]
    for scope in scopes:
        clients.began(scope, -1)
    async with anyio.create_task_group() as tasks:

        async def speak() -> None:
            await anyio.sleep(0.06)
            clients.spoke(scopes[0])
            clients.spoke(scopes[0])
            await anyio.sleep(0.01)
            clients.ended(scopes[1])
            await anyio.sleep(0.01)
            clients.spoke(scopes[2])

        tasks.start_soon(speak)
        assert await first_requests(clients) == pytest.approx(0.08 + SETTLES)


async def test_a_request_that_has_come_is_waited_for(clients: _Clients) -> None:
    """It was not read yet since the loop is busy: as long as there is time."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        scope = anyio.CancelScope()
        clients.began(scope, ours.fileno())
        clients.began(anyio.CancelScope(), -1)
        theirs.send(b"x")
        assert await first_requests(clients, 0.38) == pytest.approx(0.4 + SETTLES)
        ours.recv(1)
        assert await first_requests(clients, 0.38) == pytest.approx(0.1 + SETTLES)


async def test_a_connection_that_fails(clients: _Clients, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, with its error."""
    clients.failed(LookupError("odd"))
    assert caplog.messages == ["from clients: 1 connections that failed, as with LookupError: odd"]


# -- websockets --------------------------------------------------------------------------------------------------


async def test_websockets_are_told_to_go() -> None:
    """When a stop is requested, with a second to answer; other requests, and those that have ended, are not."""
    clients = _Clients(Limits(3, 30.0))
    stop = anyio.Event()
    sent: list[Any] = []
    drain: Any = SimpleNamespace(work=SimpleNamespace(stop_requested=stop.wait))

    async def app(scope: Any, _: Any, send: Any) -> None:
        await anyio.sleep(scope["seconds"])
        await send("done")

    async def send(message: Any) -> None:
        sent.append(message)
        if message != "done":
            raise LookupError  # the client has broken the protocol

    wrapped: Any = _closing_websockets(app, drain, clients)
    scope = anyio.CancelScope()
    module._connection.set(scope)
    began = anyio.current_time()
    await wrapped({"type": "websocket", "seconds": 3}, None, send)
    assert anyio.current_time() - began == pytest.approx(3)
    assert sent == ["done"]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wrapped, {"type": "websocket", "seconds": 5}, None, send)
        tasks.start_soon(wrapped, {"type": "http", "seconds": 4}, None, send)
        await anyio.sleep(1)
        stop.set()
        await anyio.sleep(0.1)
        assert sent == ["done", {"type": "websocket.close", "code": 1012, "reason": "the service restarts"}]
        assert left(scope) == 0.9
    assert sent[2:] == ["done", "done"]
    assert module.GOING_AWAY["type"] == "websocket.close"


# -- trio --------------------------------------------------------------------------------------------------------


class Stream:
    """A stream whose client reads a piece in so many seconds each."""

    def __init__(self, *seconds: float, error: BaseException | None = None) -> None:
        self.sent: list[int] = []
        self.closed: list[str] = []
        self.name = "inner"
        self._seconds = list(seconds)
        self._error = error

    async def send_all(self, data: bytes) -> None:
        if self._error is not None:
            raise self._error
        await anyio.sleep(self._seconds.pop(0))
        self.sent.append(len(data))

    async def receive_some(self, size: int) -> bytes:
        return b"x" * size

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed.append("closed")


@only_trio
async def test_a_stream_sends_in_pieces(clients: _Clients) -> None:
    """Each of them has its time, so that whoever reads slowly, but does, gets all."""
    scope = anyio.CancelScope()
    inner: Any = Stream(29, 29, 29)
    stream = _Stream(inner, clients, scope)
    assert stream.name == "inner"
    assert await stream.receive_some(2) == b"xx"
    await stream.send_all(bytes(150_000))
    assert inner.sent == [65536, 65536, 150_000 - 2 * 65536]
    await stream.send_all(b"")
    assert scope.deadline == float("inf")
    await stream.aclose()
    assert inner.closed == ["closed"]
    assert left(scope) == 30


@only_trio
async def test_a_stream_whose_client_does_not_read(clients: _Clients) -> None:
    """It is closed by force; what was not sent is lost."""
    scope = anyio.CancelScope()
    inner: Any = Stream(1, 31, 1)
    with pytest.raises(trio.BrokenResourceError, match="does not read"):
        await _Stream(inner, clients, scope).send_all(bytes(150_000))
    assert inner.sent == [65536]
    assert left(scope) == 30


@only_trio
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (trio.BusyResourceError(), trio.ClosedResourceError),
        (trio.BrokenResourceError("x"), trio.BrokenResourceError),
        (LookupError(), LookupError),
    ],
)
async def test_a_stream_that_fails(clients: _Clients, error: Exception, raised: type[Exception]) -> None:
    """Its client is gone; one that hypercorn is closing counts as closed."""
    scope = anyio.CancelScope()
    stream: Any = _Stream(Stream(error=error), clients, scope)
    with pytest.raises(raised):
        await stream.send_all(b"x")
    assert left(scope) == 30


class Listener:
    """A socket that listens, with what `accept` finds."""

    def __init__(self, *found: Any) -> None:
        self.found = list(found)
        self.timeouts: list[float] = []

    def settimeout(self, seconds: float) -> None:
        self.timeouts.append(seconds)

    def accept(self) -> Any:
        one = self.found.pop(0) if self.found else BlockingIOError()
        if isinstance(one, Exception):
            raise one
        return one, ("127.0.0.1", 1)


@pytest.fixture
def _readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are new connections each second."""

    async def wait(_: Any) -> None:
        await anyio.sleep(1)

    monkeypatch.setattr(module, "wait_readable", wait)


async def accepted(listener: Any, seconds: float) -> list[Any]:
    """Accept for so long."""
    joined: list[Any] = []
    with anyio.move_on_after(seconds):
        await _accept(listener, joined.append)
    return joined


@pytest.mark.usefixtures("_readable")
async def test_all_that_wait_are_accepted_at_once() -> None:
    """Up to 64; a client that has gone meanwhile costs the others nothing."""
    socks: list[Any] = [Listener() for _ in range(100)]
    gone = OSError(errno.ECONNABORTED, "gone")
    listener = Listener(*socks[:2], gone, *socks[2:90], BlockingIOError(), *socks[90:])
    assert await accepted(listener, 1.5) == socks[:63]
    assert listener.timeouts == [0]
    assert socks[0].timeouts == [0]
    assert await accepted(listener, 1.5) == socks[63:90]
    assert await accepted(listener, 2.5) == socks[90:]


@pytest.mark.usefixtures("_readable")
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_without_descriptors_nothing_is_accepted_for_a_while(code: int) -> None:
    """Others may close some."""
    first, second = Listener(), Listener()
    listener = Listener(first, OSError(code, "none left"), second)
    assert await accepted(listener, 2.05) == [first]
    listener = Listener(first, OSError(code, "none left"), second)
    assert await accepted(listener, 2.15) == [first, second]


# -- asyncio -----------------------------------------------------------------------------------------------------


class Transport:
    """A transport whose client reads so many bytes each second."""

    def __init__(self, unsent: int, reads: int) -> None:
        self.aborted = 0
        self._unsent = unsent
        self._reads = reads
        self._began = anyio.current_time()

    def get_write_buffer_size(self) -> int:
        return max(0, self._unsent - int((anyio.current_time() - self._began) * self._reads))

    def abort(self) -> None:
        self.aborted += 1


class Inner:
    """A writer, or a reader."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.closed = 0
        self.ended = False
        self.waits = 0

    async def drain(self) -> None:
        self.waits += 1
        while self.transport.get_write_buffer_size():  # noqa: ASYNC110
            await anyio.sleep(0.5)

    wait_closed = drain

    def close(self) -> None:
        self.closed += 1

    async def read(self, size: int) -> bytes:
        return b"x" * size

    def at_eof(self) -> bool:
        return self.ended


@only_asyncio
@pytest.mark.parametrize("name", ["drain", "wait_closed"])
async def test_a_writer_waits_while_its_client_reads(clients: _Clients, name: str) -> None:
    """However slowly; 30 s without a byte are too many. With nothing to send it is asked all the same."""

    def wait(inner: Any) -> Awaitable[None]:
        made: Callable[[], Awaitable[None]] = getattr(_Writer(inner, clients, scope), name)
        return made()

    scope = anyio.CancelScope()
    began = anyio.current_time()
    inner = Inner(Transport(1000, 10))
    await wait(inner)
    assert anyio.current_time() - began == pytest.approx(100, abs=1)
    idle = Inner(Transport(0, 0))
    await wait(idle)
    assert idle.waits == 1
    assert scope.deadline == float("inf")
    deaf = Inner(Transport(1000, 0))
    with pytest.raises(ConnectionAbortedError, match="does not read"):
        await wait(deaf)
    assert deaf.transport.aborted == 1
    assert inner.transport.aborted == 0
    assert left(scope) == 30


@only_asyncio
async def test_who_ends_a_connection_is_gone(clients: _Clients) -> None:
    """Whichever side."""
    inner: Any = Inner(Transport(0, 0))
    read_scope, write_scope = anyio.CancelScope(), anyio.CancelScope()
    reader, writer = _Reader(inner, clients, read_scope), _Writer(inner, clients, write_scope)
    assert await reader.read(3) == b"xxx"
    assert not reader.at_eof()
    assert read_scope.deadline == float("inf")
    inner.ended = True
    assert reader.at_eof()
    assert left(read_scope) == 30
    writer.close()
    assert inner.closed == 1
    assert left(write_scope) == 30


@only_asyncio
async def test_connections_that_are_cancelled_have_a_tenth_of_a_second() -> None:
    """Also where whoever cancels them is cancelled."""
    assert sniffio.current_async_library() == "asyncio"
    ended: list[float] = []
    began = anyio.current_time()

    async def connection(deaf: float) -> None:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            await asyncio.sleep(deaf)
        ended.append(round(anyio.current_time() - began, 6))

    tasks = {asyncio.create_task(connection(deaf)) for deaf in (0.0, 0.05, 0.5)}
    await anyio.lowlevel.checkpoint()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await _cancel(tasks)
    assert ended == [0.0, 0.05]
    assert anyio.current_time() - began == pytest.approx(0.1)
    await asyncio.wait(tasks)
    await _cancel(set())
