"""Failures that cost nothing but a line."""

from __future__ import annotations

import logging

import pytest

from kernel.process.contain import contained, say_once


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests have said."""
    monkeypatch.setattr("kernel.process.contain._said", set())


@pytest.mark.parametrize("error", [LookupError("x"), SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_whatever_is_raised_ends_there(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its traceback."""
    with contained("the watch"):
        raise error
    assert caplog.messages == ["the watch failed; continuing"]
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


def test_each_kind_of_failure_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A thread that fails four times a second would fill the log; what is new is said."""
    for _ in range(3):
        say_once("the watch", LookupError())
        say_once("the watch", OSError())
        say_once("the report", OSError())
    assert caplog.messages == [
        "the watch failed; continuing",
        "the watch failed; continuing",
        "the report failed; continuing",
    ]


def test_logging_may_fail_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nobody is told."""

    def fails(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(logging.getLogger("kernel"), "error", fails)
    with contained("the watch"):
        raise LookupError
