"""The block around a program, and what its user has in hand, without a program."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from kernel.bricks import program as module
from kernel.bricks.program import Program, program
from kernel.errors import ProgramError

pytestmark = pytest.mark.anyio


class Run:
    """A run that does nothing but to say what it was asked for."""

    def __init__(self, name: str, words: list[str]) -> None:
        self.name = name
        self.command = tuple(words)
        self.pid = 42
        self.returncode: int | None = None
        self.lines = ("last",)
        self.block = anyio.CancelScope()
        self.exited = anyio.Event()
        self.failed = False
        self.is_ready = False
        self.waiting = 0
        self.blamed = False
        self.read = False
        self.said: list[Any] = []
        runs.append(self)

    def launch(self, *given: Any) -> None:
        self.said.append(given)

    def tasks(self) -> list[Callable[[], Any]]:
        return [self.task]

    async def task(self) -> None:
        self.read = True

    async def launched(self) -> None:
        self.said.append("launched")

    async def is_to_blame(self) -> bool:
        return self.blamed

    async def end(self) -> None:
        self.said.append("end")

    async def last_words(self) -> None:
        self.said.append("last words")

    def error(self) -> ProgramError:
        return ProgramError(self.name, "has failed")

    def listen(self, pattern: str) -> Any:
        return f"listens for {pattern}"

    def exits(self, code: int) -> None:
        """Let it end."""
        self.returncode = code
        self.exited.set()


runs: list[Run] = []


@pytest.fixture(autouse=True)
def _without_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program is started."""
    runs.clear()
    monkeypatch.setattr(module, "ProgramRun", Run)


async def test_the_block_begins_when_it_is_ready() -> None:
    """And it ends with the block; whoever tells that it is ready may have something to do before it begins."""
    said: list[Any] = []

    class Ready:
        async def before(self, handle: Program) -> None:
            said.append(("before", handle.name, [*runs[0].said]))

        async def __call__(self, handle: Program) -> None:
            said.append(("ready", handle.name, runs[0].is_ready))

    async with program("/usr/bin/db", "-q", ready=Ready(), env={"A": "1"}, cwd="/", user="me", stdout=10) as handle:
        (run,) = runs
        assert run.is_ready
        assert said == [("before", "db", []), ("ready", "db", False)]
        assert run.command == ("/usr/bin/db", "-q")
        stop = (signal.SIGTERM, 5.0)
        assert run.said == [({"A": "1"}, "/", "me", stop, (10, logging.WARNING)), "launched"]
    assert run.said[-1] == "end"
    assert run.read
    assert handle.name == "db"
    async with program("db", name="other") as handle:
        assert handle.name == "other"
        assert runs[-1].is_ready


async def test_an_end_of_the_program_ends_the_block() -> None:
    """Its error comes without the cancellation."""

    async def fail() -> None:
        runs[0].failed = True
        runs[0].block.cancel()
        await anyio.sleep_forever()

    with pytest.raises(ProgramError, match="has failed") as caught:
        async with program("db"):
            await fail()
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("blamed", [True, False])
async def test_an_error_of_the_block(blamed: bool) -> None:
    """It is the block's own, unless the end of the program explains it."""
    error = ConnectionResetError()

    def fail() -> None:
        runs[0].blamed = blamed
        raise error

    with pytest.raises(ProgramError if blamed else ConnectionResetError) as caught:
        async with program("db"):
            fail()
    assert (caught.value.__cause__ if blamed else caught.value) is error
    assert runs[0].said[-1] == "end"


async def test_what_its_user_sees() -> None:
    """What the run knows."""
    async with program("db", "-q") as handle:
        assert (handle.name, handle.command, handle.pid) == ("db", ("db", "-q"), 42)
        assert (handle.returncode, handle.lines) == (None, ("last",))
        found: Any = handle.line_found("up")
        assert found == "listens for up"
        runs[0].returncode = 3
        assert handle.returncode == 3


@pytest.mark.parametrize("code", [0, 7])
async def test_an_end_that_is_awaited(code: int) -> None:
    """While somebody waits, the end is no failure; who is cancelled waits no more."""
    async with program("db") as handle:
        (run,) = runs
        with anyio.move_on_after(1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(handle.wait)
                await anyio.sleep(0.5)
                assert run.waiting == 1
                await handle.wait()
        assert run.waiting == 0
        run.exits(code)
        assert await handle.wait() == code
        assert "last words" not in run.said
        if code:
            with pytest.raises(ProgramError):
                await handle.wait(check=True)
            assert run.said[-1] == "last words"
        else:
            assert await handle.wait(check=True) == 0
        assert run.waiting == 0
