"""`just nats`: a server on loopback that `just run` uses, until it is stopped."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.ports import free_port
from tests.scripts.imported import Imported
from tests.scripts.projects import Project

SHOWS = """\
'''Shows where it calls.'''

import os

from kernel import service


@service(oneshot=True)
async def once() -> None:
    '''Print it.'''
    print("url", os.environ.get("NATS_URL", ""))
"""


@pytest.fixture
def started(project: Project) -> Iterator[tuple[Project, int]]:
    """A project whose server runs, and its port."""
    port = free_port()
    program = project.machine.bin / "nats-server"  # the environments of tests lack what these do not need
    if not program.exists():
        program.symlink_to(Path(sys.executable).with_name("nats-server"))
    done = project.just("nats", f"PORT={port}")
    assert done.code == 0, done.err
    assert done.out.startswith(f"NATS is at nats://127.0.0.1:{port}; `just run` uses it")
    yield project, port
    project.just("nats-stop")


def shown(project: Project, **env: str) -> str:
    """The server that a run is told of."""
    project.write("services/once.py", SHOWS)
    done = project.just("run", "once", ADMIN_ADDR="off", **env)
    assert done.code == 0, done.err
    return next(line for line in done.out.splitlines() if line.startswith("url")).removeprefix("url").strip()


def test_started_used_and_stopped(started: tuple[Project, int]) -> None:
    """What NATS_URL says goes first; and no run is told of it when it is stopped."""
    project, port = started
    assert shown(project) == f"nats://127.0.0.1:{port}"
    assert shown(project, NATS_URL="nats://127.0.0.1:1") == "nats://127.0.0.1:1"
    assert f"it is running already: nats://127.0.0.1:{port}" in project.just("nats", f"PORT={free_port()}").err
    assert project.just("nats-stop").out == "NATS is stopped.\n"
    assert shown(project) == ""
    assert project.just("nats-stop").out == "NATS is not running.\n"


def test_one_that_was_killed_is_not_used(started: tuple[Project, int]) -> None:
    """A run says so, and goes on without it."""
    project, _ = started
    pid = int((Path(project.root) / ".kernel/nats").read_text().split()[1])
    os.kill(pid, signal.SIGKILL)
    project.write("services/once.py", SHOWS)
    done = project.just("run", "once", ADMIN_ADDR="off")
    assert done.code == 0
    assert "NATS does not respond any more" in done.err


@pytest.fixture
def nats(imported: Imported) -> Iterator[Any]:
    """The module, imported; its server is stopped afterwards."""
    nats = imported.load("nats_server")
    yield nats
    nats.stop({})


@pytest.mark.parametrize("port", ["0", "x", "65536", "-1", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}"])
def test_a_port_that_is_none(nats: Any, imported: Imported, port: str) -> None:
    """It says how to call it, and starts nothing."""
    with pytest.raises(nats.Refusal, match=r"PORT='.+' is not a valid port; usage: just nats \[PORT=4222\]"):
        nats.start({"PORT": port})
    assert not (imported.root / ".kernel").exists()


@pytest.mark.parametrize(("text", "port"), [("", 4222), ("1", 1), ("65535", 65535)])
def test_ports(nats: Any, text: str, port: int) -> None:
    """That of NATS is the default."""
    assert nats._port(text) == port


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_it_starts_and_stops(nats: Any, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    """It listens on loopback, outlives the recipe, and git does not see what it keeps."""
    port = free_port()
    nats.start({"PORT": str(port)})
    url, pid = (imported.root / ".kernel" / "nats").read_text().split()
    assert url == f"nats://127.0.0.1:{port}"
    assert os.getsid(int(pid)) == int(pid)
    assert (imported.root / ".kernel" / ".gitignore").exists()
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        assert client.recv(4) == b"INFO"
    with pytest.raises(nats.Refusal, match=f"it is running already: {url}; `just nats-stop` stops it"):
        nats.start({"PORT": ""})
    nats.stop({})
    assert os.waitpid(int(pid), 0)[0] == int(pid)
    assert not (imported.root / ".kernel" / "nats").exists()
    nats.stop({})
    assert capsys.readouterr().out == (
        f"NATS is at {url}; `just run` uses it, in each terminal, until `just nats-stop`.\n"
        "NATS is stopped.\nNATS is not running.\n"
    )


def test_a_port_that_somebody_has(nats: Any, imported: Imported) -> None:
    """The error says why it cannot be used, once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(nats.Refusal) as caught:
            nats.start({"PORT": str(port)})
    assert (
        str(caught.value) == f"port {port} cannot be used: Address already in use; free it, or choose another: PORT=..."
    )
    assert not (imported.root / ".kernel").exists()


def test_a_server_that_is_not_there(nats: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to add it."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(nats.Refusal, match=r"there is no nats-server in \.venv; add it by `just deps-add"):
        nats.start({"PORT": ""})


@pytest.mark.parametrize(("says", "told"), [("oh; echo no", "no"), ("", "no output")], ids=["words", "nothing"])
def test_a_server_that_does_not_start(
    nats: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, told: str
) -> None:
    """The error repeats its last words, and is not remembered as one that runs."""
    (tmp_path / "nats-server").write_text(f"#!/bin/sh\n{says and f'echo {says}'}\n")
    (tmp_path / "nats-server").chmod(0o755)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(nats.Refusal, match=f"it did not start: {told}; its output is in .kernel/nats.log"):
        nats.start({"PORT": str(free_port())})
    assert nats._running() is None


def test_it_is_waited_for(nats: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For ten seconds, in which it is asked often, without keeping a processor busy."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock.append(clock[-1] + seconds)

    monkeypatch.setattr(nats.time, "monotonic", lambda: clock[-1])
    monkeypatch.setattr(nats.time, "sleep", sleep)
    alive = SimpleNamespace(poll=lambda: None)
    assert not nats._answers(alive, free_port())
    assert clock[-1] == pytest.approx(10, abs=0.1)
    assert len(clock) > 100


@pytest.mark.parametrize("text", ["", "nats://127.0.0.1:1", "nats://127.0.0.1:1\nx\n", "nats://127.0.0.1:1\n{pid}\n"])
def test_what_is_no_server_of_ours(nats: Any, imported: Imported, text: str) -> None:
    """A file that is not whole, or the number of a process that is another one by now: nobody is ended."""
    imported.write(".kernel/nats", text.format(pid=os.getpid()))
    assert nats._running() is None
