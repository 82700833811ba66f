"""Run an ASGI app on uvicorn. It differs from `uvicorn.run` in signal handling and draining.

Signals are the kernel's. uvicorn closes its sockets while connections wait to be accepted, and idle connections whose
first request is on its way; both would be lost, so here these are handled first. It also waits in steps of 0.1 s, which
is most of the time that an idle server takes to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Generator
from typing import Any

import uvicorn
from anyio import CancelScope, current_time, move_on_after, sleep
from anyio.lowlevel import checkpoint

from kernel.bricks.drain import Drain, Serve, say_late
from kernel.bricks.lifespan import ASGIApp, Receive, Scope, Send

TICK = 1.0  # seconds after which the Date header is renewed
STEP = 0.005  # seconds between two looks at what is still in flight
FIRST = 0.25  # seconds that a connection without a request gets to send the one that it was opened for
AWARE = 0.05  # seconds that apps get to notice that their client is gone


def prepare(app: ASGIApp, options: dict[str, Any]) -> Serve:
    """Return the server of *app*, without lifespan; *options* of `uvicorn.Config` override those that are set here.

    Raises:
        TypeError: There is no such option.

    """
    errors = logging.getLogger("uvicorn.error")
    if errors.level == logging.NOTSET:
        errors.setLevel(logging.WARNING)  # its "Press CTRL+C to quit" is the kernel's to say
    ours = {"log_config": None, "lifespan": "off", "loop": "none", "access_log": False, "interface": "asgi3"}
    over = asyncio.Event()

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:  # noqa: ASYNC103  (by `abandon`: uvicorn would log a traceback)
            if not over.is_set():
                raise

    config = uvicorn.Config(quiet, **(ours | options))

    async def serve(drain: Drain) -> None:
        server = _Server(config, drain)
        try:
            await server.serve(list(drain.sockets))
        finally:
            over.set()
            await server.abandon()  # noqa: ASYNC102  (it shields itself)

    return serve


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self.servers: list[asyncio.base_events.Server] = []
        self._drain = drain

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to the kernel."""
        yield

    async def main_loop(self) -> None:
        """Serve until a stop is requested, or uvicorn's own limit of requests is reached."""
        while not await self.on_tick(0):
            with move_on_after(TICK):
                await self._drain.work.stop_requested()
                self.should_exit = True

    async def shutdown(self, sockets: Any = None) -> None:  # noqa: ARG002  (uvicorn's name)
        """Finish what is in flight."""
        await self._drain.settle()
        for server in self.servers:
            server.close()
        await checkpoint()  # uvloop: what it accepted in the meantime becomes a connection in its next step
        state, told = self.server_state, set[Any]()
        patient_until = current_time() + FIRST
        with move_on_after(self._drain.seconds):
            while state.connections or state.tasks:
                patient = current_time() < patient_until
                for connection in state.connections - told:
                    if not (patient and getattr(connection, "cycle", connection) is None):
                        told.add(connection)
                        connection.shutdown()
                await sleep(STEP)
            return
        if state.tasks:
            say_late()

    async def abandon(self) -> None:
        """Close the remaining connections. Apps see that their client is gone; those that ignore it are cancelled."""
        for server in self.servers:
            server.close()
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
