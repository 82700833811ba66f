"""Apply the limits of `clients` to the connections of uvicorn, which has few of its own.

uvicorn closes a connection that is idle between two requests. It waits forever for the first request, for the rest of a
request, and for a client to read. Its parsers' errors about some malformed requests become tracebacks.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable
from typing import Any

from anyio import current_time
from uvicorn.server import ServerState

from kernel.bricks.clients import FIRST, GOODBYE, HEAD, REQUEST, UNREAD, UNSENT, Complaints, Limits

log = logging.getLogger(__name__)

AT_ONCE = 32  # one in 32 connections is closed when there are too many, since finding them takes time
YOUNG = 0.25  # minimum age in seconds of a connection that is closed for another
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 21\r\n"
    b"retry-after: 1\r\nconnection: close\r\n\r\ntoo many connections\n"
)


class Clients:
    """All connections of a server.

    Args:
        limits: The limits of clients.
        state: uvicorn's state, which contains its connections: HTTP and websockets.
        complaints: Counts what clients do wrong.

    """

    def __init__(self, limits: Limits, state: ServerState, complaints: Complaints) -> None:
        self.complaints = complaints
        self._limits = limits
        self._state = state
        self._parted: dict[Any, float] = {}  # connections that were requested to end, and since when

    def protocol(self, base: Any) -> Any:
        """Return uvicorn's class for an HTTP connection, with limits added."""
        return type(f"Limited{base.__name__}", (_Limited, base), {"clients": self})

    def admit(self, connection: _Limited) -> None:
        """Make room for a new *connection*: close those that the server has waited for longest, or else the new one."""
        most = self._limits.connections
        if len(self._state.connections) <= most:
            return
        now = current_time()
        old = [
            (wait, id(one), one) for one in self._http() if one is not connection and (wait := one.waited(now)) > YOUNG
        ]
        closed = heapq.nlargest(max(most // AT_ONCE, 1), old)
        for _, _, one in closed:
            one.transport.abort()
            self._state.connections.discard(one)  # asyncio would remove it later
        self.complaints.add(f"connections more than {most}")
        if not closed:
            connection.transport.write(FULL)
            connection.transport.close()

    def look(self) -> None:
        """Close connections whose clients take too long."""
        now = current_time()
        for one in [*self._http()]:
            if one.waited(now) > (REQUEST if one.reads_head else self._limits.silence):
                one.transport.abort()
        self.complaints.tell(now)

    def part(self) -> None:
        """End all connections for a stop: after the request in flight, or at once if the server waits for a client."""
        now = current_time()
        for one in [*self._state.connections]:
            if one not in self._parted:
                if not isinstance(one, _Limited) or one.cycle is not None or now - one.since >= FIRST:
                    self._parted[one] = now
                    one.shutdown()
            elif isinstance(one, _Limited):
                if one.waited(now) > (UNSENT if one.reads_body else UNREAD):
                    one.transport.abort()
            elif now - self._parted[one] > GOODBYE:
                websocket: Any = one  # every websocket class has a transport
                websocket.transport.abort()

    def _http(self) -> Iterable[_Limited]:
        return (one for one in self._state.connections if isinstance(one, _Limited))


class _Limited:
    """A connection with limits, on top of uvicorn's class."""

    clients: Clients
    # uvicorn's:
    cycle: Any
    flow: Any
    transport: Any
    connections: set[Any]

    def connection_made(self, transport: Any) -> None:
        """Start the time limits."""
        self.since = self._moved = current_time()  # when waiting for a request began, and its last byte came
        self._begun = False  # whether the next request has begun to arrive
        self._received = 0  # bytes of its head
        self._unread: float | None = None  # since when the client has received nothing of its answer
        self._left = 0  # bytes that it had not received by then
        super().connection_made(transport)  # type: ignore[misc]
        self.clients.admit(self)

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def reads_head(self) -> bool:
        """Whether the server waits for the first request, or for the rest of a request's head."""
        return self._unread is None and (self.cycle is None or (self._idle and self._begun))

    @property
    def reads_body(self) -> bool:
        """Whether the server waits for the rest of a request's body."""
        cycle = self.cycle
        asked = not getattr(cycle, "waiting_for_100_continue", False) and not self.flow.read_paused
        return not self._idle and cycle.more_body and not cycle.response_started and asked

    def waited(self, now: float) -> float:
        """Return the seconds that the server has been waiting for the client; 0 if the client waits for the server."""
        left = self.transport.get_write_buffer_size()
        if not left:
            self._unread = None
        elif self._unread is None or left < self._left:
            self._unread = now
        self._left = left
        if self._unread is not None:
            return now - self._unread
        if self.reads_head:
            return now - self.since
        return now - self._moved if self._idle or self.reads_body else 0.0

    def data_received(self, data: bytes) -> None:
        """Record what the server waits for, and let no request end in a traceback."""
        self._moved = current_time()
        if self._idle and not self._begun:
            self._begun, self._received = True, 0
            if self.cycle is not None:
                self.since = self._moved
        try:
            super().data_received(data)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001  (uvicorn's code does not expect some requests)
            self._refuse(error)
        if not self._idle:
            self._begun = False
        elif self._begun:
            self._received += len(data)
            if self._received > HEAD:
                self._refuse()

    def handle_events(self) -> None:
        """Handle received data, also after an answer was sent: otherwise an error would be attributed to the app."""
        try:
            super().handle_events()  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001
            self._refuse(error)

    def resume_writing(self) -> None:
        """Record that the client has received something."""
        self._unread = None
        super().resume_writing()  # type: ignore[misc]

    def send_400_response(self, msg: str) -> None:
        """Refuse a request, or the rest of one. The app then sees that its client is gone."""
        self.clients.complaints.add(NOT_HTTP)
        if self._idle:
            super().send_400_response(msg)  # type: ignore[misc]
            return
        if self.cycle.response_started:
            self.transport.abort()
        else:
            super().send_400_response(msg)  # type: ignore[misc]
        self._leave()

    def _refuse(self, error: Exception | None = None) -> None:
        log.debug("a request that the server could not handle", exc_info=error)
        self.clients.complaints.add(NOT_HTTP)
        for one in [one for one in self.connections if one.transport is self.transport and one is not self]:
            self.connections.discard(one)  # a websocket whose handshake failed
        if not self._idle:
            self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore the request for another protocol, as HTTP requires."""


NOT_HTTP = "requests that are not HTTP"
