"""nats-py's client with a shorter way for messages, and its options for TLS and logins."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import attrs
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error

from kernel.calls import wire
from kernel.config.nats import Nats, tls_of

logger = logging.getLogger("kernel.calls")
LINE = "NATS/1.0"  # begins the headers of each message


@attrs.define(eq=False)
class Message:
    """A message that has arrived."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str]


Receive = Callable[[Message], None]


class NoTLS(Error):
    """Raised when a server has no TLS, and the settings ask for it."""


class FastClient(Client):
    """The library's client, but messages do not wait for the turns of its tasks.

    The library passes each message it reads through a queue to a task of its subscription, and each message it sends
    to a task that flushes. Here the reader calls the receiver. The first message that is sent in a turn of the event
    loop is written at once; those that follow in the same turn are written together in the next one. Messages wait
    for the library's flusher only while the connection is full.

    Args:
        encrypted: Whether it must not talk to a server without TLS, which the library would do.

    """

    def __init__(self, *, encrypted: bool = False) -> None:
        super().__init__()
        self._encrypted = encrypted
        self._receivers: dict[int, Receive] = {}
        self._written = False  # whether something was written in this turn of the event loop

    async def listen(self, subject: str, queue: str, receive: Receive) -> int:
        """Subscribe, and return the number of the subscription.

        Args:
            subject: The subject, perhaps with wildcards.
            queue: The queue group; empty for none.
            receive: Gets each message; it must not block.

        """
        self._sid += 1
        number = self._sid
        self._receivers[number] = receive
        await self._send_command(f"SUB {subject} {queue} {number}\r\n".encode())
        await self._flush_pending()
        return number

    async def unlisten(self, number: int) -> None:
        """Tell the server to send no more messages of a subscription; those on their way still arrive."""
        await self._send_unsubscribe(number)

    def forget(self, number: int) -> None:
        """Drop all further messages of a subscription."""
        self._receivers.pop(number, None)

    def send(self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        """Send a message, as `publish` does, but without waiting."""
        if headers:
            lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
            head = f"{LINE}\r\n{lines}\r\n".encode()
            command = f"HPUB {subject} {reply} {len(head)} {len(head) + len(payload)}\r\n".encode()
            message = b"".join((command, head, payload, b"\r\n"))
        else:
            message = b"".join((f"PUB {subject} {reply} {len(payload)}\r\n".encode(), payload, b"\r\n"))
        transport = None if self._written or self._pending else self._free()
        if transport is not None:
            transport.write(message)
        else:
            self._pending.append(message)
            self._pending_data_size += len(message)
        if not self._written:
            self._written = True
            asyncio.get_running_loop().call_soon(self._turned)

    def _turned(self) -> None:
        """Write what was sent in the last turn of the event loop after the first message."""
        self._written = False
        if not self._pending:
            return
        transport = self._free()
        if transport is not None:
            pending, self._pending, self._pending_data_size = self._pending, [], 0
            transport.write(b"".join(pending))
        elif self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    def _free(self) -> asyncio.WriteTransport | None:
        """Return the transport if nothing waits to be written to it; the library's flusher handles all else."""
        transport = self._transport
        if not (self.is_connected and isinstance(transport, TcpTransport) and transport._io_writer is not None):  # noqa: SLF001
            return None
        found = transport._io_writer.transport  # noqa: SLF001
        return None if found.get_write_buffer_size() else found

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002
        if initial_connection and self._encrypted and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise NoTLS
            info["tls_required"] = True  # the library then uses it
        await super()._process_info(info, initial_connection)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        receive = self._receivers.get(sid)
        if receive is None:
            return
        try:
            receive(Message(subject.decode(), reply.decode(), data, parsed(headers) if headers else {}))
        except Exception:
            logger.exception("a message to %s was not understood", subject.decode("utf-8", "replace"))


def parsed(raw: bytes) -> dict[str, str]:
    """Return the headers in *raw*; the server's own status is among them as `wire.SERVER_STATUS`."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    found = {}
    status = first[len(LINE) :].split()
    if status:
        found[wire.SERVER_STATUS] = status[0]
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found


def words(error: BaseException | None) -> str:
    """Return what *error* says, without the library's prefixes."""
    text = str(error).removeprefix("nats: ").strip("'\" ")
    return text or type(error).__name__


def refusal(error: BaseException) -> str:
    """Return why trying again would not help, and what to do; empty if it might help."""
    if isinstance(error, NoTLS):
        return "has no TLS, which tls:// in NATS_URL, NATS_CA and NATS_CERT require"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"is not trusted: {error.verify_message}; see NATS_CA"
    if isinstance(error, ssl.SSLError) and error.reason and "CERTIFICATE" in error.reason:
        return f"refused our certificate, or the lack of one: {_plain(error.reason)}; see NATS_CERT and NATS_KEY"
    if "authorization" in words(error).lower():
        names = "NATS_USER, NATS_PASSWORD, NATS_CREDS, NATS_NKEY, or the login in NATS_URL"
        return f"refused the login: {words(error)}; see {names}"
    return ""


def _plain(reason: str) -> str:
    return reason.partition("ALERT_")[2].lower().replace("_", " ") or reason


def tls_context(settings: Nats, url: str) -> ssl.SSLContext | None:
    """Return the client's TLS option; None if the server decides."""
    if settings.ca or settings.cert or url.startswith(("tls://", "wss://")):
        return tls_of(settings)
    return None


def login(settings: Nats, url: str) -> tuple[str, dict[str, Any]]:
    """Return the *url* without its login, and the client's options for the login: the URL's, else the settings'.

    A user without a password is a token, as in the nats command line.
    """
    scheme, marks, rest = url.rpartition("://")
    pair, at, host = rest.rpartition("@")
    user, password, seed = settings.user.reveal(), settings.password.reveal(), settings.nkey.reveal()
    if at:
        user, password = (unquote(part) for part in pair.partition(":")[::2])
    found: dict[str, Any] = {"user": user, "password": password} if password else {"token": user} if user else {}
    if settings.creds:
        found["user_credentials"] = settings.creds
    if seed:
        found["nkeys_seed_str" if seed.startswith("SU") else "nkeys_seed"] = seed
    return f"{scheme}{marks}{host}", found
