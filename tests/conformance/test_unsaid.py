"""What cannot be said: streams that are closed or full, logging that somebody reconfigures, texts that do not fit."""

from __future__ import annotations

import os
import pty
import signal
from collections.abc import Callable

import pytest

from tests.conformance.program import CALM, App

BACKENDS = ("asyncio", "trio")
ENDS = {
    "well": ("print('printed')", 0),
    "badly": ("print('printed')\n    raise OSError('no route')", 1),
}


def closed_pipe() -> int:
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full() -> int:
    """A disk that is full."""
    return os.open("/dev/full", os.O_WRONLY)


def closed_terminal() -> int:
    """A terminal that is gone."""
    master, terminal = pty.openpty()
    os.close(master)
    return terminal


STREAMS: dict[str, Callable[[], int]] = {"closed pipe": closed_pipe, "full": full, "closed terminal": closed_terminal}


def ends(app: App, words: tuple[str, ...], env: dict[str, str], **streams: int) -> tuple[int, str]:
    """The exit code, and what came out of the stream that is not broken."""
    run = app.open(words, env, **streams)
    result = run.result()
    for fd in {*streams.values()}:
        os.close(fd)
    return result.code, result.stdout + result.stderr


@pytest.mark.many
@pytest.mark.parametrize("broken", [("stdout",), ("stderr",), ("stdout", "stderr")], ids="+".join)
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_cannot_say_anything(app: App, end: str, kind: str, broken: tuple[str, ...]) -> None:
    """The exit code tells the truth, and nothing is printed about the printing."""
    body, code = ENDS[end]
    app.service("once", f"@service(oneshot=True)\nasync def once() -> None:\n    {body}")
    fd = STREAMS[kind]()
    told, said = ends(app, ("run",), {}, **dict.fromkeys(broken, fd))
    assert told == code
    assert "Broken pipe" not in said
    assert "Logging error" not in said
    if "stderr" not in broken:
        assert f'"exit {code}: ' in said


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stop_that_cannot_say_anything(app: App, kind: str) -> None:
    """A service that serves is stopped in order, whoever reads."""
    app.service(
        "calm",
        """
        @service
        async def calm(serving: Serving[None]) -> None:
            async with serving():
                print("ready", flush=True)
                await anyio.sleep_forever()
            print("closed", flush=True)
        """,
    )
    fd = STREAMS[kind]()
    run = app.open(("run",), {}, stderr=fd)
    run.wait_for("ready")
    run.send(signal.SIGTERM)
    result = run.result()
    assert result.code == 0
    assert result.stdout == "ready\nclosed\n"
    os.close(fd)


@pytest.mark.parametrize("words", [("list",), ("--help",), ("version",), ("check",), ("graph",)], ids="".join)
def test_commands_that_print_to_nobody(app: App, words: tuple[str, ...]) -> None:
    """Where nobody wants the output, all is well; where it is lost, the command has failed, and says so."""
    app.service("calm", CALM)
    code, said = ends(app, words, {}, stdout=closed_pipe())
    assert (code, said) == (0, "")
    code, said = ends(app, words, {}, stdout=full())
    assert (code, said) == (1, "error: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize("words", [("run", "nobody"), ("nobody",), ("list", "--wrong"), ("check",)], ids=" ".join)
def test_problems_that_cannot_be_told(app: App, words: tuple[str, ...]) -> None:
    """Wrong words are exit code 2, whoever reads why."""
    app.service("broken", "@service(depends=['none'])\nasync def broken() -> None: ...")
    for kind in STREAMS.values():
        code, _ = ends(app, words, {"LOG_FORMAT": "text"}, stderr=kind())
        assert code == 2
