"""The sockets on which a service listens."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Sequence

from anyio import getaddrinfo

from kernel.errors import CannotListen

BACKLOG = 2048  # connections that may wait to be accepted; the system may allow fewer
NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
TRIES = 10  # ports that are tried where one must be free at several addresses


@contextlib.asynccontextmanager
async def listening(host: str, port: int, hint: Callable[[], str]) -> AsyncIterator[list[socket.socket]]:
    """Give sockets that listen on all addresses of *host*, and close them in the end.

    Args:
        host: An address, or a name, of which every address is taken that this machine has. ``::`` and an empty one
            are IPv4 and IPv6.
        port: The port; 0 takes one that is free, the same for all addresses.
        hint: Gives what to change when the address cannot be used.

    Raises:
        CannotListen: It cannot be used.

    """
    sockets: list[socket.socket] = []
    try:
        # Sockets that the process was handed over would be taken here, in place of opening some.
        sockets = _open_all(await _resolve(host, port), port)
    except (OSError, OverflowError, UnicodeError) as error:
        why = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]  # Python adds the address
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise CannotListen(where, why[:1].lower() + why[1:], hint()) from error
    with contextlib.ExitStack() as opened:
        for one in sockets:
            opened.enter_context(one)
        yield sockets


def address(sock: socket.socket) -> str:
    """Where *sock* listens, as in a URL."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _resolve(host: str, port: int) -> list[tuple[int, str]]:
    """The families and addresses of *host*."""
    if not 0 <= port <= 65535:  # noqa: PLR2004
        raise OverflowError("a port is a number from 0 to 65535")  # Python would leave a socket open
    if host in {"", "::"}:
        return [(socket.AF_INET6, "::")] if socket.has_dualstack_ipv6() else [(socket.AF_INET, "0.0.0.0")]  # noqa: S104
    found = await getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), str(where[0])) for family, _, _, _, where in found))


def _open_all(addresses: Sequence[tuple[int, str]], port: int) -> list[socket.socket]:
    for left in range(TRIES, 0, -1):
        try:
            return _try_all(addresses, port)
        except OSError as error:
            # A port that is free at the first address may be taken at the second.
            if port or not left - 1 or error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError  # the last try either succeeded or raised


def _try_all(addresses: Sequence[tuple[int, str]], port: int) -> list[socket.socket]:
    with contextlib.ExitStack() as opened:
        found: list[socket.socket] = []
        absent: OSError | None = None
        for family, where in addresses:
            here = found[0].getsockname()[1] if found else port
            both = family == socket.AF_INET6 and where == "::"
            try:
                one = socket.create_server((where, here), family=family, backlog=BACKLOG, dualstack_ipv6=both)
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                absent = error  # a name may have addresses that this machine lacks
                continue
            found.append(opened.enter_context(one))
        if not found and absent is not None:
            raise absent
        opened.pop_all()
        return found
