"""How the log tells of a service that is tried again and again."""

from __future__ import annotations

import logging
import re

import anyio
import pytest

from kernel.declare.service import service
from kernel.declare.serving import Serving
from kernel.lifecycle.events import Notice, State, Transition
from kernel.observe import lifecycle_log
from kernel.observe.lifecycle_log import HEALTHY, SHOWN_EVERY, LogObserver
from tests.harness import Lab, crash_after
from tests.lifecycle.parts import Part, chain


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
