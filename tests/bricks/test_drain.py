"""How a server stops accepting: in virtual time, with real sockets."""

from __future__ import annotations

import fcntl
import resource
import socket
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from kernel.bricks.drain import TAKEN_OVER, WAITING, Drain

pytestmark = pytest.mark.anyio

SHORT = TAKEN_OVER * 0.0011


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
        assert await seconds(listener) <= SHORT


async def test_under_load(busy: socket.socket) -> None:
    """There is an end to it, within the time that there is."""
    assert await seconds(busy) <= WAITING + SHORT
    assert await seconds(busy, left=4.0) <= 1 + SHORT


async def test_under_load_on_sockets_of_systemd(busy: socket.socket) -> None:
    """What waits there is for the next process."""
    assert await seconds(busy, held=True) <= SHORT


async def test_a_socket_with_a_high_number(busy: socket.socket) -> None:
    """As one has that was opened beside thousands of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 2000:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
    with socket.socket(fileno=fcntl.fcntl(busy, fcntl.F_DUPFD, 1500)) as high:
        assert await seconds(high, held=True) <= SHORT
        assert await seconds(high) <= WAITING + SHORT
