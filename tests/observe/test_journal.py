"""What is written where stderr is systemd's journal, and where it is not."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import pytest

from kernel.observe.journal import is_journal, prioritized
from tests.conformance.program import App

CRASHES = """
@service
async def crashes(serving: Serving[None]) -> None:
    log.log(25, "between")
    log.warning("one\\ntwo")
    log.info("<0>forged\\n<0>forged")
    async with serving():
        raise OSError("broken\\ninside")
"""


@pytest.fixture
def app(tmp_path: Path) -> App:
    """A tree of its own."""
    app = App(tmp_path / "tree")
    app.service("crashes", CRASHES)
    return app


def run(app: App, words: tuple[str, ...], stream: str = "", **env: str) -> tuple[int, list[str]]:
    """The exit code and the lines, with stderr as a file that JOURNAL_STREAM names, or with another *stream* in it."""
    path = app.root.with_name("stderr")
    with path.open("wb") as file:
        found = os.fstat(file.fileno())
        named = stream or f"{found.st_dev}:{found.st_ino}"
        code = app.open(words, {"LOG_FORMAT": "text", "JOURNAL_STREAM": named, **env}, stderr=file).result().code
    return code, path.read_text().splitlines()


def test_each_line_has_the_priority_of_its_record(app: App) -> None:
    """Of a message with several lines and of a traceback all lines have it; nobody forges one; no time is told."""
    code, lines = run(app, ("run",))
    assert code == 1
    told = [(line[:3], line[3:]) for line in lines]
    words = {text.split()[-1]: priority for priority, text in told}
    assert words["between"] == "<6>"
    assert words["one"] == words["two"] == "<4>"
    assert [text.split()[-1] for priority, text in told if "forged" in text] == ["<0>forged"] * 2
    assert {priority for priority, text in told if "forged" in text} == {"<6>"}
    begin = next(place for place, (_, text) in enumerate(told) if "Traceback" in text)
    end = next(place for place, (_, text) in enumerate(told) if place > begin and text.strip() == "inside")
    assert end > begin + 2
    assert {priority for priority, _ in told[begin : end + 1]} == {"<3>"}
    assert {priority for priority, _ in told} <= {"<2>", "<3>", "<4>", "<6>"}
    levels = {"CRITICAL": "<2>", "ERROR": "<3>", "WARNING": "<4>", "INFO": "<6>", "Level": "<6>"}
    for priority, text in told:
        if not text.startswith(" "):
            assert priority == levels[text.split()[0]], text  # the level comes first: no time


def test_what_was_not_started(app: App) -> None:
    """Problems that end the program before it logs anything are errors of the journal, too."""
    code, lines = run(app, ("run",), RUNNER_SHUTDOWNTIMEOUT="soon")
    assert code == 2
    assert lines[0].startswith("<3>error: RUNNER_SHUTDOWNTIMEOUT is 'soon'")
    assert all(line.startswith("<3>") for line in lines)


@pytest.mark.parametrize("stream", ["1:1", "words", "8:"])
def test_a_stream_of_somebody_else(app: App, stream: str) -> None:
    """A variable that was inherited, while stderr leads elsewhere, changes nothing."""
    _, lines = run(app, ("run",), stream)
    assert not any(line.startswith("<") for line in lines)
    assert lines[0][2] == lines[0][5] == ":"


def test_json_stays_whole(app: App) -> None:
    """A line of JSON says its level itself, and whoever reads lines gets objects."""
    _, lines = run(app, ("run",), LOG_FORMAT="json")
    assert lines
    assert all(line.startswith("{") for line in lines)


def test_what_has_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a stream is not the journal, nor is one that is closed, or none."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    closed = io.StringIO()
    closed.close()
    assert not any(is_journal(stream) for stream in (None, object(), io.StringIO(), closed))


def test_what_the_variable_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The very file that the stream leads to."""
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "other").open("w") as other:
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert [is_journal(stream) for stream in (journal, other)] == [False, False]
        found = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert [is_journal(stream) for stream in (journal, other)] == [True, False]


@pytest.mark.parametrize(
    ("level", "priority"),
    [(1, 7), (logging.DEBUG, 7), (logging.INFO, 6), (35, 4), (logging.ERROR, 3), (logging.CRITICAL, 2), (99, 2)],
)
def test_levels(level: int, priority: int) -> None:
    """A level between two that are named counts as the lower one."""
    assert prioritized("a\nb", level) == f"<{priority}>a\n<{priority}>b"
