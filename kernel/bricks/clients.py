"""Limits for the clients of an ASGI server, so that hostile ones neither exhaust it nor delay its stop.

One rule applies to all: a client that waits for the server is left alone. A client that the server waits for is closed
when it takes too long, when another client needs its place, and soon after a stop is requested.
"""

from __future__ import annotations

import logging
import resource
from collections import Counter
from collections.abc import MutableMapping
from typing import Any

import attrs

from kernel.bricks.lifespan import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

MOST = 10_000  # maximum connections, if the process may open enough descriptors
REQUEST = 10.0  # seconds to send a request's line and headers
HEAD = 64 * 1024  # maximum bytes of them, for a parser without its own limit
EVERY = 60.0  # seconds between two log lines about clients

# After a stop was requested:
FIRST = 0.1  # seconds for a new connection to send its first request
UNREAD = 0.5  # seconds within which a client must receive a part of its answer
UNSENT = 2.0  # seconds within which a client must send a part of its request's body
GOODBYE = 1.0  # seconds within which a client must answer the close of its websocket


@attrs.frozen
class Limits:
    """The limits of clients.

    Args:
        connections: Maximum number of connections.
        silence: Seconds within which a client must receive a part of its answer, or send a part of its request's body.

    """

    connections: int
    silence: float

    @classmethod
    def of(cls, connections: int | None, silence: float) -> Limits:
        """Return the limits; without *connections*, half of the process's file descriptors, at most `MOST`.

        Raises:
            ValueError: A limit is not positive.

        """
        if connections is not None and connections < 1:
            raise ValueError(f"max_connections is {connections}; it must be at least 1")
        if not silence > 0:
            raise ValueError(f"client_timeout is {silence}; it must be more than 0")
        if connections is None:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            connections = MOST if soft == resource.RLIM_INFINITY else max(min(soft // 2, MOST), 1)
        return cls(connections, silence)


class Complaints:
    """Logs what clients did wrong: at most one line a minute."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._silent_until = 0.0

    def add(self, what: str) -> None:
        """Count *what* a client did, such as "requests that are not HTTP"."""
        self._counts[what] += 1

    def tell(self, now: float) -> None:
        """Log the counts, unless a line was logged less than a minute before *now*, in seconds of any clock."""
        if self._counts and now >= self._silent_until:
            log.warning("from clients: %s", ", ".join(f"{number} {what}" for what, number in self._counts.items()))
            self._counts.clear()
            self._silent_until = now + EVERY


def forgiving(app: ASGIApp, complaints: Complaints) -> ASGIApp:
    """Wrap *app* so that a client that leaves, or breaks the protocol, is counted instead of causing a traceback."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        left = False

        async def received() -> MutableMapping[str, Any]:
            nonlocal left
            message = await receive()
            left = left or message["type"].endswith(".disconnect")
            return message

        try:
            await app(scope, received, send)
        except Exception as error:
            if not _of_client(error, left=left):
                raise
            log.debug("a client left, or broke the protocol", exc_info=error)
            complaints.add("requests that broke off")

    return wrapped


def _of_client(error: BaseException, *, left: bool) -> bool:
    """Return whether *error*, and each error in its group, comes from the client, judging by its class and module."""
    if isinstance(error, BaseExceptionGroup):
        return all(_of_client(member, left=left) for member in error.exceptions)
    kind = type(error)
    if kind.__module__.partition(".")[0] in PROTOCOLS:
        return kind.__name__.endswith("ProtocolError")
    return left and kind.__name__ in LEFT


PROTOCOLS = frozenset({"h11", "h2", "wsproto", "websockets"})
LEFT = frozenset({"ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect"})
"""Exceptions that Starlette and uvicorn raise in an app whose client has left."""
