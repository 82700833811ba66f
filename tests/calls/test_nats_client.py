"""The shorter way of messages through nats-py's client: in order, whole, and safe from what receivers raise."""

from __future__ import annotations

import asyncio
import random
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import attrs
import pytest
from nats.aio.transport import TcpTransport
from nats.errors import Error

from kernel import Secret
from kernel.calls.nats_client import FastClient, Message, NoTLS, login, parsed, refusal, tls_context, words
from kernel.config.nats import Nats
from tests.calls.conftest import Server, until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[FastClient]:
    client = FastClient()
    await client.connect(url, allow_reconnect=False)
    try:
        yield client
    finally:
        await client.close()


async def known(client: FastClient, prefix: str) -> None:
    """Wait until the server knows the subscriptions, which the PING of a flush would overtake."""
    back: list[Message] = []
    number = await client.listen(f"known.{prefix}", "", back.append)
    client.send(f"known.{prefix}", b"", "", None)
    await until(lambda: bool(back))
    client.forget(number)


async def test_messages_arrive_in_the_order_in_which_they_were_sent(nats: str, prefix: str) -> None:
    """Whether they are the first of a turn of the event loop or not, with headers or not, small or large."""
    rand = random.Random(3)  # noqa: S311
    sent: list[tuple[bytes, dict[str, str]]] = []
    got: list[tuple[bytes, dict[str, str]]] = []
    async with connected(nats) as sender, connected(nats) as receiver:
        await receiver.listen(f"{prefix}.*", "", lambda msg: got.append((msg.data, msg.headers)))
        await known(receiver, prefix)
        for number in range(400):
            size = rand.choice([0, 10, 10, 100_000])
            sent.append((b"x" * size + str(number).encode(), rand.choice([{}, {"a": "b: c", "d": str(number)}])))
            sender.send(f"{prefix}.a", sent[-1][0], "", sent[-1][1])
            if rand.random() < 0.3:
                await anyio.lowlevel.checkpoint()
        await until(lambda: len(got) == len(sent))
    assert got == sent


async def test_a_full_connection_keeps_the_order(own_nats: Callable[..., Server], prefix: str) -> None:
    """What the socket does not take waits, and what is sent later does not overtake it."""
    server, got = own_nats(), list[bytes]()
    async with connected(server.url) as sender, connected(server.url) as receiver:
        await receiver.listen(f"{prefix}.a", "", lambda msg: got.append(msg.data[-4:]))
        await known(receiver, prefix)
        server.signal(signal.SIGSTOP)
        try:
            for number in range(200):
                sender.send(f"{prefix}.a", b"x" * 100_000 + b"%04d" % number, "", None)
                await anyio.lowlevel.checkpoint()
            assert sender.pending_data_size  # the socket did not take it all
        finally:
            server.signal(signal.SIGCONT)
        for number in range(200, 300):
            sender.send(f"{prefix}.a", b"%04d" % number, "", {"a": "b"})
            await anyio.lowlevel.checkpoint()
        await until(lambda: len(got) == 300)
    assert got == [b"%04d" % number for number in range(300)]


