"""A client's HTTP/1.1 connection, using h11, and its limits."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from http import HTTPStatus
from typing import Protocol

import attrs
import h11

log = logging.getLogger("kernel")

CHUNK = 4 * 1024  # bytes per read
LEFTOVER = 256 * 1024  # bytes to read and drop after the last answer, so that the client receives it
LINGER = 1.0  # seconds for that


@attrs.frozen
class Limits:
    """The limits of one client.

    Args:
        connections: Maximum number of open connections; fewer if the process's limit of descriptors is below four times
            it.
        header: Maximum bytes of a request line and its headers.
        request: Seconds to send them, from the connection's start or the request's first byte.
        idle: Seconds between two requests.
        answer: Seconds to create an answer and deliver it.

    """

    connections: int = 256
    header: int = 16 * 1024
    request: float = 5.0
    idle: float = 60.0
    answer: float = 10.0


@attrs.frozen
class Request:
    """A GET or HEAD request.

    Args:
        path: The path, without the query.
        headers: Values by lower-case name, decoded as Latin-1; the last one of headers with the same name.

    """

    path: str
    headers: Mapping[str, str]


@attrs.frozen
class Answer:
    """The answer to a request."""

    status: int
    body: bytes
    content_type: str


@attrs.frozen
class Later:
    """An answer that takes time to create.

    Args:
        key: Requests with equal keys may share one answer.
        make: Creates the answer, in the second thread.

    """

    key: Hashable
    make: Callable[[], Answer]


CLOSE = [(b"connection", b"close")]


def plain(status: int, text: str) -> Answer:
    """Return an answer with one line of text."""
    return Answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8")


class Host(Protocol):
    """What a connection needs from the server."""

    limits: Limits
    closing: bool

    def watch(self, connection: Connection, before: int, events: int) -> None:
        """Watch the socket of *connection* for *events*, instead of the events *before*."""

    def gone(self, connection: Connection) -> None:
        """Stop watching *connection*."""

    def handle(self, request: Request) -> Answer | Later:
        """Return the answer to *request*, or how to make it."""
        ...

    def make(self, page: Later, connection: Connection) -> None:
        """Create *page*, and answer *connection* with it."""


class Connection:
    """A client's connection: reads a request, waits for its page, writes the answer, and repeats."""

    def __init__(self, host: Host, sock: socket.socket, *, local: bool) -> None:
        self.sock = sock
        self.local = local
        self.step = "read"  # then "wait", "write", and finally "linger"
        self.born = time.monotonic()
        self.deadline = 0.0
        self.moved = 0.0  # when the client last received data
        self.more = False  # whether the data already read may contain a whole request
        self._host = host
        self._limits = host.limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header)
        self._out: deque[memoryview] = deque()  # clients that get the same page share its bytes
        self._head = False
        self._events = 0
        self.unused = True  # whether its first request has not begun to arrive
        self._begun = False  # whether the next request has begun to arrive
        self._close = False
        self._dropped = 0
        self._enter("read", self._limits.request)

    def _enter(self, step: str, seconds: float) -> None:
        self.step = step
        self.deadline = time.monotonic() + seconds
        self._want({"read": selectors.EVENT_READ, "write": selectors.EVENT_WRITE, "linger": selectors.EVENT_READ})

    def _want(self, events: Mapping[str, int]) -> None:
        """Watch only for the events of the current step: a client that does not read its answers is not read from."""
        wanted = events.get(self.step, 0)
        if wanted != self._events:
            self._host.watch(self, self._events, wanted)
            self._events = wanted

    def ready(self) -> None:
        """Continue, since the socket is readable or writable.

        Raises:
            OSError: The connection is gone.

        """
        if self.step == "write":
            self._write()
        elif (data := self._received()) is not None:
            if self.step == "linger":
                self._dropped += len(data)
                if not data or self._dropped > LEFTOVER:
                    self.close()
            else:
                if not self._begun:
                    self._begun, self.unused = True, False
                    self._enter("read", self._limits.request)
                self._http.receive_data(data)  # empty data marks the end; whole requests may precede it
                self.more = True

    def _received(self) -> bytes | None:
        try:
            return self.sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return None

    def go_on(self) -> None:
        """Answer the next request in the data already read, if it is whole."""
        self.more = False
        try:
            event = self._http.next_event()
            while isinstance(event, h11.EndOfMessage):  # of the previous request
                event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint)
            return
        if isinstance(event, h11.Request):
            self._take(event)
        elif event is not h11.NEED_DATA:
            self.close()

    def _refuse(self, status: int) -> None:
        self._close = True
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self.answer(plain(status, HTTPStatus(status).phrase))
        else:
            self.close()

    def _take(self, request: h11.Request) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        self._head = request.method == b"HEAD"
        length, coded = headers.get("content-length", "0"), "transfer-encoding" in headers
        # Proxies may disagree on where a body ends, or what follows it, so bodies are not read.
        self._close = coded or length != "0" or "upgrade" in headers or "expect" in headers
        target = request.target.decode("latin-1")
        host = headers.get("host")
        if target.startswith("http://"):
            host, slash, rest = target.removeprefix("http://").partition("/")
            target = slash + rest
        refusal = None
        if request.http_version not in {b"1.0", b"1.1"}:
            refusal = plain(505, "only HTTP/1.1 is supported")
        elif coded and "content-length" in headers:
            refusal = plain(400, "Content-Length and Transfer-Encoding exclude each other")
        elif self.local and host is not None and not is_local(host):
            refusal = plain(421, "use an address or localhost: on loopback no other host name is accepted")
        elif request.method not in {b"GET", b"HEAD"}:
            refusal = plain(405, "only GET and HEAD are allowed: the admin server is read-only")
        if refusal is not None:
            self._close = self._close or refusal.status in {400, 505} or request.method == b"CONNECT"
            self.answer(refusal)
            return
        found = self._host.handle(Request(target.partition("?")[0], headers))
        if isinstance(found, Answer):
            self.answer(found)
        else:
            self._enter("wait", self._limits.answer)
            self._host.make(found, self)

    def answer(self, answer: Answer) -> None:
        """Start sending *answer*."""
        if self.step in {"write", "linger", "closed"}:
            return
        headers = [
            (b"content-type", answer.content_type.encode("latin-1", "replace")),
            (b"content-length", str(len(answer.body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *([(b"allow", b"GET, HEAD")] if answer.status == HTTPStatus.METHOD_NOT_ALLOWED else ()),
            *(CLOSE if self._close or self._host.closing else ()),
        ]
        reason = HTTPStatus(answer.status).phrase.encode()
        event = h11.Response(status_code=answer.status, headers=headers, reason=reason)
        self._out.append(memoryview(self._http.send(event) or b""))
        if answer.body and not self._head:
            self._http.send_with_data_passthrough(h11.Data(data=answer.body))
            self._out.append(memoryview(answer.body))
        self._http.send(h11.EndOfMessage())
        self._enter("write", self._limits.answer)
        self._write()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            while self._out:
                sent = self.sock.sendmsg(self._out)  # headers and page in one call
                self.moved = time.monotonic()
                while sent and sent >= len(self._out[0]):
                    sent -= len(self._out.popleft())
                if sent:
                    self._out[0] = self._out[0][sent:]
        if self._out:
            return
        if self._close or self._host.closing or self._http.our_state is not h11.DONE:
            self.sock.shutdown(socket.SHUT_WR)
            self._enter("linger", LINGER)
            return
        if self._http.their_state is h11.SEND_BODY:  # an empty body whose end has not been read yet
            self._http.next_event()
        self._http.start_next_cycle()
        self.more = self._begun = any(self._http.trailing_data)
        self._enter("read", self._limits.request if self.more else self._limits.idle)

    def close(self) -> None:
        """Close the connection. Reset it if the client has not received everything, so that no data stays queued."""
        if self.step == "closed":
            return
        self.step = "closed"
        self._want({})
        self._host.gone(self)
        with contextlib.suppress(OSError):
            if self._out:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._out.clear()
        self.sock.close()


def is_loopback(sock: socket.socket) -> bool:
    """Return whether only this machine can reach *sock* over the network."""
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    host = str(sock.getsockname()[0])
    return host.startswith("127.") or host in {"::1", "::ffff:127.0.0.1"}


def is_local(host: str) -> bool:
    """Return whether a Host header is an address or ``localhost``, rather than a name that anyone could point here.

    Otherwise a web page from elsewhere could let its own host name resolve to this machine.
    """
    name, _, port = host.rpartition(":") if host[-1:] != "]" and ":" in host else (host, "", "")
    if port and not (port.isascii() and port.isdigit()):
        return False
    if name.startswith("[") and name.endswith("]"):
        return _is_address(socket.AF_INET6, name[1:-1])
    return name.lower() == "localhost" or _is_address(socket.AF_INET, name)


def _is_address(family: int, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError, UnicodeError):
        return False
    return True
