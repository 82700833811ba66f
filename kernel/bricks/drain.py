"""How an ASGI server drains, and the interface of a server for `serve_asgi`."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
import sniffio
from anyio import current_time, sleep

from kernel.bricks.clients import Limits
from kernel.bricks.lifespan import ASGIApp
from kernel.bricks.listen import BACKLOG
from kernel.declare.serving import Work

# Seconds for accepting the connections that wait, but at most a quarter of the time left: under load more keep coming.
WAITING = 5.0
LOOKS = BACKLOG // 64  # maximum number of checks: the loop accepts at least 64 between two of them
TAKEN_OVER = 3  # pauses of a millisecond, after which the loop has set up all connections that it accepted
MARGIN = 1.0  # seconds of the stop reserved for whatever closes after the requests

log = logging.getLogger(__name__)


@attrs.frozen
class Drain:
    """How a server drains.

    Args:
        work: The service's work, which tells when a stop is requested.
        sockets: The sockets that the server accepts connections from.
        limit: Seconds for requests in flight; None for as long as the service has.
        held: Whether systemd holds the sockets too, and passes them to the next process.

    """

    work: Work
    sockets: Sequence[socket.socket]
    limit: float | None
    held: bool

    @property
    def seconds(self) -> float:
        """Return the seconds left for requests in flight; infinity if there is no limit."""
        left = getattr(self.work, "time_left", float)()
        if not left:
            return float("inf") if self.limit is None else self.limit
        left -= min(MARGIN, left / 4)
        return left if self.limit is None else min(left, self.limit)

    async def settle(self) -> None:
        """Accept the waiting connections, then stop accepting, and wait until the server knows all connections.

        A waiting connection would be reset when the sockets close, unless systemd holds them: then the next process
        accepts it. A connection that the server does not know yet would be reset when the server ends.
        """
        poll = select.poll()
        for sock in self.sockets:
            poll.register(sock, select.POLLIN)
        end = current_time() + min(WAITING, self.seconds / 4)
        for _ in range(LOOKS):
            if self.held or not poll.poll(0) or current_time() >= end:
                break
            await sleep(0.001)
        if sniffio.current_async_library() == "asyncio":
            # The server cannot be closed yet: what it has accepted becomes a connection a few steps later.
            for sock in self.sockets:
                asyncio.get_running_loop().remove_reader(sock)
        for _ in range(TAKEN_OVER):
            await sleep(0.001)


def say_late() -> None:
    """Log that there was not enough time to drain."""
    log.warning("requests were still in flight when the time to drain was over; their connections are closed")


Serve = Callable[[Drain], Awaitable[None]]
"""Serves until a stop is requested and the requests in flight have ended."""

Prepare = Callable[[ASGIApp, dict[str, Any], Limits], Serve]
"""Takes an app without lifespan, a server's options, and the limits of its clients: `prepare` of `uvicorn_server` and
of `hypercorn_server`."""
