"""How a server stops accepting: in virtual time, with real sockets."""

from __future__ import annotations

import asyncio
import fcntl
import resource
import socket
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import sniffio

from kernel.bricks.drain import TAKEN_OVER, Drain

pytestmark = pytest.mark.anyio

PAUSE = 0.001
SHORT = pytest.approx(TAKEN_OVER * PAUSE)
LONG = pytest.approx((32 + TAKEN_OVER) * PAUSE)  # the system lets some 2,000 connections wait


class Work:
    """A service's work, of which *left* seconds are left."""

    def __init__(self, left: float) -> None:
        self.time_left = lambda: left


@pytest.fixture
def busy() -> Iterator[socket.socket]:
    """A socket on which a connection always waits, as under load."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        yield listener


async def seconds(listener: socket.socket, *, left: float = 60.0, held: bool = False) -> float:
    """Return how long it takes to settle."""
    work: Any = Work(left)
    begun = anyio.current_time()
    await Drain(work, [listener], None, held).settle()
    return anyio.current_time() - begun


async def test_without_waiting_connections() -> None:
    """Only what has been accepted is waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert await seconds(listener) == SHORT


async def test_a_connection_that_waits_is_accepted_first() -> None:
    """As soon as it is, all is settled; on asyncio nothing is accepted afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as quiet:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]

        async def accept() -> None:
            for _ in clients:
                await anyio.sleep(4.5 * PAUSE)
                listener.accept()[0].close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(accept)
            begun = anyio.current_time()
            work: Any = Work(60.0)
            await Drain(work, [quiet, listener], None, held=False).settle()
            assert anyio.current_time() - begun == pytest.approx((9 + TAKEN_OVER) * PAUSE, abs=1.5 * PAUSE)
        for client in clients:
            client.close()


async def test_nothing_is_accepted_any_more() -> None:
    """Asyncio's server is told so; other loops have one of their own."""
    removed: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        work: Any = Work(60.0)
        if sniffio.current_async_library() == "asyncio":
            loop = asyncio.get_running_loop()
            loop.add_reader(listener, removed.append, "accepts")
            await Drain(work, [listener], None, held=False).settle()
            assert not loop.remove_reader(listener)
        else:
            await Drain(work, [listener], None, held=False).settle()


@pytest.mark.parametrize(
    ("left", "limit", "seconds"),
    [
        (60.0, None, 59.0),
        (60.0, 5.0, 5.0),
        (60.0, 59.5, 59.0),
        (2.0, None, 1.5),
        (4.0, 3.5, 3.0),
        (0.0, None, float("inf")),
        (0.0, 5.0, 5.0),
    ],
)
def test_the_time_for_what_is_in_flight(left: float, limit: float | None, seconds: float) -> None:
    """All but a second of what the service has, or three quarters if that is more; and not more than was said."""
    work: Any = Work(left)
    assert Drain(work, [], limit, held=False).seconds == seconds


def test_a_work_that_knows_no_time() -> None:
    """As in a test of a user's own: only the limit counts."""
    work: Any = object()
    assert Drain(work, [], 5.0, held=False).seconds == 5.0
    assert Drain(work, [], None, held=False).seconds == float("inf")


async def test_under_load(busy: socket.socket) -> None:
    """There is an end to it, within the time that there is."""
    assert await seconds(busy) == LONG
    assert await seconds(busy, left=0.04) == pytest.approx(0.0075 + TAKEN_OVER * PAUSE, abs=PAUSE)


async def test_under_load_on_sockets_of_systemd(busy: socket.socket) -> None:
    """What waits there is for the next process."""
    assert await seconds(busy, held=True) == SHORT


async def test_a_socket_with_a_high_number(busy: socket.socket) -> None:
    """As one has that was opened beside thousands of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 2000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
    with socket.socket(fileno=fcntl.fcntl(busy, fcntl.F_DUPFD, 1500)) as high:
        assert await seconds(high, held=True) == SHORT
        assert await seconds(high) == LONG
