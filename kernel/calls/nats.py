"""The process's one connection to NATS: subscriptions, messages, and what happens while the server is away.

nats-py speaks the protocol. Reconnecting is done here, with a new client each time: the library would buffer messages
published meanwhile and send them later, when nobody waits for them any more, and it stops retrying after some errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from anyio import CancelScope, Event, current_time, fail_after, move_on_after, sleep, sleep_forever
from nats.errors import Error as NatsError
from nats.nuid import NUID

from kernel.calls.nats_client import FastClient, Message, Receive, login, refusal, tls_context, words
from kernel.config.nats import Nats, shown_url

if TYPE_CHECKING:
    from kernel.declare.serving import Serving

Headers = Mapping[str, str]

NAME = "nats"
logger = logging.getLogger("kernel.calls")
CONNECT_TIMEOUT = 2.0  # seconds for one attempt
PATIENCE = 5.0  # seconds for the server to answer a fence
FIRST, LONGEST = 0.05, 1.0  # seconds between two attempts, doubled from one to the next
PING_INTERVAL = 10  # seconds; a server that misses two counts as lost
FULL = 1 << 20  # bytes that may wait to be sent; at twice this size the library itself waits, without a limit
SPARE, FEW = 16_384, 6  # bytes, and the number of headers that never take more
LAST_WORDS = 1.0  # seconds to send what is left at the end
_DENIED = re.compile(r"permissions violation for (\w+) to \"([^\"]+)\"", re.IGNORECASE)


class NotConnected(Exception):
    """Raised when nothing was sent because there is no connection."""


@attrs.define(eq=False)
class Subscribed:
    """A subscription that survives reconnects until it is ended."""

    subject: str
    queue: str
    receive: Receive
    now: tuple[FastClient, int] | None = None  # on which connection, and its number there


class Waiter(Protocol):
    """Receives the answers to a message, or the reason why there is none."""

    @property
    def subject(self) -> str:
        """Return where the message goes."""
        ...

    def receive(self, msg: Message, /) -> None:
        """Take an answer."""

    def refuse(self, words: str, /) -> None:
        """Take the reason why the server refuses the message."""


@attrs.define(eq=False)
class Callbacks:
    """A waiter that calls functions."""

    subject: str
    receive: Receive
    refuse: Callable[[str], None]


class Link:
    """The connection to NATS.

    Args:
        settings: The servers, and the credentials.
        name: The name of this process, as the server shows it.

    Attributes:
        inbox: The prefix of the subjects for answers to this process.
        server: The connected server, for people; empty while disconnected.
        error: Why the last attempt to connect failed; empty if it succeeded.
        denied: What the server has refused, by subject.

    """

    def __init__(self, settings: Nats, name: str) -> None:
        self.settings, self.name = settings, name
        self.id = NUID().next().decode()
        self.inbox = f"_INBOX.{self.id}"
        self.server = ""
        self.error = ""
        self.denied: dict[str, str] = {}
        self.reconnects = 0
        self.since = time.monotonic()
        self._client: FastClient | None = None
        self._subscribed: dict[Subscribed, None] = {}
        self._waiting: dict[str, Waiter] = {}
        self._count = 0
        self._changed = Event()  # of `server`
        self._sending: set[asyncio.Task[None]] = set()
        self._servers = [url.reveal() for url in settings.urls]

    # -- its life ------------------------------------------------------------------------------------------------

    async def serve(self, serving: Serving[Link]) -> None:
        """Run as a service: connect, and connect again whenever the connection is lost."""
        self.subscribe(f"{self.inbox}.*", self._answered)
        try:
            await self._connect(first=True)
            async with serving(self) as work:
                work.start_soon(self._stay)
                await sleep_forever()
        finally:
            with CancelScope(shield=True), move_on_after(LAST_WORDS):
                await self._close()

    @contextlib.asynccontextmanager
    async def open(self, patience: float) -> AsyncIterator[None]:
        """Stay connected for as long as the block lasts, without reconnecting when the connection is lost.

        Args:
            patience: Seconds for a server to answer.

        Raises:
            TimeoutError: No server answered in time; the message has the reason.
            PermissionError: The first server to answer refused the login.

        """
        self.subscribe(f"{self.inbox}.*", self._answered)
        logger.disabled, before = True, logger.disabled  # the error says it all
        try:
            with move_on_after(patience) as scope:
                await self._connect(first=True)
        finally:
            logger.disabled = before
        if scope.cancelled_caught:
            raise TimeoutError(f"cannot connect to NATS: {self.error or self.settings.shown}")
        try:
            yield
        finally:
            with CancelScope(shield=True), move_on_after(LAST_WORDS):
                await self._close()

    def doing(self) -> str:
        """Return what it is waiting for, in words."""
        return f"connecting to {self.settings.shown}{f': {self.error}' if self.error else ''}"

    async def _stay(self) -> None:
        while True:
            await self.disconnected()
            logger.warning("lost the connection to NATS at %s: %s", self.settings.shown, self.error or "it was closed")
            began = time.monotonic()
            await self._connect()
            self.reconnects += 1
            logger.info("connected to NATS again, at %s, after %.1f s", self.server, time.monotonic() - began)

    async def _connect(self, *, first: bool = False) -> None:
        """Try each server in turn, for as long as it takes.

        Raises:
            PermissionError: The first server to answer refused the login, or is not trusted; only the *first* time.

        """
        pause, logged = FIRST, set[str]()
        while True:
            for url in list(self._servers):
                try:
                    await self._try(url)
                except PermissionError as error:
                    self.error = str(error)
                    if first:
                        raise
                except (TimeoutError, NatsError, OSError, ssl.SSLError) as error:
                    self.error = f"{shown_url(url)}: {words(error)}"
                else:
                    self.error = ""
                    return
            if self.error not in logged:
                logger.warning("cannot connect to NATS: %s; trying again until it answers", self.error)
                logged.add(self.error)
            await sleep(pause)
            pause = min(2 * pause, LONGEST)

    async def _try(self, url: str) -> None:
        tls = tls_context(self.settings, url)
        client = FastClient(encrypted=tls is not None)
        errors: list[Exception] = []

        async def failed(error: Exception) -> None:
            errors.append(error)
            self._failed(error)

        async def closed() -> None:
            if self._client is client:
                self._learn_servers(client, url)
                self._client, self.server = None, ""
                self.error = words(client.last_error) if client.last_error else ""
                self._tell()

        try:
            with fail_after(2 * CONNECT_TIMEOUT):
                address, options = login(self.settings, url)
                await client.connect(
                    address,
                    name=self.name,
                    error_cb=failed,
                    closed_cb=closed,
                    allow_reconnect=False,
                    connect_timeout=CONNECT_TIMEOUT,  # type: ignore[arg-type]
                    reconnect_time_wait=0.01,  # type: ignore[arg-type]
                    max_reconnect_attempts=1,
                    ping_interval=PING_INTERVAL,
                    skip_subject_validation=True,  # they are made of names that were checked
                    tls=tls,
                    **options,
                )
            for subscribed in list(self._subscribed):
                await self._begin(client, subscribed)
        except BaseException as error:
            with CancelScope(shield=True), move_on_after(LAST_WORDS):
                await client.close()
            real = errors[-1] if isinstance(error, NatsError) and errors else error
            reason = refusal(real)
            if reason:
                raise PermissionError(f"{shown_url(url)} {reason}") from error  # noqa: ASYNC104
            if real is not error:
                raise real from error  # noqa: ASYNC104
            raise
        self._client = client
        self._learn_servers(client, url)
        self.server = client.connected_url.netloc.rpartition("@")[2] if client.connected_url else shown_url(url)
        self.since = time.monotonic()
        self._tell()

    def _learn_servers(self, client: FastClient, url: str) -> None:
        """Add the servers that the server at *url* named, with the same scheme and login."""
        scheme, marks, rest = url.rpartition("://")
        login, at, _ = rest.rpartition("@")
        known = {known.rpartition("@")[2].rpartition("://")[2] for known in self._servers}
        for found in client.discovered_servers:
            if found.netloc not in known:
                self._servers.append(f"{scheme}{marks}{login}{at}{found.netloc}")

    def _tell(self) -> None:
        self._changed.set()
        self._changed = Event()

    async def connected(self) -> None:
        """Wait until connected."""
        while not self.server:
            await self._changed.wait()

    async def disconnected(self) -> None:
        """Wait until disconnected."""
        while self.server:
            await self._changed.wait()

    async def _close(self) -> None:
        """Send what is left, and make sure that the server has received it."""
        if self._sending:
            await asyncio.wait(self._sending)
        client = self._client
        if client is not None:
            try:
                await self.fence()
            finally:
                self._client, self.server = None, ""
                with CancelScope(shield=True), move_on_after(LAST_WORDS):
                    await client.close()

    def _failed(self, error: Exception) -> None:
        """Record an error that the server reports, and tell those affected by a refusal."""
        refused = _DENIED.search(str(error))
        if refused is None:
            return
        action, subject = refused[1].lower(), refused[2]
        words = f"the server does not allow to {'publish' if action == 'publish' else 'subscribe'} to {subject}"
        if subject not in self.denied:
            logger.warning("%s", words)
        self.denied[subject] = words
        for waiter in list(self._waiting.values()):
            if waiter.subject == subject:
                waiter.refuse(words)

    # -- messages ------------------------------------------------------------------------------------------------

    async def post(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        headers: dict[str, str] | None = None,
        *,
        until: float = math.inf,
    ) -> None:
        """Send a message once the server has taken what was sent before, no later than *until*.

        Raises:
            NotConnected: There is no connection, or the server accepts nothing: the message was not sent.

        """
        while not self._post(subject, payload, reply, headers):
            if self._client is None or not self._client.is_connected or current_time() >= until:
                raise NotConnected
            await sleep(0.005)

    def post_soon(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a message without waiting, even from a cancelled scope; it is lost if it cannot be sent."""
        if not self._post(subject, payload, "", headers):
            self.spawn(self._post_later(subject, payload, headers))

    def _post(self, subject: str, payload: bytes, reply: str, headers: dict[str, str] | None) -> bool:
        """Send a message if the connection takes it now, and return whether it does."""
        client = self._client
        if client is None or not client.is_connected or client.pending_data_size > FULL:
            return False
        client.send(subject, payload, reply, headers)
        return True

    async def _post_later(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> None:
        try:
            await self.post(subject, payload, "", headers)
        except NotConnected:
            logger.warning("an answer to %s could not be given: there is no connection to NATS", subject)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run *coroutine* in a task that ends before the connection is closed."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def excess(self, payload: bytes, headers: Headers) -> str:
        """Return by how much a message exceeds the server's limit, in words; empty if it does not.

        A message that is too large would end the connection.
        """
        limit = self._client.max_payload if self._client is not None else math.inf
        if len(payload) < limit - SPARE and len(headers) < FEW:
            return ""  # the usual case
        size = len(payload) + 14 + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
        return f"{size} bytes, but the server accepts at most {limit}" if size > limit else ""

    # -- answers -------------------------------------------------------------------------------------------------

    def token(self) -> str:
        """Return a token for one message that expects an answer."""
        self._count += 1
        return f"{self._count:x}"

    def wait(self, token: str, waiter: Waiter) -> str:
        """Route answers to *waiter*, and return the subject for them. `forget` ends this."""
        self._waiting[token] = waiter
        return f"{self.inbox}.{token}"

    def forget(self, token: str) -> None:
        """Ignore further answers for *token*."""
        self._waiting.pop(token, None)

    def _answered(self, msg: Message) -> None:
        waiter = self._waiting.get(msg.subject.rpartition(".")[2])
        if waiter is not None:
            waiter.receive(msg)

    async def fence(self) -> None:
        """Wait until the server has processed everything sent before, SUB and UNSUB included.

        Sends a message to ourselves, as the library's PING overtakes them. Returns at once if the connection is lost.

        Raises:
            TimeoutError: The server does not answer.
            PermissionError: The server does not allow publishing or subscribing to our own inbox.

        """
        done, refused = Event(), ""

        def refuse(words: str) -> None:
            nonlocal refused
            refused = words
            done.set()

        token = self.token()
        reply = self.wait(token, Callbacks(f"{self.inbox}.*", lambda _: done.set(), refuse))
        try:
            with fail_after(PATIENCE):
                await self.post(reply, b"")
                client = self._client
                while self._client is client and not done.is_set():  # another connection would not bring it back
                    with move_on_after(0.5):
                        await done.wait()
        except NotConnected:
            return
        finally:
            self.forget(token)
        if refused:
            raise PermissionError(refused)

    # -- subscriptions -------------------------------------------------------------------------------------------

    def subscribe(self, subject: str, receive: Receive, queue: str = "") -> Subscribed:
        """Route messages for *subject* to *receive* from the next connection on; `begin` does so on the current one."""
        subscribed = Subscribed(subject, queue, receive)
        self._subscribed[subscribed] = None
        return subscribed

    async def begin(self, subscriptions: list[Subscribed]) -> None:
        """Subscribe on the current connection.

        Raises:
            PermissionError: The server refuses one of the subscriptions; the message names it.

        """
        if self._client is not None:
            for subscribed in subscriptions:
                await self._begin(self._client, subscribed)
            await self.fence()
        for subscribed in subscriptions:
            if subscribed.subject in self.denied:
                raise PermissionError(self.denied[subscribed.subject])

    async def _begin(self, client: FastClient, subscribed: Subscribed) -> None:
        if subscribed.now is not None and subscribed.now[0] is client:
            return  # the connection was made after `subscribe`
        number = await client.listen(subscribed.subject, subscribed.queue, subscribed.receive)
        subscribed.now = client, number

    async def leave(self, subscriptions: list[Subscribed]) -> None:
        """Stop getting messages, once those that the server had already sent have arrived."""
        current = [subscribed.now for subscribed in subscriptions if subscribed.now is not None]
        for subscribed in subscriptions:
            self._subscribed.pop(subscribed, None)
            subscribed.now = None
        for client, number in current:
            if client is self._client:
                await client.unlisten(number)
        await self.fence()
        for client, number in current:
            client.forget(number)
