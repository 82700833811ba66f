"""Listening sockets: opened at an address, or passed by systemd as in sd_listen_fds(3)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

Address = tuple[int, str]
"""A socket family and an address in it."""
LOCAL = [(int(socket.AF_INET6), "::1"), (int(socket.AF_INET), "127.0.0.1")]
NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
TRIES = 10  # attempts to find a port that is free at several addresses
FIRST = 3  # the descriptor of the first socket from systemd


def listen(host: str, port: int, backlog: int | None = None) -> list[socket.socket]:
    """Listen on all addresses of *host* that exist on this machine.

    Args:
        host: An address or a name. ``::`` and an empty string mean IPv6 and IPv4, as far as the machine supports them.
        port: The port; 0 for a free one, the same for all addresses.
        backlog: How many connections may wait to be accepted; None for Python's default.

    Raises:
        OSError: An address is not available, or *host* has none on this machine.
        OverflowError: The port is out of range.
        UnicodeError: The name is too long to look up.

    """
    return open_all(addresses_of(host, port) or by_name(host, look_up(host, port)), port, backlog)


def addresses_of(host: str, port: int) -> list[Address]:
    """Return the addresses of *host* if that needs no look-up, otherwise an empty list.

    Raises:
        OverflowError: *port* is out of range. (Python itself would raise this too late to close the socket.)

    """
    if not 0 <= port <= 65535:  # noqa: PLR2004
        raise OverflowError("a port is a number from 0 to 65535")
    if host not in {"", "::"}:
        return []
    return [(socket.AF_INET6, "::")] if socket.has_dualstack_ipv6() else [(socket.AF_INET, "0.0.0.0")]  # noqa: S104


def look_up(host: str, port: int) -> list[Any]:
    """Resolve *host*."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def by_name(host: str, found: Iterable[Any]) -> list[Address]:
    """Return the families and addresses of *host* in the resolver's answer.

    The resolver may know ``localhost`` only as 127.0.0.1, even on a machine without that address.
    """
    addresses = list(dict.fromkeys((int(family), str(where[0])) for family, _, _, _, where in found))
    if host.lower() == "localhost" and not any(map(_is_here, addresses)):
        addresses += LOCAL
    return addresses


def _is_here(address: Address) -> bool:
    """Return whether this machine has *address*."""
    try:
        with socket.socket(address[0]) as sock:
            sock.bind((address[1], 0))
    except OSError as error:
        return error.errno not in NOT_HERE
    return True


def open_all(addresses: Sequence[Address], port: int, backlog: int | None = None) -> list[socket.socket]:
    """Listen on all *addresses* that this machine has, at the same *port*.

    Raises:
        OSError: An address is not available, or this machine has none.

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
            try:
                sock = socket.create_server((where, here), family=family, backlog=backlog, dualstack_ipv6=where == "::")
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                absent = error  # a name may have addresses that this machine does not
                continue
            # Connections inherit this option. asyncio sets it only if the socket has a protocol, which sockets from
            # `create_server` have not. Without it, an answer in two parts would wait 40 ms for an acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found.append(opened.enter_context(sock))
        if not found and absent is not None:
            raise absent
        opened.pop_all()
        return found


def address_of(sock: socket.socket) -> str:
    """Return where *sock* listens, as in a URL: ``127.0.0.1:9090``, ``[::1]:9090``; or a Unix socket's path."""
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return os.fsdecode(name).replace("\0", "@")
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class HandedOver:
    """The sockets that systemd opened for this process, by the names that their units give them.

    systemd keeps them open too, so clients that connect while the process restarts wait and are not refused.
    """

    def __init__(self) -> None:
        self._socks: dict[str, list[socket.socket]] = {}
        self._taken: set[str] = set()

    def read(self, environ: MutableMapping[str, str]) -> None:
        """Take over the sockets described in *environ*, and remove those variables: children get no sockets."""
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
                    sock.detach()  # a datagram socket, or a connection: for other code
                    continue
            except OSError:
                continue
            name = named[number] if number < len(named) else "unknown"
            self._socks.setdefault(name, []).append(sock)

    def __bool__(self) -> bool:
        """Return whether there are any sockets."""
        return bool(self._socks)

    def has(self, name: str) -> bool:
        """Return whether there are sockets named *name*."""
        return name in self._socks

    def take(self, name: str) -> list[socket.socket]:
        """Return duplicates of the sockets named *name*, which the caller must close; each call returns new ones."""
        self._taken.add(name)
        return [sock.dup() for sock in self._socks.get(name, ())]

    def left(self) -> Iterable[str]:
        """Return the names of the sockets that nothing has taken."""
        return sorted(self._socks.keys() - self._taken)


HANDED_OVER = HandedOver()
"""The sockets of this process."""
