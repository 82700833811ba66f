"""What the last lines say: the verdict, and how each service ended."""

from __future__ import annotations

import attrs
import pytest

from kernel.errors import StopTimeout, Uncancellable, ValueLost
from kernel.lifecycle.events import Ending, State
from kernel.lifecycle.explain import duration
from kernel.lifecycle.report import Report

REFUSED = ConnectionError("refused")
LOST = ValueLost("api", "db", "failed: ConnectionError: refused")
LOST.__cause__ = REFUSED

GOOD = Ending("good", State.STOPPED, 1, 2.5, "", None, allowed=False, internal=False)
DB = Ending("db", State.FAILED, 3, 0.25, "after 3 attempts", REFUSED, allowed=False, internal=False)
API = Ending("api", State.FAILED, 1, 8.0, str(LOST), LOST, allowed=False, internal=False)
CACHE = Ending("cache", State.FAILED, 1, 0.0, "", LookupError("none"), allowed=True, internal=False)
HUNG = attrs.evolve(GOOD, service="hung", state=State.ABANDONED, error=Uncancellable("hung", "hung.py:3 in hung"))
SLOW = attrs.evolve(GOOD, service="slow", state=State.FAILED, error=StopTimeout("slow", 9.5, "slow.py:7", limit=30))
CUT = attrs.evolve(GOOD, service="late", state=State.FAILED, error=StopTimeout("late", 1, "late.py:5", forced=True))
LIFESPAN = attrs.evolve(GOOD, service="app/init.py:own", internal=True)


def report(*endings: Ending, first: Ending | None = None, reason: str = "SIGTERM", **how: bool) -> Report:
    """How these services ended."""
    return Report(reason, endings, first.service if first else None, 9.0, 1.5, **{"forced": False, **how})


VERDICTS = {
    "0: stopped by SIGTERM": report(GOOD),
    "0: stopped by KeyboardInterrupt": report(GOOD, reason="KeyboardInterrupt"),
    "0: every service has ended": report(GOOD, CACHE, first=CACHE, reason="every service has ended"),
    "1: db failed after 3 attempts: ConnectionError: refused": report(DB, API, first=DB),
    "1: cache failed while the app was stopping: LookupError: none": report(
        attrs.evolve(CACHE, allowed=False, reason="while the app was stopping"), GOOD, first=CACHE
    ),
    "1: every service failed; the first was cache: LookupError: none": report(CACHE, CACHE, first=CACHE),
    "1: slow failed: did not stop in time: cancelled 9.5 s after the request, at slow.py:7;"
    " its stop_timeout is 30 s, but RUNNER_SHUTDOWNTIMEOUT left no more time": report(GOOD, SLOW, first=SLOW),
    "3: hung abandoned: could not be cancelled; it is at hung.py:3 in hung": report(HUNG, CACHE, first=HUNG, late=True),
    "3: hung abandoned: could not be cancelled; it is at hung.py:3 in hung; db had failed before": report(
        HUNG, DB, first=DB, late=True
    ),
    "3: hung and other could not be cancelled and were abandoned": report(
        HUNG, attrs.evolve(HUNG, service="other"), first=HUNG
    ),
    "3: shutdown took 1.5 s, exceeding the deadline (RUNNER_SHUTDOWNTIMEOUT)": report(GOOD, late=True),
    "3: shutdown took 1.5 s, exceeding the deadline (RUNNER_SHUTDOWNTIMEOUT); slow did not stop in time": report(
        GOOD, SLOW, first=SLOW, late=True
    ),
    "130: another signal cancelled late before it had stopped": report(GOOD, CUT, first=CUT, forced=True),
    "130: another signal cancelled a, b and late before they had stopped; db had failed before": report(
        attrs.evolve(CUT, service="a"), attrs.evolve(CUT, service="b"), CUT, DB, first=DB, forced=True
    ),
    "130: another signal cancelled x before it had stopped, but hung could not be cancelled and was abandoned": report(
        HUNG, attrs.evolve(CUT, service="x"), first=CUT, forced=True
    ),
    "130: received another signal, but hung and other could not be cancelled and were abandoned": report(
        HUNG, attrs.evolve(HUNG, service="other"), first=HUNG, forced=True
    ),
    "130: another signal cancelled late before it had stopped; cache had failed before": report(
        SLOW, CUT, attrs.evolve(CACHE, allowed=False), first=CACHE, forced=True
    ),
    "130: forced by another signal": report(GOOD, forced=True),
}


