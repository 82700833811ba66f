"""How an ASGI server ends, and the interface of a server for `serve_asgi`."""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
from anyio import sleep

from kernel.bricks.clients import Limits
from kernel.bricks.lifespan import ASGIApp
from kernel.bricks.listen import BACKLOG
from kernel.declare.serving import Work

TAKEN_OVER = 3  # looks in a row, a millisecond apart: the loop has then made a connection of all that it has accepted
LOOKS = BACKLOG // 64  # at most: the loop accepts at least 64 between two of them, if so many wait
MARGIN = 1.0  # seconds of the time to stop that are left to what is closed after the requests


@attrs.frozen
class Drain:
    """How a server ends.

    Args:
        work: The service's work, which says when a stop is requested.
        sockets: What the server accepts connections from.
        limit: Seconds that requests in flight may take; None for as long as the service has.

    """

    work: Work
    sockets: Sequence[socket.socket]
    limit: float | None

    @property
    def seconds(self) -> float:
        """Return the seconds that requests in flight still have; infinity if there is no limit."""
        left = getattr(self.work, "time_left", float)()
        if not left:
            return float("inf") if self.limit is None else self.limit
        left -= min(MARGIN, left / 4)
        return left if self.limit is None else min(left, self.limit)

    async def settle(self) -> None:
        """Wait until no connection waits to be accepted, or is just being taken over by the loop.

        A waiting connection would be reset when the sockets close, and one that the server does not know yet would be
        reset when it ends. Those that come later are not waited for: there may be no end of them.
        """
        waiting = select.poll()
        for one in self.sockets:
            waiting.register(one, select.POLLIN)
        quiet = 0
        for _ in range(LOOKS):
            quiet = 0 if waiting.poll(0) else quiet + 1
            if quiet > TAKEN_OVER:
                return
            await sleep(0.001)


Serve = Callable[[Drain], Awaitable[None]]
"""Serves until a stop is requested and what was in flight has ended."""

Prepare = Callable[[ASGIApp, dict[str, Any], Limits], Serve]
"""Takes an app without lifespan, a server's options, and the limits of its clients: `prepare` of `uvicorn_server` and
of `hypercorn_server`."""
