"""One run of a program, as far as it can be told without one."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from kernel.bricks import program_run as module
from kernel.bricks.program_run import ProgramRun, _guard_command, _reason
from kernel.errors import ProgramError
from kernel.process.programs import running

pytestmark = pytest.mark.anyio


@pytest.fixture
async def run(monkeypatch: pytest.MonkeyPatch) -> ProgramRun:
    """A program that began at 100 s."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 100.0))
    return ProgramRun("db", ["db", "--quiet"])


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let time pass."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 100.0 + seconds))


def tail(*lines: tuple[int, str]) -> Any:
    """A stream with its last lines, and when they came."""
    return SimpleNamespace(tail=lines)


async def test_nothing_is_known_at_first(run: ProgramRun) -> None:
    """It has neither begun nor ended."""
    assert (run.command, run.pid, run.returncode, run.lines) == (("db", "--quiet"), 0, None, ())
    assert (run.failed, run.is_ready, run.waiting, run.exited.is_set()) == (False, False, 0, False)


@pytest.mark.parametrize(
    ("code", "ready", "told"),
    [
        (0, True, "db exited with code 0 after 2.5 s"),
        (7, False, "db exited with code 7 after 2.5 s, before it was ready"),
        (-9, True, "db was killed by SIGKILL after 2.5 s"),
        (-99, True, "db was killed by signal 99 after 2.5 s"),
    ],
)
async def test_an_end_that_nobody_wanted(
    run: ProgramRun, monkeypatch: pytest.MonkeyPatch, code: int, ready: bool, told: str
) -> None:
    """How it ended, and when; the block is cancelled."""
    run._told("pid", "5")
    run.is_ready = ready
    later(monkeypatch, 2.5)
    run._told("exit", str(code))
    assert run.failed
    assert run.block.cancel_called
    error = run.error()
    assert (str(error), error.code) == (told, code)
    assert not hasattr(error, "__notes__")


async def test_the_last_lines_are_those_of_both_streams(run: ProgramRun) -> None:
    """In the order in which they came, and not more than are kept of one; the error has them as a note, too."""
    run._outputs = (
        tail(*((2 * n, f"out {n}") for n in range(20))),
        tail(*((2 * n + 1, f"err {n}") for n in range(20))),
    )
    assert run.lines == tuple(f"{name} {n}" for n in range(10, 20) for name in ("out", "err"))
    run._outputs = (tail((2, "second")), tail((1, "first")))
    run.returncode = 1
    error = run.error()
    assert error.lines == ("first", "second")
    assert error.__notes__ == ["the last lines of db:\n    first\n    second"]


async def test_an_end_that_was_wanted(run: ProgramRun) -> None:
    """By the block, or by somebody who waits for it."""
    run._ending = True
    run._told("exit", "1")
    assert (run.failed, run.block.cancel_called, run.exited.is_set()) == (False, False, True)
    awaited = ProgramRun("db", ["db"])
    awaited.waiting = 1
    awaited._told("exit", "1")
    assert (awaited.failed, awaited.block.cancel_called, awaited.exited.is_set()) == (False, False, True)


async def test_what_the_guard_tells(run: ProgramRun, caplog: pytest.LogCaptureFixture) -> None:
    """The pid, which the status shows until the end; that it had to kill, which is logged if that ended the program."""
    run._told("pid", "5")
    assert (run.pid, running[5]) == (5, ("", "db"))
    await run.launched()
    run._told("killed")
    assert caplog.messages == ["did not end in time, and is killed"]
    run._told("exit", "-9")
    assert (run.returncode, 5 in running) == (-9, False)
    run._told("killed")  # processes that it has left behind
    run._told("news", "1")
    assert len(caplog.messages) == 1


async def test_what_cannot_be_started(run: ProgramRun) -> None:
    """The reason is known when the guard has ended."""
    run._as = " as the user x"
    run._told("failed", str(errno.EACCES))
    run._known.set()
    with pytest.raises(ProgramError, match=r"^db cannot be started as the user x: permission denied"):
        await run.launched()


@pytest.mark.parametrize(
    ("number", "word", "told"),
    [
        (errno.ENOENT, "db", "it is not installed, or not on PATH"),
        (errno.ENOENT, "./db", "there is no such file"),
        (errno.EACCES, "db", "permission denied"),
    ],
)
async def test_why_it_cannot_be_started(number: int, word: str, told: str) -> None:
    """As somebody says it who knows what to do."""
    assert _reason(number, word) == told


async def test_lines_are_listened_to_until_one_is_found(run: ProgramRun) -> None:
    """Each pattern for itself, anywhere in a line."""
    first, second = run.listen("up$"), run.listen("^down")
    run._hear("it is up!")
    assert not first.is_set()
    run._hear("it is up")
    assert (first.is_set(), second.is_set()) == (True, False)
    assert len(run._listeners) == 1
    run._hear("down it goes")
    assert second.is_set()


async def test_who_is_to_blame(run: ProgramRun) -> None:
    """A program that ends within a tenth of a second explains an error of the block; one that never began does not."""
    began = anyio.current_time()
    assert not await run.is_to_blame()
    assert anyio.current_time() == began
    run._told("pid", "5")
    assert not await run.is_to_blame()
    assert anyio.current_time() - began == pytest.approx(0.1)
    async with anyio.create_task_group() as tasks:

        async def end() -> None:
            await anyio.sleep(0.05)
            run._told("exit", "1")

        tasks.start_soon(end)
        assert await run.is_to_blame()
    assert anyio.current_time() - began == pytest.approx(0.15)


