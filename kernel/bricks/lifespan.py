"""Run the lifespan of an ASGI app, with any server. Its errors become the service's, and its state is kept."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from anyio import Event, create_task_group, sleep_forever

from kernel.bricks.unwrap import unwrapped
from kernel.errors import LifespanFailed, one_line

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncGenerator[ASGIApp]:
    """Run the lifespan of *app* around a block. The block gets the app to serve, without its lifespan.

    An app that does not support the protocol, and raises or returns at the first message, runs without a lifespan.

    Raises:
        LifespanFailed: The app reports that its startup or shutdown failed, without raising an error.
        Exception: The error that the app raises. If the block still runs, it is cancelled.

    """
    run = _Lifespan(app)
    with unwrapped():
        async with create_task_group() as tasks:
            tasks.start_soon(run.main)
            await run.started.wait()
            try:
                yield run.serve
            finally:
                run.stop.set()
                await run.ended.wait()  # noqa: ASYNC102  (cancelled only with the whole attempt, like the app itself)


class _Lifespan:
    def __init__(self, app: ASGIApp) -> None:
        self.started = Event()
        self.stop = Event()
        self.ended = Event()
        self._app = app
        self._state: dict[str, Any] = {}
        self._told = 0
        self._failed: str | None = None

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app for a server. Each request gets a shallow copy of the state, as the specification requires."""
        scope["state"] = self._state.copy()
        await self._app(scope, receive, send)

    async def main(self) -> None:
        """Call the app, once for its whole life."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:
            if self.started.is_set() or self._failed is not None:
                raise
            log.debug("the app has no lifespan: %s", one_line(error))
        finally:
            self.ended.set()
        if self._failed is not None:
            raise LifespanFailed(self._failed)
        self.started.set()

    async def _receive(self) -> MutableMapping[str, Any]:
        self._told += 1
        if self._told == 1:
            return {"type": "lifespan.startup"}
        await self.stop.wait()
        if self._told > 2:  # noqa: PLR2004  (there is no third message)
            await sleep_forever()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self.started.set()
        elif kind in {"lifespan.startup.failed", "lifespan.shutdown.failed"}:
            self._failed = f"{kind.removeprefix('lifespan.').removesuffix('.failed')}: {message.get('message') or ''}"
