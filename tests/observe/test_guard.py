"""Functions that configure logging, as libraries call them, once the app has its handlers."""

from __future__ import annotations

import io
import logging
import logging.config
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel.observe import guard
from tests.observe.untouched import logging_untouched


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger, guarded; at the end all of logging is as before."""
    with logging_untouched() as found:
        guard.install()
        yield found


def printing(root: logging.Logger) -> logging.Handler:
    """Give the root logger a handler of the app, which prints, and no other (of pytest's)."""
    handler = logging.StreamHandler(sys.stderr)
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    return handler


def by_dict(level: str, **handler: Any) -> None:
    """As a library with a dictionary."""
    handlers = {"theirs": {"class": "logging.StreamHandler", **handler}}
    logging.config.dictConfig({"version": 1, "handlers": handlers, "root": {"level": level, "handlers": ["theirs"]}})


def by_file(level: str, path: Path) -> None:
    """As alembic."""
    path.write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=theirs\n[formatters]\nkeys=\n"
        f"[logger_root]\nlevel={level}\nhandlers=theirs\n"
        "[handler_theirs]\nclass=StreamHandler\nargs=(sys.stderr,)\nformatter=\n"
    )
    logging.config.fileConfig(path)


@pytest.mark.parametrize("how", ["dictConfig", "fileConfig", "basicConfig"])
@pytest.mark.parametrize("armed", [False, True])
def test_who_configures_logging(root: logging.Logger, how: str, tmp_path: Path, *, armed: bool) -> None:
    """The app's handlers and level stay, none that prints comes, and no logger is disabled; before, all is as ever."""
    ours, library = printing(root), logging.getLogger("tests.library")
    if armed:
        guard.arm()
    if how == "dictConfig":
        by_dict("ERROR")
    elif how == "fileConfig":
        by_file("ERROR", tmp_path / "logging.ini")
    else:
        logging.basicConfig(force=True, level="ERROR")
    assert (ours in root.handlers) is armed
    assert len(root.handlers) == 1
    assert logging.getLevelName(root.level) == ("WARNING" if armed else "ERROR")
    assert not library.disabled


def test_a_handler_that_prints_nothing_may_come(root: logging.Logger, tmp_path: Path) -> None:
    """As one that writes a file."""
    ours = printing(root)
    guard.arm()
    by_dict("ERROR", **{"class": "logging.FileHandler", "filename": tmp_path / "log"})
    theirs = root.handlers[-1]
    assert root.handlers == [ours, theirs]
    assert isinstance(theirs, logging.FileHandler)
    by_dict("ERROR")
    assert root.handlers == [ours]
    theirs.close()


def test_what_a_program_says_itself_holds(root: logging.Logger) -> None:
    """A level, another handler, one that is gone, a logger that is disabled, and one that is enabled again."""
    ours = printing(root)
    guard.arm()
    root.setLevel("DEBUG")
    assert root.level == logging.DEBUG
    root.addHandler(own := logging.StreamHandler(sys.stderr))
    root.removeHandler(ours)
    assert root.handlers == [own]
    logger = logging.getLogger("tests.own")
    logger.disabled = True
    assert logger.disabled
    by_dict("ERROR")
    assert logger.disabled
    logging.config.dictConfig({"version": 1, "incremental": False, "loggers": {"tests.own": {"level": "INFO"}}})
    assert not logger.disabled
    logger.disabled = True
    logger.disabled = False
    assert not logger.disabled


def test_which_handlers_are_kept(root: logging.Logger) -> None:
    """Each once, until it is dropped; without any, nothing is guarded; a new run begins with none."""
    ours, other = printing(root), logging.NullHandler()
    guard.keep(other, other)
    guard.keep(other)
    assert (guard.kept, guard.armed) == ([other], False)
    guard.arm()
    assert (guard.kept, guard.armed) == ([other, ours], True)
    guard.drop(other)
    guard.drop(other)
    assert (guard.kept, guard.armed) == ([ours], True)
    guard.drop(ours)
    assert (guard.kept, guard.armed) == ([], False)
    guard.drop(ours)
    root.handlers[:] = []
    guard.arm()
    assert not guard.armed
    guard.keep(other)
    guard.drop(other)
    assert not guard.armed
    guard.keep(ours)
    guard.arm()
    guard.install()
    assert (guard.kept, guard.armed) == ([], False)


def test_a_root_logger_of_somebody_elses_class(root: logging.Logger) -> None:
    """It stays what it is."""

    class Theirs(logging.RootLogger):
        pass

    root.__class__ = Theirs
    guard.install()
    assert type(root) is Theirs


@pytest.mark.parametrize(
    ("name", "prints"), [("stderr", True), ("stdout", True), ("__stderr__", True), ("__stdout__", True), ("", False)]
)
def test_what_prints(name: str, prints: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler of one of the streams of the process, also of those that it began with."""
    stream = io.StringIO()
    if name:
        monkeypatch.setattr(sys, name, stream)
    assert guard.on_console(logging.StreamHandler(stream)) is prints
    monkeypatch.setattr(sys, "__stdout__", None)  # as without a console
    without = logging.StreamHandler(stream)
    without.stream = None  # type: ignore[assignment]
    assert guard.on_console(without) is False
    assert guard.on_console(logging.NullHandler()) is False


def test_a_hook_of_call_handlers(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets the record once, by a logger of that name that prints nothing, whatever else the hook calls."""
    record = logging.LogRecord("some.where", logging.ERROR, "f", 1, "text", (), None)
    told: list[tuple[Any, logging.LogRecord]] = []
    original = logging.Logger.callHandlers

    def hook(self: logging.Logger, record: logging.LogRecord) -> None:
        told.append((self, record))
        original(self, record)

    guard.tell_hook(record)
    printing(root)
    logging.Logger.callHandlers = hook  # type: ignore[method-assign]
    guard.tell_hook(record)
    ((logger, same),) = told
    assert same is record
    assert (logger.name, logger.propagate) == ("some.where", False)
    guard.unhook()
    guard.tell_hook(record)
    assert len(told) == 1
    assert logging.Logger.callHandlers is original
    assert capsys.readouterr().err == ""
