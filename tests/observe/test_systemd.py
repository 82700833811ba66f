"""What systemd is told, through a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kernel.lifecycle.events import AllReady, Forced, State, StopBegan, Transition
from kernel.observe.systemd import Notifier, notifier


class Systemd:
    """The other end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0"))
        self._socket.setblocking(False)

    def told(self) -> list[str]:
        """What it was told since it was asked last."""
        messages: list[str] = []
        try:
            while True:
                messages.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return messages

    def close(self) -> None:
        """Be gone."""
        self._socket.close()


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    """With a socket in the file system, or with one outside of it."""
    one = Systemd(str(tmp_path / "notify") if request.param == "file" else f"@kernel-test-{os.getpid()}")
    yield one
    one.close()


def made(environ: dict[str, str]) -> Notifier:
    """The observer that *environ* asks for."""
    found = notifier(environ)
    assert found is not None
    return found


def move(service: str, previous: State, state: State, *, internal: bool = False) -> Transition:
    return Transition(service, previous, state, 1, 0.0, internal=internal)


def test_from_start_to_stop(systemd: Systemd) -> None:
    """Ready once, stopping once, and in between who is not ready."""
    tell = made({"NOTIFY_SOCKET": systemd.address})
    for name in ("api", "db"):
        tell(move(name, State.WAITING, State.STARTING))
        tell(move(name, State.STARTING, State.READY))
    tell(move("admin", State.STARTING, State.READY, internal=True))
    assert systemd.told() == []
    tell(AllReady(1.0, ("api",)))
    assert systemd.told() == ["READY=1\nSTATUS=2 of 2 services ready"]
    tell(move("db", State.STOPPING, State.BACKOFF))
    assert systemd.told() == ["STATUS=1 of 2 services ready; db backoff"]
    tell(move("db", State.BACKOFF, State.STARTING))
    tell(move("db", State.STARTING, State.READY))
    assert systemd.told() == ["STATUS=1 of 2 services ready; db starting", "STATUS=2 of 2 services ready"]
    tell(StopBegan("SIGTERM\nand more", 10.0))
    tell(move("api", State.READY, State.STOPPING))
    tell(Forced(("api",)))
    assert systemd.told() == ["STOPPING=1\nSTATUS=stopping: SIGTERM and more"]


def test_a_failure_in_mid_start(systemd: Systemd) -> None:
    """It is worth a word before all are ready."""
    tell = made({"NOTIFY_SOCKET": systemd.address})
    tell(move("db", State.STARTING, State.BACKOFF))
    assert systemd.told() == ["STATUS=0 of 1 services ready; db backoff"]


@pytest.mark.parametrize("state", [State.FAILED, State.ABANDONED])
def test_a_failure_is_always_told(systemd: Systemd, state: State) -> None:
    """Before all are ready, and while the app stops; other moves are not."""
    tell = made({"NOTIFY_SOCKET": systemd.address})
    tell(move("db", State.STARTING, State.STOPPING))
    assert systemd.told() == []
    tell(move("db", State.STOPPING, state))
    tell(move("migrate", State.STARTING, State.DONE))
    assert systemd.told() == [f"STATUS=0 of 1 services ready; db {state.value}"]
    tell(StopBegan("db failed", 10.0, failure=True))
    tell(move("api", State.STARTING, State.STOPPING))
    assert systemd.told() == ["STOPPING=1\nSTATUS=stopping: db failed"]
    tell(move("api", State.STOPPING, state))
    assert systemd.told() == [f"STATUS=1 of 3 services ready; db {state.value}, api {state.value}"]
    tell(move("own", State.STOPPING, state, internal=True))
    assert systemd.told() == []


def test_signs_of_life(systemd: Systemd) -> None:
    """At half the interval, however often the loop answers."""
    tell = made({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())})
    for _ in range(3):
        tell.alive()
    assert systemd.told() == ["WATCHDOG=1"]


@pytest.mark.parametrize(("micros", "every"), [("20000000", 10.0), ("3000000", 1.5), ("500000", 0.25)])
@pytest.mark.parametrize("whose", [{}, {"WATCHDOG_PID": str(os.getpid())}])
def test_when_signs_of_life_are_due(
    systemd: Systemd, micros: str, every: float, whose: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the interval after the last one, not before; a loop that was late does not make up for it."""
    now = 1000.0
    monkeypatch.setattr("kernel.observe.systemd.time", SimpleNamespace(monotonic=lambda: now))
    tell = made({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": micros, **whose})
    signs = []
    for after in (0.0, 0.9, 0.9999999, 1.0, 1.9, 2.0, 4.5, 5.0, 5.5):
        now = 1000.0 + after * every
        tell.alive()
        signs.append((after, systemd.told()))
    assert [after for after, told in signs if told] == [0.0, 1.0, 2.0, 4.5, 5.5]
    assert all(told in ([], ["WATCHDOG=1"]) for _, told in signs)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_PID": str(os.getpid())},
    ],
)
def test_no_signs_of_life(systemd: Systemd, environ: dict[str, str]) -> None:
    """None where systemd wants none, or wants them of another process."""
    made({"NOTIFY_SOCKET": systemd.address, **environ}).alive()
    assert systemd.told() == []


def test_nobody_listens(systemd: Systemd) -> None:
    """Who cannot be told is not, and nothing else is affected."""
    tell = made({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1000"})
    systemd.close()
    tell(AllReady(1.0, ()))
    tell.alive()


@pytest.mark.parametrize("path", ["", "notify", "vsock:2:1234"])
def test_nobody_asked(path: str) -> None:
    """Without a socket that we understand there is nobody to tell."""
    assert notifier({"NOTIFY_SOCKET": path}) is None


def test_what_systemd_says_is_for_this_process_alone(systemd: Systemd) -> None:
    """A program that a service starts is not told where to answer, and what is not systemd's stays."""
    environ = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1", "HOME": "/"}
    notifier(environ)
    assert environ == {"HOME": "/"}
