"""Sockets that listen: at an address, or handed over by systemd (sd_listen_fds(3))."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, MutableMapping

FIRST = 3  # the descriptor of the first socket that is handed over


def listen(host: str, port: int) -> socket.socket:
    """Listen at the first address of *host* that can be had.

    Args:
        host: An address, or a name, all of whose addresses are tried; ``::`` is every address of IPv6 and of IPv4.
        port: The port; 0 takes any that is free.

    Raises:
        OSError: None of them can be had; that of the first address, which is why.

    """
    if host == "::":
        return _listen_everywhere(port)
    first: OSError | None = None
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            return socket.create_server(address, family=family)
        except OSError as error:
            first = first or error
    assert first is not None  # a host without an address is an error of getaddrinfo's
    raise first


def _listen_everywhere(port: int) -> socket.socket:
    """Listen on both stacks, or on the one that there is."""
    if not socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6)
        except OSError as error:
            if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                raise
            return socket.create_server(("0.0.0.0", port))  # noqa: S104  (`::` says so)
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


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

    def take(self, name: str) -> list[socket.socket]:
        """Copies of the sockets of this *name*, for the caller to close; the next who asks gets copies as well."""
        self._taken.add(name)
        return [sock.dup() for sock in self._socks.get(name, ())]

    def left(self) -> Iterable[str]:
        """The names of those that nobody has taken."""
        return sorted(self._socks.keys() - self._taken)


HANDED_OVER = HandedOver()
"""Those of this process."""
