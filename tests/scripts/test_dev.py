"""`just dev`, in a project: real saves, real processes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.scripts.projects import MEASURED, Project

ENOUGH = 40.0  # seconds within which all that is waited for comes, also on a loaded machine

SERVES = """
import anyio
from kernel import Serving, service
from {shared} import NAME

VERSION = "{version}"

@service
async def web(serving: Serving[None]) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port={port})

    async def handle(stream):
        async with stream:
            await stream.send(f"{{VERSION}} {{NAME}}".encode())

    async with listener, serving() as work:
        work.start_soon(listener.serve, handle)
        await anyio.sleep_forever()
"""


class Dev:
    """A running `just dev` of a project with one service, which tells its version."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.port = free_port()
        self.output: list[str] = []
        self.mark = f"{project.root}-{time.monotonic_ns()}"
        project.write("shared_words.py", 'NAME = "a"\n')
        self.save("first")
        for name in ("hello_world", "kept"):
            (project.root / "services" / f"{name}.py").unlink(missing_ok=True)
        measured = {name: os.environ[name] for name in MEASURED if name in os.environ}
        env = {**project.machine.env, **measured, "MARK": self.mark, "ADMIN_ADDR": "off"}
        self.process = subprocess.Popen(
            ["./scripts/just", "dev"],
            cwd=project.root,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self.output.append(line)

    def save(self, version: str, *, broken: bool = False) -> None:
        """Save the service's file, as an editor does: another file in its place."""
        text = SERVES.format(version=version, port=self.port, shared="shared_words")
        path = self.project.root / "services" / "web.py"
        aside = path.with_suffix(".tmp")
        aside.write_text(text + ("\nthis is no python\n" if broken else ""))
        aside.rename(path)

    def says(self) -> str:
        """What the service that listens now says; empty where none does."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as one:
            return one.recv(100).decode()
        return ""

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait until *happened*."""
        end = time.monotonic() + ENOUGH
        while not happened():
            assert time.monotonic() < end, "".join(self.output)
            time.sleep(0.01)

    def told(self, words: str, times: int = 1) -> None:
        """Wait until *words* were said."""
        self.until(lambda: "".join(self.output).count(words) >= times)

    def ends(self, number: int = signal.SIGINT) -> int:
        """End it as a terminal does, by a signal to all; gives the exit code when nothing is left of it."""
        os.killpg(self.process.pid, number)
        code = self.process.wait(ENOUGH)
        self.until(lambda: not self.left())
        assert self.says() == ""
        return code

    def left(self) -> list[str]:
        """The processes that there are of it."""
        found = []
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if path.name.isdigit() and f"MARK={self.mark}".encode() in (path / "environ").read_bytes():
                    found.append((path / "cmdline").read_text())
        return found


@pytest.fixture
def dev(owned: Project) -> Iterator[Dev]:
    """One that has started."""
    dev = Dev(owned)
    try:
        dev.until(lambda: dev.says() == "first a")
        yield dev
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(dev.process.pid, signal.SIGKILL)
        dev.process.wait()


def test_a_save_is_a_restart(dev: Dev) -> None:
    """In order and gracefully: the old one has stopped before the new one starts."""
    dev.save("second")
    dev.until(lambda: dev.says() == "second a")
    dev.told("all ready", 2)
    text = "".join(dev.output)
    assert text.index("stopping: SIGTERM") < text.index("exit 0") < text.rindex("all ready")
    assert text.count("all ready") == 2
    assert dev.ends() == 0


def test_what_else_is_of_the_app(dev: Dev) -> None:
    """Shared modules, new folders and `.env` are; tests, hidden files and what the app writes itself are not."""
    root = dev.project.root
    for path in ("tests/test_new.py", "data.json", "items.db", "services/cache.db", ".hidden/x.py", "docs/new.md"):
        dev.project.write(path, "x")
    dev.project.write("shared_words.py", 'NAME = "b"\n')
    dev.until(lambda: dev.says() == "first b")
    dev.told("all ready", 2)
    assert "".join(dev.output).count("all ready") == 2
    dev.project.write("package/__init__.py", "")
    dev.told("all ready", 3)
    dev.project.write("package/words.py", 'NAME = "c"\n')
    dev.told("all ready", 4)
    web = root / "services" / "web.py"
    web.write_text(web.read_text().replace("shared_words", "package.words"))
    dev.until(lambda: dev.says() == "first c")
    dev.project.write(".env", "X=1\n")
    dev.told("all ready", 6)
    assert dev.ends() == 0


def test_what_does_not_start_leaves_what_runs(dev: Dev) -> None:
    """An error in the syntax, in an import, in the configuration: told, and the next save is tried."""
    dev.save("broken", broken=True)
    dev.told("continues unchanged", 1)
    assert "services/web.py" in "".join(dev.output)
    assert dev.says() == "first a"
    dev.project.write("services/other.py", "import nothing_of_that_name\n")
    dev.told("continues unchanged", 2)
    assert dev.says() == "first a"
    (dev.project.root / "services" / "other.py").unlink()
    dev.save("mended")
    dev.until(lambda: dev.says() == "mended a")
    assert dev.ends() == 0


def test_a_burst_is_one_restart(dev: Dev) -> None:
    """A formatter, a branch that is checked out: many files in a moment."""
    for number in range(30):
        dev.project.write(f"services/_part{number}.py", "")
    dev.save("second")
    dev.until(lambda: dev.says() == "second a")
    assert "".join(dev.output).count("all ready") <= 3
    assert dev.ends() == 0


def test_an_app_that_ends_by_itself(dev: Dev) -> None:
    """It is told, and starts again with the next save."""
    dev.project.write(
        "services/bad.py", "from kernel import service\n\n@service\nasync def bad() -> None:\n    1 / 0\n"
    )
    dev.told("the app has ended by itself, with exit code 1")
    assert dev.says() == ""
    (dev.project.root / "services" / "bad.py").unlink()
    dev.until(lambda: dev.says() == "first a")
    assert dev.ends(signal.SIGTERM) == 0


def test_when_it_is_killed_the_app_stops(dev: Dev) -> None:
    """The app notices, and stops in order."""
    dev.process.kill()
    dev.process.wait()
    dev.until(lambda: not dev.left())
    assert "stopping: SIGTERM" in "".join(dev.output)


@pytest.mark.minutes
def test_saves_at_random_moments(dev: Dev) -> None:
    """100 of them, some broken, some in bursts, during start, serving and stop: the last one is what runs."""
    dice = random.Random(19)  # noqa: S311
    for number in range(100):
        dev.save(f"v{number}", broken=dice.random() < 0.2)
        if dice.random() < 0.7:
            time.sleep(dice.random() * 0.3)  # somebody at a keyboard
    dev.save("last")
    dev.until(lambda: dev.says() == "last a")
    time.sleep(0.5)  # nothing comes after it
    assert dev.says() == "last a"
    assert dev.ends() == 0
