"""The shorter way of messages through nats-py's client: in order, whole, and safe from what receivers raise."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from kernel.calls.nats_client import FastClient, Message, parsed
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


async def test_messages_arrive_in_the_order_in_which_they_were_sent(nats: str, prefix: str) -> None:
    """Whether they are the first of a turn of the event loop or not, with headers or not, small or large."""
    rand = random.Random(3)  # noqa: S311
    sent: list[tuple[bytes, dict[str, str]]] = []
    got: list[tuple[bytes, dict[str, str]]] = []
    async with connected(nats) as sender, connected(nats) as receiver:
        await receiver.listen(f"{prefix}.*", "", lambda msg: got.append((msg.data, msg.headers)))
        await receiver.flush()
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
        await receiver.flush()
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
