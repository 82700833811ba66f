"""The way in: what is set up, and which exit code comes of what."""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kernel.cli as module
from kernel.cli.program import Program, _came_from, _code, _summary
from kernel.errors import NamingError
from kernel.observe import console, logs
from tests.modules import new_module

Does = Callable[[list[str]], int]


class Main:
    """Calls `main` of an app whose commands do what they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.app = new_module("app")
        self.app.__file__ = str(root / "app" / "__init__.py")
        self.app.__spec__ = importlib.util.spec_from_file_location("app", self.app.__file__)
        (root / "pyproject.toml").write_text('[project]\nname = "tool"\nversion = "1"\n')
        self.programs: list[Program] = []
        self.words: list[str] = []
        self.flushed = 0
        self.lost = ""
        self.does: Does = lambda _: 0
        main = self

        def dispatch(program: Program, words: list[str]) -> int:
            main.programs.append(program)
            main.words = words
            return main.does(words)

        def flush() -> None:
            main.flushed += 1

        monkeypatch.setattr(Program, "dispatch", dispatch)
        monkeypatch.setattr(logs, "configure", lambda *_: None)
        monkeypatch.setattr(logs, "flush", flush)
        monkeypatch.setattr(console, "close", lambda: main.lost)
        monkeypatch.setattr(sys, "path", ["first", *sys.path])

    def __call__(self, *words: str, does: Does | Exception | None = None) -> int:
        def fails(_: list[str]) -> int:
            assert isinstance(does, Exception)
            raise does

        if does is not None:
            self.does = fails if isinstance(does, Exception) else does
        return module.main(self.app, words)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Main:
    """Calls it."""
    return Main(monkeypatch, tmp_path)


def test_the_words_are_those_of_the_process_or_given(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only in the first case is the command what the process is for."""
    assert main("list", "x", does=lambda _: 5) == 5
    assert main.words == ["list", "x"]
    assert main.programs[-1].process is False
    assert main.flushed == 1
    monkeypatch.setattr(sys, "argv", ["app", "check"])
    assert module.main(main.app) == 5
    assert main.words == ["check"]
    assert main.programs[-1].process is True
    monkeypatch.setattr(sys, "argv", ["app"])
    module.main(main.app)
    assert main.words == []


def test_services_are_found_before_everything_else_that_can_be_imported(main: Main, tmp_path: Path) -> None:
    """The app's folder comes first, once."""
    for _ in range(2):
        main("list")
        assert sys.path[:2] == [str(tmp_path), "first"]
        assert sys.path.count(str(tmp_path)) == 1


def test_secrets_of_the_environment_are_known_first(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything can be logged."""
    learnt: list[Any] = []
    monkeypatch.setattr(module, "learn", learnt.append)
    main("list")
    assert learnt == [os.environ]


def test_settings_that_are_wrong_are_for_the_command(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    """`app list` works in spite of them."""
    monkeypatch.setenv("RUNNER_DRAINDELAY", "soon")
    assert main("list") == 0
    (error,) = main.programs[-1].wrong
    assert "RUNNER_DRAINDELAY" in str(error)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (NamingError("no such"), 2, "error: no such\nnothing was started\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
        (OSError(errno.ENOSPC, "No space left"), 1, "error: cannot write to stdout: No space left\n"),
        (OSError(errno.EIO, "Input/output error"), 1, "error: cannot write to stdout: Input/output error\n"),
        (OSError(errno.EBADF, ""), 1, f"error: cannot write to stdout: [Errno {errno.EBADF}] \n"),
    ],
)
def test_a_command_that_cannot_say_what_it_found(
    main: Main, capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str
) -> None:
    """Nobody who reads is no failure; a full disk is."""
    assert main("list", does=error) == code
    assert capsys.readouterr() == ("", said)


def test_other_errors_are_the_programmers(main: Main) -> None:
    """They come out as they are."""
    for error in (PermissionError(errno.EACCES, "no"), LookupError()):
        with pytest.raises(type(error)):
            main("list", does=error)


@pytest.mark.parametrize(
    ("words", "codes", "said"),
    [
        (("list",), (0, 1), "error: cannot write to stdout: disk full\n"),
        (("list",), (2, 2), "error: cannot write to stdout: disk full\n"),
        (("run", "x"), (0, 0), ""),
        ((), (0, 1), "error: cannot write to stdout: disk full\n"),
    ],
)
def test_output_that_is_lost_at_the_end(
    main: Main, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], codes: tuple[int, int], said: str
) -> None:
    """A command has failed then, with its own code if it has one; the purpose of a run is not what it says."""
    main.lost = "disk full"
    code, end = codes
    assert main(*words, does=lambda _: code) == end
    assert capsys.readouterr().err == said


def test_the_code_of_what_a_command_returns() -> None:
    """A number is one; all else means that it went well."""
    assert [_code(result) for result in (0, 7, True, False, None, "3", 3.0)] == [0, 7, 0, 0, 0, 0, 0]


def test_the_summary_of_a_command() -> None:
    """The first line of its docstring, if it has one."""

    def told() -> None:
        """Tell.

        More.
        """

    def silent() -> None: ...

    assert (_summary(told), _summary(silent)) == ("Tell.", "")


def test_what_an_error_came_from() -> None:
    """Whatever was handled when it was raised, and when that was."""
    first, second, third = LookupError(), OSError(), SystemExit()
    third.__context__, second.__context__ = second, first
    assert _came_from(third, LookupError)
    assert _came_from(third, SystemExit)
    assert not _came_from(second, SystemExit)
    assert not _came_from(third, KeyError)
