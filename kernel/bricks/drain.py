"""How an ASGI server ends, and the interface of a server for `serve_asgi`."""

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

WAITING = 5.0  # seconds at most, and a quarter of the time there is, to accept what waits: under load something does
LOOKS = BACKLOG // 64  # at most: the loop accepts at least 64 between two of them; new clients may come for ever
TAKEN_OVER = 3  # pauses of a millisecond: the loop has then made a connection of all that it has accepted
MARGIN = 1.0  # seconds of the time to stop that are left to what is closed after the requests

log = logging.getLogger(__name__)


@attrs.frozen
class Drain:
    """How a server ends.

    Args:
        work: The service's work, which says when a stop is requested.
        sockets: What the server accepts connections from.
        limit: Seconds that requests in flight may take; None for as long as the service has.
        held: Whether systemd holds the sockets, too, and hands them to the next process.

    """

    work: Work
    sockets: Sequence[socket.socket]
    limit: float | None
    held: bool

    @property
    def seconds(self) -> float:
        """Return the seconds that requests in flight still have; infinity if there is no limit."""
        left = getattr(self.work, "time_left", float)()
        if not left:
            return float("inf") if self.limit is None else self.limit
        left -= min(MARGIN, left / 4)
        return left if self.limit is None else min(left, self.limit)

    async def settle(self) -> None:
        """Accept the connections that wait, then stop accepting, and wait until the server knows them all.

        A waiting connection would be reset when the sockets close, unless systemd holds them: then the next process
        accepts it. One that the server does not know yet would be reset when it ends.
        """
        poll = select.poll()
        for one in self.sockets:
            poll.register(one, select.POLLIN)
        end = current_time() + min(WAITING, self.seconds / 4)
        for _ in range(LOOKS):
            if self.held or not poll.poll(0) or current_time() >= end:
                break
            await sleep(0.001)
        if sniffio.current_async_library() == "asyncio":
            # Its server cannot be closed yet: what it has accepted becomes a connection some steps later.
            for one in self.sockets:
                asyncio.get_running_loop().remove_reader(one)
        for _ in range(TAKEN_OVER):
            await sleep(0.001)


def say_late() -> None:
    """Log that the time to drain was too short."""
    log.warning("requests were still in flight when their time to drain was over; their connections are closed")


Serve = Callable[[Drain], Awaitable[None]]
"""Serves until a stop is requested and what was in flight has ended."""

Prepare = Callable[[ASGIApp, dict[str, Any], Limits], Serve]
"""Takes an app without lifespan, a server's options, and the limits of its clients: `prepare` of `uvicorn_server` and
of `hypercorn_server`."""
