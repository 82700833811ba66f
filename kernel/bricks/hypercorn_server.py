"""Run an ASGI app on hypercorn, on asyncio or trio, with an accept loop of our own.

With hypercorn's own loop on trio, an error of one connection ends the server; here it ends the connection. On asyncio,
a connection that does not end keeps the server from ending. Connections that wait to be accepted when the sockets close
are reset; here they are accepted first.
"""

from __future__ import annotations

import functools
import logging
import socket
from typing import TYPE_CHECKING, Any

import sniffio
from anyio import CancelScope, create_task_group, move_on_after, sleep
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config

from kernel.bricks.drain import Drain, Serve, say_late
from kernel.bricks.lifespan import ASGIApp, Receive, Scope, Send
from kernel.bricks.listen import BACKLOG

if TYPE_CHECKING:
    import asyncio

FIRST = 0.1  # seconds that a connection without a request gets to send the one that it was opened for
GOING_AWAY = {"type": "websocket.close", "code": 1012, "reason": "the service restarts"}

log = logging.getLogger(__name__)


def prepare(app: ASGIApp, options: dict[str, Any]) -> Serve:
    """Return the server of *app*, without lifespan, with *options* as attributes of `hypercorn.Config`.

    Raises:
        TypeError: It has no such attribute.

    """
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")  # as it is: the root's handlers, not one of its own
    for name, value in options.items():
        if not hasattr(config, name):
            raise TypeError(f"serve_asgi got {name!r}, which is no attribute of hypercorn.Config")
        setattr(config, name, value)
    serve_on: Any = _on_trio if sniffio.current_async_library() == "trio" else _on_asyncio

    async def serve(drain: Drain) -> None:
        await serve_on(ASGIWrapper(_closing_websockets(app, drain)), config, drain)  # type: ignore[arg-type]

    return serve


def _closing_websockets(app: ASGIApp, drain: Drain) -> ASGIApp:
    """Wrap *app* so that its websockets are closed when a stop is requested; hypercorn would wait for them to end."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
            return

        async def close() -> None:
            await drain.work.stop_requested()
            await send(dict(GOING_AWAY))

        async with create_task_group() as tasks:
            tasks.start_soon(close)
            await app(scope, receive, send)
            tasks.cancel_scope.cancel()

    return wrapped


async def _on_trio(app: ASGIWrapper, config: Config, drain: Drain) -> None:
    import trio
    from hypercorn.trio.tcp_server import TCPServer
    from hypercorn.trio.worker_context import WorkerContext

    context = WorkerContext(None)
    tls = config.create_ssl_context() if config.ssl_enabled else None

    async def handle(stream: Any) -> None:
        try:
            await TCPServer(app, config, context, {}, stream)
        except Exception as error:  # one connection's error is no other's
            log.warning("a connection failed", exc_info=error)

    def listener(sock: socket.socket) -> Any:
        plain = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        return trio.SSLListener(plain, tls, https_compatible=True) if tls is not None else plain

    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            listeners = [listener(one) for one in drain.sockets]
            serve = functools.partial(trio.serve_listeners, handle, listeners, handler_nursery=connections)
            accepting.start_soon(serve)
            await drain.work.stop_requested()
            await drain.settle()
            accepting.cancel_scope.cancel()
        connections.cancel_scope.deadline = trio.current_time() + drain.seconds
        if connections.child_tasks:
            await sleep(FIRST)
        await context.terminated.set()
    if connections.cancel_scope.cancelled_caught:
        say_late()


async def _on_asyncio(app: ASGIWrapper, config: Config, drain: Drain) -> None:
    import asyncio

    from hypercorn.asyncio.tcp_server import TCPServer
    from hypercorn.asyncio.worker_context import WorkerContext

    context = WorkerContext(None)
    tls = config.create_ssl_context() if config.ssl_enabled else None
    loop = asyncio.get_running_loop()
    connections = set[asyncio.Task[Any]]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await TCPServer(app, loop, config, context, {}, reader, writer)
        except Exception as error:  # one connection's error is no other's
            log.warning("a connection failed", exc_info=error)
        finally:
            connections.discard(task)

    servers = [await asyncio.start_server(handle, sock=one, ssl=tls, backlog=BACKLOG) for one in drain.sockets]
    try:
        await drain.work.stop_requested()
        await drain.settle()
        for server in servers:
            server.close()
        seconds = drain.seconds
        if connections:
            await sleep(FIRST)
        await context.terminated.set()
        if connections and (await asyncio.wait(connections, timeout=None if seconds == float("inf") else seconds))[1]:
            say_late()
    finally:
        for server in servers:
            server.close()
        for task in connections:
            task.cancel()
        with CancelScope(shield=True), move_on_after(FIRST):
            if connections:
                await asyncio.wait(connections)
