"""What the binary runs first: a file that is appended to it, or, as `python -ISc`, what an argument says."""

from __future__ import annotations

import io
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scripts.projects import REPO

TELLS = "import os, sys; told = [__name__, *sys.argv[1:], os.environ.get('LD_LIBRARY_PATH')]; sys.told.append(told)"

Told = list[list[str | None]]
Run = Callable[..., Told]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs it with arguments in place of a binary whose program tells what it sees."""
    program = tmp_path / "program.py"
    program.write_text(TELLS)

    def run(*words: str, **env: str) -> Told:
        told: Told = []
        monkeypatch.setattr(sys, "told", told, raising=False)
        monkeypatch.setattr(sys, "executable", str(program))
        monkeypatch.setattr(sys, "argv", ["app", *words])
        for name in ("LD_LIBRARY_PATH", "LD_LIBRARY_PATH_ORIG"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        runpy.run_path(str(REPO / "scripts" / "kernel" / "frozen_main.py"))
        assert "LD_LIBRARY_PATH_ORIG" not in os.environ
        return told

    return run


def test_the_program_runs(run: Run) -> None:
    """It is the main module, and gets the arguments."""
    assert run("a", "-ISc", "b") == [["__main__", "a", "-ISc", "b", None]]
    assert run() == [["__main__", None]]


def test_what_an_argument_says_runs(run: Run) -> None:
    """It too is the main module, and gets the arguments after it."""
    assert run("-ISc", f"{TELLS}; sys.told.append([])", "a", "b") == [["__main__", "a", "b", None], []]


@pytest.mark.parametrize(("env", "seen"), [({"LD_LIBRARY_PATH_ORIG": "/users"}, "/users"), ({}, None)])
def test_the_path_of_libraries_is_the_users(run: Run, env: dict[str, str], seen: str | None) -> None:
    """Not that of what the binary has unpacked, which the system's programs cannot use."""
    assert run(LD_LIBRARY_PATH="/unpacked", **env) == [["__main__", seen]]


def test_streams_that_were_closed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are replaced, since they are flushed at the end; others, also none at all, stay as they are."""
    closed, opened = io.StringIO(), io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "__stdout__", opened)
    monkeypatch.setattr(sys, "__stderr__", closed)
    with pytest.raises(ZeroDivisionError):
        run("-ISc", "1 / 0")
    assert sys.stderr is None
    assert id(sys.__stdout__) == id(opened)
    for stream in sys.stdout, sys.__stderr__:
        assert isinstance(stream, io.TextIOWrapper)
        with stream:
            assert (stream.name, stream.mode, stream.encoding) == (os.devnull, "w", "utf-8")
