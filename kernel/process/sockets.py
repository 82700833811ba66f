"""Sockets that listen: at an address, or handed over by systemd (sd_listen_fds(3))."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

Address = tuple[int, str]
"""A family and what is an address in it."""
LOCAL = [(int(socket.AF_INET6), "::1"), (int(socket.AF_INET), "127.0.0.1")]
NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
TRIES = 10  # ports that are tried where one must be free at several addresses
FIRST = 3  # the descriptor of the first socket that is handed over


def listen(host: str, port: int, backlog: int | None = None) -> list[socket.socket]:
    """Listen on all addresses of *host* that this machine has.

    Args:
        host: An address, or a name. ``::`` and an empty one are IPv6 and IPv4, or the one of them that there is.
        port: The port; 0 takes one that is free, the same for all addresses.
        backlog: Connections that may wait to be accepted; None for what Python takes.

    Raises:
        OSError: One of them cannot be had, or *host* has none here.
        OverflowError: There is no such port.
        UnicodeError: The name is too long to be looked up.

    """
    return open_all(addresses_of(host, port) or by_name(host, look_up(host, port)), port, backlog)


def addresses_of(host: str, port: int) -> list[Address]:
    """What *host* stands for where that needs no look-up; empty where it does.

    Raises:
        OverflowError: There is no such *port*: Python would leave a socket open.

    """
    if not 0 <= port <= 65535:  # noqa: PLR2004
        raise OverflowError("a port is a number from 0 to 65535")
    if host not in {"", "::"}:
        return []
    return [(socket.AF_INET6, "::")] if socket.has_dualstack_ipv6() else [(socket.AF_INET, "0.0.0.0")]  # noqa: S104


def look_up(host: str, port: int) -> list[Any]:
    """What the resolver says of *host*."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)


def by_name(host: str, found: Iterable[Any]) -> list[Address]:
    """The families and addresses of *host* in an answer of the resolver's.

    The resolver may know ``localhost`` as 127.0.0.1 alone, on a machine that has no such address.
    """
    addresses = list(dict.fromkeys((int(family), str(where[0])) for family, _, _, _, where in found))
    if host.lower() == "localhost" and not any(map(_is_here, addresses)):
        addresses += LOCAL
    return addresses


def _is_here(address: Address) -> bool:
    """Whether this machine has *address*."""
    try:
        with socket.socket(address[0]) as sock:
            sock.bind((address[1], 0))
    except OSError as error:
        return error.errno not in NOT_HERE
    return True


def open_all(addresses: Sequence[Address], port: int, backlog: int | None = None) -> list[socket.socket]:
    """Listen on all *addresses* that this machine has, at the same *port*.

    Raises:
        OSError: One of them cannot be had, or this machine has none.

    """
    for left in range(TRIES, 0, -1):
        try:
            return _try_all(addresses, port, backlog)
        except OSError as error:
            # A port that is free at the first address may be taken at the second.
            if port or not left - 1 or error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError  # the last try either succeeded or raised


def _try_all(addresses: Sequence[Address], port: int, backlog: int | None) -> list[socket.socket]:
    with contextlib.ExitStack() as opened:
        found: list[socket.socket] = []
        absent: OSError | None = None
        for family, where in addresses:
            here = found[0].getsockname()[1] if found else port
            both = family == socket.AF_INET6 and where == "::"
            try:
                one = socket.create_server((where, here), family=family, backlog=backlog, dualstack_ipv6=both)
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


def address_of(sock: socket.socket) -> str:
    """Where *sock* listens, as a URL has it: ``127.0.0.1:9090``, ``[::1]:9090``; the path of a Unix socket."""
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return os.fsdecode(name).replace("\0", "@")
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class HandedOver:
    """The sockets that systemd has opened for this process, by the name that their unit gives them.

    systemd holds them too, so whoever connects while the process restarts waits and is not refused.
    """

    def __init__(self) -> None:
        self._socks: dict[str, list[socket.socket]] = {}
        self._taken: set[str] = set()

    def read(self, environ: MutableMapping[str, str]) -> None:
        """Take over what *environ* tells of, and take that out of it: children have no such sockets."""
        pid, count, names = (environ.pop(f"LISTEN_{what}", "") for what in ("PID", "FDS", "FDNAMES"))
        if pid != str(os.getpid()) or not count.isdecimal():
            return
        named = names.split(":")
        for number in range(int(count)):
            fd = FIRST + number
            try:
                os.set_inheritable(fd, False)  # noqa: FBT003  (os's own)
                sock = socket.socket(fileno=fd)
                if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    sock.detach()  # a datagram socket, or a connection: somebody else's to use
                    continue
            except OSError:
                continue
            name = named[number] if number < len(named) else "unknown"
            self._socks.setdefault(name, []).append(sock)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._socks)

    def take(self, name: str) -> list[socket.socket]:
        """Copies of the sockets of this *name*, for the caller to close; the next who asks gets copies as well."""
        self._taken.add(name)
        return [sock.dup() for sock in self._socks.get(name, ())]

    def left(self) -> Iterable[str]:
        """The names of those that nobody has taken."""
        return sorted(self._socks.keys() - self._taken)


HANDED_OVER = HandedOver()
"""Those of this process."""