async def test_a_receiver_that_raises_ends_nothing(nats: str, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next message arrives."""
    got: list[bytes] = []

    def receive(msg: Message) -> None:
        got.append(msg.data)
        if msg.data == b"bad":
            raise ValueError(msg.data)

    async with connected(nats) as client:
        number = await client.listen(f"{prefix}.a", "", receive)
        client.send(f"{prefix}.a", b"bad", "", None)
        client.send(f"{prefix}.a", b"good", "", None)
        await until(lambda: b"good" in got)
        client.forget(number)
        client.send(f"{prefix}.a", b"late", "", None)
        await client.flush()
    assert got == [b"bad", b"good"]
    assert f"a message to {prefix}.a was not understood" in caplog.text


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        (b"NATS/1.0\r\nrpc-status: ok\r\n\r\n", {"rpc-status": "ok"}),
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
        (b"NATS/1.0 404 No Messages\r\nx:y\r\n\r\n", {"Status": "404", "x": "y"}),
        (b"NATS/1.0\r\n\r\n", {}),
        (b"NATS/1.0\r\nno colon\r\na:  b:c \r\n\xff: \xff\r\n\r\n", {"a": "b:c", "\ufffd": "\ufffd"}),
        (b"", {}),
        (b"NATS", {}),
    ],
)
async def test_headers_of_all_kinds(raw: bytes, headers: dict[str, str]) -> None:
    """Those of ours, the server's own status, and anybody's."""
    assert parsed(raw) == headers


# -- without a server ----------------------------------------------------------------------------------------------


class Socket:
    """What it writes to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.buffered = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered


def disconnected() -> tuple[FastClient, Socket]:
    """A client that takes a socket of the test's for its connection."""
    client, socket = FastClient(), Socket()
    client._transport = TcpTransport()  # type: ignore[no-untyped-call]
    client._transport._io_writer = SimpleNamespace(transport=socket)  # type: ignore[assignment]
    client._status = FastClient.CONNECTED
    client._flush_queue = asyncio.Queue()
    return client, socket


def message(number: int) -> bytes:
    return f"PUB a  1\r\n{number}\r\n".encode()


async def test_the_first_message_of_a_turn_is_written_at_once() -> None:
    """Those that follow in the same turn are written together in the next; so it goes on, turn by turn."""
    client, socket = disconnected()
    for number in range(1, 4):
        client.send("a", b"%d" % number, "", None)
    assert socket.written == [message(1)]
    assert client.pending_data_size == len(message(2)) * 2
    await anyio.lowlevel.checkpoint()
    assert socket.written == [message(1), message(2) + message(3)]
    assert client.pending_data_size == 0
    client.send("a", b"4", "r", {"x": "ä", "y": ""})
    assert socket.written[2:] == ["HPUB a r 24 25\r\nNATS/1.0\r\nx: ä\r\ny: \r\n\r\n4\r\n".encode()]
    await anyio.lowlevel.checkpoint()
    assert len(socket.written) == 3
    assert client._flush_queue is not None
    assert client._flush_queue.empty()


async def test_what_a_full_socket_does_not_take_is_left_to_the_library() -> None:
    """Its flusher is woken once, and whatever is sent meanwhile stays behind it."""
    client, socket = disconnected()
    socket.buffered = 1
    client.send("a", b"1", "", None)
    await anyio.lowlevel.checkpoint()
    assert socket.written == []
    assert client._pending == [message(1)]
    assert client._flush_queue is not None
    assert client._flush_queue.qsize() == 1
    socket.buffered = 0
    client.send("a", b"2", "", None)
    assert socket.written == []  # the first one is not overtaken
    await anyio.lowlevel.checkpoint()
    assert socket.written == [message(1) + message(2)]
    socket.buffered = 1
    client.send("a", b"3", "", None)
    await anyio.lowlevel.checkpoint()
    assert client._flush_queue.qsize() == 1  # it has not come to it yet
    client._flush_queue = None  # as before there is a connection
    client.send("a", b"4", "", None)
    await anyio.lowlevel.checkpoint()
    assert client._pending == [message(3), message(4)]


@pytest.mark.parametrize("why", ["not connected", "no socket", "a websocket", "closed"])
async def test_nothing_is_written_where_nothing_can_be(why: str) -> None:
    """It waits for the library's flusher."""
    client, socket = disconnected()
    match why:
        case "not connected":
            client._status = FastClient.RECONNECTING
        case "no socket":
            client._transport._io_writer = None  # type: ignore[union-attr]
        case "a websocket":
            client._transport = SimpleNamespace(_io_writer=SimpleNamespace(transport=socket))  # type: ignore[assignment]
        case _:
            client._transport = None
    client.send("a", b"1", "", None)
    await anyio.lowlevel.checkpoint()
    assert socket.written == []
    assert client._pending == [message(1)]


async def test_a_subscription_is_sent_at_once() -> None:
    """Each with a number of its own, and so is its end."""
    client, _ = disconnected()
    flushed = []

    async def flush(force_flush: bool = False) -> None:
        flushed.append(client._pending)
        client._pending = []

    client._flush_pending = flush  # type: ignore[method-assign]
    assert [await client.listen(subject, queue, print) for subject, queue in (("a", "q"), ("b", ""))] == [1, 2]
    await client.unlisten(1)
    assert flushed == [[b"SUB a q 1\r\n"], [b"SUB b  2\r\n"], [b"UNSUB 1 \r\n"]]


@pytest.mark.parametrize(
    ("encrypted", "first", "info", "required"),
    [
        (True, True, {"tls_available": True}, True),
        (True, True, {"tls_required": True}, True),
        (True, True, {}, None),
        (False, True, {"tls_available": True}, False),
        (False, True, {}, False),
        (True, False, {}, False),
    ],
)
async def test_a_client_that_wants_tls(
    encrypted: bool, first: bool, info: dict[str, bool], required: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asks for it where the server leaves it open, and goes on with no server that has none."""
    told: list[tuple[bool, bool]] = []

    async def process(_: object, info: dict[str, bool], initial: bool) -> None:
        told.append((info.get("tls_required", False), initial))

    monkeypatch.setattr("nats.aio.client.Client._process_info", process)
    client = FastClient(encrypted=encrypted)
    if required is None:
        with pytest.raises(NoTLS):
            await client._process_info(info, first)
        assert told == []
    else:
        await client._process_info(info, initial_connection=first)
        assert told == [(required, first)]


def ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "words")
    error.reason = reason
    return error


def not_trusted() -> ssl.SSLError:
    error = ssl.SSLCertVerificationError(1, "words")
    error.verify_message = "self-signed certificate"
    return error


LOGINS = "NATS_USER, NATS_PASSWORD, NATS_CREDS, NATS_NKEY, or the login in NATS_URL"
REFUSED = "refused our certificate, or the lack of one: certificate required; see NATS_CERT and NATS_KEY"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (NoTLS(), "has no TLS, which tls:// in NATS_URL, NATS_CA and NATS_CERT require"),
        (not_trusted(), "is not trusted: self-signed certificate; see NATS_CA"),
        (ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), REFUSED),
        (ssl_error("BAD_CERTIFICATE"), REFUSED.replace("certificate required", "BAD_CERTIFICATE")),
        (ssl_error("WRONG_VERSION_NUMBER"), ""),
        (ssl_error(""), ""),
        (
            Error("nats: 'Authorization Violation'"),
            f"refused the login: Authorization Violation; see {LOGINS}",
        ),
        (OSError("refused"), ""),
        (TimeoutError(), ""),
    ],
    ids=range(9),
)
def test_why_another_attempt_would_not_help(error: BaseException, why: str) -> None:
    """What to look at; nothing for errors that may pass."""
    assert refusal(error) == why


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Error("nats: 'stale connection'"), "stale connection"),
        (Error('nats: "x" '), "x"),
        (OSError("a b"), "a b"),
        (TimeoutError(), "TimeoutError"),
    ],
    ids=range(4),
)
def test_an_error_of_the_library_in_words(error: BaseException, text: str) -> None:
    """Without its prefixes and quotes."""
    assert words(error) == text


SEED = "SU" + "A" * 56


@pytest.mark.parametrize(
    ("url", "environ", "address", "options"),
    [
        ("nats://h:1", {}, "nats://h:1", {}),
        ("h:1", {}, "h:1", {}),
        ("nats://a:b@h:1", {}, "nats://h:1", {"user": "a", "password": "b"}),
        ("tls://a%40b:c%3Ad@h", {}, "tls://h", {"user": "a@b", "password": "c:d"}),
        ("nats://token@h", {}, "nats://h", {"token": "token"}),
        ("token@h", {}, "h", {"token": "token"}),
        ("nats://h", {"NATS_USER": "a", "NATS_PASSWORD": "b"}, "nats://h", {"user": "a", "password": "b"}),
        ("nats://h", {"NATS_USER": "a"}, "nats://h", {"token": "a"}),
        ("nats://c@h", {"NATS_USER": "a", "NATS_PASSWORD": "b"}, "nats://h", {"token": "c"}),
        ("nats://h", {"NATS_NKEY": SEED}, "nats://h", {"nkeys_seed_str": SEED}),
        ("nats://h", {"NATS_NKEY": __file__}, "nats://h", {"nkeys_seed": __file__}),
    ],
    ids=range(11),
)
def test_how_it_logs_in(url: str, environ: dict[str, str], address: str, options: dict[str, str]) -> None:
    """The URL's login counts more than the variables', and is not part of the address."""
    settings = Nats(
        (Secret(url),),
        user=Secret(environ.get("NATS_USER", "")),
        password=Secret(environ.get("NATS_PASSWORD", "")),
        nkey=Secret(environ.get("NATS_NKEY", "")),
    )
    assert login(settings, url) == (address, options)
    assert login(attrs.evolve(settings, creds="/file"), url)[1] == {**options, "user_credentials": "/file"}


@pytest.mark.parametrize(
    ("url", "files", "encrypted"),
    [
        ("nats://h", {}, False),
        ("h", {}, False),
        ("tls://h", {}, True),
        ("wss://h", {}, True),
        ("ws://h", {}, False),
        ("nats://h", {"ca": "f"}, True),
        ("nats://h", {"cert": "f"}, True),
        ("nats://h", {"key": "f"}, False),
    ],
    ids=range(8),
)
def test_whether_it_needs_tls(
    url: str, files: dict[str, str], encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the scheme, or since there are certificates; else the server decides."""
    made = ssl.create_default_context()
    monkeypatch.setattr("kernel.calls.nats_client.tls_of", lambda _: made)
    settings = Nats((Secret(url),), **files)  # type: ignore[arg-type]
    assert tls_context(settings, url) is (made if encrypted else None)


async def test_a_message_for_nobody_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """It may have been on its way when its receiver was forgotten."""
    client, got = FastClient(), list[Message]()
    client._receivers[7] = got.append
    await client._process_msg(7, b"a.b", b"r", b"1", b"NATS/1.0\r\nx: y\r\n\r\n")
    await client._process_msg(7, b"a", b"", b"2", None)
    client.forget(7)
    client.forget(7)
    await client._process_msg(7, b"a", b"", b"3", None)
    assert [(msg.subject, msg.reply, msg.data, msg.headers) for msg in got] == [
        ("a.b", "r", b"1", {"x": "y"}),
        ("a", "", b"2", {}),
    ]
    assert caplog.messages == []
