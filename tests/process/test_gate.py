"""Where a new version of the app waits, with the watcher's end of a real socket."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kernel.process.gate import GATE, Gate


@pytest.fixture
def watcher() -> Iterator[tuple[socket.socket, Gate, list[Any]]]:
    """The watcher's end, the gate, and whatever it registers for the exit."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    descriptor = theirs.detach()
    os.set_inheritable(descriptor, True)  # the watcher has passed it on
    environ = {GATE: str(descriptor), "HOME": "/"}
    at_exit: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atexit, "register", at_exit.append)
        gate = Gate(environ)
    assert environ == {"HOME": "/"}
    assert not os.get_inheritable(descriptor)
    yield ours, gate, at_exit
    ours.close()
    gate._socket.close()


@pytest.mark.parametrize(("backend", "library"), [("asyncio", "asyncio"), ("uvloop", "asyncio"), ("trio", "trio")])
def test_it_goes_on_when_it_is_told_to(
    watcher: tuple[socket.socket, Gate, list[Any]], monkeypatch: pytest.MonkeyPatch, backend: str, library: str
) -> None:
    """It has imported everything by then, and stops the app when the watcher ends, not when that says more."""
    ours, gate, _ = watcher
    imported: list[str] = []
    monkeypatch.setattr("importlib.import_module", imported.append)
    killed, stopped = [], threading.Event()

    def kill(*what: int) -> None:
        killed.append(what)
        stopped.set()

    monkeypatch.setattr(os, "kill", kill)
    ours.sendall(b"go\n")
    gate.wait(backend)
    assert ours.recv(100) == b"prepared\n"
    assert imported == [f"anyio._backends._{library}"]
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "just dev"]
    assert thread.daemon
    ours.sendall(b"more")
    thread.join(0.01)
    assert thread.is_alive()
    assert not killed
    ours.close()
    thread.join(20)
    assert killed == [(os.getpid(), signal.SIGTERM)]


def test_a_version_that_is_not_needed_any_more(watcher: tuple[socket.socket, Gate, list[Any]]) -> None:
    """There is a newer one, or the watcher has ended: it goes without an error, whenever it is told."""
    ours, gate, _ = watcher
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(SystemExit) as caught:
        gate.wait("asyncio")
    assert caught.value.code == 0
    assert ours.recv(100) == b"prepared\n"
    ours.close()
    with pytest.raises(SystemExit) as caught:
        gate.wait("asyncio")
    assert caught.value.code == 0
    assert "just dev" not in {thread.name for thread in threading.enumerate()}


def test_a_watcher_that_is_killed_stops_the_app(
    watcher: tuple[socket.socket, Gate, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that ends: a connection that is reset is no error."""
    ours, gate, _ = watcher
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: killed.append(number))
    gate._socket.sendall(b"unread")  # what was not read when the other end closes is a reset
    ours.close()
    gate._watch()
    assert killed == [signal.SIGTERM]


def test_the_end_is_told_at_the_very_last(watcher: tuple[socket.socket, Gate, list[Any]]) -> None:
    """The next version may start while the interpreter exits; who cannot be told is not."""
    ours, gate, (end,) = watcher
    end()
    assert ours.recv(100) == b""
    gate._socket.close()
    end()
