"""Run an ASGI app on uvicorn. It differs from `uvicorn.run` in signal handling, client limits, and draining.

The kernel handles signals. uvicorn closes its sockets while connections wait to be accepted, and closes idle
connections whose first request is on its way. Both would be lost, so here they are handled first. It also waits in
steps of 0.1 s, which is most of the time that an idle server takes to stop. `uvicorn_clients` limits clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Generator
from typing import Any

import uvicorn
from anyio import CancelScope, move_on_after, sleep
from anyio.lowlevel import checkpoint

from kernel.bricks.clients import Complaints, Limits, forgiving
from kernel.bricks.drain import Drain, Serve, say_late
from kernel.bricks.lifespan import ASGIApp, Receive, Scope, Send
from kernel.bricks.uvicorn_clients import Clients

TICK = 1.0  # seconds between two updates of the Date header, and two checks of clients
STEP = 0.005  # seconds between two checks for requests in flight
AWARE = 0.05  # seconds for apps to notice that their client is gone


def prepare(app: ASGIApp, options: dict[str, Any], limits: Limits) -> Serve:
    """Return the server of *app*, without lifespan. *options* of `uvicorn.Config` override the defaults set here.

    Raises:
        TypeError: There is no such option.

    """
    errors = logging.getLogger("uvicorn.error")
    if errors.level == logging.NOTSET:
        errors.setLevel(logging.WARNING)  # hides its "Press CTRL+C to quit"
    if _unsaid not in errors.filters:
        errors.addFilter(_unsaid)
    ours = {"log_config": None, "lifespan": "off", "loop": "none", "access_log": False, "interface": "asgi3"}
    over, complaints = asyncio.Event(), Complaints()
    app = forgiving(app, complaints)

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:  # noqa: ASYNC103  (caused by `abandon`; uvicorn would log a traceback)
            if not over.is_set():
                raise

    config = uvicorn.Config(quiet, **(ours | options))

    async def serve(drain: Drain) -> None:
        server = _Server(config, drain, limits, complaints)
        try:
            await server.serve(list(drain.sockets))
        finally:
            over.set()
            await server.abandon()  # noqa: ASYNC102  (it shields itself)

    return serve


def _unsaid(record: logging.LogRecord) -> bool:
    """Drop uvicorn's line about each malformed request, since `Complaints` counts them."""
    return record.msg != "Invalid HTTP request received."


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, drain: Drain, limits: Limits, complaints: Complaints) -> None:
        super().__init__(config)
        self.servers: list[asyncio.base_events.Server] = []
        self._drain = drain
        self._clients = Clients(limits, self.server_state, complaints)
        config.load()
        config.http_protocol_class = self._clients.protocol(config.http_protocol_class)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Do nothing, since the kernel handles signals."""
        yield

    async def main_loop(self) -> None:
        """Serve until a stop is requested, or uvicorn's own limit of requests is reached."""
        while not await self.on_tick(0):
            with move_on_after(TICK):
                await self._drain.work.stop_requested()
                self.should_exit = True
            self._clients.look()

    async def shutdown(self, sockets: Any = None) -> None:  # noqa: ARG002  (uvicorn's name)
        """Finish the requests in flight."""
        await self._drain.settle()
        for server in self.servers:
            server.close()
        await checkpoint()  # uvloop sets up connections that it accepted meanwhile in its next step
        state = self.server_state
        with move_on_after(self._drain.seconds):
            while state.connections or state.tasks:
                self._clients.part()
                await sleep(STEP)
            return
        if state.tasks:
            say_late()

    async def abandon(self) -> None:
        """Close the remaining connections. Apps see that their client is gone; apps that ignore it are cancelled."""
        for server in self.servers:
            server.close()
        self._clients.complaints.tell(float("inf"))
        state = self.server_state
        for connection in [*state.connections]:
            connection.transport.abort()
        with CancelScope(shield=True):
            if state.tasks:
                await asyncio.wait(state.tasks, timeout=AWARE)
            for task in state.tasks:
                task.cancel()
            if state.tasks:
                await asyncio.wait(state.tasks, timeout=AWARE)
