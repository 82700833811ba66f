"""One run of an external program, from its launch by the `guard` to its end."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anyio import CancelScope, Event, move_on_after, sleep, wait_readable
from anyio.lowlevel import checkpoint

from kernel.bricks.output import TAIL, Output
from kernel.context import current_service
from kernel.errors import ProgramError, add_note
from kernel.process.programs import running

CUT = 0.2  # seconds for a program to end when its whole service is cancelled
BLAME = 0.1  # seconds within which the end of a program explains an error in the block
LAST_WORDS = 1.0  # seconds to read remaining output after the program and its descendants have ended
NOT_ITS_OWN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class ProgramRun:
    """The implementation behind `program` and `Program`.

    Args:
        name: Its name in logs and errors.
        command: The program and its arguments.

    """

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.command = tuple(command)
        self.pid = 0
        self.returncode: int | None = None
        self.block = CancelScope()
        self.exited = Event()
        self.failed = False
        self.is_ready = False
        self.waiting = 0  # how many wait for its end; if any, the end is not a failure
        self._log = logging.getLogger(f"program.{name}")
        self._service = current_service.get()
        self._began = time.monotonic()
        self._took = 0.0
        self._why = ""
        self._as = ""
        self._ending = False
        self._known, self._gone = Event(), Event()
        self._listeners: list[tuple[re.Pattern[str], Event]] = []
        self._outputs: tuple[Output, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines of its stdout and stderr."""
        every = sorted(line for output in self._outputs for line in output.tail)
        return tuple(text for _, text in every[-TAIL:])

    def listen(self, pattern: str | re.Pattern[str]) -> Event:
        """Return an event that is set when a new line matches *pattern*."""
        found = Event()
        self._listeners.append((re.compile(pattern), found))
        return found

    def launch(
        self,
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        user: str | None,
        stop: tuple[int, float],
        levels: tuple[int, int],
    ) -> None:
        """Start the guard, which starts the program."""
        self._as = f" as the user {user}" if user else ""
        ids, home = self._identity(user)
        self._stop_timeout = stop[1]
        self._socket, theirs = socket.socketpair()
        pipes = [os.pipe() for _ in levels]
        environment = {name: value for name, value in os.environ.items() if name not in NOT_ITS_OWN}
        environment |= home | dict(env or {})
        command = [*_guard_command(), str(int(stop[0])), str(stop[1]), ids, *self.command]
        try:
            self._guard = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=pipes[0][1],
                stderr=pipes[1][1],
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._socket.close()
            for pipe in pipes:
                os.close(pipe[0])
            raise ProgramError(self.name, f"cannot be started: {error}") from error
        finally:
            theirs.close()
            for pipe in pipes:
                os.close(pipe[1])
        self._socket.setblocking(False)  # noqa: FBT003
        self._outputs = tuple(
            Output(pipe[0], self._log, level, self._hear) for pipe, level in zip(pipes, levels, strict=True)
        )

    def tasks(self) -> list[Callable[[], Any]]:
        """Return the tasks to run beside the block. They are not cancelled, but end when the guard does."""
        return [self._follow, *(output.read for output in self._outputs)]

    async def launched(self) -> None:
        """Wait until it is running.

        Raises:
            ProgramError: It cannot be started.

        """
        await self._known.wait()
        if self._why:
            raise ProgramError(self.name, self._why)

    async def is_to_blame(self) -> bool:
        """Return whether its end explains an error in the block, which may be noticed first."""
        if self.pid:
            with move_on_after(BLAME):
                await self.exited.wait()
        return self.failed

    async def end(self) -> None:
        """End it, and wait for its end. If cancelled, end it at once."""
        self._ending = True
        self._tell(self._stop_timeout)
        try:
            await self._gone.wait()
        finally:
            with CancelScope(shield=True):
                self._tell(CUT)
                await self._gone.wait()
                await self.last_words()
                for output in self._outputs:
                    output.scope.cancel()

    async def last_words(self) -> None:
        """Wait until all its output was read, for at most 1 s, since other processes may have its streams open."""
        with move_on_after(LAST_WORDS):
            for output in self._outputs:
                await output.ended.wait()

    def error(self) -> ProgramError:
        """Return the error for an unexpected end."""
        code = self.returncode
        assert code is not None
        what = f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with code {code}"
        when = f" after {self._took:.3g} s" + ("" if self.is_ready else ", before it was ready")
        lines = self.lines
        error = ProgramError(self.name, what + when, code, lines)
        if lines:
            add_note(error, f"the last lines of {self.name}:\n" + "\n".join(f"    {line}" for line in lines))
        return error

    def _identity(self, user: str | None) -> tuple[str, dict[str, str]]:
        """Return *user* for the guard, and the variables that name the user; nothing for None or the current user."""
        if user is None:
            return "", {}
        import pwd

        try:
            found = pwd.getpwnam(user)
        except KeyError:
            raise ProgramError(self.name, f"cannot be started: there is no user {user}") from None
        if found.pw_uid == os.geteuid():
            return "", {}
        if os.geteuid():
            mine = f"this process is not root, but has the user id {os.geteuid()}"
            raise ProgramError(self.name, f"cannot be started{self._as}: {mine}")
        variables = {"HOME": found.pw_dir, "LOGNAME": user, "USER": user, "SHELL": found.pw_shell}
        return f"{found.pw_uid}:{found.pw_gid}:{user}", variables

    def _tell(self, seconds: float) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(f"{seconds}\n".encode())

    def _hear(self, text: str) -> None:
        for listener in self._listeners.copy():
            if listener[0].search(text):
                listener[1].set()
                self._listeners.remove(listener)

    async def _follow(self) -> None:
        """Read the guard's messages until it has ended."""
        with CancelScope(shield=True), self._socket:
            rest = b""
            while True:
                await wait_readable(self._socket)
                try:
                    data = self._socket.recv(1024)
                except BlockingIOError:
                    continue
                except OSError:
                    break
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._told(*line.decode().split())
                    for _ in range(2):  # let the block run first, which may be about to wait for the end
                        await checkpoint()
            while self._guard.poll() is None:  # noqa: ASYNC110  (it is about to end)
                await sleep(0.001)
            if not self.exited.is_set():
                if not self.pid:
                    self._why = self._why or "cannot be started: its guard was killed"
                else:  # the guard was killed, and with it the program, but perhaps not its descendants
                    with contextlib.suppress(OSError):
                        os.killpg(self.pid, signal.SIGKILL)
                    self.returncode = -signal.SIGKILL
                    self._has_ended()
            self._known.set()
            self._gone.set()

    def _told(self, word: str, number: str = "0") -> None:
        if word == "pid":
            self.pid = int(number)
            running[self.pid] = (self._service, self.name)
            self._known.set()
        elif word == "failed":
            self._why = f"cannot be started{self._as}: {_reason(int(number), self.command[0])}"
        elif word == "exit":
            self.returncode = int(number)
            self._has_ended()
        elif word == "killed" and self.returncode is None:
            self._log.warning("did not end in time, and is killed")

    def _has_ended(self) -> None:
        running.pop(self.pid, None)
        self._took = time.monotonic() - self._began
        self.exited.set()
        if not self._ending and not self.waiting:
            self.failed = True
            self.block.cancel()


def _reason(number: int, word: str) -> str:
    """Return why the system does not start a program."""
    if number == errno.ENOENT:
        return "there is no such file" if "/" in word else "it is not installed, or not on PATH"
    return os.strerror(number).lower()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _guard_command() -> list[str]:
    """Return the command for the guard: this interpreter without site packages; in a single-file build, its source."""
    from importlib.util import find_spec

    spec = find_spec("kernel.bricks.guard")
    assert spec is not None
    if spec.origin is not None and os.path.isfile(spec.origin):  # noqa: PTH113
        return [sys.executable, "-IS", spec.origin]
    loader: Any = spec.loader
    return [sys.executable, "-ISc", loader.get_source("kernel.bricks.guard")]
