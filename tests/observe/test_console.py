"""Standard output and error that cannot be written to."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import TextIO

import pytest

from kernel import masking
from kernel.masking import MASK
from kernel.observe import console


class Fails(io.StringIO):
    """A stream that fails with an error when it is flushed; the descriptor is none."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.flushed = 0

    def flush(self) -> None:
        """Fail, if it is one that does."""
        self.flushed += 1
        if self.error is not None:
            raise self.error


def full() -> TextIO:
    """A stream on a full disk, with something to write."""
    stream = open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123, SIM115
    stream.write("more than fits")
    return stream


def leads_to(stream: TextIO) -> str:
    """The file that its descriptor leads to."""
    return os.readlink(f"/proc/self/fd/{stream.fileno()}")  # noqa: PTH115


@pytest.mark.parametrize(
    ("given", "made"), [("strict", "backslashreplace"), ("replace", "replace"), ("surrogateescape", "surrogateescape")]
)
def test_characters_that_an_encoding_lacks(given: str, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are escaped, unless somebody wanted it otherwise; a stream of another kind stays as it is."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors=given)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", other := Strict())
    console.prepare()
    assert sys.stderr is stream
    assert stream.errors == made
    assert other is sys.stdout


class Strict(io.StringIO):
    """A stream of another kind, as those that capture output."""

    errors = "strict"


def test_an_error_output_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one again, which leads nowhere."""
    monkeypatch.setattr(sys, "stderr", None)
    console.prepare()
    with sys.stderr as made:
        assert leads_to(made) == os.devnull
        print("nobody reads this", file=made, flush=True)


def test_what_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without secrets; with its priority where the journal reads, and nothing at all where nobody can."""
    masking.add("hunter22")
    console.say("it is hunter22\nso")
    assert capsys.readouterr().err == f"it is {MASK}\nso\n"
    with (tmp_path / "journal").open("w") as journal:
        found = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        monkeypatch.setattr(sys, "stderr", journal)
        console.say("one\ntwo")
        console.say("three", 20)
    assert (tmp_path / "journal").read_text() == "<3>one\n<3>two\n<6>three\n"
    console.say("closed")
    with full() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console.say("on a full disk")
        assert leads_to(stream) == os.devnull


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (None, ""),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ""),  # whoever read it has gone
        (ValueError("I/O operation on closed file"), ""),
    ],
    ids=["well", "full", "odd", "gone", "closed"],
)
def test_output_that_is_lost(error: Exception | None, lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said why, of standard output alone; both are flushed."""
    out, err = Fails(error), Fails()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert console.close() == lost
    assert (out.flushed, err.flushed) == (1, 1)
    out.error, err.error = None, error
    assert console.close() == ""


def test_what_a_full_disk_does_not_take_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not written again at the interpreter's exit, which would be another error; no descriptor is left."""
    with full() as out, full() as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        assert console.close() == "No space left on device"
        assert [leads_to(stream) for stream in (out, err)] == [os.devnull] * 2
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        assert console.close() == ""


def test_no_output_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a program that was started without any."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert console.close() == ""
    console.say("nothing")
