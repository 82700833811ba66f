"""What becomes of a program's output, through a real pipe."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kernel.bricks import output as module
from kernel.bricks.output import RESERVED, Output

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The backend, in real time: pipes know no other."""
    return str(request.param)


class Clock:
    """A clock that stands still."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)


class Program:
    """The writing end, a clock, and whatever was heard."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.heard: list[str] = []
        read_fd, self.fd = os.pipe()
        self.log = logging.getLogger("program.tool")
        self.output = Output(read_fd, self.log, logging.INFO, self.heard.append)

    async def writes(self, text: bytes) -> None:
        """Write it at once, and let it be taken."""
        await self.output._take(text)

    async def ends(self, *last: bytes) -> None:
        """Write the last words, and read until the end."""
        for text in last:
            os.write(self.fd, text)
        os.close(self.fd)
        await self.output.read()
        assert self.output.ended.is_set()


@pytest.fixture
async def program(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Program]:
    """One that may write 20 lines at once, and 10 a second."""
    caplog.set_level(logging.DEBUG)
    for name, value in {"BURST": 20, "RATE": 10, "TAIL": 5}.items():
        monkeypatch.setattr(module, name, value)
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    one = Program(clock)
    yield one
    if not one.output.ended.is_set():
        os.close(one.fd)
        os.close(one.output._fd)


def lines(first: int, last: int) -> bytes:
    """Lines with numbers."""
    return b"".join(b"%d\n" % number for number in range(first, last + 1))


def numbers(first: int, last: int) -> list[str]:
    """The same, as messages."""
    return [str(number) for number in range(first, last + 1)]


async def test_a_burst_is_logged_and_a_flood_is_not(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """Of a flood, its last lines are, and how many are missing; they are heard, and kept for an error."""
    await program.writes(lines(1, 15))
    await program.writes(lines(16, 20))
    assert caplog.messages == numbers(1, 20)
    await program.writes(lines(21, 40))
    program.clock.now += 0.9  # nine lines were allowed, but a few in between help nobody
    await program.writes(lines(41, 45))
    assert caplog.messages == numbers(1, 20)
    assert program.heard == [*numbers(1, 20), *numbers(36, 45)]
    assert [text for _, text in program.output.tail] == numbers(41, 45)
    program.clock.now += 0.1
    caplog.clear()
    await program.writes(lines(46, 57))
    told = "20 lines are left out: the program writes more than 10 a second"
    assert caplog.messages == [told, *numbers(41, 45), *numbers(46, 55)]
    caplog.clear()
    await program.ends(b"last\n")
    assert caplog.messages == ["56", "57", "last"]  # nothing is missing, so nothing is said


async def test_after_a_while_all_is_allowed_again(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """As many as at first, and not more."""
    await program.writes(lines(1, 20))
    program.clock.now += 0.5
    await program.writes(lines(21, 25))
    program.clock.now += 1000
    await program.writes(lines(26, 46))
    assert caplog.messages == numbers(1, 45)


async def test_the_end_of_a_flood_is_told_although_nothing_comes(
    program: Program, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second later, while the program goes on in silence."""
    monkeypatch.setattr(module, "QUIET", 0.01)
    await program.writes(lines(1, 40))
    caplog.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.output.read)
        with anyio.fail_after(20):
            while len(caplog.messages) < 6:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        assert not program.output.ended.is_set()
        os.close(program.fd)
    assert caplog.messages == ["15 lines are left out: the program writes more than 10 a second", *numbers(36, 40)]


async def test_others_have_their_turn(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much comes at once."""
    monkeypatch.setattr(module, "STEP", 2)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await program.writes(lines(1, 20))
        tasks.cancel_scope.cancel()
    assert turns >= 9


async def test_a_stop_does_not_silence_it(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """What it says until its end is read; then nothing of it is open."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await program.ends(b"goodbye\n")
    assert caplog.messages == ["goodbye"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(program.output._fd)


async def test_lines_that_come_in_pieces(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """They are whole, the last one too."""
    await program.writes(b"on")
    await program.writes(b"e\ntwo\nth")
    await program.writes(b"ree")
    await program.ends(b"\n\nend")
    assert caplog.messages == ["one", "two", "three", "end"]
    assert program.heard == caplog.messages


@pytest.mark.parametrize("size", [1, 3, 1000, 10_000])
@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("x" * 20, ["x" * 10, "x" * 10]),
        ("x" * 21, ["x" * 10, "x" * 10, "x"]),
        ("x" * 9 + "é" + "x" * 9, ["x" * 9, "é" + "x" * 8, "x"]),
        ("x" * 9 + "À", ["x" * 9, "À"]),  # it ends with the least byte that begins no character
        ("x" * 7 + "🌍🌍🌍", ["x" * 7, "🌍🌍", "🌍"]),
        (b"\xbf" * 15, ["\ufffd" * 10, "\ufffd" * 5]),  # no text
    ],
)
async def test_a_line_that_is_too_long(
    program: Program, monkeypatch: pytest.MonkeyPatch, text: str | bytes, pieces: list[str], size: int
) -> None:
    """It is cut between characters, and into the same pieces however it arrives."""
    monkeypatch.setattr(module, "LONGEST", 10)
    line = text if isinstance(text, bytes) else text.encode()
    data = b"one\n" + line + b"\n" + line
    for start in range(0, len(data), size):
        await program.writes(data[start : start + size])
    await program.ends()
    assert program.heard == ["one", *pieces, *pieces]


@pytest.mark.parametrize(
    ("line", "head", "fields"),
    [
        ("text", ("INFO", "text"), {}),
        ('{"a": 1', ("INFO", '{"a": 1'), {}),
        ('a": 1}', ("INFO", 'a": 1}'), {}),
        ("{}", ("INFO", "{}"), {}),
        ("{a}", ("INFO", "{a}"), {}),
        ({"level": "error", "msg": "lost", "n": 1}, ("ERROR", "lost"), {"n": 1}),
        ({"severity": "WARN", "message": "m", "msg": "n"}, ("WARNING", "m"), {"msg_": "n"}),
        ({"lvl": 60, "event": "e"}, ("CRITICAL", "e"), {}),
        ({"level": "odd", "severity": "debug", "message": "m"}, ("DEBUG", "m"), {"level": "odd"}),
        ({"level": "odd", "message": 5}, ("INFO", "5"), {"level": "odd"}),
        ({"message": "m", "name": "n", "service": "s"}, ("INFO", "m"), {"name_": "n", "service_": "s"}),
    ],
)
async def test_a_line_is_a_record(
    program: Program, caplog: pytest.LogCaptureFixture, line: Any, head: tuple[str, str], fields: dict[str, Any]
) -> None:
    """Of JSON its fields are, without those that make up the level and the message."""
    text = line if isinstance(line, str) else json.dumps(line)
    await program.ends(text.encode())
    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == ("program.tool", *head)
    assert {name: value for name, value in vars(record).items() if name not in RESERVED} == fields
    assert program.heard == [text]


async def test_a_level_that_is_not_wanted(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    """Its lines are no records, but may be what somebody waits for."""
    caplog.set_level(logging.WARNING, "program.tool")
    await program.ends(b"text\n\n" + json.dumps({"level": "warn", "msg": "lost"}).encode())
    assert caplog.messages == ["lost"]
    assert program.heard[0] == "text"
    assert len(program.heard) == 2
