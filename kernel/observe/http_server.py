"""A small read-only HTTP server: GET and HEAD over HTTP/1.1, in a separate thread that nothing can delay.

h11 handles the protocol; this module moves the bytes. It uses no event loop, so it answers while the app's loop is
blocked, works with any backend, and costs the loop nothing. Clients are not trusted:

- Each round answers one request per connection, so a client that sends many requests does not delay others.
- Each client has limits: see `Limits`. Beyond `Limits.connections`, the oldest connection is closed to make room for a
    new one, so that probes always succeed.
- A second thread creates slow pages. All clients that wait for the same page get the same copy.
- A request with a body, or for another protocol, is answered, and its connection is closed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from kernel.observe.http_connection import Answer, Connection, Later, Limits, Request, is_loopback, plain

log = logging.getLogger("kernel")

ACCEPTS = 16  # connections accepted per round: fewer than the maximum, so that each is read before it can be evicted
YOUNG = 0.25  # minimum seconds for a new connection to send its first request
FIRST = 0.1  # the same while the server closes
PAUSE = 0.05  # seconds without accepting if no connection can be closed for a new one
STALLED = 0.05  # seconds since a client took some part of its answer, after which it is dropped when the server closes
CLOSING = 0.5  # seconds after which all connections are closed, whatever their progress
SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

T = TypeVar("T")
Handler = Callable[[Request], Answer | Later]


class Server:
    """Serves on sockets, from `start` to `close`.

    Args:
        socks: Listening sockets, which the server closes.
        handle: Answers a request at once, in the server's thread. An error is logged, and the client gets a 500.
        limits: The limits of one client.

    """

    def __init__(self, socks: Sequence[socket.socket], handle: Handler, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._most = min(self.limits.connections, _descriptors() // 4)
        self.closing = False
        self._socks = list(socks)
        self._handle = handle
        self._connections: set[Connection] = set()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._paused_until = 0.0
        self._close_at = 0.0
        self._thread = threading.Thread(target=self._run, name="kernel admin", daemon=True)
        self._maker = _Maker(self._nudge)

    def start(self) -> None:
        """Start serving."""
        for sock in (*self._socks, self._woken, self._wake):
            sock.settimeout(0)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        self._listen()
        self._thread.start()

    def close(self, *, wait: bool = True) -> None:
        """Stop accepting, and close every connection: those being answered within `CLOSING` seconds, others at once.

        A new connection does not count as idle: its first request is on its way, and is answered.

        Args:
            wait: Whether to wait until everything is closed.

        """
        if not self.closing:
            self._close_at = time.monotonic() + CLOSING
            self.closing = True
            self._nudge()
        if wait and self._thread.ident is not None:
            self._thread.join(CLOSING)

    # -- for its connections -------------------------------------------------------------------------------------

    def watch(self, connection: Connection, before: int, events: int) -> None:
        """Watch the socket of *connection* for *events*, instead of the events *before*."""
        if not before:
            self._selector.register(connection.sock, events, connection)
        elif events:
            self._selector.modify(connection.sock, events, connection)
        else:
            self._selector.unregister(connection.sock)

    def gone(self, connection: Connection) -> None:
        """Stop watching *connection*."""
        self._connections.discard(connection)

    def handle(self, request: Request) -> Answer | Later:
        """Return the answer to *request*, or how to make it."""
        return _tried(lambda: self._handle(request), request.path)

    def make(self, page: Later, connection: Connection) -> None:
        """Create *page*, and answer *connection* with it."""
        self._maker.make(page, connection)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):  # if it is full, the thread wakes up anyway
            self._wake.send(b"!")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def _run(self) -> None:
        try:
            while not (self.closing and self._closed()):
                try:
                    self._round()
                except Exception:  # later connections must still be served
                    log.warning("an error in the admin server; it continues", exc_info=True)
                    time.sleep(PAUSE)
        finally:
            self._maker.end()
            for connection in list(self._connections):
                connection.close()
            self._selector.close()
            for sock in (*self._socks, self._woken, self._wake):
                sock.close()

    def _round(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if isinstance(key.data, Connection):
                self._guarded(key.data, key.data.ready)
            else:
                key.data()
        for waiting, answer in self._maker.made():
            for connection in waiting:
                self._guarded(connection, lambda client=connection, page=answer: client.answer(page))  # type: ignore[misc]
        now = time.monotonic()
        for connection in list(self._connections):
            if connection.more:
                self._guarded(connection, connection.go_on)
            elif now >= connection.deadline:
                connection.close()
        if self._paused_until and now >= self._paused_until:
            self._listen()

    def _patience(self) -> float | None:
        """Return the seconds until the next deadline; None if there is none."""
        if any(connection.more for connection in self._connections):
            return 0
        due = [connection.deadline for connection in self._connections]
        if self._paused_until:
            due.append(self._paused_until)
        if self.closing:
            due.append(time.monotonic() + STALLED / 4)
        return max(min(due) - time.monotonic(), 0) if due else None

    def _guarded(self, connection: Connection, step: Callable[[], None]) -> None:
        """Run a *step* of *connection*. An error closes only this connection."""
        try:
            step()
        except OSError:
            connection.close()
        except Exception:  # a client must never be able to end the server
            log.warning("the admin server closed a connection that it could not answer", exc_info=True)
            connection.close()

    def _listen(self) -> None:
        self._paused_until = 0.0
        for sock in self._socks:
            self._selector.register(sock, selectors.EVENT_READ, lambda sock=sock: self._accept(sock))

    def _pause(self) -> None:
        """Stop accepting connections briefly."""
        if not self._paused_until:
            self._paused_until = time.monotonic() + PAUSE
            for sock in self._socks:
                self._selector.unregister(sock)

    def _accept(self, listener: socket.socket) -> None:
        local = is_loopback(listener)
        for _ in range(ACCEPTS):
            if len(self._connections) >= self._most and not self._evict():
                self._pause()
                return
            try:
                sock, _address = listener.accept()
            except OSError as error:
                if error.errno == errno.ECONNABORTED or (error.errno in SCARCE and self._evict()):
                    continue
                if error.errno in SCARCE:
                    self._pause()
                return
            sock.settimeout(0)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.add(Connection(self, sock, local=local))

    def _evict(self) -> bool:
        """Close the oldest connection. Return False if there is none, or it is too new."""
        oldest = min(self._connections, key=lambda connection: connection.born, default=None)
        if oldest is None or time.monotonic() - oldest.born < YOUNG:
            return False
        oldest.close()
        return True

    def _closed(self) -> bool:
        """Close every connection that can be closed, and return whether none is left."""
        if self._socks:
            if not self._paused_until:
                for sock in self._socks:
                    self._selector.unregister(sock)
            self._paused_until = 0.0
            while self._socks:
                self._socks.pop().close()
        now = time.monotonic()
        for connection in list(self._connections):
            if connection.unused and now < min(connection.born + FIRST, self._close_at):
                continue
            if now >= self._close_at or not (
                (connection.step == "read" and connection.more)  # may contain a whole request
                or connection.step == "wait"
                or (connection.step == "write" and now - connection.moved < STALLED)
            ):
                connection.close()
        return not self._connections


def _descriptors() -> int:
    """Return the maximum number of file descriptors of the process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


