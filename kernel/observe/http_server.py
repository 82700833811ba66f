"""A small HTTP server for looking: GET and HEAD over HTTP/1.1, in a thread of its own that nothing can hold up.

h11 reads and writes the protocol; this module moves the bytes. It belongs to no event loop, so it answers while the
app's loop is blocked, whichever backend that is, and it costs nothing there. No client is trusted:

- One request of a connection is answered in each round, so nobody who sends many keeps others waiting.
- What a client may take has limits: see `Limits`. Beyond `Limits.connections`, the oldest connection is closed to make
  room for a new one, so a probe gets through a crowd.
- Pages that take a while are made by a second thread; all who wait for the same page get the same copy of it.
- A request with a body, or one that wants another protocol, is answered and its connection closed.
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

ACCEPTS = 16  # connections that are accepted in one round: fewer than there may be, so each is read before it may go
YOUNG = 0.25  # seconds that a connection has at least
PAUSE = 0.05  # seconds without accepting where no connection can be closed for a new one
STALLED = 0.1  # seconds that a client may take nothing of its answer once the server closes
CLOSING = 0.5  # seconds after which it is closed, whoever takes what
SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

T = TypeVar("T")
Handler = Callable[[Request], Answer | Later]


class Server:
    """Serves on sockets, from `start` to `close`.

    Args:
        socks: They listen, and are the server's to close.
        handle: Answers a request, at once, in the server's thread. What it raises becomes a 500 and a line of the log.
        limits: What one client may take.

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
        for one in (*self._socks, self._woken, self._wake):
            one.settimeout(0)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        self._listen()
        self._thread.start()

    def close(self, *, wait: bool = True) -> None:
        """Accept nothing more, and close every connection: at once where it waits, else within `CLOSING` seconds.

        Args:
            wait: Whether to come back when that is done; without, it is done meanwhile.

        """
        if not self.closing:
            self._close_at = time.monotonic() + CLOSING
            self.closing = True
            self._nudge()
        if wait and self._thread.ident is not None:
            self._thread.join(CLOSING)

    # -- for its connections -------------------------------------------------------------------------------------

    def watch(self, connection: Connection, before: int, events: int) -> None:
        """Tell *connection* of *events* of its socket, instead of those *before*."""
        if not before:
            self._selector.register(connection.sock, events, connection)
        elif events:
            self._selector.modify(connection.sock, events, connection)
        else:
            self._selector.unregister(connection.sock)

    def gone(self, connection: Connection) -> None:
        """Forget *connection*."""
        self._connections.discard(connection)

    def handle(self, request: Request) -> Answer | Later:
        """Return the response to *request*, or a function that makes it."""
        return _tried(lambda: self._handle(request), request.path)

    def make(self, page: Later, connection: Connection) -> None:
        """Have *page* made, and *connection* answered with it."""
        self._maker.make(page, connection)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):  # full: then it is awake
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
                except Exception:  # those who come next are served
                    log.warning("the admin server stumbled, and goes on", exc_info=True)
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
                self._guarded(connection, lambda one=connection, page=answer: one.answer(page))  # type: ignore[misc]
        now = time.monotonic()
        for connection in list(self._connections):
            if connection.more:
                self._guarded(connection, connection.go_on)
            elif now >= connection.deadline:
                connection.close()
        if self._paused_until and now >= self._paused_until:
            self._listen()

    def _patience(self) -> float | None:
        """Seconds until something is due; None where nothing is."""
        if any(one.more for one in self._connections):
            return 0
        due = [one.deadline for one in self._connections]
        if self._paused_until:
            due.append(self._paused_until)
        if self.closing:
            due.append(time.monotonic() + STALLED / 4)
        return max(min(due) - time.monotonic(), 0) if due else None

    def _guarded(self, connection: Connection, step: Callable[[], None]) -> None:
        """Take a *step* of *connection*; whatever comes of it ends that connection and no other."""
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
        """Stop accepting connections for a moment."""
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
        """Close the oldest connection; False where there is none, or it has just come."""
        oldest = min(self._connections, key=lambda one: one.born, default=None)
        if oldest is None or time.monotonic() - oldest.born < YOUNG:
            return False
        oldest.close()
        return True

    def _closed(self) -> bool:
        """Close what can be closed, and tell whether nothing is left."""
        if self._socks:
            if not self._paused_until:
                for sock in self._socks:
                    self._selector.unregister(sock)
            self._paused_until = 0.0
            while self._socks:
                self._socks.pop().close()
        now = time.monotonic()
        for one in list(self._connections):
            waited = now - max(one.moved, self._close_at - CLOSING)
            if one.idle or one.step == "linger" or waited >= STALLED or now >= self._close_at:
                one.close()
        return not self._connections


def _descriptors() -> int:
    """Return the most file descriptors that the process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


class _Maker:
    """Makes the pages that take a while, one after the other, in a thread that starts with the first.

    Args:
        done: Is called when there is something in `made`.

    """

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._wanted: dict[Hashable, tuple[Callable[[], Answer], list[Connection]]] = {}
        self._made: deque[tuple[list[Connection], Answer]] = deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False

    def make(self, page: Later, connection: Connection) -> None:
        """Make *page* for *connection*, and for all who want the same before it is begun."""
        with self._news:
            self._wanted.setdefault(page.key, (page.make, []))[1].append(connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kernel admin pages", daemon=True)
                self._thread.start()
            self._news.notify()

    def made(self) -> list[tuple[list[Connection], Answer]]:
        """What was made since it was last asked, each with those who wait for it."""
        found = []
        while self._made:
            found.append(self._made.popleft())
        return found

    def end(self) -> None:
        """Stop making pages."""
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
    except Exception as error:  # noqa: BLE001  (a page that cannot be made is told to who asks for it)
        log.warning("%s could not be made: %s: %s", what, type(error).__name__, error)
        return plain(500, "this page could not be made; the log says why")
