"""How the log tells of a service that is tried again and again."""

from __future__ import annotations

import logging
import re
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.errors import ValueLost
from kernel.lifecycle.events import Event, Notice, State, StopBegan, Transition
from kernel.observe import lifecycle_log
from kernel.observe.lifecycle_log import LogObserver
from tests.harness import Lab, crash_after
from tests.lifecycle.parts import Part, chain


def raised(words: str) -> Exception:
    """An error that was raised."""
    try:
        raise ConnectionError(words)  # noqa: TRY301  (it is about its traceback)
    except ConnectionError as error:
        return error


def caused(error: Exception, *, by: BaseException) -> Exception:
    """An error with its cause."""
    error.__cause__ = by
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

    def move(self, event: Event) -> None:
        """Tell it of *event*."""
        self._observer(event)

    def everything(self) -> None:
        """Keep records of every level."""
        self._caplog.set_level("DEBUG", logger="kernel")

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


@pytest.mark.parametrize(("seconds", "shown"), [(60.0, True), (59.9, False)])
def test_a_crash_after_a_healthy_time_is_a_new_one(told: Told, seconds: float, shown: bool) -> None:
    """Whoever looks at it has not seen what was logged long ago; one that flaps is the same trouble still."""
    assert told.crash(1)
    told.move(Transition("db", State.STARTING, State.READY, 1, 100.0))  # a start may take long
    told.move(Transition("db", State.READY, State.STOPPING, 2, seconds, "crashed"))
    assert told.crash(2) is shown


def test_it_is_shown_again_now_and_then(told: Told) -> None:
    """Logs do not go back for ever."""
    assert [attempt for attempt in range(1, 301) if told.crash(attempt)] == [1, 101, 201]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (raised("refused"), True),
        (ConnectionError("refused"), False),
        (caused(ConnectionError("closed"), by=raised("refused")), True),
        (caused(ConnectionError("closed"), by=OSError("refused")), False),
        (caused(ValueLost("api", "db", "failed: refused"), by=raised("refused")), False),
    ],
    ids=["raised", "not raised", "its cause was raised", "nor its cause", "its provider's"],
)
def test_a_traceback_that_tells_more(told: Told, error: Exception, shown: bool) -> None:
    """None where there is no line to show, or where the provider's record has shown it."""
    told.move(Transition("api", State.STARTING, State.FAILED, 1, 1.0, "", error))
    assert (told.record.exc_info is not None and told.record.exc_info[1] is error) is shown


@pytest.mark.parametrize(
    ("previous", "state", "seconds"),
    [
        (State.WAITING, State.STOPPED, 7.0),
        (State.BACKOFF, State.STOPPED, 7.0),
        (State.STOPPING, State.STOPPED, 99.0),
        (State.WAITING, State.STARTING, 99.0),
        (State.BACKOFF, State.FAILED, 99.0),
    ],
)
def test_how_long_it_took(
    told: Told, previous: State, state: State, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What did not run has taken as long to stop as the stop is old, however long it had waited."""
    now = 1000.0
    monkeypatch.setattr(lifecycle_log, "time", SimpleNamespace(monotonic=lambda: now))
    told.everything()
    told.move(StopBegan("SIGTERM", 10.0))
    now += 7
    told.move(Transition("db", previous, state, 1, 99.0, error=OSError() if state is State.FAILED else None))
    assert vars(told.record)["seconds"] == seconds
    assert vars(told.record)["service"] == "db"


@pytest.mark.parametrize(
    ("state", "about", "level"),
    [
        (State.READY, {}, "INFO"),
        (State.READY, {"internal": True}, "DEBUG"),
        (State.DONE, {}, "INFO"),
        (State.DONE, {"reason": "not asked to"}, "WARNING"),
        (State.STOPPED, {"reason": "asked to"}, "INFO"),
        (State.BACKOFF, {"error": OSError()}, "WARNING"),
        (State.FAILED, {"error": OSError()}, "ERROR"),
        (State.FAILED, {"error": OSError(), "allowed": True}, "WARNING"),
        (State.FAILED, {"error": OSError(), "internal": True}, "ERROR"),
        (State.ABANDONED, {"error": OSError()}, "ERROR"),
        (State.ABANDONED, {"error": OSError(), "allowed": True}, "WARNING"),
    ],
)
def test_how_grave_it_is(told: Told, state: State, about: dict[str, Any], level: str) -> None:
    """What breaks is an error, unless it is allowed; what may become one is a warning; the rest is for the record."""
    told.everything()
    told.move(Transition("db", State.STARTING, state, 1, 1.0, **about))
    assert told.record.levelname == level


def test_a_notice_names_its_error(told: Told) -> None:
    """Its line is a whole sentence without the traceback below it."""
    told.move(Notice("db", "clean-up failed after the crash", raised("hung up")))
    assert told.record.getMessage() == "clean-up failed after the crash: ConnectionError: hung up"
    told.move(Notice("db", "starting even though cache failed"))
    assert told.record.getMessage() == "starting even though cache failed"


# -- what is said ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_last_lines_tell_each_end_once(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Each service has a line, where whoever overran is named; the last line has the first error and its service."""
    parts = chain(db=Part(closing=50, limit=2), cache=Part(), api=Part(crashes=(5,), retries=0))
    await lab.run(*parts)
    with caplog.at_level(logging.INFO):
        lifecycle_log.log_endings(lab.report)
        lifecycle_log.log_verdict(lab.report)
    table, last = (record.getMessage() for record in caplog.records)
    ends = dict(line.split(maxsplit=1) for line in table.splitlines()[1:])
    assert list(ends) == ["db", "cache", "api"]
    assert re.match("failed.*did not stop in time: cancelled 2 s after the request", ends["db"])
    assert re.match("stopped", ends["cache"])
    assert re.match("failed", ends["api"])
    assert re.fullmatch("exit 1: api failed.*ValueError: boom", last)


@pytest.mark.anyio
@pytest.mark.parametrize("oneshot", [True, False])
async def test_done_unasked_is_worth_a_warning(lab: Lab, caplog: pytest.LogCaptureFixture, oneshot: bool) -> None:
    """Unless it is a one-shot, which is there to be done."""

    @service(oneshot=oneshot)
    async def brief() -> None: ...

    with caplog.at_level(logging.INFO):
        await lab.run(brief, observers=[lifecycle_log.LogObserver()])
    (done,) = (record for record in caplog.records if record.getMessage().startswith("done"))
    assert done.levelno == (logging.INFO if oneshot else logging.WARNING)
    assert lab.exit_code == 0


@pytest.mark.anyio
@pytest.mark.parametrize("holds", [True, False])
async def test_a_stop_gives_a_clean_up_no_second_stop_timeout(lab: Lab, holds: bool) -> None:
    """It is on the clock since the crash; whether anybody depends on it changes nothing."""

    @service(stop_timeout=3)
    async def db(serving: Serving[None]) -> None:
        try:
            async with serving():
                await crash_after(1, ValueError("boom"))
        finally:
            await anyio.sleep_forever()

    @service(depends=["db"] if holds else [])
    async def calm() -> None:
        await anyio.sleep_forever()

    await lab.stop_at(3).run(db, calm)
    assert lab.when("db", "failed") == 4
    assert isinstance(lab.error("db").__cause__, ValueError)
