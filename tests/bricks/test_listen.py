"""Sockets of a service: new ones or systemd's, and why there are none."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from kernel.bricks import listen
from kernel.bricks.listen import BACKLOG, listening
from kernel.errors import CannotListen

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The backend, in real time: sockets know no other."""
    return str(request.param)


class Systemd:
    """Hands over the sockets of one service."""

    def __init__(self, *socks: socket.socket) -> None:
        self._socks = socks

    def take(self, name: str) -> list[socket.socket]:
        assert name == ""
        return [sock.dup() for sock in self._socks]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "", "::"])
async def test_new_sockets_are_closed_at_the_end(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each listens at the same port, with room for many that wait."""
    backlogs: list[Any] = []
    real = socket.create_server

    def create(*args: Any, **options: Any) -> socket.socket:
        backlogs.append(options["backlog"])
        return real(*args, **options)

    monkeypatch.setattr(socket, "create_server", create)
    async with listening(host, 0, lambda: "") as sockets:
        assert {*backlogs} == {BACKLOG}
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        socket.create_connection(("127.0.0.1", sockets[0].getsockname()[1]), timeout=20).close()
    assert [sock.fileno() for sock in sockets] == [-1] * len(sockets)


async def test_sockets_of_systemd_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the address does not matter; systemd's own stays open."""
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        monkeypatch.setattr(listen, "HANDED_OVER", Systemd(theirs))
        async with listening("nonsense", -1, lambda: "") as (sock,):
            assert sock.getsockname() == theirs.getsockname()
            assert sock is not theirs
        assert sock.fileno() == -1
        assert theirs.fileno() != -1


@pytest.mark.parametrize(
    ("host", "port", "error", "told"),
    [
        ("127.0.0.1", 80, OSError(errno.EACCES, "Permission denied"), "127.0.0.1:80: permission denied"),
        ("::1", 80, OSError(errno.EACCES, "Permission denied"), "[::1]:80: permission denied"),
        ("h", 80, OSError("Address in use (while attempting to bind on address ('h', 80))"), "h:80: address in use"),
        ("h", 80, UnicodeError("Label too long"), "h:80: label too long"),
        ("h", 80, OSError(), "h:80: "),
        ("h", 70000, None, "h:70000: a port is a number from 0 to 65535"),
    ],
)
async def test_why_it_cannot_listen(
    monkeypatch: pytest.MonkeyPatch, host: str, port: int, error: Exception | None, told: str
) -> None:
    """One line: where, the system's reason without what Python adds, and what to do."""

    def fails(*_: Any) -> Any:
        assert error is not None
        raise error

    monkeypatch.setattr(listen, "by_name", lambda *_: [])
    monkeypatch.setattr(listen, "open_all", fails)

    async def look_up(*_: Any, **__: Any) -> list[Any]:
        return []

    monkeypatch.setattr(listen, "getaddrinfo", look_up)
    with pytest.raises(CannotListen) as caught:
        async with listening(host, port, lambda: "try another"):
            raise AssertionError
    assert str(caught.value) == f"cannot listen on {told}; try another"
    if error is not None:
        assert caught.value.__cause__ is error


async def test_an_error_of_the_block_closes_them() -> None:
    """It comes out as it is, whatever its kind."""
    with pytest.raises(OSError, match="mine"):
        async with listening("127.0.0.1", 0, lambda: "") as sockets:
            raise OSError("mine")
    assert [sock.fileno() for sock in sockets] == [-1]
