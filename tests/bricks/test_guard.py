"""The guard of a program, as a process of its own: what it tells the kernel, and what it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kernel.bricks import guard

ENOUGH = 20.0  # seconds within which all that is waited for comes, also on a loaded machine
LONG = 60.0  # seconds that no test has

WITHOUT = """
import os, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import guard
guard._find_prctl = lambda: lambda *_: -1
def nothing(_): raise OSError
os.listdir = nothing
guard.main(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5:])
"""
"""A system that has no prctl and no /proc."""


class Guarded:
    """A guard with a program, and the kernel's end of its socket."""

    def __init__(self, *command: str, seconds: float = LONG, user: str = "", without: bool = False) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(ENOUGH)
        words = ["-c", WITHOUT, guard.__file__] if without else [guard.__file__]
        self.process = subprocess.Popen(
            [sys.executable, *words, str(int(signal.SIGTERM)), str(seconds), user, *command],
            stdin=theirs.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        theirs.close()
        self._lines = self.socket.makefile()
        self.begun = self._lines.readline().split()

    @property
    def pid(self) -> int:
        """The program's."""
        assert self.begun[0] == "pid", self.begun
        return int(self.begun[1])

    def say(self, words: str) -> None:
        """Tell the guard in how many seconds to end it."""
        self.socket.sendall(words.encode())

    def line(self) -> str:
        """What the program writes next."""
        assert self.process.stdout is not None
        return str(self.process.stdout.readline(), "utf-8").strip()

    def rest(self) -> list[str]:
        """What the guard tells until it has ended."""
        told = [line.strip() for line in self._lines]
        assert self.process.wait(ENOUGH) == 0
        return told

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.say("0\n")
            try:
                self.process.wait(ENOUGH)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._lines.close()
        self.socket.close()
        assert self.process.stdout is not None
        self.process.stdout.close()


Guards = Callable[..., Guarded]


@pytest.fixture
def guarded() -> Iterator[Guards]:
    """Starts guards."""
    with contextlib.ExitStack() as stack:

        def start(*command: str, **options: Any) -> Guarded:
            return stack.enter_context(contextlib.closing(Guarded(*command, **options)))

        yield start


def is_there(pid: int) -> bool:
    """Whether it runs, and is not what is left of one that has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_program_that_ends_by_itself(guarded: Guards) -> None:
    """Its pid, which is that of its session, and its exit code."""
    one = guarded("sh", "-c", "echo $$ $(cut -d' ' -f6 /proc/$$/stat); exit 5")
    assert one.line() == f"{one.pid} {one.pid}"
    assert one.rest() == ["exit 5"]


def test_what_cannot_be_started(guarded: Guards) -> None:
    """The number of the error, and nothing else."""
    one = guarded("no-such-program-here")
    assert one.begun == ["failed", "2"]
    assert one.rest() == []


def test_what_a_program_gets(guarded: Guards) -> None:
    """No input, none of the signals ignored that Python ignores, none blocked, and no descriptor but the three."""
    one = guarded("sh", "-c", "readlink /proc/self/fd/0; grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/$$/fd")
    assert one.line() == os.devnull
    blocked, ignored = (int(one.line().split()[1], 16) for _ in range(2))
    assert blocked == 0
    assert ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0
    assert [one.line() for _ in range(3)] == ["0", "1", "2"]
    assert one.rest() == ["exit 0"]
    assert one.line() == ""


def test_its_output_ends_with_the_program(guarded: Guards) -> None:
    """The guard, which goes on, has it open no more: the kernel sees the end."""
    one = guarded("sh", "-c", "exec >/dev/null 2>&1; exec sleep 60")
    assert one.line() == ""
    assert is_there(one.pid)


# A child that a shell forks after its `trap` may take a signal with the shell's handler just before it is `sleep`.
TRAPS = "sleep 99 & trap 'echo asked; exit 7' TERM; echo up; wait"
DEAF = "trap '' TERM; echo up; exec sleep 99"
LEAVES = "setsid sleep 99 & echo $!; exit 3"
LEAVES_DEAF = "trap '' TERM; setsid sleep 99 & echo $!; exit 3"
FAMILY = "trap '' TERM; setsid sh -c 'setsid sleep 99 & echo $! $$; exec sleep 99' & exec sleep 99"


@pytest.mark.parametrize("by", ["kernel", "its death", "SIGTERM", "SIGINT"])
def test_a_program_that_is_asked_to_end(guarded: Guards, by: str) -> None:
    """Once, by the signal of its choice; when the kernel dies, and when somebody ends the guard, too."""
    one = guarded("sh", "-c", TRAPS)
    assert one.line() == "up"
    if by == "kernel":
        one.say("60\n")
    elif by == "its death":
        one.socket.shutdown(socket.SHUT_WR)
    else:
        one.process.send_signal(getattr(signal, by))
    assert one.rest() == ["exit 7"]
    assert one.line() == "asked"
    assert one.line() == ""


@pytest.mark.parametrize("by", ["kernel", "its death", "SIGTERM"])
def test_a_program_that_does_not_listen(guarded: Guards, by: str) -> None:
    """It is killed when its time is over, which the guard tells once."""
    one = guarded("sh", "-c", DEAF, seconds=LONG if by == "kernel" else 0.05)
    assert one.line() == "up"
    if by == "kernel":
        one.say("0.05\n")
    elif by == "its death":
        one.socket.shutdown(socket.SHUT_WR)
    else:
        one.process.send_signal(signal.SIGTERM)
    assert one.rest() == ["killed", "exit -9"]


@pytest.mark.parametrize("words", [["60\n", "0.05\n"], ["0.05\n", "60\n"], ["60\n0.05\n"], ["0.05\n60\n"]])
def test_the_earliest_time_counts(guarded: Guards, words: list[str]) -> None:
    """Whether it is told first or last, in one message or in two."""
    one = guarded("sh", "-c", DEAF)
    assert one.line() == "up"
    for word in words:
        one.say(word)
    assert one.rest() == ["killed", "exit -9"]


def test_a_second_request_is_heard(guarded: Guards) -> None:
    """As when the whole service is cancelled while its program ends; the program is asked only once."""
    one = guarded("sh", "-c", "trap 'echo asked' TERM; echo up; while :; do sleep 99 & wait; done")
    assert one.line() == "up"
    one.say("60\n")
    assert one.line() == "asked"
    one.say("0.05\n")
    assert one.rest() == ["killed", "exit -9"]
    assert one.line() == ""


def test_what_a_program_leaves_behind_is_asked_too(guarded: Guards) -> None:
    """The guard ends when all of it has, and tells the exit code before."""
    one = guarded("sh", "-c", LEAVES)
    left = int(one.line())
    assert one.rest() == ["exit 3"]
    assert not is_there(left)


def test_what_is_left_behind_and_does_not_listen(guarded: Guards) -> None:
    """It is killed, in whatever session."""
    one = guarded("sh", "-c", LEAVES_DEAF, seconds=0.2)
    left = int(one.line())
    assert one.rest() == ["exit 3", "killed"]
    assert not is_there(left)


def test_children_of_a_program_that_is_killed(guarded: Guards) -> None:
    """They go with it, and theirs too."""
    one = guarded("sh", "-c", FAMILY)
    pids = [int(word) for word in one.line().split()]
    assert len(pids) == 2
    assert all(map(is_there, pids))
    one.say("0.05\n")
    assert one.rest() == ["killed", "exit -9"]
    assert not any(map(is_there, pids))


def test_a_system_that_lists_no_processes(guarded: Guards) -> None:
    """What is known there is the group of the program: it is asked, and waited for."""
    one = guarded("sh", "-c", "sleep 99 & echo $!; exit 3", without=True)
    left = int(one.line())
    assert one.rest() == ["exit 3"]
    assert not is_there(left)
    deaf = guarded("sh", "-c", DEAF, without=True, seconds=0.05)
    assert deaf.line() == "up"
    deaf.say("0.05\n")
    assert deaf.rest() == ["killed", "exit -9"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_user_of_a_program(guarded: Guards) -> None:
    """It has his ids, and none of root's groups."""
    nobody = pwd.getpwnam("nobody")
    one = guarded("sh", "-c", "id -u; id -g; id -G", user=f"{nobody.pw_uid}:{nobody.pw_gid}:nobody")
    assert [one.line() for _ in range(3)] == [f"{nobody.pw_uid}", f"{nobody.pw_gid}", f"{nobody.pw_gid}"]


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_a_system_without_prctl(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """Everything works there, but for what only that can do."""

    def fails(_: None) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fails)
    assert guard._find_prctl()(guard.SET_SUBREAPER, 1, 0, 0, 0) == -1