@pytest.mark.parametrize("words", VERDICTS)
def test_the_verdict(words: str) -> None:
    """It says what the exit code stands for, and names who is to blame."""
    ended = VERDICTS[words]
    assert f"{ended.exit_code}: {ended.verdict}" == words


def test_a_line_for_each_service() -> None:
    """Its end, its attempts, how long it was up, and its error; what belongs to the kernel only where it broke."""
    waiting = attrs.evolve(GOOD, service="waiting", attempts=0, uptime=0.0, reason="never started")
    unasked = attrs.evolve(GOOD, service="unasked", state=State.DONE, reason="returned by itself")
    migrator = attrs.evolve(GOOD, service="migrator", state=State.DONE, uptime=0.0)
    broken = attrs.evolve(LIFESPAN, service="own", state=State.FAILED, error=OSError("no disk"))
    ended = report(GOOD, DB, CACHE, SLOW, waiting, unasked, migrator, LIFESPAN, broken, first=DB)
    assert ended.lines == [
        "good      stopped; 1 attempt, up 2.5 s",
        "db        failed; 3 attempts, up 250 ms",
        "cache     failed (allowed); 1 attempt, never ready: LookupError: none",
        f"slow      failed; 1 attempt, up 2.5 s: {SLOW.error}".replace("slow did", "did"),
        "waiting   stopped; never started",
        "unasked   done (returned by itself); 1 attempt, up 2.5 s",
        "migrator  done; 1 attempt",
        "own       failed; 1 attempt, up 2.5 s: OSError: no disk",
    ]


@pytest.mark.parametrize(
    ("ended", "lines"),
    [
        pytest.param(
            report(DB, API, first=DB),
            [
                "db   failed; 3 attempts, up 250 ms",
                "api  failed; 1 attempt, up 8 s: needs the value of db, which failed",
            ],
            id="the provider came first",
        ),
        pytest.param(
            report(attrs.evolve(DB, allowed=True), API, first=API),
            ["db   failed (allowed); 3 attempts, up 250 ms", "api  failed; 1 attempt, up 8 s"],
            id="its failure was allowed",
        ),
        pytest.param(
            report(DB, API, HUNG, first=DB),
            [
                "db    failed; 3 attempts, up 250 ms: ConnectionError: refused",
                "api   failed; 1 attempt, up 8 s: needs the value of db, which failed",
                "hung  abandoned; 1 attempt, up 2.5 s",
            ],
            id="something worse came later",
        ),
        pytest.param(
            report(HUNG, DB, attrs.evolve(HUNG, service="other", error=Uncancellable("other", "x.py:3")), first=DB),
            [
                "hung   abandoned; 1 attempt, up 2.5 s: could not be cancelled; it is at hung.py:3 in hung",
                "db     failed; 3 attempts, up 250 ms: ConnectionError: refused",
                "other  abandoned; 1 attempt, up 2.5 s: could not be cancelled; it is at x.py:3",
            ],
            id="several worse ones, which the verdict only names",
        ),
    ],
)
def test_an_error_is_told_once(ended: Report, lines: list[str]) -> None:
    """By the verdict, or else by the line of the service whose error it is."""
    assert ended.lines == lines
    told = "\n".join((*lines, ended.verdict))
    assert told.count("ConnectionError: refused") == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.01234, "12.3 ms"), (1.0, "1 s"), (61.26, "61.3 s"), (3600.0, "3600 s")]
)
def test_durations(seconds: float, words: str) -> None:
    """Three figures are enough, and none is written as a power of ten."""
    assert duration(seconds) == words