class _Maker:
    """Creates slow pages one after the other, in a thread that starts with the first page.

    Args:
        done: Called when `made` has something to return.

    """

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._wanted: dict[Hashable, tuple[Callable[[], Answer], list[Connection]]] = {}
        self._made: deque[tuple[list[Connection], Answer]] = deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False

    def make(self, page: Later, connection: Connection) -> None:
        """Create *page* for *connection*, and for all others that request the same page before work on it has begun."""
        with self._news:
            self._wanted.setdefault(page.key, (page.make, []))[1].append(connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kernel admin pages", daemon=True)
                self._thread.start()
            self._news.notify()

    def made(self) -> list[tuple[list[Connection], Answer]]:
        """Return the pages created since the last call, each with the connections that wait for it."""
        found = []
        while self._made:
            found.append(self._made.popleft())
        return found

    def end(self) -> None:
        """Stop creating pages."""
        with self._news:
            self._ended = True
            self._news.notify()

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._wanted and not self._ended:
                    self._news.wait()
                if self._ended:
                    return
                key = next(iter(self._wanted))
                make, waiting = self._wanted.pop(key)
            self._made.append((waiting, _tried(make, str(key))))
            self._done()


def _tried(make: Callable[[], T], what: str) -> T | Answer:
    try:
        return make()
    except Exception as error:  # noqa: BLE001  (the client gets a 500)
        log.warning("%s could not be created: %s: %s", what, type(error).__name__, error)
        return plain(500, "this page could not be created; see the log")
