"""The lifecycle as log records, from the first launch to the last line."""

from __future__ import annotations

import logging
import time
from typing import Any, assert_never

import attrs

from kernel.errors import ORIGIN, ValueLost, chain, one_line
from kernel.lifecycle.events import (
    BROKEN,
    HALTED,
    AllReady,
    Event,
    Forced,
    Notice,
    ReadyAgain,
    State,
    StillWaiting,
    StopBegan,
    Transition,
)
from kernel.lifecycle.explain import describe_move, duration
from kernel.lifecycle.report import Report
from kernel.observe.logs import logger
from kernel.observe.tracebacks import text_of_traceback


def _tells_more(error: BaseException | None) -> bool:
    """Return whether a traceback adds to the message: not if the error was never raised, or was logged before."""
    if isinstance(error, ValueLost):
        return False
    return any(before.__traceback__ is not None for before in chain(error, "__cause__"))


HEALTHY = 60.0  # seconds of readiness after which a crash counts as new, and is logged in full
SHOWN_EVERY = 100  # attempts; after days of retries the log may no longer contain the first one

_APP = {"service": ""}  # such events may be reported from the task of the service that caused them


class LogObserver:
    """Turns each event into one log record.

    A service that is retried often mostly fails in the same way. The first and the last attempt show the whole
    traceback; an identical traceback in between is replaced by a reference to it.
    """

    def __init__(self) -> None:
        self._stopping_since = time.monotonic()
        self._told: dict[str, tuple[str, int]] = {}  # by service: the last traceback that was shown, and its attempt

    def __call__(self, event: Event) -> None:
        """Log *event*."""
        match event:
            case Transition():
                self._log_transition(event)
            case AllReady(seconds=seconds, chain=chain):
                took = f" (critical path: {' -> '.join(chain)})" if len(chain) > 1 else ""
                logger.info("all ready in %s%s", duration(seconds), took, extra={**_APP, "seconds": seconds})
            case ReadyAgain(seconds=seconds, services=services):
                extra = {**_APP, "seconds": seconds}
                logger.info("all ready again after %s: %s", duration(seconds), ", ".join(services), extra=extra)
            case StopBegan(reason=reason, seconds=seconds, failure=failure):
                self._stopping_since = time.monotonic()
                level = logging.ERROR if failure else logging.INFO
                extra = {**_APP, "reason": reason}
                logger.log(level, "stopping: %s (deadline %s)", reason, duration(seconds), extra=extra)
            case Forced(services=services):
                logger.warning("cancelling what still runs: %s", ", ".join(services), extra=_APP)
            case Notice(service=service, message=message, error=error, calm=calm):
                what = f": {one_line(error)}" if error is not None else ""
                level = logging.INFO if calm else logging.WARNING
                logger.log(level, "%s%s", message, what, exc_info=error, extra={"service": service})
            case StillWaiting(stopping=stopping, seconds=seconds, lines=lines):
                what = "stopping" if stopping else "starting"
                tree = "".join(f"\n{line}" for line in lines)
                logger.warning("still %s after %s:%s", what, duration(seconds), tree, extra=_APP)
            case _:
                assert_never(event)

    def _log_transition(self, event: Transition) -> None:
        if event.previous is State.READY and event.seconds >= HEALTHY:
            self._told.pop(event.service, None)
        if event.state is State.STOPPED and event.previous in HALTED:
            event = attrs.evolve(event, seconds=time.monotonic() - self._stopping_since)  # without the drain
        level = self._level(event)
        if not logger.isEnabledFor(level):
            return
        message = describe_move(event)
        error = event.error if level > logging.INFO else None
        trace = error if _tells_more(error) else None
        extra: dict[str, Any] = {}
        if event.state is State.BACKOFF and trace is not None and (shown := self._shown_before(event, trace)):
            message += f"; the traceback is the same as in attempt {shown}"
            extra["error"] = one_line(trace)
            trace = None
        logger.log(
            level,
            message,
            exc_info=trace,
            extra={
                **extra,
                "service": event.service,
                "state": event.state.value,
                "previous": event.previous.value,
                "attempt": event.attempt,
                "seconds": round(event.seconds, 6),
                "reason": event.reason,
            },
        )

    def _shown_before(self, event: Transition, error: BaseException) -> int:
        """Return the attempt that showed the same traceback; 0 if the traceback should be shown now."""
        lines = text_of_traceback(error).splitlines()
        text = "\n".join(line for line in lines if not line.lstrip(" |").startswith(ORIGIN))  # the attempt
        told, attempt = self._told.get(event.service, ("", 0))
        if told == text and event.attempt - attempt < SHOWN_EVERY:
            return attempt
        self._told[event.service] = text, event.attempt
        return 0

    def _level(self, event: Transition) -> int:
        if event.state in BROKEN:
            return logging.WARNING if event.allowed else logging.ERROR
        if event.state is State.BACKOFF or (event.state is State.DONE and event.reason):
            return logging.WARNING
        return logging.DEBUG if event.internal else logging.INFO


def log_endings(report: Report) -> None:
    """Log how each service ended."""
    if not logger.isEnabledFor(logging.INFO):
        return
    stopping = f"; the stop took {duration(report.stopping)}" if report.stopping else ""
    logger.info(
        "ended after %s%s%s",
        duration(report.seconds),
        stopping,
        "".join(f"\n{line}" for line in report.lines),
        extra={
            **_APP,
            "services": {
                ending.service: ending.state.value for ending in report.endings if not ending.internal or ending.fatal
            },
            "reason": report.reason,
        },
    )


def log_verdict(report: Report, unsent: str = "") -> None:
    """Log the exit code and its reason: the services that exceeded a limit, or the first error and its service.

    Args:
        report: The outcome of the run.
        unsent: Says what could not be exported; empty if everything was.

    """
    code = report.exit_code
    level = logging.INFO if report.well else logging.ERROR
    also = f"; not sent: {unsent}" if unsent else ""
    logger.log(level, "exit %d: %s%s", code, report.verdict, also, extra={**_APP, "exit_code": code})