async def test_the_last_words_have_a_second(run: ProgramRun) -> None:
    """Somebody else may have its streams open."""
    ended, never = anyio.Event(), anyio.Event()
    ended.set()
    outputs: Any = (SimpleNamespace(ended=ended), SimpleNamespace(ended=never))
    run._outputs = outputs
    began = anyio.current_time()
    await run.last_words()
    assert anyio.current_time() - began == pytest.approx(1.0)
    run._outputs = outputs[:1]
    await run.last_words()
    assert anyio.current_time() - began == pytest.approx(1.0)


async def test_the_end_waits_for_the_last_words(run: ProgramRun) -> None:
    """It was asked to end within its time; whoever still has its streams open is read no more."""
    read: list[str] = []
    never = SimpleNamespace(ended=anyio.Event(), scope=SimpleNamespace(cancel=lambda: read.append("no more")))
    outputs: Any = (never,)
    run._outputs = outputs
    run._stop_timeout = 7.0
    run._socket, guard = socket.socketpair()
    run._gone.set()
    began = anyio.current_time()
    await run.end()
    assert anyio.current_time() - began == pytest.approx(1.0)
    assert guard.recv(100) == b"7.0\n0.2\n"
    assert read == ["no more"]
    run._socket.close()
    guard.close()
    await ProgramRun.end(run)  # the guard is gone, and nobody is left to be told


async def test_how_the_guard_is_started(run: ProgramRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a session of its own, with the app's variables but systemd's, and with what was given besides."""
    given: list[Any] = []

    def start(command: list[str], **options: Any) -> str:
        given.extend((command, options))
        return "guard"

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(os, "environ", {"HOME": "/home", "NOTIFY_SOCKET": "/x", "LISTEN_FDS": "1", "A": "0"})
    run.launch({"A": "1", "B": "2"}, "/", None, (15, 5.0), (10, 20))
    command, options = given
    assert command[-5:] == ["15", "5.0", "", "db", "--quiet"]
    assert options["env"] == {"HOME": "/home", "A": "1", "B": "2"}
    assert (options["cwd"], options["start_new_session"]) == ("/", True)
    assert run._socket.getblocking() is False
    assert [output._level for output in run._outputs] == [10, 20]
    for output in run._outputs:
        os.close(output._fd)
    run._socket.close()


class Guard:
    """The guard, of whom messages come; it has ended when it was looked at twice."""

    def __init__(self) -> None:
        self.looks = 0

    def poll(self) -> int | None:
        self.looks += 1
        return None if self.looks < 3 else 0


@pytest.fixture
def _always_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets know no virtual time; some are readable for nothing."""

    async def wait(_: Any) -> None:
        await anyio.sleep(0.01)

    monkeypatch.setattr(module, "wait_readable", wait)


@pytest.mark.usefixtures("_always_readable")
async def test_messages_come_in_pieces(run: ProgramRun) -> None:
    """Each is understood when it is whole; the end of the guard is the end of it all."""
    run._socket, guard = socket.socketpair()
    run._socket.setblocking(False)
    run._guard = Guard()  # type: ignore[assignment]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run._follow)
        await anyio.sleep(0.05)
        guard.send(b"pid 4")
        await anyio.sleep(0.05)
        assert not run._known.is_set()
        guard.send(b"2\nexi")
        await run.launched()
        assert run.pid == 42
        guard.send(b"t 3\n")
        await run.exited.wait()
        assert not run._gone.is_set()
        guard.close()
    assert (run.returncode, run._gone.is_set()) == (3, True)


@pytest.mark.usefixtures("_always_readable")
@pytest.mark.parametrize("begun", [True, False])
async def test_a_guard_that_is_killed(run: ProgramRun, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """The program goes with it, and its group; if it had not begun, it cannot be started."""
    killed: list[Any] = []
    monkeypatch.setattr(os, "killpg", lambda *what: killed.append(what))
    run._socket, guard = socket.socketpair()
    run._socket.setblocking(False)
    run._guard = Guard()  # type: ignore[assignment]
    guard.send(b"pid 42\n" * begun)
    guard.close()
    await run._follow()
    assert run._gone.is_set()
    if begun:
        await run.launched()
        assert (killed, run.returncode, run.failed) == ([(42, 9)], -9, True)
    else:
        with pytest.raises(ProgramError, match="its guard was killed"):
            await run.launched()
        assert (killed, run.returncode) == ([], None)


# -- the guard's command -----------------------------------------------------------------------------------------


async def test_the_guard_is_run_by_a_plain_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its file, or where there is none, as in a single-file build, from its source."""
    python, options, path = _guard_command()
    assert (python, options) == (sys.executable, "-IS")
    assert path.endswith("kernel/bricks/guard.py")
    loader = SimpleNamespace(get_source=lambda name: f"source of {name}")
    for origin in (None, "/nowhere.zip/guard.py"):
        spec = SimpleNamespace(origin=origin, loader=loader)
        monkeypatch.setattr(importlib.util, "find_spec", lambda _, spec=spec: spec)
        assert _guard_command() == [sys.executable, "-ISc", "source of kernel.bricks.guard"]
