"""How the log tells of a service that is tried again and again."""

from __future__ import annotations

import logging

import pytest

from kernel.lifecycle.events import Notice, State, Transition
from kernel.observe.lifecycle_log import HEALTHY, SHOWN_EVERY, LogObserver


def raised(words: str) -> Exception:
    """An error that was raised."""
    try:
        raise ConnectionError(words)  # noqa: TRY301  (it is about its traceback)
    except ConnectionError as error:
        return error


class Told:
    """An observer, and what it has logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._observer = LogObserver()

    def crash(self, attempt: int, words: str = "refused", service: str = "db", *, last: bool = False) -> bool:
        """Crash in this *attempt*; whether the record shows the traceback."""
        error = raised(words)
        error.add_note(f"in service {service}, starting, attempt {attempt}")
        state = State.FAILED if last else State.BACKOFF
        reason = f"after {attempt} attempts" if last else f"retry {attempt} in 1 s"
        self.move(Transition(service, State.STARTING, state, attempt, 1.0, reason, error))
        return bool(self.record.exc_info)

    def move(self, event: Transition | Notice) -> None:
        """Tell it of *event*."""
        self._observer(event)

    @property
    def record(self) -> logging.LogRecord:
        """The last one."""
        return self._caplog.records[-1]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """An observer whose records are kept."""
    caplog.set_level("WARNING", logger="kernel")
    return Told(caplog)


def test_the_first_and_the_last_traceback_are_shown(told: Told) -> None:
    """In between one line says where to find it, and the error is in the record all the same."""
    assert [told.crash(attempt) for attempt in (1, 2, 3)] == [True, False, False]
    same = "ConnectionError: refused; retry 3 in 1 s; the traceback is the same as in attempt 1"
    assert told.record.getMessage() == same
    assert vars(told.record)["error"] == "ConnectionError: refused"
    assert told.crash(4, last=True)


def test_another_traceback_is_shown(told: Told) -> None:
    """What differs is told, and each service for itself."""
    assert told.crash(1)
    assert told.crash(1, service="other")
    assert told.crash(2, "no route")
    assert not told.crash(3, "no route")
    assert told.record.getMessage().endswith("; the traceback is the same as in attempt 2")
    assert told.crash(4)


@pytest.mark.parametrize(("seconds", "shown"), [(HEALTHY, True), (HEALTHY - 1, False)])
def test_a_crash_after_a_healthy_time_is_a_new_one(told: Told, seconds: float, shown: bool) -> None:
    """Whoever looks at it has not seen what was logged long ago; one that flaps is the same trouble still."""
    assert told.crash(1)
    told.move(Transition("db", State.READY, State.STOPPING, 2, seconds, "crashed"))
    assert told.crash(2) is shown


def test_it_is_shown_again_now_and_then(told: Told) -> None:
    """Logs do not go back for ever."""
    shown = [attempt for attempt in range(1, 3 * SHOWN_EVERY) if told.crash(attempt)]
    assert shown == [1, 1 + SHOWN_EVERY, 1 + 2 * SHOWN_EVERY]


def test_a_notice_names_its_error(told: Told) -> None:
    """Its line is a whole sentence without the traceback below it."""
    told.move(Notice("db", "clean-up failed after the crash", raised("hung up")))
    assert told.record.getMessage() == "clean-up failed after the crash: ConnectionError: hung up"
    told.move(Notice("db", "starting even though cache failed"))
    assert told.record.getMessage() == "starting even though cache failed"
