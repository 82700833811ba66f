"""Commands that run without services."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kernel.config.settings import Settings
from kernel.run.standalone import run_alone

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HANDLERS = tuple(lambda *_: None for _ in SIGNALS)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Handlers that the command's must give way to again."""
    before = [signal.signal(number, handler) for number, handler in zip(SIGNALS, HANDLERS, strict=True)]
    yield
    after = tuple(signal.getsignal(number) for number in SIGNALS)
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    assert after == HANDLERS


def _raises(error: BaseException) -> Callable[[], Any]:
    def call() -> None:
        raise error

    async def later() -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    return later if isinstance(error, LookupError) else call


def _exits_later() -> Any:
    async def call() -> None:
        raise SystemExit(4)

    return call()


async def _returns(value: object) -> object:
    await anyio.lowlevel.checkpoint()
    return value


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("call", "code", "told"),
    [
        (lambda: None, 0, ""),
        (lambda: 7, 7, ""),
        (lambda: _returns(7), 7, ""),
        (lambda: _returns(None), 0, ""),
        (_raises(SystemExit(3)), 3, ""),
        (_raises(SystemExit("no disk")), 1, "no disk\n"),
        (_exits_later, 4, ""),
        (_raises(KeyboardInterrupt()), 130, "stopped by SIGINT\n"),
    ],
    ids=["returns", "a number", "later", "nothing later", "exits", "with a text", "exits later", "interrupted"],
)
def test_how_a_command_ends(
    call: Callable[[], Any], code: int, told: str, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it returns, or what it exits with, is the exit code; on stderr is only what was said."""
    assert run_alone(call, Settings(backend=backend)) == code
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize("error", [OSError("no disk"), KeyError("disk"), GeneratorExit()], ids=["now", "later", "odd"])
def test_a_command_that_fails(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """The exit code is 1, and the error is logged with its traceback."""
    assert run_alone(_raises(error), Settings()) == 1
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(f"exit 1: {type(error).__name__}")
    assert record.exc_info
    assert record.exc_info[1] is error


def test_a_library_that_needs_asyncio(caplog: pytest.LogCaptureFixture) -> None:
    """The log says so where trio runs."""
    for backend in ("asyncio", "trio"):
        run_alone(_raises(RuntimeError("no running event loop")), Settings(backend=backend))
    assert ["KERNEL_BACKEND" in message for message in caplog.messages] == [False, True]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_plain_command(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """It may clean up, and the exit code says which signal it was."""
    cleaned: list[str] = []

    def call() -> None:
        try:
            signal.raise_signal(number)
            cleaned.append("not at once")
        finally:
            cleaned.append("up")

    assert run_alone(call, Settings()) == 128 + number
    assert cleaned == ["up"]
    assert capsys.readouterr().err == f"stopped by {number.name}\n"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_an_async_command(
    number: signal.Signals, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is cancelled, also where the signal came before the loop ran."""
    cleaned: list[str] = []

    async def call() -> None:
        try:
            signal.raise_signal(number)
            with anyio.fail_after(10):
                await anyio.sleep_forever()
        finally:
            cleaned.append("up")

    assert run_alone(call, Settings(backend=backend)) == 128 + number
    assert cleaned == ["up"]
    assert capsys.readouterr().err == f"stopped by {number.name}\n"


def test_what_is_ignored_stays_ignored() -> None:
    """As with nohup; but a SIGINT that is sent explicitly counts, also where a shell ignores it."""
    before = [signal.signal(number, signal.SIG_IGN) for number in SIGNALS]
    try:
        assert run_alone(lambda: signal.raise_signal(signal.SIGTERM), Settings()) == 0
        assert run_alone(lambda: signal.raise_signal(signal.SIGHUP), Settings()) == 0
        assert run_alone(lambda: signal.raise_signal(signal.SIGINT), Settings()) == 130
        assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_IGN}
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
