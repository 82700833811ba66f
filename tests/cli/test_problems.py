"""How it is reported that nothing was started."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kernel.cli.problems import USAGE, report_problems
from kernel.config.settings import Settings
from kernel.errors import ConfigError, NamingError, NotImportable, PlanError, Problems, add_note
from kernel.plan.environment import Surroundings

TEXT, JSON = Settings(), Settings(log_json=True)


def caused(error: PlanError, *causes: BaseException) -> PlanError:
    """The error with a chain of causes."""
    last: BaseException = error
    for cause in causes:
        last.__cause__ = cause
        last = cause
    return error


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (NamingError("a"), ["error: a"]),
        (Problems("", errors=(NamingError("a"),)), ["error: a"]),
        (Problems("", errors=(NamingError("a"), NamingError("b"))), ["error: a", "error: b"]),
        (caused(NotImportable("a"), OSError("one"), OSError("two")), ["error: a", "  caused by OSError: two"]),
        (caused(NotImportable("b"), OSError("one")), ["error: b"]),
        (NotImportable("c"), ["error: c"]),
        (caused(NamingError("d"), OSError("one"), OSError("two")), ["error: d"]),
    ],
)
def test_as_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: PlanError, lines: list[str]
) -> None:
    """A line each, and what an import failed with in the end, which may be far from the file; then how many.

    Where no variable is wrong, no file of variables is read.
    """
    monkeypatch.setattr(Surroundings, "of", None)
    report_problems(error, TEXT, "/")
    problems = len([line for line in lines if line.startswith("error")])
    last = f"{problems} problems; nothing was started" if problems > 1 else "nothing was started"
    assert capsys.readouterr() == ("", "\n".join([*lines, last, ""]))


def test_as_records(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """One each, with the exit code, and no line besides."""
    error = Problems("", errors=(NamingError("a"), caused(NotImportable("b"), OSError(), OSError())))
    add_note(error, "a note")
    report_problems(error, JSON, str(tmp_path))
    assert capsys.readouterr() == ("", "")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "a note"),
        ("ERROR", "a"),
        ("ERROR", "b"),
    ]
    assert [getattr(record, "exit_code", None) for record in caplog.records] == [None, 2, 2]
    assert USAGE == 2


def test_notes_come_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What may explain the problems."""
    error = NamingError("a")
    add_note(error, "a note")
    report_problems(error, TEXT, str(tmp_path))
    assert capsys.readouterr().err == "warning: a note\nerror: a\nnothing was started\n"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([ConfigError("missing", where="API_KEY")], "API_KEY"),
        ([ConfigError("missing", where="API_KEY, API_URL")], "API_KEY, API_URL"),
        ([NamingError("a"), ConfigError("missing", where="API_URL")], "API_URL"),
        ([ConfigError("missing", where="OTHER")], ""),
        ([ConfigError("odd", where="API_SET")], ""),
        ([NamingError("a", where="API_KEY")], ""),
    ],
)
def test_a_file_of_variables_that_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, wrong: list[PlanError], told: str
) -> None:
    """It is told of if it has a variable that has a problem, and only then."""
    for name in ("API_KEY", "API_URL", "OTHER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("API_SET", "1")
    (tmp_path / ".env").write_text("API_KEY=k\nAPI_URL=u\nAPI_SET=2\nUNUSED=1\n")
    report_problems(Problems("", errors=tuple(wrong)), JSON, str(tmp_path))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    line = f".env sets {told}, but is not loaded; recipes such as `just run` load it"
    assert warnings == [line] * bool(told)
