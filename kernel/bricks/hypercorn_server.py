"""Run an ASGI app on hypercorn, on asyncio or trio, with our own accept loop.

With hypercorn's accept loop on trio, an error in one connection ends the server; here it ends only the connection. On
asyncio, a connection that does not end keeps the server from ending. Connections that wait to be accepted when the
sockets close are reset; here they are accepted first. hypercorn limits the time for a request's headers; this module
limits the time for receiving an answer, and the number of connections.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import select
import socket
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import sniffio
from anyio import CancelScope, Event, create_task_group, current_time, move_on_after, sleep, wait_readable
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config

from kernel.bricks.clients import FIRST, GOODBYE, UNREAD, Complaints, Limits, forgiving
from kernel.bricks.drain import TAKEN_OVER, Drain, Serve, say_late
from kernel.bricks.lifespan import ASGIApp, Receive, Scope, Send
from kernel.bricks.listen import BACKLOG
from kernel.errors import one_line

if TYPE_CHECKING:
    import asyncio

ACCEPTS = 64  # connections accepted per round, since a round may take long
PAUSE = 0.1  # seconds without accepting if there are no more descriptors
SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
PIECE = 64 * 1024  # bytes that a client must receive within its time limit
LEAVING = 0.1  # seconds for cancelled connections to end
LOOK = 0.05  # seconds between two looks for first requests
GOING_AWAY = {"type": "websocket.close", "code": 1012, "reason": "the service restarts"}

log = logging.getLogger(__name__)

_connection: ContextVar[CancelScope] = ContextVar("connection")  # the connection that the app runs in


def prepare(app: ASGIApp, options: dict[str, Any], limits: Limits) -> Serve:
    """Return the server of *app*, without lifespan, with *options* as attributes of `hypercorn.Config`.

    Raises:
        TypeError: An option is not an attribute of it.

    """
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")  # uses the root's handlers instead of a separate one
    for name, value in options.items():
        if not hasattr(config, name):
            raise TypeError(f"serve_asgi got {name!r}, which is not an attribute of hypercorn.Config")
        setattr(config, name, value)
    serve_on: Any = _on_trio if sniffio.current_async_library() == "trio" else _on_asyncio

    async def serve(drain: Drain) -> None:
        clients = _Clients(limits)
        wrapped: Any = _closing_websockets(forgiving(app, clients.complaints), drain, clients)
        await serve_on(ASGIWrapper(wrapped), config, drain, clients)

    return serve


def _closing_websockets(app: ASGIApp, drain: Drain, clients: _Clients) -> ASGIApp:
    """Wrap *app* so that its websockets are closed when a stop is requested; hypercorn would wait for them to end."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
            return

        async def close() -> None:
            await drain.work.stop_requested()
            with contextlib.suppress(Exception):  # the client has broken the protocol
                await send(dict(GOING_AWAY))
            clients.gone(_connection.get(), GOODBYE)

        async with create_task_group() as tasks:
            tasks.start_soon(close)
            await app(scope, receive, send)
            tasks.cancel_scope.cancel()

    return wrapped


