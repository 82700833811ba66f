"""Sockets that listen, and those that are handed over."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

import pytest

from kernel.process import sockets
from kernel.process.sockets import HandedOver, address_of, listen


def closed(found: list[socket.socket]) -> list[str]:
    """Where they listened."""
    told = [address_of(sock) for sock in found]
    for sock in found:
        sock.close()
    return told


def test_a_name_is_all_its_addresses_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `localhost` on a host without IPv4, or without IPv6; the port is the same for all."""
    family, kind = socket.AF_INET, socket.SOCK_STREAM
    found = [(family, kind, 6, "", (host, 0)) for host in ("192.0.2.1", "127.0.0.1", "127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(sockets, "look_up", lambda *_: found)
    first, second = closed(listen("somewhere", 0))
    assert first.startswith("127.0.0.1:")
    assert second == first.replace("127.0.0.1", "127.0.0.2")


def test_a_name_without_an_address_here_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the first address."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]
    monkeypatch.setattr(sockets, "look_up", lambda *_: found)
    with pytest.raises(OSError, match="Cannot assign requested address"):
        listen("somewhere", 0)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
def test_localhost_is_what_of_it_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the resolver knows it as an address that the machine lacks."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]
    monkeypatch.setattr(sockets, "look_up", lambda *_: found)
    assert closed(listen("localhost", 0))[0].startswith("[::1]:")


def test_localhost_that_is_here_is_what_the_resolver_says() -> None:
    """Nothing is added to it; its addresses are in order, each once."""
    found = [(socket.AF_INET, kind, 6, "", ("127.0.0.1", 0)) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    assert sockets.by_name("LOCALHOST", found) == [(socket.AF_INET, "127.0.0.1")]


def test_localhost_that_may_not_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as here: whoever listens on it gets the error."""

    def refuses(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuses)
        assert sockets.by_name("localhost", found) == [(socket.AF_INET, "192.0.2.1")]
    assert sockets.by_name("elsewhere", found) == [(socket.AF_INET, "192.0.2.1")]


@pytest.mark.parametrize(("port", "code", "tries"), [(0, errno.EADDRINUSE, 10), (80, errno.EADDRINUSE, 1), (0, 13, 1)])
def test_a_free_port_that_is_taken_at_another_address(
    monkeypatch: pytest.MonkeyPatch, port: int, code: int, tries: int
) -> None:
    """Another is tried, ten times; where the port is given, or for another reason, it is an error at once."""
    tried: list[object] = []

    def taken(where: object, **_: object) -> None:
        tried.append(where)
        raise OSError(code, "taken")

    monkeypatch.setattr(socket, "create_server", taken)
    with pytest.raises(OSError, match="taken"):
        sockets.open_all([(socket.AF_INET, "127.0.0.1")], port)
    assert tried == [("127.0.0.1", port)] * tries


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize("host", ["::", ""])
def test_every_address_is_both_stacks(host: str) -> None:
    """IPv4 clients get through the socket of IPv6."""
    (sock,) = listen(host, 0)
    with sock:
        assert address_of(sock).startswith("[::]:")
        for client in ("127.0.0.1", "::1"):
            socket.create_connection((client, sock.getsockname()[1]), timeout=5).close()


def test_without_ipv6_every_address_is_those_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than an error."""
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    assert closed(listen("::", 0))[0].startswith("0.0.0.0:")


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none(port: int) -> None:
    """It is an error before any socket is made."""
    with pytest.raises(OverflowError):
        listen("127.0.0.1", port)


# -- handed over -----------------------------------------------------------------------------------------------------


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The first of five descriptors: two sockets that listen, one of datagrams, one that is idle, and a file."""
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    made += [socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_STREAM)]
    first = 500
    for number, sock in enumerate(made):
        os.dup2(sock.fileno(), first + number)
        sock.close()
    with open(os.devnull) as file:  # noqa: PTH123
        os.dup2(file.fileno(), first + 4)
    monkeypatch.setattr(sockets, "FIRST", first)
    yield first
    for number in range(5):
        with contextlib.suppress(OSError):
            os.close(first + number)


def environ(**others: str) -> dict[str, str]:
    """What systemd says."""
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "5", "LISTEN_FDNAMES": "admin:api:log:peer:file", **others}


def test_sockets_that_are_handed_over_are_taken_by_name(descriptors: int) -> None:
    """Whatever is no listening socket is left alone; the environment forgets them, and so do children."""
    around = environ(PATH="/bin")
    handed = HandedOver()
    handed.read(around)
    assert around == {"PATH": "/bin"}
    assert handed
    assert list(handed.left()) == ["admin", "api"]
    assert [handed.has(name) for name in ("admin", "log", "peer", "file")] == [True, False, False, False]
    for _ in range(2):  # a service may start again
        (sock,) = handed.take("api")
        assert address_of(sock).startswith("127.0.0.1:")
        assert not sock.get_inheritable()
        sock.close()
    assert handed.take("others") == []
    assert list(handed.left()) == ["admin"]
    assert not os.get_inheritable(descriptors)
    for sock in (sock for socks in handed._socks.values() for sock in socks):
        sock.close()


@pytest.mark.parametrize("wrong", [{"LISTEN_PID": "1"}, {"LISTEN_FDS": "x"}, {"LISTEN_FDS": ""}])
def test_what_is_meant_for_others_is_not_taken(descriptors: int, wrong: dict[str, str]) -> None:
    """A child of the one that it was handed to has the variables too."""
    handed = HandedOver()
    handed.read(environ(**wrong))
    assert not handed


def test_a_unix_socket_is_told_by_its_path(tmp_path: os.PathLike[str]) -> None:
    """As in a log line."""
    path = os.path.join(tmp_path, "admin.sock")  # noqa: PTH118
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        assert address_of(sock) == path


def test_no_answer_waits_for_an_acknowledgement() -> None:
    """Connections have TCP_NODELAY, whoever accepts them."""
    (listener,) = listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
