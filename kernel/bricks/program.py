"""`program`: run an external program as a resource of a service.

Between the kernel and the program runs a small process, the `guard`: it ends the program and all its descendants,
even when the kernel is killed, and tells the kernel when the program has ended.
"""

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
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from anyio import CancelScope, Event, create_task_group, move_on_after, sleep, wait_readable

from kernel.bricks.output import TAIL, Output
from kernel.bricks.unwrap import unwrapped
from kernel.context import current_service
from kernel.errors import ProgramError, add_note
from kernel.process.programs import running

CUT = 0.2  # seconds that a program gets to end when its service is cancelled as a whole
BLAME = 0.1  # seconds within which the end of a program explains an error of who uses it
LAST_WORDS = 1.0  # seconds that its output may go on after the end of all that came of it
NOT_ITS_OWN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def program(
    *command: str | os.PathLike[str],
    ready: Callable[[Program], Any] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stop_signal: int = signal.SIGTERM,
    stop_timeout: float = 5.0,
    stdout: int = logging.INFO,
    stderr: int = logging.WARNING,
    name: str = "",
) -> AsyncGenerator[Program]:
    """Run an external program around a block, as a resource of a service.

    The block begins when the program is ready. When the block ends, the program's process group gets *stop_signal*, and
    after *stop_timeout* all its descendants are killed. This holds on every path, even if the kernel itself is killed.
    A terminal's Ctrl+C does not reach it. What it writes becomes log records of the service; a line that is a JSON
    object gives level, message and fields. If it writes too fast, lines are left out, but never the last ones.

    Args:
        command: The program, which is looked up on PATH, and its arguments. No shell is used.
        ready: When it is ready: ``tcp(port)``, ``http(url)``, ``output(pattern)``, or a coroutine function that takes
            the `Program`; None for at once. The service's ``start_timeout`` is the limit.
        env: Variables in addition to the app's own environment.
        cwd: The folder to run it in; None for the app's own.
        stop_signal: The signal that requests its end.
        stop_timeout: Seconds from that signal until it is killed; fewer if the service has fewer.
        stdout: The level of what it writes to stdout.
        stderr: The level of what it writes to stderr.
        name: Its name in logs and errors; empty takes the command's.

    Raises:
        ProgramError: It is not found, cannot be started, or ends before the block does: the block is then cancelled,
            and the error has the exit code and the last lines. An end that `Program.wait` awaits is not an error.

    If cancelled, it sends *stop_signal* to the program, and kills it 0.2 s later.

    """
    words = [os.fspath(word) for word in command]
    run = Program(name or os.path.basename(words[0]), words)  # noqa: PTH119  (a word, and maybe no path)
    before = getattr(ready, "before", None)
    if before is not None:
        await before(run)
    with unwrapped():
        async with create_task_group() as tasks:
            run.launch(env, cwd, (stop_signal, stop_timeout), (stdout, stderr))
            for task in run.tasks():
                tasks.start_soon(task)
            try:
                with run.block:
                    await run.launched()
                    if ready is not None:
                        await ready(run)
                    run.is_ready = True
                    yield run
            except Exception as error:
                if await run.is_to_blame():  # noqa: ASYNC120  (0.1 s at most)
                    raise run.error() from error
                raise
            finally:
                await run.end()  # noqa: ASYNC102  (it shields itself)
    if run.failed:
        raise run.error()


class Program:
    """A running program; made by `program`.

    Attributes:
        name: Its name in logs and errors.
        command: The program and its arguments.
        pid: Its process id, which is also the id of its process group.
        returncode: Its exit code, or the negative number of the signal that killed it; None while it runs.

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
        self._log = logging.getLogger(f"program.{name}")
        self._service = current_service.get()
        self._began = time.monotonic()
        self._took = 0.0
        self._why = ""
        self._ending = False
        self._waiting = 0
        self._known, self._gone = Event(), Event()
        self._listeners: list[tuple[re.Pattern[str], Event]] = []
        self._outputs: tuple[Output, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines that it wrote to stdout and stderr."""
        every = sorted(line for output in self._outputs for line in output.tail)
        return tuple(text for _, text in every[-TAIL:])

    async def wait(self) -> int:
        """Wait for its end, and return its exit code; for programs that should end. The wait may be cancelled."""
        self._waiting += 1
        try:
            await self.exited.wait()
        finally:
            self._waiting -= 1
        assert self.returncode is not None
        return self.returncode

    def line_found(self, pattern: str | re.Pattern[str]) -> Event:
        """Return an event that is set when a new line of output matches the regular expression *pattern* anywhere."""
        found = Event()
        self._listeners.append((re.compile(pattern), found))
        return found

    # -- for `program` only --------------------------------------------------------------------------------------

    def launch(
        self,
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        stop: tuple[int, float],
        levels: tuple[int, int],
    ) -> None:
        """Start the guard, which starts the program."""
        self._stop_timeout = stop[1]
        self._socket, theirs = socket.socketpair()
        pipes = [os.pipe() for _ in levels]
        environment = {name: value for name, value in os.environ.items() if name not in NOT_ITS_OWN} | dict(env or {})
        command = [*_guard_command(), str(int(stop[0])), str(stop[1]), *self.command]
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
        """Run the tasks beside the block. They are not cancelled, but end when the guard does."""
        return [self._follow, *(output.read for output in self._outputs)]

    async def launched(self) -> None:
        """Wait until it runs.

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
        """End it, and wait for that; if cancelled, end it at once."""
        self._ending = True
        self._tell(self._stop_timeout)
        try:
            await self._gone.wait()
        finally:
            with CancelScope(shield=True):
                self._tell(CUT)
                await self._gone.wait()
                with move_on_after(LAST_WORDS):
                    for output in self._outputs:
                        await output.ended.wait()
                for output in self._outputs:
                    output.scope.cancel()

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
            while self._guard.poll() is None:  # noqa: ASYNC110  (it is about to end)
                await sleep(0.001)
            if not self.exited.is_set():
                if not self.pid:
                    self._why = self._why or "cannot be started: its guard was killed"
                else:  # the guard was killed; with it went the program, but maybe not what came of it
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
            self._why = _reason(int(number), self.command[0])
        elif word == "exit":
            self.returncode = int(number)
            self._has_ended()
        elif word == "killed" and self.returncode is None:
            self._log.warning("has not ended in time, and is killed")

    def _has_ended(self) -> None:
        running.pop(self.pid, None)
        self._took = time.monotonic() - self._began
        self.exited.set()
        if not self._ending and not self._waiting:
            self.failed = True
            self.block.cancel()


def _reason(number: int, word: str) -> str:
    """Return why the system does not start a program."""
    if number == errno.ENOENT:
        where = "there is no such file" if "/" in word else "it is not installed, or not on PATH"
        return f"cannot be started: {where}"
    return f"cannot be started: {os.strerror(number).lower()}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _guard_command() -> list[str]:
    """Return the command for the guard: this interpreter without its site; in a single-file build, from its source."""
    from importlib.util import find_spec

    spec = find_spec("kernel.bricks.guard")
    assert spec is not None
    if spec.origin is not None and os.path.isfile(spec.origin):  # noqa: PTH113
        return [sys.executable, "-IS", spec.origin]
    loader: Any = spec.loader
    return [sys.executable, "-ISc", loader.get_source("kernel.bricks.guard")]