class _Clients:
    """The limits of clients, and the connections that exceed them.

    Args:
        limits: The limits.

    """

    def __init__(self, limits: Limits) -> None:
        self.complaints = Complaints()
        self._limits = limits
        self._silence = limits.silence
        self._sends: dict[CancelScope, float] = {}  # sends that wait for the client, and since when
        self._gone: dict[CancelScope, float] = {}  # connections whose client is gone, and since when
        self._silent: dict[CancelScope, int] = {}  # connections without a byte read yet, and their descriptors
        self._all_spoke = Event()

    def full(self, connections: int) -> bool:
        """Return whether there are too many *connections*, and count the rejected one."""
        if connections <= self._limits.connections:
            return False
        self.complaints.add(f"connections more than {self._limits.connections}")
        self.complaints.tell(current_time())
        return True

    async def receive(self, scope: CancelScope, received: Awaitable[bytes]) -> bytes:
        """Return what the client of *scope* has sent; if that is nothing, or an error, the client is gone."""
        data = b""
        try:
            data = bytes(await received)
        finally:
            if data:
                self.spoke(scope)
            else:
                self.gone(scope)
        return data

    async def send(self, send: Callable[[], Awaitable[object]]) -> bool:
        """Wait for *send*, and return whether it was completed in time."""
        with CancelScope() as scope:
            # Set only now: a scope that is entered too late, after a pause such as a garbage collection, would prevent
            # the first attempt to send, which is all that most answers need.
            began = current_time()
            scope.deadline = began + self._silence
            self._sends[scope] = began
            try:
                await send()
            finally:
                del self._sends[scope]
        return not scope.cancelled_caught

    def gone(self, scope: CancelScope, seconds: float | None = None) -> None:
        """End the connection in *scope* within *seconds*, or within the limit for silent clients.

        The client is gone, or was told to leave. Some websockets would never notice.
        """
        if scope not in self._gone:
            self._gone[scope] = current_time()
            scope.deadline = current_time() + (self._silence if seconds is None else seconds)

    def began(self, scope: CancelScope, descriptor: int) -> None:
        """Record that the connection in *scope* has begun, on the socket with this *descriptor*."""
        self._silent[scope] = descriptor

    def spoke(self, scope: CancelScope) -> None:
        """Record that the client of the connection in *scope* has sent something."""
        if self._silent.pop(scope, None) is not None and not self._silent:
            self._all_spoke.set()

    def ended(self, scope: CancelScope) -> None:
        """Record that the connection in *scope* has ended."""
        self._gone.pop(scope, None)
        self.spoke(scope)

    async def first_requests(self, seconds: float) -> None:
        """Give new connections time to send their first request: hypercorn is about to close those without one.

        A request that has come but was not read yet, since the loop is busy, is waited for, for *seconds* at most.
        """
        end, last = current_time() + FIRST, current_time() + seconds
        while self._silent and current_time() < (last if self._has_unread() else end):
            self._all_spoke = Event()
            with move_on_after(LOOK):
                await self._all_spoke.wait()
        for _ in range(TAKEN_OVER):  # what was just read becomes a request a few steps later
            await sleep(0.001)

    def _has_unread(self) -> bool:
        poll = select.poll()
        for descriptor in self._silent.values():
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def hurry(self) -> None:
        """Shorten the limits of all clients to those of a stop."""
        self._silence = min(self._silence, UNREAD)
        for scope, began in {**self._sends, **self._gone}.items():
            scope.deadline = began + self._silence

    def failed(self, error: Exception) -> None:
        """Count an error of one connection, which must not affect others."""
        log.debug("a connection failed", exc_info=error)
        self.complaints.add(f"connections that failed, as with {one_line(error)}")
        self.complaints.tell(current_time())


class _Watched:
    """One side of a connection of hypercorn's: what it does not define is that of *inner*."""

    def __init__(self, inner: Any, clients: _Clients, scope: CancelScope) -> None:
        self._inner, self._clients, self._scope = inner, clients, scope

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Stream(_Watched):
    """A trio stream that sends with a time limit, and reports when its client is gone."""

    async def receive_some(self, size: int) -> bytes:
        return await self._clients.receive(self._scope, self._inner.receive_some(size))

    async def send_all(self, data: bytes) -> None:
        import trio

        view = memoryview(data)
        sent = not data
        try:
            for start in range(0, len(view), PIECE):
                sent = await self._clients.send(functools.partial(self._inner.send_all, view[start : start + PIECE]))
                if not sent:
                    break
        except trio.BusyResourceError as error:  # hypercorn has just closed it
            raise trio.ClosedResourceError from error
        finally:
            if not sent:
                self._clients.gone(self._scope)
        if not sent:
            await trio.aclose_forcefully(self._inner)
            raise trio.BrokenResourceError("the client does not read")

    async def aclose(self) -> None:
        self._clients.gone(self._scope)
        await self._inner.aclose()


class _Reader(_Watched):
    """An asyncio reader that reports when its client is gone."""

    async def read(self, size: int) -> bytes:
        return await self._clients.receive(self._scope, self._inner.read(size))

    def at_eof(self) -> bool:
        ended: bool = self._inner.at_eof()
        if ended:
            self._clients.gone(self._scope)
        return ended


class _Writer(_Watched):
    """An asyncio writer that drains with a time limit."""

    async def drain(self) -> None:
        await self._bounded(self._inner.drain)

    async def wait_closed(self) -> None:
        await self._bounded(self._inner.wait_closed)

    def close(self) -> None:
        self._clients.gone(self._scope)
        self._inner.close()

    async def _bounded(self, wait: Callable[[], Awaitable[object]]) -> None:
        transport = self._inner.transport
        while left := transport.get_write_buffer_size():
            if await self._clients.send(wait):
                return
            if transport.get_write_buffer_size() >= left:
                self._clients.gone(self._scope)
                transport.abort()
                raise ConnectionAbortedError("the client does not read")
        await wait()


