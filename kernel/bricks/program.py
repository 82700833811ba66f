"""`program`: run an external program as a resource of a service.

A small process, the `guard`, runs between the kernel and the program. It ends the program and all its descendants,
even if the kernel is killed, and tells the kernel when the program has ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from anyio import Event, create_task_group

from kernel.bricks.program_run import ProgramRun
from kernel.bricks.unwrap import unwrapped


@contextlib.asynccontextmanager
async def program(
    *command: str | os.PathLike[str],
    ready: Callable[[Program], Any] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    user: str | None = None,
    stop_signal: int = signal.SIGTERM,
    stop_timeout: float = 5.0,
    stdout: int = logging.INFO,
    stderr: int = logging.WARNING,
    name: str = "",
) -> AsyncGenerator[Program]:
    """Run an external program around a block, as a resource of a service.

    The block begins when the program is ready. When the block ends, the program's process group gets *stop_signal*, and
    after *stop_timeout* all its descendants are killed. This holds in every case, even if the kernel itself is killed.
    Ctrl+C in a terminal does not reach the program. Its output becomes log records of the service; a line that is a
    JSON object sets level, message and fields. If it writes too fast, lines are dropped, but never the last ones.

    Args:
        command: The program, which is looked up on PATH, and its arguments. No shell is used.
        ready: How to tell that it is ready: ``tcp(port)``, ``http(url)``, ``output(pattern)``, or a coroutine function
            that takes the `Program`; None for at once. The service's ``start_timeout`` is the limit.
        env: Variables in addition to the app's own environment.
        cwd: Its working directory; None for the app's.
        user: The user to run it as, with this user's groups, HOME and USER; None for the app's user. Only root can use
            another: some programs, such as PostgreSQL, refuse to run as root.
        stop_signal: The signal that requests it to end.
        stop_timeout: Seconds from that signal until it is killed; fewer if the service has less time.
        stdout: The log level of its stdout.
        stderr: The log level of its stderr.
        name: Its name in logs and errors; empty for the name of the command.

    Raises:
        ProgramError: It is not found, cannot be started, or ends before the block does. In the last case the block is
            cancelled, and the error has the exit code and the last lines. No error if `Program.wait` waits for the end.

    If cancelled, send *stop_signal* to the program, and kill it 0.2 s later.

    """
    words = [os.fspath(word) for word in command]
    run = ProgramRun(name or os.path.basename(words[0]), words)  # noqa: PTH119  (the word need not be a path)
    handle = Program(run)
    before = getattr(ready, "before", None)
    if before is not None:
        await before(handle)
    with unwrapped():
        async with create_task_group() as tasks:
            run.launch(env, cwd, user, (stop_signal, stop_timeout), (stdout, stderr))
            for task in run.tasks():
                tasks.start_soon(task)
            try:
                with run.block:
                    await run.launched()
                    if ready is not None:
                        await ready(handle)
                    run.is_ready = True
                    yield handle
            except Exception as error:
                if await run.is_to_blame():  # noqa: ASYNC120  (at most 0.1 s)
                    raise run.error() from error
                raise
            finally:
                await run.end()  # noqa: ASYNC102  (it shields itself)
    if run.failed:
        raise run.error() from None  # not the cancellation by which the block ended


class Program:
    """A running program; created by `program`."""

    def __init__(self, _run: ProgramRun) -> None:
        self._run = _run

    @property
    def name(self) -> str:
        """Its name in logs and errors."""
        return self._run.name

    @property
    def command(self) -> tuple[str, ...]:
        """The program and its arguments."""
        return self._run.command

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its process group."""
        return self._run.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the negative number of the signal that killed it; None while it runs."""
        return self._run.returncode

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines of its stdout and stderr."""
        return self._run.lines

    async def wait(self, *, check: bool = False) -> int:
        """Wait until it ends, and return its exit code; for programs that should end. The wait may be cancelled.

        Args:
            check: Whether an exit code other than 0 is an error.

        Raises:
            ProgramError: The program has failed, and *check* is set. The error has the exit code and the last lines.

        """
        self._run.waiting += 1
        try:
            await self._run.exited.wait()
        finally:
            self._run.waiting -= 1
        assert self._run.returncode is not None
        if check and self._run.returncode:
            await self._run.last_words()
            raise self._run.error()
        return self._run.returncode

    def line_found(self, pattern: str | re.Pattern[str]) -> Event:
        """Return an event that is set when a new line of output matches the regular expression *pattern* anywhere."""
        return self._run.listen(pattern)
