"""Open the sockets on which a service listens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, Callable

from anyio import getaddrinfo

from kernel.context import current_service
from kernel.errors import CannotListen
from kernel.process.sockets import HANDED_OVER, addresses_of, by_name, open_all

BACKLOG = 2048  # maximum connections waiting to be accepted; the system may allow fewer


@contextlib.asynccontextmanager
async def listening(host: str, port: int, hint: Callable[[], str]) -> AsyncGenerator[list[socket.socket]]:
    """Yield listening sockets, either from systemd or newly opened, and close them at the end.

    Args:
        host: An address, or a name, which means all its addresses on this machine. ``::`` and an empty string mean IPv4
            and IPv6.
        port: The port; 0 for a free port, the same for all addresses.
        hint: Returns what to change if the address cannot be used.

    Raises:
        CannotListen: The address cannot be used.

    """
    sockets: list[socket.socket] = []
    try:
        sockets = HANDED_OVER.take(current_service.get()) or await _open(host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        why = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]  # Python adds the address
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise CannotListen(where, why[:1].lower() + why[1:], hint()) from error
    with contextlib.ExitStack() as opened:
        for sock in sockets:
            opened.enter_context(sock)
        yield sockets


async def _open(host: str, port: int) -> list[socket.socket]:
    addresses = addresses_of(host, port)
    if not addresses:
        found = await getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = by_name(host, found)
    return open_all(addresses, port, BACKLOG)