async def _on_trio(app: ASGIWrapper, config: Config, drain: Drain, clients: _Clients) -> None:
    import trio
    from hypercorn.trio.tcp_server import TCPServer
    from hypercorn.trio.worker_context import WorkerContext

    context = WorkerContext(None)
    tls = config.create_ssl_context() if config.ssl_enabled else None

    async def handle(stream: Any, sock: trio.socket.SocketType) -> None:
        if clients.full(len(connections.child_tasks)):
            sock.close()
            return
        with CancelScope() as scope:
            _connection.set(scope)
            clients.began(scope, sock.fileno())
            try:
                await TCPServer(app, config, context, {}, _Stream(stream, clients, scope)).run()  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001
                clients.failed(error)
            finally:
                sock.close()  # in case hypercorn was cancelled before it closed it
                clients.ended(scope)

    def join(sock: socket.socket) -> None:
        theirs = trio.socket.from_stdlib_socket(sock)
        stream: Any = trio.SocketStream(theirs)
        if tls is not None:
            stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        connections.start_soon(handle, stream, theirs)

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            for sock in drain.sockets:
                accepting.start_soon(_accept, sock, join)
            await drain.work.stop_requested()
            await drain.settle()
            accepting.cancel_scope.cancel()
        for sock in drain.sockets:
            sock.close()
        clients.hurry()
        connections.cancel_scope.deadline = trio.current_time() + drain.seconds
        await clients.first_requests(drain.seconds / 4)
        await context.terminated.set()
    clients.complaints.tell(float("inf"))
    if connections.cancel_scope.cancelled_caught:
        say_late()


async def _accept(listener: socket.socket, join: Callable[[socket.socket], object]) -> None:
    """Accept connections on trio, several per round, and *join* each."""
    listener.settimeout(0)
    while True:
        await wait_readable(listener)
        for _ in range(ACCEPTS):
            try:
                sock, _address = listener.accept()
            except BlockingIOError:
                break
            except OSError as error:  # the client is gone, or there are no more descriptors
                if error.errno in SCARCE:
                    await sleep(PAUSE)
                    break
                continue
            sock.settimeout(0)
            join(sock)


async def _on_asyncio(app: ASGIWrapper, config: Config, drain: Drain, clients: _Clients) -> None:
    import asyncio

    from hypercorn.asyncio.tcp_server import TCPServer
    from hypercorn.asyncio.worker_context import WorkerContext

    context = WorkerContext(None)
    tls = config.create_ssl_context() if config.ssl_enabled else None
    loop = asyncio.get_running_loop()
    connections = set[asyncio.Task[Any]]()
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if clients.full(len(connections) + 1):
            writer.transport.abort()
            return
        connections.add(task)
        scope = CancelScope()
        _connection.set(scope)
        clients.began(scope, writer.get_extra_info("socket").fileno())
        theirs: Any = _Reader(reader, clients, scope), _Writer(writer, clients, scope)
        try:
            with scope:
                await TCPServer(app, loop, config, context, {}, *theirs).run()
        except asyncio.CancelledError:  # noqa: ASYNC103  (during the stop asyncio would log a traceback)
            if not over.is_set():
                raise
        except Exception as error:  # noqa: BLE001
            clients.failed(error)
        finally:
            writer.transport.abort()
            connections.discard(task)
            clients.ended(scope)

    servers = [await asyncio.start_server(handle, sock=sock, ssl=tls, backlog=BACKLOG) for sock in drain.sockets]
    try:
        await drain.work.stop_requested()
        await drain.settle()
        for server in servers:
            server.close()
        clients.hurry()
        seconds = drain.seconds
        await clients.first_requests(drain.seconds / 4)
        await context.terminated.set()
        if connections and (await asyncio.wait(connections, timeout=None if seconds == float("inf") else seconds))[1]:
            say_late()
    finally:
        over.set()
        clients.complaints.tell(float("inf"))
        for server in servers:
            server.close()
        await _cancel(connections)  # noqa: ASYNC102  (it shields itself)


async def _cancel(connections: set[asyncio.Task[Any]]) -> None:
    import asyncio

    for task in connections:
        task.cancel()
    with CancelScope(shield=True), move_on_after(LEAVING):
        if connections:
            await asyncio.wait(connections)
